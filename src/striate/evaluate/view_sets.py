"""Sets of test-time views by name, as the papers averaged them, or from a file.

center             the run's own view, once
flip               and its mirror image
10crop             four corners and the middle of the central square, and their mirror images (Krizhevsky et al. 2012, 4.1)
3scale             the middle at shorter sides R - R/8, R and R + R/8, each mirrored too (VGG's Q: 224, 256 and 288 for R of 256)
50crop, 150crop    a grid of 5 x 5 windows and their mirror images, at one size and at three (Simonyan and Zisserman 2015, 4.3)
144crop            4 sizes, 3 squares, 6 crops, 2 mirrorings (Szegedy et al. 2015, section 7)
dense, dense:Q,Q…  the network slid over the whole photo and its mirror image at shorter sides Q (Simonyan and Zisserman 2015,
                   section 3.2; dense:224,256,384,480,640 is He et al. 2016, section 3.4)
A+B                the mean of two sets, as multi-crop and dense in VGG's table 5
FILE.json          a list of crops, see `read_file`

R is the shorter side of the run's view; where that leaves no margin around the window (R under 8/7 of S), it is 8/7 of S.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args

from striate.data.crops import Crop, Square, centre
from striate.data.views import MAX_RESIZED_PIXELS
from striate.errors import UserError, nearest
from striate.files import sha256_bytes
from striate.view import View

Averaging = Literal["probabilities", "logits"]

NAMES = ("center", "flip", "10crop", "3scale", "50crop", "150crop", "144crop", "dense")
_MOST_VIEWS = 1024
# Shorter side at which a square photo has as many pixels as may be made of a small one; above it every photo would be bad.
_MOST_PX = math.isqrt(MAX_RESIZED_PIXELS)


@dataclass(frozen=True)
class Part:
    """Views whose mean counts as one: crops, or one or more sizes that the network is slid over. words: for the protocol.

    dense_px: shorter sides of the photo; each is looked at as it is and mirrored.
    """

    crops: tuple[Crop, ...]
    dense_px: tuple[int, ...]
    words: str


@dataclass(frozen=True)
class ViewSet:
    """How each photo is looked at. name: as typed, or the stem of a file. parts: each has the same weight in the mean.

    average: of the probabilities (after the softmax) or of the logits, over the views; the positions of a dense view are always
    averaged before the softmax, as VGG's class score map is (section 3.2).
    """

    name: str
    parts: tuple[Part, ...]
    average: Averaging

    @property
    def is_center(self) -> bool:
        """Whether it is the run's own view and nothing else."""
        return self.name == "center"

    @property
    def is_dense(self) -> bool:
        """Whether the network has to be slid over whole photos."""
        return any(part.dense_px for part in self.parts)

    @property
    def crops(self) -> tuple[Crop, ...]:
        """The crops of all parts, in order."""
        return tuple(crop for part in self.parts for crop in part.crops)

    @property
    def dense_px(self) -> tuple[int, ...]:
        """The sizes of all parts, in order."""
        return tuple(side for part in self.parts for side in part.dense_px)

    def describe(self) -> str:
        """For the protocol: what is averaged, and how."""
        words = " and ".join(part.words for part in self.parts)
        return words if self.is_center else f"{words}, {self.average} averaged"


def named(text: str, view: View, average: Averaging = "probabilities") -> ViewSet:
    """The set of a name (see the module) or of a file, for the view of a network.

    Raises UserError for an unknown name, a size below the network's window, or a view that squashes photos (any set but
    center and flip: a squashed photo has no margin to cut from).
    """
    if average not in get_args(Averaging):
        raise UserError(f"--average {average}: expected one of {', '.join(get_args(Averaging))}.")
    # A file that happens to lie here under the name of a set does not stand in its way.
    if text.endswith(".json") or (text not in NAMES and Path(text).is_file()):
        part, name = read_file(Path(text), view)
        return ViewSet(name, (part,), average)
    parts = tuple(_part(name, view) for name in text.split("+"))
    if len(parts) > 1 and any(name == "center" for name in text.split("+")):
        raise UserError(f"--views {text}: 'center' is one view, not a set; use flip or 10crop with another set.")
    if len(set(parts)) != len(parts):
        raise UserError(f"--views {text}: a set is given twice, and its mean with itself is itself. Give each once.")
    return ViewSet(text, parts, average)


def margin_px(view: View) -> int:
    """R: the shorter side that windows of the view are cut from when there must be room around them."""
    return max(view.resize_px, round(view.size_px * 8 / 7))


def _part(name: str, view: View) -> Part:
    size, kind, _ = view.size_px, *name.partition(":")[:2]
    if kind not in NAMES or (":" in name and kind != "dense"):
        raise UserError(
            f"--views {name}: no such set of views.{nearest(kind, NAMES)} Sets: {', '.join(NAMES)}, dense:Q,Q…, two of them "
            "joined by +, or a JSON file."
        )
    if kind == "center":
        return Part((), (), "1 view")
    if kind == "flip":
        own = Crop(size, "whole", None, None) if view.fit == "squash" else centre(view)
        return Part(_mirrored([own]), (), "the view and its mirror image")
    if view.fit == "squash":
        raise UserError(
            f"--views {name}: this network was trained on squashed photos, which leave no margin to cut from. Use center or flip."
        )
    side = margin_px(view)
    eighth = round(side / 8)
    three = (max(size, side - eighth), side, side + eighth)
    if kind == "10crop":
        places = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5)]
        return Part(_mirrored([Crop(side, "middle", x, y) for x, y in places]), (), f"10 crops at shorter side {side}")
    if kind == "3scale":
        return Part(_mirrored([Crop(px) for px in three]), (), f"6 crops at shorter sides {_listed(three)}")
    if kind in ("50crop", "150crop"):
        sides: tuple[int, ...] = (side,) if kind == "50crop" else three
        grid = [(x / 4, y / 4) for y in range(5) for x in range(5)]
        crops = [Crop(px, "whole", x, y) for px in sides for x, y in grid]
        return Part(_mirrored(crops), (), f"{2 * len(crops)} crops at shorter side{'s' * (len(sides) > 1)} {_listed(sides)}")
    if kind == "144crop":
        sides = tuple(round(size * px / 224) for px in (256, 288, 320, 352))
        return Part(_googlenet(sides), (), f"144 crops at shorter sides {_listed(sides)}")
    return _dense(name, view)


def _googlenet(sides: tuple[int, ...]) -> tuple[Crop, ...]:
    """Of each size three squares, of each square four corners, the middle and the square itself, and all of it mirrored."""
    places = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5), (None, None)]
    squares: tuple[Square, ...] = ("first", "middle", "last")
    return _mirrored([Crop(px, square, x, y) for px in sides for square in squares for x, y in places])


def _dense(name: str, view: View) -> Part:
    _, colon, listed = name.partition(":")
    try:
        sides = tuple(int(one) for one in listed.split(",")) if colon else (margin_px(view),)
    except ValueError:
        raise UserError(f"--views {name}: expected shorter sides in pixels, as in dense:224,256,288.") from None
    _check_sides(sides, f"--views {name}", view)
    return Part((), sides, f"dense at shorter side{'s' * (len(sides) > 1)} {_listed(sides)}, mirrored too")


def _check_sides(sides: tuple[int, ...], where: str, view: View) -> None:
    """Raises UserError for a dense size below the network's window, one that no photo can have, and one that stands twice."""
    for side in sides:
        if side < view.size_px:
            raise UserError(
                f"{where}: {side} px is less than the {view.size_px} px that this network looks at. "
                f"Give {view.size_px} px or more."
            )
        if side > _MOST_PX:
            raise UserError(
                f"{where}: a shorter side of {side} px is more than photos may have here. Give {_MOST_PX} px or less."
            )
    if len(set(sides)) != len(sides):
        raise UserError(f"{where}: a size is given twice. Give each once.")


def _mirrored(crops: list[Crop]) -> tuple[Crop, ...]:
    """The crops, and behind them their mirror images."""
    return tuple(Crop(one.shorter_px, one.square, one.x, one.y, is_mirrored) for is_mirrored in (False, True) for one in crops)


def _listed(sides: tuple[int, ...]) -> str:
    return ", ".join(map(str, sides))


# ---------------------------------------------------------------- files


def read_file(path: Path, view: View) -> tuple[Part, str]:
    """The views of a file: {"crops": [{"shorter_px": 256, "square": "middle", "x": 0.5, "y": 0.5, "is_mirrored": false}, …]}.

    Every key of a crop but shorter_px may be left out (the middle, not mirrored); x and y of null resize the square itself.
    "dense_px": [256, 288] may stand beside or instead. Returns the part and the file's stem; the part's words have the beginning
    of the file's SHA-256, so that another content is another protocol.
    Raises UserError naming the file and the crop for an unknown key, a value of the wrong type or out of range, and for a file
    that is called as a set is.
    """
    if path.stem in NAMES:
        raise UserError(f"--views {path}: '{path.stem}' is the name of a set. Call the file something else, as my-{path.name}.")
    try:
        content = path.read_bytes()
        found = json.loads(content)
    except OSError as error:
        raise UserError(f"--views {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise UserError(f"--views {path}: not JSON ({error}).") from error
    if not isinstance(found, dict):
        raise UserError(f'--views {path}: expected an object with "crops" or "dense_px".')
    _refuse_unknown(found, ("crops", "dense_px"), str(path))
    crops, dense_px = found.get("crops", []), found.get("dense_px", [])
    if not isinstance(crops, list) or not isinstance(dense_px, list) or not (crops or dense_px):
        raise UserError(f'--views {path}: expected a list of crops, or of sizes in "dense_px", that is not empty.')
    if view.fit == "squash":
        raise UserError(f"--views {path}: this network was trained on squashed photos. Use center or flip.")
    read = tuple(_crop(one, f"--views {path}: crop {number}", view) for number, one in enumerate(crops, start=1))
    if len(read) > _MOST_VIEWS:
        raise UserError(f"--views {path}: {len(read)} crops of each image; {_MOST_VIEWS} at most.")
    for side in dense_px:
        if not _is_whole(side):
            raise UserError(f"--views {path}: dense_px: expected whole numbers of pixels, found {side!r}.")
    _check_sides(tuple(dense_px), f"--views {path}: dense_px", view)
    words = [f"{len(read)} crop{'s' * (len(read) > 1)}"] * bool(read)
    words += [f"dense at shorter side{'s' * (len(dense_px) > 1)} {_listed(tuple(dense_px))}, mirrored too"] * bool(dense_px)
    words[-1] += f" of {path.name} ({sha256_bytes(content)[:6]})"
    return Part(read, tuple(dense_px), " and ".join(words)), path.stem


def _crop(found: Any, where: str, view: View) -> Crop:
    if not isinstance(found, dict):
        raise UserError(f"{where}: expected an object with shorter_px, found {found!r}.")
    _refuse_unknown(found, tuple(one.name for one in fields(Crop)), where)
    shorter_px = found.get("shorter_px")
    if not _is_whole(shorter_px) or not 1 <= shorter_px <= _MOST_PX:
        raise UserError(f"{where}: shorter_px: expected a whole number of pixels from 1 to {_MOST_PX}, found {shorter_px!r}.")
    square, x, y = found.get("square", "middle"), found.get("x", 0.5), found.get("y", 0.5)
    if square not in get_args(Square):
        raise UserError(f"{where}: square: expected one of {', '.join(get_args(Square))}, found {square!r}.")
    if (x is None) != (y is None):
        raise UserError(f"{where}: x and y: give both, or null for both.")
    if x is None and square == "whole":
        raise UserError(f"{where}: the whole photo resized to a square would change its aspect. Name a square with x and y null.")
    for name, value in (("x", x), ("y", y)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
            raise UserError(f"{where}: {name}: expected a number from 0 (left, top) to 1 (right, bottom), found {value!r}.")
    if x is not None and shorter_px < view.size_px:
        raise UserError(f"{where}: a window of {view.size_px} px does not fit into a shorter side of {shorter_px} px.")
    is_mirrored = found.get("is_mirrored", False)
    if not isinstance(is_mirrored, bool):
        raise UserError(f"{where}: is_mirrored: expected true or false, found {is_mirrored!r}.")
    return Crop(shorter_px, square, x, y, is_mirrored)


def _refuse_unknown(found: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'.{nearest(key, known)} Keys: {', '.join(known)}.")


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
