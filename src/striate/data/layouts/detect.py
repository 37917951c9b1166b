"""From what the user typed to `Splits`: the layout is told by what lies there, never configured.

Order of the questions, the more particular first: a list file, a pack, ILSVRC, Tiny ImageNet, CIFAR, MNIST, parquet tables,
tar files, class folders with a train folder, plain class folders. What is none of these is an error that says what was seen.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from striate.data.index import Index, Keys
from striate.data.layouts import cifar, folder, idx, ilsvrc, listing, shards, tiny, webdataset
from striate.data.layouts.joined import joined
from striate.data.layouts.splits import ALL, Found, SplitName, Splits, by_hash, expect_classes
from striate.data.layouts.walk import Tally, extension, identity, is_junk, look, reading, shown, unreadable
from striate.errors import DataError, UserError, nearest

BUILTIN = "builtin"
KNOWN = """Known layouts:
  class folder    DIR/CLASS/*.jpg, or DIR/train/CLASS/*.jpg with DIR/val/CLASS/*.jpg
  ILSVRC          DIR/ILSVRC/Data/CLS-LOC/{train/WNID/*.JPEG, val/*.JPEG} with DIR/LOC_val_solution.csv, as Kaggle ships it
  Tiny ImageNet   DIR/train/WNID/images/*.JPEG and DIR/val/{images/*.JPEG, val_annotations.txt}
  parquet         DIR/*.parquet or DIR/data/*.parquet with an image and a label column, as Hugging Face writes; or FILE.parquet
  WebDataset      DIR/*.tar whose members are x.jpg with x.cls or x.json, or CLASS/x.jpg; or FILE.tar
  CIFAR           DIR/{data_batch_1.bin, …, test_batch.bin}, or DIR/{train.bin, test.bin}: the binary version
  MNIST           DIR/{train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-…}, also .gz, also in DIR/MNIST/raw
  pack            what `striate data pack` wrote
  list            FILE.csv with the header path,label[,x_min,y_min,x_max,y_max][,split], or FILE.jsonl with these fields
  builtin         the word itself: a rendered set, made on first use"""

Reader = Callable[[Collection[SplitName]], Found]
COMPRESSED = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
_FILES = {".tar", ".parquet", *listing.EXTENSIONS}  # a file with one of these is a data set by itself


def open_data(data: str | Path, val_share: float = 0.1, seed_of_split: int = 0) -> Splits:
    """The training set and its validation and test splits.

    data: a folder, a file (list, table, tar), or the word "builtin". val_share, seed_of_split: how a set without a
    validation split of its own is split, by a hash of each file's path, class by class; the notes say so.
    Raises UserError for a path that does not exist, must not be read, or is a file of another kind; DataError for
    everything that is wrong with what lies there.
    """
    path = _place(data)
    with reading(path):
        layout, reader = _detect(path)
        found = reader(ALL)
    train, val, test = (found.indexes.get(split) for split in ("train", "val", "test"))
    if train is None or len(train) == 0:
        raise DataError(f"{path}: detected as {layout}, but it has no training images. {_seen(path)}")
    expect_classes(train.classes, str(path))
    notes = list(found.notes)
    empty = int((train.sizes_bytes == 0).sum())
    if empty:
        notes.append(f"train: {empty:,} files are empty")
    if val is None or len(val) == 0:
        if val is not None:
            raise DataError(
                f"{path}: the validation split has no images. Fill it, or remove it: "
                f"then {100 * val_share:.3g}% of train is held out."
            )
        train, held_out, note = by_hash(train, val_share, seed_of_split)
        notes.append(note)
        val = held_out if len(held_out) else None  # nothing can be held out of classes with a single image each
    if data == BUILTIN:
        layout = f"{BUILTIN} ({layout})"
    train, val, test = (None if index is None else replace(index, layout=layout) for index in (train, val, test))
    assert train is not None  # replaced above, for the type checker
    return Splits(train, val, test, layout, tuple(notes))


def place_of(data: str | Path) -> Path:
    """The existing folder or list file that is meant by what the user typed. Raises UserError."""
    return _place(data)


def open_whole(data: str | Path) -> Found:
    """Every split as it lies on disk: nothing is held out, and any split may lack; for a set as a whole, as an audit takes it.

    A folder that is itself a part of ILSVRC or Tiny ImageNet (…/val) is that split alone, with the labels that lie beside it.
    Raises like `open_data`, and DataError when there is no image at all.
    """
    path = _place(data)
    with reading(path):
        part = _part_of(path)
        whole, wanted = (part[0], {part[1]}) if part else (path, ALL)
        _, reader = _detect(whole, is_part=whole.is_dir())
        found = reader(wanted)
    if not sum(map(len, found.indexes.values())):
        raise DataError(f"{path}: no image in it. {_seen(path)}")
    return found


def open_split(data: str | Path, split: SplitName | None = None, val_share: float = 0.1, seed_of_split: int = 0) -> Index:
    """One split to score or to look at.

    split: None takes the validation split where the data have one on disk, else all images. A folder that is itself
    a part of ILSVRC or Tiny ImageNet (…/val) is read with the labels that lie beside it. Classes are those found: match them
    to the model's with `Classes.match`.
    Raises like `open_data`, and DataError when the wanted split is not there.
    """
    path = _place(data)
    with reading(path):
        part = _part_of(path) if split is None else None
        if part is not None:
            path, split = part
        layout, reader = _detect(path, is_part=True)
        found = reader({split} if split else {"val"})
        if split is None and "val" not in found.indexes:
            found = reader({"train"})
        if split is None and not path.is_dir() and not found.indexes:
            found = reader({"test"})  # a file that was named itself is meant whatever it is called
    index: Index | None
    if split is None and "val" not in found.indexes:
        index = found.indexes.get("train", found.indexes.get("test"))
    elif split in {"train", "val"} and (split == "train" or "val" not in found.indexes):
        # Here the data may be split by hash, as a training would.
        splits = open_data(data, val_share, seed_of_split)
        return splits.train if split == "train" else _present(splits.val, path, "val")
    else:
        index = found.indexes.get(split or "val")
    index = _present(index, path, split or "val")
    layout = f"{BUILTIN} ({layout})" if data == BUILTIN else layout
    return replace(index, layout=layout, notes=(*index.notes, *found.notes))


def open_photos(photos: str | Path) -> Index:
    """All images below a folder, or within the tar files, tables or files of pixels of a data set: without labels, for looking
    and predicting. Photos of a folder are sorted by path.

    Raises UserError for a file that is no such set, DataError when there is no image.
    """
    path = _place(str(photos) if photos != BUILTIN else Path(BUILTIN))
    with reading(path):
        stored = _stored(path)
        if stored is not None:
            index = stored.photos()
            notes = index.notes
        elif path.is_dir():
            tally = Tally()
            index = folder.read_flat(path, b"", "test", "photos", folder.NO_CLASSES, tally)
            notes = tally.notes()
        else:
            raise UserError(f"{path}: expected a folder of images, found a file.")
    if not len(index):
        raise DataError(f"{path}: no image in it. {_seen(path)}")
    return replace(index, split="photos", notes=notes)


def is_stored(data: str | Path) -> bool:
    """Whether a set keeps several images in a file, so that its keys are no paths. False also where nothing is there."""
    path = Path(data)
    with reading(path):
        return data != BUILTIN and path.exists() and _stored(path) is not None


def is_pack(path: Path) -> bool:
    """Whether a folder is a pack by what it holds: also one that is not finished, or that lost its manifest or its shards."""
    names = set(_names_in(path))
    kinds = ("manifest.json" in names, ".source" in names, any(name.endswith(".arrow") for name in names))
    return "packing.json" in names or sum(kinds) >= 2


def _present(index: Index | None, path: Path, split: str) -> Index:
    if index is None or len(index) == 0:
        raise DataError(f"{path}: there are no images of the split {split!r}. {_seen(path)}")
    return index


def _place(data: str | Path) -> Path:
    """The existing folder or list file that was meant."""
    if data == BUILTIN:
        from striate.data import synthetic  # draws pictures: not needed by anyone who has their own

        return synthetic.builtin_folder()
    if not str(data):
        raise UserError(f"No data named: expected a folder of images, a file ({', '.join(sorted(_FILES))}), or '{BUILTIN}'.")
    try:
        path = Path(os.path.abspath(Path(data).expanduser()))
        found = path.stat()
    except FileNotFoundError as error:
        hint = nearest(path.name, [*_names_in(path.parent), BUILTIN])
        raise UserError(
            f"{shown(path)}: no such file or folder.{hint} "
            f"Expected a folder of images, a file ({', '.join(sorted(_FILES))}), or '{BUILTIN}'."
        ) from error
    except (RuntimeError, ValueError) as error:  # no such user's home; a NUL character
        raise UserError(f"{str(data)!r}: not a path ({error}).") from error
    except OSError as error:
        raise UserError(
            f"{shown(path)}: cannot be opened ({os.strerror(error.errno or 0)}). Change its rights or its place."
        ) from error
    is_folder = stat.S_ISDIR(found.st_mode)
    if is_folder and not os.access(path, os.R_OK | os.X_OK):
        raise unreadable(PermissionError(errno.EACCES, ""), path)
    if not is_folder and path.suffix.lower() not in _FILES:
        archive = {".zip", ".tar", ".gz", ".xz", ".tgz", ".bz2", ".7z", ".rar"} & set(path.suffixes)
        way_out = (
            "Unpack it, and name the folder" if archive else f"Name the folder, or a file of these: {', '.join(sorted(_FILES))}"
        )
        if path.name.lower().endswith(COMPRESSED):
            way_out += "; or unpack its compression alone (gunzip), and name the .tar"
        raise UserError(f"{shown(path)}: a file, where a folder of images is expected. {way_out}.\n{KNOWN}")
    if not is_folder and not stat.S_ISREG(found.st_mode):
        raise UserError(f"{shown(path)}: named as a data set, but it is no regular file.")
    return path


def _names_in(folder: Path) -> list[str]:
    """What a folder holds, as far as it may be read; for hints."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _detect(path: Path, is_part: bool = False, look_below: bool = True) -> tuple[str, Reader]:
    """The layout's name and its reader. Raises DataError, saying what was seen, when it is none.

    is_part: a set to be scored, which may have one class only or lack a training split. look_below: whether to
    look for a known layout in subfolders, for the hint of the message.
    """
    stored = _stored(path)
    if stored is not None:
        return stored.layout, stored.read
    if not path.is_dir():
        return listing.EXTENSIONS[path.suffix.lower()], lambda wanted: listing.read(path, wanted if not is_part else ALL, is_part)
    top = look(path, Tally(), ancestors=(identity(path),))
    place = ilsvrc.find(path)
    if place is not None:
        return ilsvrc.NAME, lambda wanted: ilsvrc.read(place, wanted)
    if tiny.is_tiny(path):
        return tiny.NAME, lambda wanted: tiny.read(path, wanted)
    splits = folder.split_folders(top.folders)
    if "train" in splits or (is_part and splits):
        return folder.NAME, lambda wanted: folder.read(path, wanted)
    if splits:
        names = " and ".join(shown(name) for name in splits.values())
        raise DataError(
            f"{path}: there is {names}, but no train folder. Put the training images into {path}/train/CLASS/. {_seen(path)}"
        )
    if top.folders and _holds_images(path, top.folders):
        return folder.NAME, lambda wanted: folder.read_whole(path, "train") if "train" in wanted else Found({}, folder.NAME)
    if top.images:
        raise DataError(folder.flat_message(path, path.name) + f"\n{_seen(path)}")
    compressed = [name for name in sorted(os.listdir(path)) if name.lower().endswith(COMPRESSED)]
    if compressed:
        raise DataError(
            f"{path}: {shown(compressed[0])} is compressed as a whole, so that no image in it can be read by itself. Unpack "
            "the compression alone (gunzip), and name the folder of the .tar files; or unpack it all, and name that folder."
        )
    inner = _better_below(path, top.folders) if look_below else None
    hint = f" Did you mean '{inner}'?" if inner else ""
    raise DataError(f"{path}: no image set that striate knows.{hint}\n{_seen(path)}\n{KNOWN}")


@dataclass(frozen=True)
class _Stored:
    """A set that keeps several images in a file: its layout, its reader, and all its images without labels."""

    layout: str
    read: Reader
    photos: Callable[[], Index]


def _stored(path: Path) -> _Stored | None:
    """How to read such a set; None for one whose images are files, and for what is no set."""
    kind = path.suffix.lower() if not path.is_dir() else ""
    if kind in listing.EXTENSIONS:
        return None
    if not kind:
        if is_pack(path):
            from striate.data.layouts import packed  # needs pyarrow, which takes its time to load

            return _all_of(path, packed.layout(path), lambda wanted: packed.read_pack(path, wanted))
        if ilsvrc.find(path) is not None or tiny.is_tiny(path):
            return None
        batches = cifar.find(path)
        if batches is not None:
            return _all_of(path, batches.layout, lambda wanted: cifar.read(batches, wanted))
        planes = idx.find(path)
        if planes is not None:
            return _all_of(path, idx.NAME, lambda wanted: idx.read(planes, wanted))
    has_tables, has_tars = (bool(shards.find(path, ending)[1]) for ending in (b"parquet", b"tar"))
    if not (has_tables or has_tars) or (not kind and _holds_images(path, look(path, Tally()).folders)):
        return None  # beside folders of images, a table or an archive is no set but something about it
    if has_tables:
        from striate.data.layouts import parquet  # needs pyarrow, too

        return _Stored(parquet.NAME, functools.partial(parquet.read, path), functools.partial(parquet.photos, path))
    return _Stored(webdataset.NAME, functools.partial(webdataset.read, path), functools.partial(webdataset.photos, path))


def _all_of(path: Path, layout: str, reader: Reader) -> _Stored:
    """A set whose splits are read the same way with labels and without."""

    def photos() -> Index:
        parts = list(reader(ALL).indexes.values())
        keys = Keys.of(key for part in parts for key in part.keys.raws())
        return joined(parts, keys, path, layout, folder.NO_CLASSES)

    return _Stored(layout, reader, photos)


def _part_of(path: Path) -> tuple[Path, SplitName] | None:
    """Where a folder is one split of ILSVRC or Tiny ImageNet whose labels lie outside of it: that set, and the split."""
    whole = Path(os.path.abspath(path))
    for split in ("val", "test"):
        if whole.name == split and whole.is_dir() and (ilsvrc.find(whole.parent) is not None or tiny.is_tiny(whole.parent)):
            return whole.parent, "val" if split == "val" else "test"
    return None


def _holds_images(path: Path, folders: list[bytes]) -> bool:
    """Whether any of the subfolders holds images, itself or one level further down, read or not."""
    for name in folders:
        tally = Tally()
        place = os.path.join(os.fsencode(path), name)
        listing_ = look(place, tally)
        if (
            listing_.images
            or tally.other_images
            or any(look(os.path.join(place, inner), tally).images for inner in listing_.folders[:3])
        ):
            return True
    return False


def _better_below(path: Path, folders: list[bytes]) -> Path | None:
    """The first subfolder that is a set of a known layout, for the message; a set unpacked one level too deep is common."""
    for name in folders[:20]:
        inner = path / os.fsdecode(name)
        try:
            _detect(inner, look_below=False)
        except (DataError, UserError):
            continue
        return inner
    return None


def _seen(path: Path) -> str:
    """What lies in a folder, two levels deep, in one sentence."""
    if not path.is_dir():
        return ""
    folders, kinds = Counter[int](), Counter[bytes]()
    names: list[str] = []
    try:
        level = [os.fsencode(path)]
        for depth in (1, 2):
            following = []
            for place in level[:1000]:
                with os.scandir(place) as entries:
                    for entry in entries:
                        if is_junk(entry.name):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            folders[depth] += 1
                            following.append(entry.path)
                            if depth == 1:
                                names.append(shown(entry.name))
                        else:
                            kinds[extension(entry.name)] += 1
            level = sorted(following)
    except OSError as error:
        raise unreadable(error, error.filename or path) from error
    files = ", ".join(
        f"{count:,} {'.' + shown(kind, quoted=False) if kind else 'without extension'}" for kind, count in kinds.most_common(6)
    )
    few = f" ({', '.join(sorted(names)[:4])}{', …' if len(names) > 4 else ''})" if names else ""
    detail = f" ({files})" if files else ""
    return f"Seen: {folders[1]:,} folders{few} with {folders[2]:,} folders in them, and {kinds.total():,} files{detail}."
