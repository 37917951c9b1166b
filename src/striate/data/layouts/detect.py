"""From what the user typed to `Splits`: the layout is told by what lies there, never configured.

Order of the questions, the more particular first: a list file, ILSVRC, Tiny ImageNet, class folders with a
train folder, plain class folders. What is none of these is an error that says what was seen.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from striate.data.index import Index
from striate.data.layouts import folder, ilsvrc, listing, tiny
from striate.data.layouts.splits import ALL, Found, SplitName, Splits, by_hash, expect_classes
from striate.data.layouts.walk import Tally, extension, identity, is_junk, look, reading, shown, unreadable
from striate.errors import DataError, UserError, nearest

BUILTIN = "builtin"
KNOWN = """Known layouts:
  class folder    DIR/CLASS/*.jpg, or DIR/train/CLASS/*.jpg with DIR/val/CLASS/*.jpg
  ILSVRC          DIR/ILSVRC/Data/CLS-LOC/{train/WNID/*.JPEG, val/*.JPEG} with DIR/LOC_val_solution.csv, as Kaggle ships it
  Tiny ImageNet   DIR/train/WNID/images/*.JPEG and DIR/val/{images/*.JPEG, val_annotations.txt}
  list            FILE.csv with the header path,label[,x_min,y_min,x_max,y_max][,split], or FILE.jsonl with these fields
  builtin         the word itself: a rendered set, made on first use"""

Reader = Callable[[Collection[SplitName]], Found]


def open_data(data: str | Path, val_share: float = 0.1, seed_of_split: int = 0) -> Splits:
    """The training set and its validation and test splits.

    data: a folder, a list file, or the word "builtin". val_share, seed_of_split: how a set without a validation
    split of its own is split, by a hash of each file's path, class by class; the notes say so.
    Raises UserError for a path that does not exist, must not be read, or is a file and no list; DataError for
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
    index: Index | None
    if split is None and "val" not in found.indexes:
        index = found.indexes.get("train")
    elif split in {"train", "val"} and (split == "train" or "val" not in found.indexes):
        # Here the data may be split by hash, as a training would.
        splits = open_data(data, val_share, seed_of_split)
        return splits.train if split == "train" else _present(splits.val, path, "val")
    else:
        index = found.indexes.get(split or "val")
    index = _present(index, path, split or "val")
    layout = f"{BUILTIN} ({layout})" if data == BUILTIN else layout
    return replace(index, layout=layout, notes=(*index.notes, *found.notes))


def open_photos(folder_of_photos: str | Path) -> Index:
    """All images below a folder, without labels, sorted by path: for looking and predicting.

    Raises UserError when it is no folder, DataError when there is no image in it.
    """
    path = _place(str(folder_of_photos) if folder_of_photos != BUILTIN else Path(BUILTIN))
    if not path.is_dir():
        raise UserError(f"{path}: expected a folder of images, found a file.")
    tally = Tally()
    index = folder.read_flat(path, b"", "test", "photos", folder.NO_CLASSES, tally)
    if not len(index):
        raise DataError(f"{path}: no image in it. {_seen(path)}")
    return replace(index, notes=tally.notes())


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
        raise UserError(f"No data named: expected a folder of images, a list (.csv, .jsonl), or '{BUILTIN}'.")
    try:
        path = Path(os.path.abspath(Path(data).expanduser()))
        found = path.stat()
    except FileNotFoundError as error:
        hint = nearest(path.name, [*_names_in(path.parent), BUILTIN])
        raise UserError(
            f"{shown(path)}: no such file or folder.{hint} Expected a folder of images, a list (.csv, .jsonl), or '{BUILTIN}'."
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
    if not is_folder and path.suffix.lower() not in listing.EXTENSIONS:
        archive = {".zip", ".tar", ".gz", ".xz", ".tgz", ".bz2", ".7z", ".rar"} & set(path.suffixes)
        way_out = (
            "Unpack it, and name the folder" if archive else "Name the folder of class folders, or a list file (.csv, .jsonl)"
        )
        raise UserError(f"{shown(path)}: a file, where a folder of images is expected. {way_out}.\n{KNOWN}")
    if not is_folder and not stat.S_ISREG(found.st_mode):
        raise UserError(f"{shown(path)}: named as a list, but it is no regular file.")
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
    inner = _better_below(path, top.folders) if look_below else None
    hint = f" Did you mean '{inner}'?" if inner else ""
    raise DataError(f"{path}: no image set that striate knows.{hint}\n{_seen(path)}\n{KNOWN}")


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
