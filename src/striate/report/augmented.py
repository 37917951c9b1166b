"""What training makes of some photos: the very pixels that its first epochs get, and in words how they came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch

from striate.data import mixing, views
from striate.data.augment import apply, draw
from striate.data.augment.draw import Augmentation, Drawn
from striate.data.decode import BadImage, Pixels
from striate.data.index import Index
from striate.data.loader import Streaming
from striate.data.mixing import Mix
from striate.data.order import Order, Rows, steps_per_epoch
from striate.errors import DataError
from striate.recipe import Recipe
from striate.report.pictures import spread
from striate.train.build import augmentation_of
from striate.view import View

TIMES: Final = 7  # training views of each photo
_MOST_TRIES: Final = 20  # bad photos of a class, before it is passed over


@dataclass(frozen=True, eq=False)
class Cell:
    """One view, uint8 [S, S, C] with the network's channels, and in a few words how it came about."""

    pixels_SSC: Pixels
    words: str


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo as evaluation sees it, and as training gets it time after time."""

    key: str
    title: str
    evaluated: Cell
    trained: Sequence[Cell]


class _Meeting(NamedTuple):
    """Training comes upon a photo: at which step, with which random numbers, and beside which other one, if any."""

    step: int
    epoch: int
    row: int
    counter: int
    partner: tuple[int, int] | None  # row and counter


def photos(index: Index, recipe: Recipe, view: View, count: int) -> tuple[list[Photo], list[tuple[str, str]]]:
    """At most `count` photos spread over the classes, and (key, reason) of bad ones that were passed over.

    recipe: resolved. The training views are those of the first TIMES times that training comes upon the photo, mixed with
    its partner where the recipe mixes. (A bad photo before it in a batch would give it another partner.)
    Raises UserError where the images do not fill one batch, DataError where none can be read.
    """
    labels = index.labels if recipe.data.sampling == "classes" else None
    in_blocks = recipe.data.order == "blocks"
    order = Order(recipe.optim.seed, len(index), recipe.optim.batch_size, labels, in_blocks=in_blocks)
    steps = steps_per_epoch(len(index), order.batch_size)
    augmentation = augmentation_of(recipe, view)
    stored = Streaming(index, view.exif, recipe.data.shrink_px)
    evaluated, bad = _evaluated(index, view, count)
    if not evaluated:
        raise DataError(f"{index.root}: none of {len(bad)} training images could be read. {bad[0][0]}: {bad[0][1]}")
    found = []
    meetings = _meetings(order, list(evaluated), 3 * TIMES * steps)
    for row, pixels_SS3 in evaluated.items():
        cells = [_trained(meeting, stored, augmentation, view, recipe) for meeting in meetings[row]]
        label = int(index.labels[row])
        title = f"{index.classes.title(label)} · {index.keys[row]}"
        found.append(Photo(index.keys[row], title, Cell(_seen(pixels_SS3, view)[0], "as evaluated"), cells))
    return found, bad


def _evaluated(index: Index, view: View, count: int) -> tuple[dict[int, Pixels], list[tuple[str, str]]]:
    """The evaluation views of some rows; for a bad photo the next of its class."""
    photos_of = Streaming(index, view.exif)
    classes = len(np.unique(index.labels))
    rows = spread(index.labels, max(count, classes * -(-count // classes) if classes < count else 0))
    most = min(count, len(rows))
    found: dict[int, Pixels] = {}
    bad: dict[int, str] = {}
    for first in (rows[place * len(rows) // most] for place in range(most)):
        same = np.flatnonzero(index.labels == index.labels[first])
        after = np.roll(same, -int(np.searchsorted(same, first)))[:_MOST_TRIES].tolist()
        for row in (row for row in after if row not in found and row not in bad):
            try:
                found[row] = views.apply(photos_of.image(row), view)
                break
            except BadImage as error:
                bad[row] = error.reason
    return found, [(index.keys[row], reason) for row, reason in bad.items()]


def _meetings(order: Order, rows: list[int], most_steps: int) -> dict[int, list[_Meeting]]:
    """The first TIMES times that training comes upon each row, looked for in that many steps."""
    found: dict[int, list[_Meeting]] = {row: [] for row in rows}
    for step in range(most_steps):
        planned = order.step(step)
        for place in np.flatnonzero(np.isin(planned.rows_b, rows)).tolist():
            row = int(planned.rows_b[place])
            if len(found[row]) < TIMES:
                found[row].append(_Meeting(step, planned.epoch, row, int(planned.counters_b[place]), _partner(planned, place)))
        if all(len(some) == TIMES for some in found.values()):
            break
    return found


def _partner(planned: Rows, place: int) -> tuple[int, int] | None:
    """Row and counter of the neighbour that MixUp and CutMix pair an image with; an odd last one has none."""
    other = place ^ 1
    return (int(planned.rows_b[other]), int(planned.counters_b[other])) if other < len(planned.rows_b) else None


def _trained(meeting: _Meeting, stored: Streaming, augmentation: Augmentation, view: View, recipe: Recipe) -> Cell:
    """What the network gets at a meeting."""
    a, seed, side = recipe.augment, recipe.optim.seed, view.size_px

    def made(row: int, counter: int) -> tuple[Pixels, Drawn]:
        return apply.apply(stored.image(row), augmentation, draw.draw(seed, meeting.epoch, np.array([counter]))[0])

    pixels_SS3, drawn = made(meeting.row, meeting.counter)
    mix = mixing.choose(seed, meeting.step, mixup=a.mixup, cutmix=a.cutmix, share=a.mix_share, side=side)
    words = in_words(drawn, augmentation)
    if mix is None or meeting.partner is None:
        return Cell(_seen(pixels_SS3, view)[0], words)
    try:
        partner_SS3, _ = made(*meeting.partner)
    except BadImage:
        return Cell(_seen(pixels_SS3, view)[0], f"{words}; its partner is bad")
    index = stored.index
    other = index.classes.title(int(index.labels[meeting.partner[0]]))
    return Cell(
        _seen(np.stack([pixels_SS3, partner_SS3]), view, mix)[0], f"{words}; {mix.own_share:.0%}, {mix.kind} with {other}"
    )


def _seen(pixels: Pixels, view: View, mix: Mix | None = None) -> Pixels:
    """With the network's channels, and mixed by pairs: uint8 [B, S, S, 3] (or one image) to [B, S, S, C], rounded."""
    images = torch.from_numpy(np.array(pixels, ndmin=4)).permute(0, 3, 1, 2)
    levels = view.levels(images)
    if mix is not None:
        levels, _, _ = mixing.apply(levels, torch.zeros(len(levels), dtype=torch.int64), mix)
    return np.ascontiguousarray(levels.round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


# ---------------------------------------------------------------- words


def in_words(drawn: Drawn, augmentation: Augmentation) -> str:
    """What was drawn for a view, in the order in which it is done."""
    said = [_crop_in_words(drawn, augmentation)]
    if drawn.flipped:
        said.append("mirrored")
    said += [f"{name} {magnitude:.3g}" if magnitude else name for name, magnitude in drawn.operations]
    if drawn.affine is not None:
        turned, right, down, sheared = drawn.affine
        parts = {"turned": f"{turned:+.0f}°", "moved": f"{right:+d} {down:+d}", "sheared": f"{sheared:+.0f}°"}
        reaches = (augmentation.rotate, augmentation.translate, augmentation.shear)
        said += [f"{name} {value}" for (name, value), reach in zip(parts.items(), reaches, strict=True) if reach]
    said += [f"hue {value:+.2f}" if name == "hue" else f"{name} ×{value:.2f}" for name, value in drawn.colour]
    if drawn.lighting is not None:
        said.append("light " + " ".join(f"{round(255 * value):+d}" for value in drawn.lighting))
    said += ["erased"] * bool(drawn.erased) + ["cut out"] * bool(drawn.cutout)
    return ", ".join(filter(None, said)) or "as it is"


def _crop_in_words(drawn: Drawn, augmentation: Augmentation) -> str:
    if augmentation.crop == "random-resized":
        return f"{drawn.width}×{drawn.height} at {drawn.left} {drawn.top}"
    if augmentation.crop == "random":
        return f"of {drawn.resized_width}×{drawn.resized_height} at {drawn.offset_x} {drawn.offset_y}"
    return f"moved {drawn.shift_x:+d} {drawn.shift_y:+d}" if augmentation.crop == "shift" else ""


def described(recipe: Recipe) -> str:
    """What the recipe does to training images, in one line: the fields of its group augment that do anything."""
    a = recipe.augment
    said = [f"crop {a.crop}"]
    said += {
        "random-resized": [f"of {a.scale[0]:g} to {a.scale[1]:g} of the area"],
        "random": [f"shorter side {a.shorter_px[0]} to {a.shorter_px[1]}"] if a.shorter_px != (0, 0) else [],
        "shift": [f"by up to {a.shift_px} px"],
        "resize": [],
    }[a.crop]
    said += [f"mirrored {a.flip:.0%}"] if a.flip else []
    if a.policy != "none":
        said.append(f"{a.policy} {a.policy_operations}×{a.policy_magnitude}" if a.policy == "randaugment" else a.policy)
    names = ("rotate", "translate", "shear", "brightness", "contrast", "saturation", "hue", "lighting", "erase", "cutout_px")
    said += [f"{name} {getattr(a, name):g}" for name in (*names, "mixup", "cutmix") if getattr(a, name)]
    return ", ".join(said)
