"""The objects of the built-in set: twenty nameable things, each a few polygons whose proportions vary.

What makes the class is how the parts hang together (rungs between rails, spokes in a rim, a hook under a canopy), never a
colour or a texture. Every thing keeps its class when it is mirrored, because training flips images.

A part is a tone and a polygon. Coordinates are free units about the origin, y downwards; the scene scales, mirrors and
turns them. Also here: `Dice`, the random numbers of one image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from striate import machine

T = TypeVar("T")

BODY, ACCENT, DETAIL = 1, 2, 3  # tones: the scene gives each its own colour
TONES = (BODY, ACCENT, DETAIL)


class Dice:
    """Throws that are a pure function of (seed, name, index); each call takes the next numbers of that stream."""

    def __init__(self, seed: int, name: str, index: int) -> None:
        self._stream = (seed, name, index)
        self._block = 0
        self._left: Iterator[float] = iter(())

    def _words(self, count: int) -> np.ndarray:
        seed, name, index = self._stream
        self._block += 1
        words: np.ndarray = machine.bits(seed, name, index, np.array([self._block]), count)[0]
        return words

    def unit(self) -> float:
        """A number in [0, 1)."""
        for number in self._left:
            return number
        self._left = iter(((self._words(256) >> np.uint64(11)).astype(np.float64) * 2.0**-53).tolist())
        return next(self._left)

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit()

    def whole(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def happens(self, chance: float) -> bool:
        """True with this chance (0..1)."""
        return self.unit() < chance

    def one_of(self, choices: Sequence[T]) -> T:
        """One of the choices, all equally likely."""
        return choices[int(self.unit() * len(choices))]

    def grid(self, height: int, width: int) -> np.ndarray:
        """White noise, [height, width] uint8."""
        words = self._words((height * width + 7) // 8)
        return words.astype("<u8").view(np.uint8)[: height * width].reshape(height, width)


class Part(NamedTuple):
    """One filled polygon, painted over earlier ones. points: [P, 2] float64, x and y."""

    tone: int
    points: np.ndarray


@dataclass(frozen=True)
class Thing:
    """One class. wnid: in the form of WordNet's ids, and none of them. turn_degrees: how far it may be turned, to either side."""

    name: str
    wnid: str
    turn_degrees: float
    draw: Callable[[Dice], list[Part]]


# ---------------------------------------------------------------- polygons


def polygon(tone: int, *points: tuple[float, float]) -> Part:
    return Part(tone, np.array(points, dtype=np.float64))


def arc_points(x: float, y: float, radius_x: float, radius_y: float, start: float = 0.0, end: float = 360.0) -> np.ndarray:
    """Points on an ellipse from `start` to `end` degrees, clockwise as seen (y downwards). Returns [P, 2]."""
    angles = np.radians(np.linspace(start, end, max(4, int(abs(end - start) / 9) + 1)))
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)


def disc(tone: int, x: float, y: float, radius_x: float, radius_y: float | None = None) -> Part:
    return Part(tone, arc_points(x, y, radius_x, radius_x if radius_y is None else radius_y))


def band(
    tone: int, x: float, y: float, radius: float, width: float, start: float = 0.0, end: float = 360.0, squeeze: float = 1.0
) -> Part:
    """A ring or a part of one: `radius` to the middle of a band of `width`, `squeeze` the ratio of y to x radius."""
    outer, inner = radius + width / 2, radius - width / 2
    out = arc_points(x, y, outer, outer * squeeze, start, end)
    back = arc_points(x, y, inner, inner * squeeze, start, end)[::-1]
    return Part(tone, np.concatenate([out, back]))


def box(tone: int, left: float, top: float, right: float, bottom: float) -> Part:
    return polygon(tone, (left, top), (right, top), (right, bottom), (left, bottom))


def bar(tone: int, x0: float, y0: float, x1: float, y1: float, width: float, end_width: float | None = None) -> Part:
    """A straight stick from one point to another, tapering to `end_width`."""
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    across_x, across_y = -(y1 - y0) / length / 2, (x1 - x0) / length / 2
    last = width if end_width is None else end_width
    return polygon(
        tone,
        (x0 + across_x * width, y0 + across_y * width),
        (x1 + across_x * last, y1 + across_y * last),
        (x1 - across_x * last, y1 - across_y * last),
        (x0 - across_x * width, y0 - across_y * width),
    )


# ---------------------------------------------------------------- things


def mug(dice: Dice) -> list[Part]:
    half, height, foot = dice.between(0.5, 0.72), dice.between(0.62, 0.95), dice.between(0.75, 1.0)
    reach, thick = dice.between(0.34, 0.5) * height, dice.between(0.13, 0.2)
    lip = dice.between(0.08, 0.16)
    parts = [
        band(BODY, half * 0.9, dice.between(-0.1, 0.1), reach + 0.1, thick, -100, 100, squeeze=dice.between(0.95, 1.25)),
        Part(BODY, np.concatenate([[(-half, -height), (half, -height)], arc_points(0, height - lip, half * foot, lip, 0, 180)])),
    ]
    if dice.happens(0.5):
        middle, wide = dice.between(-0.4, 0.3), dice.between(0.1, 0.35)
        parts.append(box(ACCENT, -half * 0.93, middle - wide, half * 0.93, middle + wide))
    parts.append(disc(ACCENT, 0, -height, half, lip))
    parts.append(disc(DETAIL, 0, -height, half * 0.86, lip * 0.7))
    return parts


def key(dice: Dice) -> list[Part]:
    bow, thick = dice.between(0.4, 0.52), dice.between(0.15, 0.21)
    length, shaft = dice.between(1.05, 1.4), dice.between(0.16, 0.21)
    end = bow + length
    parts = [bar(BODY, bow * 0.9, 0, end, 0, shaft)]
    teeth, tooth = dice.whole(2, 3), dice.between(0.14, 0.18)
    for i in range(teeth):
        x = end - tooth / 2 - i * tooth * dice.between(1.5, 1.8)
        parts.append(box(BODY, x - tooth / 2, 0, x + tooth / 2, dice.between(0.32, 0.46)))
    parts.append(band(BODY, 0, 0, bow, thick, squeeze=dice.between(0.85, 1.25)))
    if dice.happens(0.5):
        parts.append(box(ACCENT, bow + thick / 2, -shaft, bow + thick / 2 + 0.12, shaft))
    return parts


def chair(dice: Dice) -> list[Part]:
    half, depth, legs, back = dice.between(0.45, 0.6), dice.between(0.18, 0.3), dice.between(0.6, 0.9), dice.between(0.75, 1.1)
    lean, thick = dice.between(0.05, 0.3), dice.between(0.11, 0.16)
    shift = depth * dice.between(0.4, 0.9)
    parts = [  # rear legs, then the back with its slats, then the seat, then the front legs
        bar(DETAIL, -half + shift + thick / 2, 0, -half + shift + thick / 2, legs * 0.75, thick * 0.9),
        bar(DETAIL, half + shift - thick / 2, 0, half + shift - thick / 2, legs * 0.75, thick * 0.9),
        bar(BODY, -half + shift + thick / 2, 0, -half + shift + lean + thick / 2, -back, thick),
        bar(BODY, half + shift - thick / 2, 0, half + shift + lean - thick / 2, -back, thick),
    ]
    if dice.happens(0.5):
        for i in range(slats := dice.whole(2, 3)):
            t = 1 - 0.62 * i / slats
            x, y = shift + lean * t, -back * t + thick / 2
            parts.append(bar(ACCENT, -half + x, y, half + x, y, thick * 1.1))
    else:
        parts.append(bar(BODY, -half + shift + lean, -back + thick / 2, half + shift + lean, -back + thick / 2, thick))
        for i in range(slats := dice.whole(2, 3)):
            x = shift + thick / 2 + (i + 1) / (slats + 1) * (2 * half - thick) - half
            parts.append(bar(ACCENT, x, 0, x + lean, -back + thick / 2, thick * 0.7))
    parts.append(polygon(BODY, (-half, depth), (half, depth), (half + shift, 0), (-half + shift, 0)))
    parts.append(box(BODY, -half, depth, half, depth + thick * 0.8))
    parts.append(bar(BODY, -half + thick / 2, depth, -half + thick / 2, depth + legs, thick))
    parts.append(bar(BODY, half - thick / 2, depth, half - thick / 2, depth + legs, thick))
    return parts


def wheel(dice: Dice) -> list[Part]:
    thick, hub, spokes, start = dice.between(0.13, 0.24), dice.between(0.14, 0.24), dice.whole(5, 9), dice.between(0, 6.3)
    parts = []
    for i in range(spokes):
        angle = start + 2 * math.pi * i / spokes
        parts.append(bar(ACCENT, 0, 0, 0.95 * math.cos(angle), 0.95 * math.sin(angle), dice.between(0.09, 0.12)))
    parts.append(band(BODY, 0, 0, 1 - thick / 2, thick))
    parts.append(disc(BODY, 0, 0, hub))
    parts.append(disc(DETAIL, 0, 0, hub * 0.45))
    return parts


def ladder(dice: Dice) -> list[Part]:
    height, foot, top = dice.between(1.0, 1.3), dice.between(0.38, 0.52), dice.between(0.75, 1.0)
    thick, rungs = dice.between(0.13, 0.18), dice.whole(4, 6)
    parts = []
    for i in range(rungs):
        y = height - (i + 0.6) * 2 * height / (rungs + 0.2)
        half = foot + (foot * top - foot) * (height - y) / (2 * height)
        parts.append(bar(ACCENT, -half, y, half, y, thick * dice.between(0.75, 0.95)))
    parts.append(bar(BODY, -foot, height, -foot * top, -height, thick))
    parts.append(bar(BODY, foot, height, foot * top, -height, thick))
    return parts


def bicycle(dice: Dice) -> list[Part]:
    radius, thick, tube = dice.between(0.5, 0.6), dice.between(0.1, 0.14), dice.between(0.09, 0.12)
    gap = dice.between(1.35, 1.6) / 2
    seat_x, seat_y = -gap * dice.between(0.3, 0.45), -dice.between(0.6, 0.78)
    head_x, head_y = gap * dice.between(0.62, 0.75), -dice.between(0.65, 0.82)
    pedal_x, pedal_y = dice.between(-0.08, 0.05), dice.between(0.0, 0.12)
    parts = []
    for x in (-gap, gap):
        parts.append(band(DETAIL, x, 0, radius - thick / 2, thick))
        parts.append(disc(ACCENT, x, 0, 0.1))
    for x0, y0, x1, y1 in (
        (-gap, 0.0, seat_x, seat_y * 0.8),
        (-gap, 0.0, pedal_x, pedal_y),
        (pedal_x, pedal_y, seat_x, seat_y),
        (seat_x, seat_y * 0.75, head_x, head_y * 0.8),
        (pedal_x, pedal_y, head_x, head_y * 0.75),
        (gap, 0.0, head_x - 0.05, head_y - 0.12),
    ):
        parts.append(bar(BODY, x0, y0, x1, y1, tube))
    parts.append(bar(ACCENT, seat_x - 0.22, seat_y - 0.04, seat_x + 0.2, seat_y, 0.14, 0.08))
    parts.append(bar(ACCENT, head_x - 0.05, head_y - 0.12, head_x + 0.22, head_y - 0.12 - dice.between(0.0, 0.12), 0.1))
    parts.append(disc(ACCENT, pedal_x, pedal_y, 0.12))
    return parts


def fish(dice: Dice) -> list[Part]:
    belly, tail, fork = dice.between(0.38, 0.58), dice.between(0.35, 0.55), dice.between(0.1, 0.3)
    top = np.linspace(0, 1, 14)
    bulge = np.sin(np.pi * top**0.75) * belly
    back = np.stack([1 - 2 * top, -bulge], axis=1)
    front = np.stack([1 - 2 * top[::-1], bulge[::-1]], axis=1)
    parts = [
        polygon(ACCENT, (-0.75, 0), (-1.4, -tail), (-1.4 + fork, 0), (-1.4, tail)),
        polygon(ACCENT, (0.25, -belly * 0.8), (-0.15, -belly - dice.between(0.2, 0.4)), (-0.5, -belly * 0.7)),
        Part(BODY, np.concatenate([back, front])),
    ]
    for i in range(dice.whole(0, 3)):
        x = 0.3 - 0.3 * i
        height = belly * (0.85 - 0.15 * i)
        parts.append(bar(ACCENT, x, -height, x, height, 0.1))
    parts.append(polygon(ACCENT, (0.15, 0.08), (-0.3, 0.12), (-0.2, 0.12 + belly * 0.5)))
    parts.append(disc(DETAIL, 0.62, -belly * 0.2, 0.09))
    return parts


def umbrella(dice: Dice) -> list[Part]:
    rise, scallops, stick = dice.between(0.55, 0.85), dice.whole(3, 5), dice.between(0.08, 0.12)
    length, hook = dice.between(0.85, 1.15), dice.between(0.16, 0.22)
    width = 2.0 / scallops
    hem = [arc_points(1 - width * (i + 0.5), 0.02, width / 2, dice.between(0.12, 0.18), 0, -180) for i in range(scallops)]
    parts = [
        bar(DETAIL, 0, -rise - 0.14, 0, length, stick),
        band(DETAIL, hook, length, hook, stick, 0, 180),
        Part(BODY, np.concatenate([arc_points(0, 0, 1, rise, 180, 360), *hem])),
    ]
    for i in range(1, scallops):
        x = -1 + width * i
        bend: list[list[float]] = arc_points(0, 0, abs(x), rise * 0.97, 270, 360 if x > 0 else 180).tolist()
        ends = itertools.pairwise(bend) if abs(x) > 0.05 else ()
        parts += [bar(ACCENT, x0, y0, x1, y1, 0.05) for (x0, y0), (x1, y1) in ends]
    return parts


def scissors(dice: Dice) -> list[Part]:
    spread, blade, ring = math.radians(dice.between(14, 30)), dice.between(1.0, 1.3), dice.between(0.24, 0.32)
    thick, wide, reach = dice.between(0.1, 0.14), dice.between(0.18, 0.24), dice.between(0.6, 0.8)
    parts = []
    for side, tone in ((1, BODY), (-1, ACCENT)):
        x, y = math.cos(spread), side * math.sin(spread)
        ring_x, ring_y = -(reach + ring) * x, -(reach + ring) * y * 1.15
        parts.append(bar(tone, 0, 0, blade * x, blade * y, wide, 0.03))
        parts.append(bar(tone, 0, 0, ring_x * 0.78, ring_y * 0.78, wide * 0.75, wide * 0.6))
        parts.append(band(DETAIL, ring_x, ring_y, ring, thick))
    parts.append(disc(DETAIL, 0, 0, 0.08))
    return parts


def hourglass(dice: Dice) -> list[Part]:
    half, height, neck, plate = dice.between(0.5, 0.7), dice.between(0.8, 1.0), dice.between(0.06, 0.1), dice.between(0.1, 0.16)
    flare = np.linspace(0, 1, 8)
    side = neck + (half * 0.88 - neck) * np.sin(flare * math.pi / 2) ** dice.between(0.8, 1.3)
    upper = np.concatenate([np.stack([side, -flare * height], 1), np.stack([-side[::-1], -flare[::-1] * height], 1)])
    fill = dice.between(0.4, 0.85)
    parts = [Part(BODY, upper), Part(BODY, upper * [1, -1])]
    sand = flare * fill
    parts.append(
        Part(
            ACCENT,
            np.concatenate([np.stack([side * 0.8, -sand * height], 1), np.stack([-side[::-1] * 0.8, -sand[::-1] * height], 1)]),
        )
    )
    parts.append(polygon(ACCENT, (-half * 0.65, height), (half * 0.65, height), (0, height * (1 - fill * 0.7))))
    if dice.happens(0.5):
        parts += [bar(DETAIL, x, -height, x, height, 0.09) for x in (-half * 0.95, half * 0.95)]
    parts += [box(DETAIL, -half * 1.1, y - plate, half * 1.1, y + plate) for y in (-height, height)]
    return parts


def anchor(dice: Dice) -> list[Part]:
    thick, arms, ring = dice.between(0.14, 0.2), dice.between(0.65, 0.85), dice.between(0.16, 0.22)
    stock, foot = dice.between(0.4, 0.6), dice.between(0.7, 0.85)
    open_from = dice.between(10, 25)
    parts = [
        band(ACCENT, 0, -0.85 - ring, ring, thick * 0.75),
        bar(BODY, 0, -0.88, 0, foot + arms * 0.25, thick),
        bar(ACCENT, -stock, -0.55, stock, -0.55, thick * 0.9),
        band(BODY, 0, foot - arms * 0.75, arms, thick, open_from, 180 - open_from),
    ]
    for side in (1, -1):
        x, y = side * arms * math.cos(math.radians(open_from)), foot - arms * 0.75 + arms * math.sin(math.radians(open_from))
        parts.append(polygon(BODY, (x - side * 0.3, y + 0.02), (x + side * 0.24, y + 0.1), (x + side * 0.03, y - 0.36)))
    return parts


def house(dice: Dice) -> list[Part]:
    half, height, roof, eaves = dice.between(0.6, 0.85), dice.between(0.35, 0.55), dice.between(0.5, 0.8), dice.between(0.1, 0.22)
    parts = []
    if dice.happens(0.7):
        x = half * dice.between(0.35, 0.6)
        parts.append(box(DETAIL, x - 0.1, -height - roof * dice.between(0.8, 1.1), x + 0.1, -height))
    parts.append(box(BODY, -half, -height, half, height))
    ridge = dice.between(0.0, 0.45) * half
    parts.append(
        polygon(ACCENT, (-half - eaves, -height), (-ridge, -height - roof), (ridge, -height - roof), (half + eaves, -height))
    )
    door, at = dice.between(0.12, 0.18), dice.between(-0.5, 0.5) * half
    parts.append(box(DETAIL, at - door, height - dice.between(0.45, 0.6), at + door, height))
    windows = (-0.62 * half, 0.62 * half) if abs(at) < 0.2 * half else (-math.copysign(0.45 * half, at),)
    return parts + [box(DETAIL, x - 0.14, -height * 0.6, x + 0.14, -height * 0.6 + 0.28) for x in windows]


def star(dice: Dice) -> list[Part]:
    rays, inner = dice.whole(5, 6), dice.between(0.36, 0.5)
    angles = np.arange(2 * rays) * math.pi / rays
    radii = np.where(np.arange(2 * rays) % 2 == 0, 1.0, inner)
    points = np.stack([np.sin(angles) * radii, -np.cos(angles) * radii], axis=1)
    parts = [Part(BODY, points)]
    if dice.happens(0.6):
        parts.append(Part(ACCENT, points * dice.between(0.45, 0.75)))
    return parts


def fir(dice: Dice) -> list[Part]:
    tiers, half, trunk = dice.whole(3, 4), dice.between(0.5, 0.72), dice.between(0.09, 0.15)
    parts = [box(DETAIL, -trunk, 0.6, trunk, 1.0 + dice.between(0.05, 0.25))]
    for i in range(tiers):
        bottom = 0.85 - i * 1.7 / (tiers + 0.6)
        wide = half * (1 - 0.62 * i / (tiers - 1))
        parts.append(
            polygon((BODY, ACCENT)[i % 2], (-wide, bottom), (wide, bottom), (0, bottom - 1.7 / tiers * dice.between(1.15, 1.3)))
        )
    return parts


def sailboat(dice: Dice) -> list[Part]:
    deck, keel, mast = dice.between(0.8, 1.0), dice.between(0.5, 0.65), dice.between(1.2, 1.5)
    at, draught = dice.between(-0.1, 0.15), dice.between(0.28, 0.4)
    return [
        bar(DETAIL, at, 0.1, at, -mast, 0.09),
        polygon(ACCENT, (at + 0.1, -0.08), (at + 0.1, -mast * 0.95), (at + dice.between(0.6, 0.8), -0.08)),
        polygon(DETAIL, (at - 0.1, -0.08), (at - 0.1, -mast * dice.between(0.65, 0.85)), (at - dice.between(0.5, 0.7), -0.08)),
        polygon(BODY, (-deck, 0.05), (deck, 0.05), (keel, 0.05 + draught), (-keel, 0.05 + draught)),
    ]


def lamp(dice: Dice) -> list[Part]:
    top, bottom, height = dice.between(0.25, 0.42), dice.between(0.6, 0.8), dice.between(0.55, 0.75)
    stem, foot = dice.between(0.5, 0.85), dice.between(0.35, 0.5)
    parts = [bar(DETAIL, 0, 0, 0, stem, dice.between(0.1, 0.16))]
    if dice.happens(0.5):
        parts.append(disc(ACCENT, 0, stem * 0.5, dice.between(0.14, 0.2), dice.between(0.14, 0.24)))
    parts.append(Part(BODY, np.concatenate([arc_points(0, stem + 0.1, foot, dice.between(0.14, 0.22), 180, 360)])))
    parts.append(polygon(ACCENT, (-top, -height), (top, -height), (bottom, 0.05), (-bottom, 0.05)))
    return parts


def spectacles(dice: Dice) -> list[Part]:
    radius, thick, gap = dice.between(0.36, 0.46), dice.between(0.09, 0.14), dice.between(0.52, 0.62)
    squeeze, fold = dice.between(0.75, 1.05), dice.between(0.25, 0.5)
    parts = [band(ACCENT, 0, 0, gap - radius + 0.04, thick, 180, 360)]
    for side in (1, -1):
        x = side * (gap + radius * 0.95)
        parts.append(bar(ACCENT, x, -0.1, x + side * fold * 0.5, -0.1 - fold, thick))
        parts.append(band(BODY, side * gap, 0, radius, thick, squeeze=squeeze))
    return parts


def butterfly(dice: Dice) -> list[Part]:
    wide, high, low = dice.between(0.42, 0.55), dice.between(0.38, 0.5), dice.between(0.28, 0.4)
    parts = []
    for side in (1, -1):
        parts.append(bar(DETAIL, 0, -0.5, side * 0.28, -0.95, 0.06))
        parts.append(disc(BODY, side * (wide + 0.02), -high * 0.75, wide, high))
        parts.append(disc(ACCENT, side * (low + 0.03), low * 0.95, low, low * 1.1))
        parts.append(disc(ACCENT, side * (wide + 0.1), -high * 0.75, wide * 0.4, high * 0.4))
    parts.append(disc(DETAIL, 0, 0, 0.1, 0.62))
    return parts


def gear(dice: Dice) -> list[Part]:
    teeth, inner, hole = dice.whole(7, 10), dice.between(0.72, 0.8), dice.between(0.25, 0.42)
    turns = (np.arange(teeth)[:, None] + np.array([-0.27, -0.17, 0.17, 0.27])) * 2 * math.pi / teeth
    radii = np.broadcast_to([inner, 1.0, 1.0, inner], turns.shape)
    rim = np.stack([radii * np.cos(turns), radii * np.sin(turns)], axis=-1).reshape(-1, 2)
    parts = [
        Part(BODY, np.concatenate([rim, rim[:1], arc_points(0, 0, hole, hole, turns[0, 0] * 57.3, turns[0, 0] * 57.3 - 360)]))
    ]
    if dice.happens(0.5):
        parts.append(band(ACCENT, 0, 0, (hole + inner) / 2, 0.1))
    return parts


def mushroom(dice: Dice) -> list[Part]:
    rise, stem, foot = dice.between(0.6, 0.9), dice.between(0.2, 0.32), dice.between(0.65, 0.95)
    parts = [
        polygon(ACCENT, (-stem, 0), (stem, 0), (stem * dice.between(1.0, 1.4), foot), (-stem * 1.2, foot)),
        Part(
            BODY, np.concatenate([arc_points(0, 0, 0.95, rise, 180, 360), arc_points(0, 0, 0.95, dice.between(0.1, 0.2), 0, 180)])
        ),
    ]
    for i in range(spots := dice.whole(2, 4)):
        x = -0.55 + 1.1 * (i + 0.5) / spots
        parts.append(disc(DETAIL, x, -rise * dice.between(0.3, 0.6), dice.between(0.09, 0.14)))
    return parts


# The first so many are used when fewer classes are wanted; ids are in another order than names, as in ImageNet.
THINGS: tuple[Thing, ...] = (
    Thing("mug", "n93147250", 15, mug),
    Thing("key", "n91608833", 30, key),
    Thing("chair", "n97734016", 10, chair),
    Thing("wheel", "n90256491", 180, wheel),
    Thing("ladder", "n95829307", 25, ladder),
    Thing("bicycle", "n98410762", 15, bicycle),
    Thing("fish", "n92975118", 25, fish),
    Thing("umbrella", "n96051943", 20, umbrella),
    Thing("scissors", "n94382671", 30, scissors),
    Thing("hourglass", "n99263580", 20, hourglass),
    Thing("anchor", "n90871425", 20, anchor),
    Thing("house", "n97018364", 8, house),
    Thing("star", "n91490752", 180, star),
    Thing("fir", "n95236189", 20, fir),
    Thing("sailboat", "n98795034", 15, sailboat),
    Thing("lamp", "n92317846", 25, lamp),
    Thing("spectacles", "n96682905", 60, spectacles),
    Thing("butterfly", "n94859213", 180, butterfly),
    Thing("gear", "n90543678", 180, gear),
    Thing("mushroom", "n93970421", 30, mushroom),
)
