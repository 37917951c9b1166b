"""One picture of the built-in set: a thing in a cluttered, unevenly lit place, and its exact box.

Only the thing's parts depend on the class. Colours, textures, size, place, turn, background, clutter, shadow, light,
occluder, blur and noise are thrown independently of it.
"""

from __future__ import annotations

import colorsys
import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from striate import machine
from striate.data.synthetic_shapes import ACCENT, BODY, DETAIL, TONES, Dice, Part, Thing, arc_points, band, bar, polygon

Colour = tuple[int, int, int]

SHORT_SIDE_PX = (160, 300)
LONG_SIDE_PX = 400
MOST_ASPECT = 1.2  # long side over short side
AREA = (0.08, 0.34)  # box area as a share of the image; whole pixels then stay within 5 to 35 %
OVERSAMPLING = 3  # shapes are drawn so many times larger and averaged: smooth edges
MOST_HIDDEN = 0.18  # share of the thing's own pixels that an occluder may cover
GREY_EVERY = 50  # one file of so many is stored as grey


class Scene(NamedTuple):
    """A picture and the box of its thing.

    image: mode RGB, or L for the grey ones. box: x_min, y_min, x_max, y_max in pixels, as edges (x_max - x_min is the
    width): the tightest box around the thing as it lies there, occluder or not.
    """

    image: Image.Image
    box: tuple[int, int, int, int]


# ---------------------------------------------------------------- colours and patterns


def luminance(colour: Colour) -> float:
    """0..255, weights of ITU-R BT.601."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def any_colour(dice: Dice) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(dice.unit(), dice.unit() ** 0.8 * 0.9, dice.between(0.08, 1.0))
    return int(red * 255), int(green * 255), int(blue * 255)


def colour_apart(dice: Dice, others: list[Colour], tries: int = 10) -> Colour:
    """Of some colours the one whose brightness differs most from all `others`, so that it shows in a grey picture too."""
    candidates = [any_colour(dice) for _ in range(tries)]
    return max(candidates, key=lambda colour: min(abs(luminance(colour) - luminance(other)) for other in others))


def shifted(colour: Colour, by: int) -> Colour:
    red, green, blue = (min(255, max(0, value + by)) for value in colour)
    return red, green, blue


def pattern(dice: Dice, width: int, height: int) -> Image.Image:
    """A texture as a mixing mask of two colours: mode L, 0..255."""
    kind = dice.one_of(("gradient", "noise", "noise", "stripes", "checks", "blobs"))
    size = (width, height)
    if kind == "gradient":
        return Image.fromarray(dice.grid(2, 2)).resize(size, Image.Resampling.BICUBIC)
    if kind == "noise":
        cells = dice.whole(3, 8)
        mask = Image.fromarray(dice.grid(cells, cells)).resize(size, Image.Resampling.BICUBIC)
        for share in (0.4, 0.3):
            cells *= dice.whole(2, 4)
            finer = Image.fromarray(dice.grid(cells, cells)).resize(size, Image.Resampling.BICUBIC)
            mask = Image.blend(mask, finer, share)
        return mask
    if kind == "blobs":
        small = Image.new("L", (64, 64), dice.whole(0, 80))
        draw = ImageDraw.Draw(small)
        for _ in range(dice.whole(6, 18)):
            x, y, radius = dice.between(0, 64), dice.between(0, 64), dice.between(3, 12)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=dice.whole(60, 255))
        return small.resize(size, Image.Resampling.BICUBIC)
    angle, period = dice.between(0, math.pi), dice.between(0.06, 0.35) * max(width, height)
    x_W, y_H = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    turn = 2 * math.pi / period
    along = np.sin(x_W * (math.cos(angle) * turn) + y_H * (math.sin(angle) * turn) + dice.between(0, 6))
    if kind == "checks":
        along = along * np.sin(y_H * (math.cos(angle) * turn) - x_W * (math.sin(angle) * turn))
    return Image.fromarray((127.5 + 127.5 * np.clip(along * dice.between(1, 6), -1, 1)).astype(np.uint8))


def filled(dice: Dice, width: int, height: int, first: Colour, second: Colour) -> Image.Image:
    """A surface in a pattern of two colours: mode RGB."""
    share_256 = np.linspace(0, 1, 256)[:, None]
    ramp_256x3 = np.rint(np.array(first) * (1 - share_256) + np.array(second) * share_256).astype(np.uint8)
    return Image.fromarray(ramp_256x3.take(np.asarray(pattern(dice, width, height)), axis=0))


# ---------------------------------------------------------------- painting


def paint(parts: list[Part], width: int, height: int) -> Image.Image:
    """The tone of each pixel of an enlarged canvas: mode L, 0 where nothing is. Points are in pixels of the small one."""
    canvas = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING), 0)
    draw = ImageDraw.Draw(canvas)
    for part in parts:
        draw.polygon((part.points * OVERSAMPLING).ravel().tolist(), fill=part.tone)
    return canvas


def coverage(canvas: Image.Image, tones: tuple[int, ...]) -> Image.Image:
    """How much of each small pixel has one of the tones: mode L, 0..255."""
    return canvas.point([255 * (tone in tones) for tone in range(256)]).reduce(OVERSAMPLING)


def pose(dice: Dice, parts: list[Part], turn_degrees: float, stretch: float = 0.1) -> list[Part]:
    """The parts mirrored, stretched, sheared and turned by chance."""
    angle = math.radians(dice.between(-turn_degrees, turn_degrees))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    slant = np.array([[1.0, 0.0], [dice.between(-stretch, stretch), 1.0]])
    scale = np.diag(
        [math.exp(dice.between(-stretch, stretch)) * dice.one_of((-1.0, 1.0)), math.exp(dice.between(-stretch, stretch))]
    )
    matrix = scale @ slant @ turn
    return [Part(part.tone, part.points @ matrix) for part in parts]


def fitted(parts: list[Part], width: float, height: float, area_px: float) -> tuple[list[Part], float, float]:
    """The parts scaled to a box of `area_px` (less where it would not fit), its corner at the origin, and the box's sides."""
    points = np.concatenate([part.points for part in parts])
    low, high = points.min(axis=0), points.max(axis=0)
    wide, tall = (high - low).tolist()
    scale = min(math.sqrt(area_px / (wide * tall)), 0.96 * width / wide, 0.96 * height / tall)
    return [Part(part.tone, (part.points - low) * scale) for part in parts], wide * scale, tall * scale


def fragment(dice: Dice) -> list[Part]:
    """A piece of clutter that is no thing: a stick, a hook, a bow, a wedge, a shard or a lump."""
    kind = dice.one_of(("stick", "corner", "bow", "wedge", "shard", "lump"))
    if kind == "stick":
        return [bar(BODY, -1, 0, 1, 0, dice.between(0.1, 0.4), dice.between(0.05, 0.4))]
    if kind == "corner":
        bend = dice.between(-1.2, 1.2)
        return [bar(BODY, -1, 0, 0, 0, 0.25), bar(BODY, 0, 0, math.cos(bend), math.sin(bend), 0.25)]
    if kind == "bow":
        return [band(BODY, 0, 0, 0.85, dice.between(0.1, 0.35), 0, dice.between(60, 200))]
    if kind == "wedge":
        return [Part(BODY, np.concatenate([[(0.0, 0.0)], arc_points(0, 0, 1, 1, 0, dice.between(30, 150))]))]
    if kind == "shard":
        return [polygon(BODY, *[(dice.between(-1, 1), dice.between(-1, 1)) for _ in range(dice.whole(3, 4))])]
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    radii = 0.75 + dice.between(0.05, 0.2) * np.sin(angles * dice.whole(2, 3) + dice.between(0, 6))
    return [Part(BODY, np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1))]


def add_clutter(dice: Dice, image: Image.Image, most: int = 4) -> None:
    """Scatters fragments over the background."""
    width, height = image.size
    for _ in range(dice.whole(0, most)):
        side = dice.between(0.06, 0.24) * min(width, height)
        parts, wide, tall = fitted(pose(dice, fragment(dice), 180, 0.4), width, height, side * side * dice.between(0.3, 1))
        patch = (max(1, math.ceil(wide)), max(1, math.ceil(tall)))
        mask = coverage(paint(parts, *patch), (BODY,))
        if dice.happens(0.3):
            mask = mask.point([value * 2 // 3 for value in range(256)])
        corner = (round(dice.between(-wide / 2, width - wide / 2)), round(dice.between(-tall / 2, height - tall / 2)))
        colour = any_colour(dice)
        image.paste(filled(dice, *patch, colour, any_colour(dice)) if dice.happens(0.25) else colour, corner, mask)


def add_occluder(dice: Dice, image: Image.Image, shape: Image.Image, corner: tuple[int, int]) -> None:
    """Puts a fragment before the thing, so that at most MOST_HIDDEN of its pixels are covered.

    shape: mode L, the thing's own pixels; corner: where they lie in the image.
    """
    solid = np.asarray(shape) > 127
    wide, tall = shape.size
    size = dice.between(0.25, 0.6) * math.sqrt(wide * tall)
    surface = None
    for _ in range(4):
        parts, w, h = fitted(pose(dice, fragment(dice), 180, 0.3), 1e9, 1e9, size * size)
        x, y = round(dice.between(-w / 2, wide - w / 2)), round(dice.between(-h / 2, tall - h / 2))
        patch = (max(1, math.ceil(w)), max(1, math.ceil(h)))
        mask = coverage(paint(parts, *patch), (BODY,))
        before = Image.new("L", shape.size, 0)
        before.paste(mask, (x, y))
        hidden = float((np.asarray(before) > 127)[solid].mean())
        if 0.02 < hidden <= MOST_HIDDEN:
            surface = filled(dice, *patch, any_colour(dice), any_colour(dice)) if dice.happens(0.5) else any_colour(dice)
            image.paste(surface, (corner[0] + x, corner[1] + y), mask)
            return
        if hidden > MOST_HIDDEN:
            size *= 0.7


def off_centre(dice: Dice) -> float:
    """Where in the room that is left, 0..1: a little less often in the middle, so that a fixed box in the middle seldom fits."""
    side: int = dice.one_of((-1, 1))
    return 0.5 + 0.5 * side * float(dice.unit() ** 0.55)


def add_thing(dice: Dice, image: Image.Image, thing: Thing, around: tuple[Colour, Colour]) -> tuple[int, int, int, int]:
    """Paints the thing with its shadow and perhaps an occluder. around: the background's colours. Returns its exact box."""
    width, height = image.size
    area = AREA[1] - (AREA[1] - AREA[0]) * dice.unit() ** 1.5  # the larger are likelier
    parts, wide, tall = fitted(pose(dice, thing.draw(dice), thing.turn_degrees), width, height, area * width * height)
    margin = 2  # so that rounding never cuts the thing at its patch's border
    patch = (math.ceil(wide) + 2 * margin, math.ceil(tall) + 2 * margin)
    canvas = paint([Part(part.tone, part.points + margin) for part in parts], *patch)
    shape = coverage(canvas, TONES)
    left, top = (round(max(0, room) * off_centre(dice)) for room in (width - patch[0], height - patch[1]))

    if dice.happens(0.6):  # a soft shadow
        soft = shape.reduce(4).filter(ImageFilter.BoxBlur(1)).resize(patch, Image.Resampling.BICUBIC)
        strength = dice.between(0.2, 0.6)
        reach = 0.08 * math.sqrt(wide * tall)
        at = (left + round(dice.between(-reach, reach)), top + round(dice.between(0, 1.5 * reach)))
        image.paste((0, 0, 0), at, soft.point([int(value * strength) for value in range(256)]))

    body = colour_apart(dice, list(around))
    accent = (
        shifted(body, dice.one_of((-1, 1)) * dice.whole(20, 60)) if dice.happens(0.85) else colour_apart(dice, list(around), 3)
    )
    detail = colour_apart(dice, [*around, body], 3)
    surface = Image.new("RGB", patch, body)
    if dice.happens(0.6):
        surface = filled(dice, *patch, body, shifted(body, dice.whole(-30, 30)))
    surface.paste(filled(dice, *patch, accent, shifted(accent, dice.whole(-30, 30))), (0, 0), coverage(canvas, (ACCENT,)))
    surface.paste(detail, (0, 0), coverage(canvas, (DETAIL,)))
    image.paste(surface, (left, top), shape)
    x_min, y_min, x_max, y_max = shape.point([255 * (value > 127) for value in range(256)]).getbbox() or (0, 0, 0, 0)
    if dice.happens(0.25):
        add_occluder(dice, image, shape, (left, top))
    return left + x_min, top + y_min, left + x_max, top + y_max


# ---------------------------------------------------------------- the picture


def add_light(dice: Dice, image: Image.Image) -> Image.Image:
    """Uneven light, exposure, perhaps blur, and the sensor's noise."""
    width, height = image.size
    if dice.happens(0.7):
        deepest = dice.whole(0, 80)
        light = Image.fromarray((255 - dice.grid(2, 2).astype(np.int32) * deepest // 255).astype(np.uint8))
        light = light.resize(image.size, Image.Resampling.BICUBIC)
        image = ImageChops.multiply(image, Image.merge("RGB", [light] * 3))
    gain, floor = dice.between(0.75, 1.2), dice.between(-15, 25)
    image = image.point([min(255, max(0, round(value * gain + floor))) for value in range(256)] * 3)
    if dice.happens(0.3):
        image = image.filter(ImageFilter.BoxBlur(dice.between(0.4, 1.2)))
    strength = dice.between(0, 12)
    noise = Image.fromarray(dice.grid(height, width)).point(
        [round((value - 127.5) * strength / 127.5) + 128 for value in range(256)]
    )
    return ImageChops.add(image, Image.merge("RGB", [noise] * 3), 1, -128)


def render(thing: Thing, seed: int, split: str, index: int) -> Scene:
    """The picture number `index` of this thing in this split: a pure function of its arguments."""
    dice = Dice(seed, f"builtin/{split}/{thing.name}", index)
    short = dice.whole(*SHORT_SIDE_PX)
    long = min(LONG_SIDE_PX, round(short * dice.between(1.0, MOST_ASPECT)))
    width, height = (short, long) if dice.happens(0.4) else (long, short)
    first = any_colour(dice)
    second = any_colour(dice) if dice.happens(0.15) else shifted(first, dice.one_of((-1, 1)) * dice.whole(10, 40))
    image = filled(dice, width, height, first, second)
    add_clutter(dice, image)
    box = add_thing(dice, image, thing, (first, second))
    image = add_light(dice, image)
    return Scene(image.convert("L") if is_grey(thing, seed, split, index) else image, box)


def is_grey(thing: Thing, seed: int, split: str, index: int) -> bool:
    """Whether this picture is stored grey: one of each GREY_EVERY in a row, which one is chance."""
    return machine.stream_seed(seed, f"builtin/grey/{split}/{thing.name}", index // GREY_EVERY) % GREY_EVERY == index % GREY_EVERY


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """The picture as a JPEG file, its mode (RGB, L or CMYK) kept."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()
