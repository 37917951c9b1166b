"""The built-in data set on disk, in any of three layouts, each as the real sets ship.

`builtin_folder` keeps one copy in the user's cache for the data name `builtin`; `make` writes one where it is asked to.
Every picture is a pure function of (seed, class, split, number): picture 7 of the mugs is the same in a large set and in a
small one, however many threads made it. Same bytes for the same Pillow.

Boxes are pixel edges, x_min, y_min, x_max, y_max (x_max - x_min is the width), and count in the pixels as stored; only Tiny
ImageNet's files, as the real ones, name the last pixel instead of the edge behind it.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
from PIL import Image

from striate import files, machine
from striate.data.synthetic_scene import Scene, jpeg, render
from striate.data.synthetic_shapes import THINGS, Thing
from striate.errors import UserError, nearest

Layout = Literal["folder", "ilsvrc", "tiny"]
LAYOUTS: tuple[Layout, ...] = ("folder", "ilsvrc", "tiny")
DEFECTS = ("cmyk", "grey", "png-named-jpeg", "truncated", "16-bit", "exif-rotated", "alpha")

# Counts in every file name of the cache: raise it when the pictures change.
VERSION = 2
BUILTIN_CLASSES, BUILTIN_PER_CLASS, BUILTIN_VAL_PER_CLASS, BUILTIN_SEED = 12, 250, 40, 0

TINY_SIDE_PX = 64
STALE_S = 24 * 3600  # a half-made copy of a killed process is swept after a day
EXIF_ORIENTATION = 0x0112

Box = tuple[int, int, int, int]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Made:
    """What was written. train, val, test: images, the defective ones included."""

    folder: Path
    layout: Layout
    classes: tuple[str, ...]
    train: int
    val: int
    test: int
    grey: int
    defects: dict[str, str]  # path within the folder → which defect


@dataclass(frozen=True)
class _Item:
    """One image to be made: which picture, where it goes, and what is wrong with it."""

    thing: Thing
    split: str
    index: int  # number of the picture within its class and split
    path: str  # within the target folder
    defect: str | None = None


@dataclass(frozen=True)
class _Done:
    """What the lists need to know of a written image."""

    item: _Item
    size: tuple[int, int]
    box: Box
    grey: bool


def builtin_folder(progress: Progress | None = None) -> Path:
    """The built-in set, made on first use and kept in the cache folder.

    Safe for several processes at once: each makes its own copy under a temporary name, the first rename wins. A half-made
    copy never has the final name. progress: called with images made and images in all.
    Raises UserError or ResourceError when the cache cannot be written; the message names STRIATE_CACHE.
    """
    facts = f"{VERSION} {BUILTIN_CLASSES} {BUILTIN_PER_CLASS} {BUILTIN_VAL_PER_CLASS} {BUILTIN_SEED} {PIL.__version__}"
    cache = files.cache_folder()
    folder = cache / f"builtin-{VERSION}-{files.sha256_bytes(facts.encode())[:8]}"
    if folder.is_dir():
        return folder
    temporary = cache / f".{folder.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _sweep(cache)
        make(temporary, "folder", BUILTIN_CLASSES, BUILTIN_PER_CLASS, BUILTIN_VAL_PER_CLASS, BUILTIN_SEED, progress=progress)
        os.sync()  # thousands of small files: one wait for all, before the name that says they are whole
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same bytes
                raise
    except OSError as error:
        kind = type(files.refuse(error, cache, "making the built-in data set"))
        raise kind(
            f"{cache}: the built-in data set (about 40 MB) cannot be kept here ({error.strerror}). "
            "Set STRIATE_CACHE to a folder that can be written."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _sweep(cache: Path) -> None:
    """Removes the half-made copies that killed processes left."""
    for left in cache.glob(".builtin-*.tmp-*"):
        try:
            if time.time() - left.stat().st_mtime > STALE_S:
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:
            pass  # another process swept it


def make(
    folder: Path,
    layout: Layout = "folder",
    classes: int = 12,
    per_class: int = 100,
    val_per_class: int | None = None,
    seed: int = 0,
    defects: bool | Sequence[str] = (),
    progress: Progress | None = None,
) -> Made:
    """Writes a data set of rendered scenes to a new or empty folder.

    folder: `train/CLASS/*.jpg`, `val/CLASS/*.jpg` and `boxes.csv`. ilsvrc: as Kaggle ships ILSVRC. tiny: as Tiny ImageNet
    ships, 64x64. The last two also have unlabelled test images, as many as validation images.
    val_per_class: a quarter of per_class if None. defects: kinds of DEFECTS, or True for all: for each kind one odd file
    more in train and in val, listed in `defects.csv`. progress: called with images made and images in all.
    Raises UserError for a folder that is not empty, for unknown defects and for numbers out of range.
    """
    folder = Path(folder)
    val_per_class = max(1, per_class // 4) if val_per_class is None else val_per_class
    kinds = DEFECTS if defects is True else tuple(defects or ())
    _check(folder, layout, classes, per_class, val_per_class, kinds)
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        items = list(_items(layout, THINGS[:classes], per_class, val_per_class, seed, kinds))
        done = _write_images(folder, items, layout, seed, progress)
        {"folder": _folder_lists, "ilsvrc": _ilsvrc_lists, "tiny": _tiny_lists}[layout](folder, done, THINGS[:classes], seed)
        bad = {item.path: item.defect for item in items if item.defect}
        if bad:
            _write_csv(folder / "defects.csv", ["path", "defect"], bad.items())
    except BaseException as error:  # nothing half-made stays, whether the disk is full or the user pressed Ctrl-C
        _clear(folder, existed)
        if isinstance(error, OSError) and not folder.name.startswith(".builtin-"):
            raise files.refuse(error, folder, "making the data set") from error
        raise
    count = {split: sum(item.split == split for item in items) for split in ("train", "val", "test")}
    names = tuple(sorted(_class_id(layout, thing) for thing in THINGS[:classes]))
    return Made(folder, layout, names, count["train"], count["val"], count["test"], sum(one.grey for one in done), bad)


def _check(folder: Path, layout: str, classes: int, per_class: int, val_per_class: int, kinds: Sequence[str]) -> None:
    if layout not in LAYOUTS:
        raise UserError(f"--layout {layout}: expected one of {', '.join(LAYOUTS)}.{nearest(layout, LAYOUTS)}")
    if not 1 <= classes <= len(THINGS):
        raise UserError(f"--classes {classes}: there are {len(THINGS)} kinds of things; choose 1 to {len(THINGS)}.")
    if per_class < 1 or val_per_class < 0:
        raise UserError(f"--per-class {per_class}: at least one training image of each class (and no negative count) is needed.")
    for kind in kinds:
        if kind not in DEFECTS:
            raise UserError(f"--defects {kind}: not a known defect ({', '.join(DEFECTS)}).{nearest(kind, DEFECTS)}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; choose a new folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty, and nothing is overwritten. Choose a new folder, or empty this one first.")


def _clear(folder: Path, keep: bool) -> None:
    """Takes back what was begun; the folder itself stays if it was there before."""
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if not keep and folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- which images, and where


def _class_id(layout: str, thing: Thing) -> str:
    return thing.name if layout == "folder" else thing.wnid


def _items(
    layout: Layout, things: Sequence[Thing], per_class: int, val_per_class: int, seed: int, kinds: Sequence[str]
) -> Iterator[_Item]:
    """All images in the order of their names. Flat splits are shuffled, as the real ones are."""
    splits = {"train": per_class, "val": val_per_class}
    if layout != "folder":
        splits["test"] = val_per_class
    for split, count in splits.items():
        wanted: list[tuple[Thing, int, str | None]] = [(thing, i, None) for thing in things for i in range(count)]
        if split != "test":  # odd files are pictures with numbers of their own, so that the good ones stay what they are
            wanted += [(things[i % len(things)], count + i // len(things), kind) for i, kind in enumerate(kinds)]
        flat = layout != "folder" and split != "train"
        order = machine.permutation(seed, f"builtin/order/{split}", 0, len(wanted)) if flat else np.arange(len(wanted))
        for position, which in enumerate(order):
            thing, index, defect = wanted[which]
            yield _Item(thing, split, index, _path(layout, thing, split, index, position, defect), defect)


def _path(layout: Layout, thing: Thing, split: str, index: int, position: int, defect: str | None) -> str:
    if layout == "ilsvrc":
        if split == "train":
            return f"ILSVRC/Data/CLS-LOC/train/{thing.wnid}/{thing.wnid}_{index}.JPEG"
        return f"ILSVRC/Data/CLS-LOC/{split}/ILSVRC2012_{split}_{position + 1:08d}.JPEG"
    if layout == "tiny":
        if split == "train":
            return f"train/{thing.wnid}/images/{thing.wnid}_{index}.JPEG"
        return f"{split}/images/{split}_{position}.JPEG"
    ending = "png" if defect in ("16-bit", "alpha") else "jpg"
    return f"{split}/{thing.name}/{thing.name}_{index:04d}.{ending}"


def _write_images(folder: Path, items: list[_Item], layout: Layout, seed: int, progress: Progress | None) -> list[_Done]:
    """Renders and writes all images with a thread per core."""
    for parent in {(folder / item.path).parent for item in items}:
        parent.mkdir(parents=True, exist_ok=True)

    def write(item: _Item) -> _Done:
        scene = render(item.thing, seed, item.split, item.index)
        if layout == "tiny":
            scene = _shrunk(scene)
        data, box = spoiled(scene, item.defect) if item.defect else (jpeg(scene.image), scene.box)
        (folder / item.path).write_bytes(data)
        size = scene.image.size[::-1] if item.defect == "exif-rotated" else scene.image.size
        return _Done(item, size, box, scene.image.mode == "L" or item.defect == "grey")

    done = []
    with ThreadPoolExecutor(machine.cores()) as pool:
        try:
            for one in pool.map(write, items):
                done.append(one)
                if progress is not None:
                    progress(len(done), len(items))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return done


def _shrunk(scene: Scene) -> Scene:
    """The scene squeezed to Tiny ImageNet's square; the box rounded outwards, so that it still holds the thing."""
    width, height = scene.image.size
    x_min, y_min, x_max, y_max = scene.box
    side = TINY_SIDE_PX
    box = (x_min * side // width, y_min * side // height, -(-x_max * side // width), -(-y_max * side // height))
    return Scene(scene.image.resize((side, side), Image.Resampling.BICUBIC), box)


# ---------------------------------------------------------------- odd files of real sets


def spoiled(scene: Scene, defect: str) -> tuple[bytes, Box]:
    """The scene as one of the odd files that real sets contain, and its box in the pixels as stored. defect: one of DEFECTS."""
    image, box = scene.image.convert("RGB"), scene.box
    if defect == "cmyk":
        return jpeg(image.convert("CMYK")), box
    if defect == "grey":
        return jpeg(image.convert("L")), box
    if defect == "png-named-jpeg":
        return _png(image), box
    if defect == "truncated":
        whole = jpeg(image)
        return whole[: len(whole) * 6 // 10], box
    if defect == "16-bit":
        return _png(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)), box
    if defect == "alpha":  # what is transparent hides a colour, which shows wherever alpha is just dropped
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        return _png(image), box
    if defect == "exif-rotated":  # stored lying on its left side; tag 6 asks the viewer to turn it back, clockwise
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = 6
        file = io.BytesIO()
        image.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", quality=90, exif=exif)
        return file.getvalue(), (box[1], image.width - box[2], box[3], image.width - box[0])
    raise UserError(f"{defect}: not a known defect ({', '.join(DEFECTS)}).{nearest(defect, DEFECTS)}")


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


# ---------------------------------------------------------------- lists, layout by layout


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _of(done: list[_Done], split: str) -> list[_Done]:
    return [one for one in done if one.item.split == split]


def _folder_lists(folder: Path, done: list[_Done], things: Sequence[Thing], seed: int) -> None:
    rows = [(one.item.path, one.item.thing.name, *one.box) for one in done]
    _write_csv(folder / "boxes.csv", ["path", "label", "x_min", "y_min", "x_max", "y_max"], rows)


def _ilsvrc_lists(folder: Path, done: list[_Done], things: Sequence[Thing], seed: int) -> None:
    """Annotations, image sets and the LOC_*.csv. As in the real set only some of the training images have boxes."""
    sets, annotations = folder / "ILSVRC/ImageSets/CLS-LOC", folder / "ILSVRC/Annotations/CLS-LOC"
    train, val, test = _of(done, "train"), _of(done, "val"), _of(done, "test")
    boxed = [one for one in train if machine.stream_seed(seed, f"builtin/boxed/{one.item.thing.name}", one.item.index) % 2]
    for split, some in (("train", boxed), ("val", val)):
        rows = []
        for one in some:
            name = Path(one.item.path).stem
            xml = annotations / split / (one.item.thing.wnid if split == "train" else "") / f"{name}.xml"
            xml.parent.mkdir(parents=True, exist_ok=True)
            xml.write_text(_voc(one, name), encoding="utf-8")
            rows.append((name, f"{one.item.thing.wnid} {' '.join(map(str, one.box))} "))  # the real ones end in a blank too
        _write_csv(folder / f"LOC_{split}_solution.csv", ["ImageId", "PredictionString"], rows)
    by_set = {
        "train_cls": [f"{one.item.thing.wnid}/{Path(one.item.path).stem}" for one in train],
        "train_loc": [f"{one.item.thing.wnid}/{Path(one.item.path).stem}" for one in boxed],
        "val": [Path(one.item.path).stem for one in val],
        "test": [Path(one.item.path).stem for one in test],
    }
    for name, keys in by_set.items():
        _write_lines(sets / f"{name}.txt", (f"{key} {number}" for number, key in enumerate(keys, start=1)))
    in_order = sorted(things, key=lambda thing: thing.wnid)
    _write_lines(folder / "LOC_synset_mapping.txt", (f"{thing.wnid} {thing.name}" for thing in in_order))
    guesses = ((key, "1 0 0 10 10 " * 5) for key in by_set["test"])
    _write_csv(folder / "LOC_sample_submission.csv", ["ImageId", "PredictionString"], guesses)


def _voc(one: _Done, name: str) -> str:
    x_min, y_min, x_max, y_max = one.box
    return (
        f"<annotation>\n\t<folder>{one.item.thing.wnid if one.item.split == 'train' else 'val'}</folder>\n"
        f"\t<filename>{name}</filename>\n\t<source>\n\t\t<database>ILSVRC_2012</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{one.size[0]}</width>\n\t\t<height>{one.size[1]}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>0</segmented>\n\t<object>\n\t\t<name>{one.item.thing.wnid}</name>\n\t\t<pose>Unspecified</pose>\n"
        "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n"
        f"\t\t<bndbox>\n\t\t\t<xmin>{x_min}</xmin>\n\t\t\t<ymin>{y_min}</ymin>\n"
        f"\t\t\t<xmax>{x_max}</xmax>\n\t\t\t<ymax>{y_max}</ymax>\n\t\t</bndbox>\n\t</object>\n</annotation>\n"
    )


def _inclusive(box: Box) -> list[str]:
    """A box as Tiny ImageNet writes it: the last pixel counts in, so 0..63 is the whole image."""
    x_min, y_min, x_max, y_max = box
    return [str(x_min), str(y_min), str(x_max - 1), str(y_max - 1)]


def _tiny_lists(folder: Path, done: list[_Done], things: Sequence[Thing], seed: int) -> None:
    """wnids.txt in no order, words.txt with more words than classes, boxes per class and for val."""
    order = machine.permutation(seed, "builtin/wnids", 0, len(things))
    _write_lines(folder / "wnids.txt", (things[i].wnid for i in order))
    words = sorted([(thing.wnid, thing.name) for thing in THINGS] + [("n90000001", "thing, object")])
    _write_lines(folder / "words.txt", ("\t".join(row) for row in words))
    for thing in things:
        mine = [one for one in _of(done, "train") if one.item.thing is thing]
        lines = ("\t".join([Path(one.item.path).name, *_inclusive(one.box)]) for one in mine)
        _write_lines(folder / "train" / thing.wnid / f"{thing.wnid}_boxes.txt", lines)
    lines = ("\t".join([Path(one.item.path).name, one.item.thing.wnid, *_inclusive(one.box)]) for one in _of(done, "val"))
    _write_lines(folder / "val" / "val_annotations.txt", lines)
