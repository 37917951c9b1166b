"""The photos of a test set: which ones, how a submission calls them, and how large they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from striate.data import decode
from striate.data.decode import BadImage
from striate.data.index import Index
from striate.data.layouts import detect, ilsvrc, tiny
from striate.data.layouts.folder import NO_CLASSES
from striate.errors import DataError, UserError
from striate.evaluate.open import photos_index

Box = tuple[int, int, int, int]


def open_test(place: str | Path) -> Index:
    """The images to answer for, sorted by path: those of a folder, a tar or a table; the test split where the whole of ILSVRC, of
    Tiny ImageNet or a pack is named.

    Raises UserError for what is no set of images, DataError for one without images.
    """
    path = detect.place_of(place)
    if path.is_dir() and (ilsvrc.find(path) is not None or tiny.is_tiny(path) or detect.is_pack(path)):
        return detect.open_split(path, "test")
    if not path.is_dir() and not detect.is_stored(path):
        raise UserError(
            f"{path}: expected the folder of the test images, or a tar, a table or a pack of them; found a list or a photo."
        )
    return photos_index([str(path)], NO_CLASSES)


def stem(key: str) -> str:
    """The file name without folders and ending, as Kaggle calls an image: ILSVRC2012_test_00000001."""
    return PurePosixPath(key).stem


def file_name(key: str) -> str:
    """The file name without folders, as Tiny ImageNet calls an image: test_0.JPEG."""
    return PurePosixPath(key).name


def names(index: Index, named: Callable[[str], str], forbidden: str) -> list[str]:
    """What the images are called in a submission, in the order of the index.

    named: `stem` or `file_name`. forbidden: characters that would break a row.
    Raises DataError where two images have one name, or where a name cannot stand in a row.
    """
    place: dict[str, str] = {}
    for key in index.keys:
        name = named(key)
        if name in place:
            raise DataError(
                f"{key}: a submission would call it {name!r}, as it does {place[name]!r}. Each image needs a name of its own: "
                "name the folder of the test images alone."
            )
        if not name.isprintable() or any(letter in forbidden for letter in name):
            raise DataError(f"{key!r}: this name cannot stand in a row of the submission. Rename the file.")
        place[name] = key
    return list(place)


def sides(index: Index, row: int) -> tuple[int, int] | None:
    """Width and height of an image in pixels as stored, from its header; None where even that cannot be read."""
    try:
        return decode.sides(index.content(row))
    except BadImage:
        return None


def whole(found: tuple[int, int] | None) -> Box:
    """The box of a whole photo, (0, 0, width - 1, height - 1); (0, 0, 0, 0) where the sides are not known.

    The challenge numbers pixels from 0 and its boxes end on their last pixel (so it measures x_max - x_min + 1), unlike
    `geometry`, whose boxes are edges. The corner pixel is in every photo, so the box of an unknown one is valid, and never right.
    """
    width, height = found or (1, 1)
    return 0, 0, width - 1, height - 1
