"""A network as a picture for a slide: blocks in columns, from the images at the top left to the scores at the end.

Every piece is laid out around its own axis, on which it is entered at the top and left at the bottom; pieces are then
stacked, set side by side, framed, and at last put into as many columns as fill a slide best. The drawing itself is in
`pages/diagram.svg.jinja`.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from striate import files
from striate.errors import UserError
from striate.measure.outline import Block, Fork, Head, Item, Layer, Outline, boxes, common_name
from striate.report import letters, templates

WIDTH, HEIGHT = 1600, 900  # a slide of 16:9, in user units
_MARGIN, _TITLE = 40, 98
_GAP = 15.0  # between two things on one axis, so that an arrow fits
_BETWEEN = 35.0  # between two pieces of the trunk: an arrow with a shape beside it
_GUTTER = 36.0  # between two columns
_ROUND = 14.0  # radius of a line's corner
_MOST_SCALE = 1.5
_MAIN, _NOTE = 17, 13  # heights of letters
_MANY = 13  # convolutions; of so many the same words are not repeated in each


@dataclass(frozen=True)
class Part:
    """One mark of the drawing: a "rect", a "line" (`text` is its path) or a "text" (`height` is that of its letters)."""

    kind: str
    look: str
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0
    text: str = ""
    names: str = ""
    round: float = 5.0
    arrow: bool = False
    points: tuple[tuple[float, float], ...] = ()

    def moved(self, x: float, y: float) -> Part:
        """The same mark elsewhere."""
        points = tuple((px + x, py + y) for px, py in self.points)
        return replace(self, x=round(self.x + x, 1), y=round(self.y + y, 1), points=points)


@dataclass(frozen=True)
class Piece:
    """Marks around an axis (x = 0) from y = 0 to `height`; `left` and `right` are how far they reach to its sides."""

    parts: tuple[Part, ...]
    left: float
    right: float
    height: float

    def moved(self, x: float, y: float) -> list[Part]:
        """Its marks with the axis at x and the top at y."""
        return [part.moved(x, y) for part in self.parts]


@dataclass(frozen=True)
class Drawn:
    """A diagram in coordinates; what `diagram.svg.jinja` needs. `words` say it to those who cannot see it."""

    width: int
    height: int
    margin: int
    title: str
    facts: str
    words: str
    key: str
    x: float
    y: float
    scale: float
    parts: list[Part]


def check_place(path: Path) -> None:
    """Raises UserError for a name that is not that of an SVG."""
    if path.suffix.lower() != ".svg":
        raise UserError(f"--draw {path}: a diagram is written as SVG; give a name that ends in .svg.")


def write_diagram(path: Path, outline: Outline, title: str, facts: str) -> Path:
    """Writes a network's diagram as SVG, whole or not at all. title, facts: the lines at its top. Returns the path.

    Raises UserError for another ending than .svg and where the file cannot be written.
    """
    check_place(path)
    drawn = lay_out(outline, title, facts)
    files.write_whole(path, templates.templates().get_template("diagram.svg.jinja").render(d=drawn))
    return path


def lay_out(outline: Outline, title: str, facts: str) -> Drawn:
    """Places everything, in the columns that `_worth` likes best."""
    outline, usual = _plainer(outline)
    stops = [_stop(item, place, outline) for place, item in enumerate(outline.items)]
    start = _text(_shape(outline.input), _MAIN)
    best: tuple[tuple[float, float], list[list[int]]] = ((0.0, 0.0), [])
    ends = list(itertools.accumulate((stop.height + _BETWEEN for stop in stops), initial=0.0))
    highest = max(stop.height for stop in stops)
    heights = {math.ceil(end - begin) for begin, end in itertools.combinations(ends, 2)}  # of all columns that there can be
    for most in sorted(height for height in heights if height >= highest):
        for rule in ("behind pools", "between grids", "anywhere"):
            columns = _columns(outline.items, stops, most, rule)
            worth = _worth(columns, outline.items, stops)
            if worth > best[0]:
                best = worth, columns
    columns = best[1]
    wide, high = _extent(columns, stops)
    scale = _scale((wide, high))
    parts = _placed(columns, stops, outline, start)
    words = f"{title}: {facts}. From {_shape(outline.input)} through " + ", ".join(_named(item) for item in outline.items) + "."
    left = round((WIDTH - wide * scale) / 2, 1)
    top = round(_TITLE + 0.4 * (HEIGHT - _TITLE - _MARGIN - high * scale), 1)
    return Drawn(
        WIDTH, HEIGHT, _MARGIN, title, facts, words, _key(outline, usual), left, top, scale, [_path(part) for part in parts]
    )


def _plainer(outline: Outline) -> tuple[Outline, tuple[str, ...]]:
    """Where nearly all of many convolutions have the same behind them, the outline without it, and what it is."""
    sides = [head.items for head in outline.heads]
    layers = [box for items in (outline.items, *sides) for box in boxes(items) if isinstance(box, Layer)]
    behind = Counter(layer.after for layer in layers if layer.kind == "convolution")
    usual, count = behind.most_common(1)[0] if behind else ((), 0)
    if count < _MANY or count < 0.9 * behind.total():
        return outline, ()
    heads = tuple(replace(head, items=_bare(head.items, usual)) for head in outline.heads)
    return replace(outline, items=_bare(outline.items, usual), heads=heads), usual


def _bare(items: Sequence[Item], usual: tuple[str, ...]) -> tuple[Item, ...]:
    """The items without what is behind most convolutions."""
    found: list[Item] = []
    for item in items:
        if isinstance(item, Fork):
            item = replace(item, branches=tuple(_bare(branch, usual) for branch in item.branches))
        elif isinstance(item, Block):
            item = replace(item, items=_bare(item.items, usual))
        elif item.kind == "convolution" and item.after == usual:
            item = replace(item, after=())
        found.append(item)
    return tuple(found)


def _worth(columns: Sequence[Sequence[int]], items: Sequence[Item], stops: Sequence[Piece]) -> tuple[float, float]:
    """How good columns are, the best the greatest: legible first, no stage torn apart, no box alone, of like heights."""
    scale = _scale(_extent(columns, stops))
    legible = min(scale, 1.0) + 0.3 * max(scale - 1.0, 0.0)
    ends = [(items[before[-1]], items[after[0]]) for before, after in itertools.pairwise(columns)]
    torn = sum(_grid(a) == _grid(b) and not _is_pool(a) for a, b in ends)
    alone = sum(len(column) == 1 and isinstance(items[column[0]], Layer) for column in columns)
    heights = [sum(stops[i].height for i in column) for column in columns]
    return round(legible - 0.03 * torn - 0.05 * alone, 2), min(heights) - max(heights)


def _scale(extent: tuple[float, float]) -> float:
    """How much larger or smaller a drawing of this width and height is shown, so that it fits the slide."""
    wide, high = extent
    return round(min(_MOST_SCALE, (WIDTH - 2 * _MARGIN) / wide, (HEIGHT - _TITLE - _MARGIN) / high), 3)


def _key(outline: Outline, usual: tuple[str, ...]) -> str:
    """How to read the drawing: of its signs those that are in it. usual: what `_plainer` left out."""
    said = ["blue: k×k convolution, channels, /stride", "beside the arrows: channels × height × width"]
    said += [f"behind convolutions, unless they say so: {', '.join(usual)}"] if usual else []
    said += ["orange: shortcut"] if _has_shortcut(outline.items) else []
    said += ["dashed: runs in training only"] if outline.heads else []
    return " · ".join(said)


def _has_shortcut(items: Sequence[Item]) -> bool:
    return any(
        (item.shortcut or any(map(_has_shortcut, item.branches)))
        if isinstance(item, Fork)
        else isinstance(item, Block) and _has_shortcut(item.items)
        for item in items
    )


def _path(part: Part) -> Part:
    """A line's path of its points, with round corners."""
    if part.kind != "line":
        return part
    points = part.points
    said = f"M{points[0][0]:g} {points[0][1]:g}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        reach = min(_ROUND, *(max(abs(corner[0] - p[0]), abs(corner[1] - p[1])) / 2 for p in (before, after)))
        near, far = _towards(corner, before, reach), _towards(corner, after, reach)
        said += f"L{near[0]:g} {near[1]:g}Q{corner[0]:g} {corner[1]:g} {far[0]:g} {far[1]:g}"
    return replace(part, text=said + f"L{points[-1][0]:g} {points[-1][1]:g}")


def _towards(corner: tuple[float, float], other: tuple[float, float], reach: float) -> tuple[float, float]:
    length = max(abs(other[0] - corner[0]), abs(other[1] - corner[1])) or 1.0
    return (
        round(corner[0] + (other[0] - corner[0]) * reach / length, 1),
        round(corner[1] + (other[1] - corner[1]) * reach / length, 1),
    )


# ---------------------------------------------------------------- the trunk in columns


def _stop(item: Item, place: int, outline: Outline) -> Piece:
    """One item of the trunk, with its name and the heads that begin behind it."""
    piece = _piece(item, "")
    if isinstance(item, Layer) and item.called:
        name = _text(common_name(item.called), _NOTE, "muted middle")
        piece = _stacked([replace(name, parts=tuple(name.moved(0, 3))), piece], 4.0, arrows=False)
    for head in outline.heads:
        if head.behind == place:
            piece = _with_head(piece, head)
    return piece


def _with_head(piece: Piece, head: Head) -> Piece:
    """A head at the right of the piece that it begins behind."""
    inner = _stacked([_piece(item, "") for item in head.items], _GAP)
    framed = _frame(inner, "auxiliary head", "", "", "box head", (), goes_on=False)
    y = max(0.0, piece.height - framed.height)
    axis = piece.right + 34 + framed.left
    line = Part("line", "aside", arrow=True, points=((piece.right, y + 14), (axis - framed.left, y + 14)))
    high = max(piece.height, y + framed.height)
    on = Part("line", "flow", points=((0.0, piece.height), (0.0, high)))  # the trunk beside a head that reaches further down
    return Piece((*piece.parts, on, line, *framed.moved(axis, y)), piece.left, axis + framed.right, high)


def _grid(item: Item) -> tuple[int, ...]:
    """The last two sides of an item's output: the grid, for images; empty where there is none."""
    shape = _out(item)
    return shape[-2:] if len(shape) == 3 and shape[-2:] != (1, 1) else ()


def _out(item: Item) -> tuple[int, ...]:
    return () if isinstance(item, Fork) else item.shape


def _columns(items: Sequence[Item], stops: Sequence[Piece], most: float, rule: str) -> list[list[int]]:
    """Places of items, column by column, none higher than `most`.

    rule: a column ends "behind pools" and behind the last block of a grid; "between grids", once it holds a block or three
    items; or "anywhere". What has no grid (the linear layers) goes where it fits.
    """
    columns: list[list[int]] = [[]]
    high = 0.0
    for place, stop in enumerate(stops):
        column = columns[-1]
        ends = False
        if column and _grid(items[place]):
            before, changes = items[column[-1]], _grid(items[place]) != _grid(items[column[-1]])
            if rule == "behind pools":
                ends = (_is_pool(before) and len(column) > 1) or (
                    isinstance(before, Block) and changes and not _is_pool(items[place])
                )
            elif rule == "between grids":
                ends = changes and (len(column) > 2 or any(isinstance(items[i], Block) for i in column))
        if column and (ends or high + _BETWEEN + stop.height > most):
            columns.append([])
            high = -_BETWEEN
        columns[-1].append(place)
        high += _BETWEEN + stop.height
    return columns


def _is_pool(item: Item) -> bool:
    return isinstance(item, Layer) and item.kind == "pool"


def _extent(columns: Sequence[Sequence[int]], stops: Sequence[Piece]) -> tuple[float, float]:
    wide = sum(max(stops[i].left for i in column) + max(stops[i].right for i in column) for column in columns)
    high = max(sum(stops[i].height for i in column) + _BETWEEN * len(column) for column in columns)
    return wide + _GUTTER * (len(columns) - 1) + 60, high + 2 * _BETWEEN + 12


def _placed(columns: Sequence[Sequence[int]], stops: Sequence[Piece], outline: Outline, start: Piece) -> list[Part]:
    """The marks of all columns and of the line that runs through them."""
    parts: list[Part] = []
    x, top = 0.0, 2 * _BETWEEN - 18
    leaving: tuple[float, float, float] | None = None  # where the line left the last column, and the gutter's middle
    for number, column in enumerate(columns):
        left, right = max(stops[i].left for i in column), max(stops[i].right for i in column)
        axis, y = x + left, top
        if leaving is None:
            parts += start.moved(axis, y - 52)
            parts.append(Part("line", "flow", arrow=True, points=((axis, y - 26), (axis, y))))
        else:
            at, bottom, gutter = leaving
            parts.append(
                Part(
                    "line",
                    "flow",
                    arrow=True,
                    points=((at, bottom), (at, bottom + 28), (gutter, bottom + 28), (gutter, y - 26), (axis, y - 26), (axis, y)),
                )
            )
        for i in column:
            stop = stops[i]
            parts += stop.moved(axis, y)
            y += stop.height
            is_last = i == column[-1]
            if is_last and number == len(columns) - 1:
                parts.append(Part("line", "flow", arrow=True, points=((axis, y), (axis, y + 24))))
                parts += _text(_scores(_out(outline.items[i])), _MAIN).moved(axis, y + 24)
            elif is_last:
                leaving = axis, y, x + left + right + _GUTTER / 2
                parts += _beside(_shape(_out(outline.items[i])), axis, y + 15)
            else:
                parts.append(Part("line", "flow", arrow=True, points=((axis, y), (axis, y + _BETWEEN))))
                parts += _beside(_shape(_out(outline.items[i])), axis, y + _BETWEEN / 2 + 4)
                y += _BETWEEN
        x += left + right + _GUTTER
    return parts


def _scores(shape: tuple[int, ...]) -> str:
    return f"{shape[0]:,} scores" if len(shape) == 1 else _shape(shape)


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{side:,}" for side in shape)


def _beside(text: str, x: float, y: float) -> list[Part]:
    return [Part("text", "muted", x + 9, y, width(text, _NOTE), _NOTE, text)] if text else []


def _named(item: Item) -> str:
    if isinstance(item, Layer):
        return item.words + (f" ({item.count} times)" if item.count > 1 else "")
    if isinstance(item, Block):
        return common_name(item.names) + (f" ({item.count} times)" if item.count > 1 else "")
    return " beside ".join(" and ".join(map(_named, branch)) for branch in item.branches)


# ---------------------------------------------------------------- pieces


def _piece(item: Item, within: str) -> Piece:
    """within: name of the block around it, which its own name need not repeat."""
    if isinstance(item, Layer):
        return _join(item) if item.kind == "join" else _box(item, bool(within))
    if isinstance(item, Fork):
        return _fork(item, None, within)
    inner = _stacked(_pieces(item.items, item.names[0]), _GAP)
    names = [name.removeprefix(within + ".") for name in item.names] if within else list(item.names)
    above, kind = names[0].rpartition(".")[0], item.kind.strip("_")
    if not kind and above:  # nothing to say but where it is
        names, kind = [name.rpartition(".")[2] for name in names], above
    times = f"× {item.count}" if item.count > 1 else ""
    return _frame(inner, common_name(names), kind, times, "box frame", item.names)


def _pieces(items: Sequence[Item], within: str) -> list[Piece]:
    """The pieces of a series; a fork and the join behind it are one."""
    pieces = []
    place = 0
    while place < len(items):
        item, after = items[place], items[place + 1] if place + 1 < len(items) else None
        if isinstance(item, Fork) and isinstance(after, Layer) and after.kind == "join":
            pieces.append(_fork(item, after, within))
            place += 1
        else:
            pieces.append(_piece(item, within))
        place += 1
    return pieces


def _box(layer: Layer, is_inner: bool) -> Piece:
    """A layer: what runs before it, what it does, what runs after it, in up to three lines.

    is_inner: within a block, where many stand side by side: there its colour alone says that it is a convolution.
    """
    words = layer.words.replace(" conv,", ",") if is_inner and layer.kind == "convolution" else layer.words
    lines = [(", ".join(layer.before), _NOTE, "muted middle")] if layer.before else []
    lines += [(words, _MAIN, "middle bold" if layer.kind != "small" else "middle")]
    lines += [(", ".join(layer.after), _NOTE, "muted middle")] if layer.after else []
    times = f"× {layer.count}" if layer.count > 1 else ""
    half = max(max(width(text, size, "bold" in look) for text, size, look in lines) + 22, 64) / 2
    parts = []
    if times:
        parts = [Part("rect", f"box {layer.kind}", -half + 5, 5, 2 * half, 0.0)]
    y = 7.0
    texts = []
    for text, size, look in lines:
        y += size
        texts.append(Part("text", look, 0, y - 1, width(text, size, "bold" in look), size, text))
        y += 4
    high = y + 4
    parts = [replace(part, height=high) for part in parts]
    parts.append(Part("rect", f"box {layer.kind}", -half, 0, 2 * half, high, names=" ".join(layer.names)))
    right = half
    if times:
        parts.append(Part("text", "bold", half + 11, high / 2 + 6, width(times, _MAIN, True), _MAIN, times))
        right = half + 15 + width(times, _MAIN, True)
    return Piece((*parts, *texts), half, right, high + (5 if times else 0))


def _join(layer: Layer, half: float = 0.0) -> Piece:
    """A circle for a sum or a product, a bar for a concatenation (`half`: how far it reaches at least); what follows below."""
    if layer.words in {"+", "×"}:
        half, high, size = 12.0, 24.0, 20
    else:
        half, high, size = max(half, width(layer.words, 13) / 2 + 14), 24.0, 13
    parts = [
        Part("rect", "box join", -half, 0, 2 * half, high, round=12.0, names=" ".join(layer.names)),
        Part("text", "middle", 0, high / 2 + (6.6 if size == 20 else 4.6), width(layer.words, size), size, layer.words),
    ]
    piece = Piece(tuple(parts), half, half, high)
    if not layer.after:
        return piece
    text = ", ".join(layer.after)
    wide = width(text, _NOTE) / 2 + 9
    small = (Part("rect", "box small", -wide, 0, 2 * wide, 20.0), Part("text", "middle", 0, 14.4, 2 * wide - 18, _NOTE, text))
    return _stacked([piece, Piece(small, wide, wide, 20.0)], 12.0)


def _stacked(pieces: Sequence[Piece], gap: float, arrows: bool = True) -> Piece:
    """One below the other, with arrows between them."""
    parts: list[Part] = []
    y = 0.0
    for number, piece in enumerate(pieces):
        if number:
            parts += [Part("line", "flow", arrow=True, points=((0.0, y), (0.0, y + gap)))] if arrows else []
            y += gap
        parts += piece.moved(0, y)
        y += piece.height
    return Piece(tuple(parts), max(p.left for p in pieces), max(p.right for p in pieces), y)


def _fork(fork: Fork, join: Layer | None, within: str) -> Piece:
    """Branches side by side, a shortcut as an arc at their right, and the join that they end in."""
    branches = [_stacked(_pieces(branch, within), _GAP) for branch in fork.branches]
    axes = [0.0]
    for before, branch in itertools.pairwise(branches):
        axes.append(axes[-1] + before.right + 14 + branch.left)
    middle = (axes[0] - branches[0].left + axes[-1] + branches[-1].right) / 2 if len(branches) > 1 else 0.0
    axes = [axis - middle for axis in axes]
    begin = 24.0 if len(branches) > 1 else 18.0 if fork.shortcut else 0.0
    inner = max(branch.height for branch in branches)
    parts = [Part("line", "flow", points=((0.0, 0.0), (0.0, 8.0)))] if len(branches) > 1 else []
    for axis, branch in zip(axes, branches, strict=True):
        down = (axis, begin + (inner - branch.height) / 2)
        points = ((0.0, 8.0), (axis, 8.0), down) if axis else ((0.0, 0.0), down)
        parts.append(Part("line", "flow", arrow=begin > 0, points=points))
        parts += branch.moved(*down)
    left, right = branches[0].left - axes[0], axes[-1] + branches[-1].right
    end = begin + inner
    high = end + 20.0
    half = 12.0
    if join is not None:
        is_circle = join.words in {"+", "×"}
        joined = _join(join, 0.0 if is_circle else max(abs(axes[0]), abs(axes[-1])) + 24 if len(axes) > 1 else 0.0)
        half = 12.0 if is_circle else joined.parts[0].width / 2
        top = end + (24.0 if is_circle and len(branches) > 1 else 18.0)
        parts += joined.moved(0, top)
        centre = top + 12
        for axis, branch in zip(axes, branches, strict=True):
            bottom = begin + (inner + branch.height) / 2
            aside = ((axis, bottom), (axis, centre), (half if axis > 0 else -half, centre))
            straight = ((axis, bottom), (axis, top))
            parts.append(Part("line", "flow", arrow=True, points=aside if is_circle and axis else straight))
        high = top + joined.height
        left, right = max(left, joined.left), max(right, joined.right)
    else:
        centre = high
        half = 0.0
        for axis, branch in zip(axes, branches, strict=True):
            bottom = begin + (inner + branch.height) / 2
            bent = ((axis, bottom), (axis, end + 12), (0.0, end + 12), (0.0, high))
            parts.append(Part("line", "flow", points=bent if axis else ((0.0, bottom), (0.0, high))))
    if fork.shortcut:
        right += 16
        arc = ((0.0, 5.0), (right, 5.0), (right, centre), (half, centre))
        parts.append(Part("line", "shortcut", arrow=join is not None, points=arc))
        right += 4
    if fork.is_tangled:
        note = _text("and further connections", _NOTE, "muted middle")
        parts += note.moved(0, high)
        left, right, high = max(left, note.left), max(right, note.right), high + note.height
    return Piece(tuple(parts), left, right, high)


def _frame(inner: Piece, name: str, kind: str, times: str, look: str, names: tuple[str, ...], goes_on: bool = True) -> Piece:
    """A frame with a title around a piece; several that look the same cast a shadow. goes_on: a line leaves it below."""
    pad = 9.0
    left, right = inner.left + pad, inner.right + pad
    wide, count = width(name, 15, True), 14 + width(times, 18, True) if times else 0.0
    is_tall = bool(kind) and wide + 8 + width(kind, 13) + count + 22 > left + right  # the kind goes below the name
    lacking = wide + count + (0 if is_tall or not kind else 8 + width(kind, 13)) + 22 - left - right
    if lacking > 0:
        left, right = left + lacking / 2, right + lacking / 2
    begin = 26.0 + (16 if is_tall else 0)
    high = begin + 7 + inner.height + 9
    rect = Part("rect", look, -left, 0, left + right, high, round=9.0, names=" ".join(names))
    parts = [replace(rect, names="").moved(6, 6)] if times else []
    parts += [rect, Part("text", "bold", -left + 11, 21, wide, 15, name)]
    if kind:
        x, y = (-left + 11, 38) if is_tall else (-left + 19 + wide, 21)
        parts.append(Part("text", "muted", x, y, width(kind, 13), 13, kind))
    if times:
        parts.append(Part("text", "bold end", right - 11, 22, width(times, 18, True), 18, times))
    parts.append(Part("line", "flow", points=((0.0, begin), (0.0, begin + 7))))
    parts += inner.moved(0, begin + 7)
    parts += [Part("line", "flow", points=((0.0, high - 9), (0.0, high)))] if goes_on else []
    return Piece(tuple(parts), left, right + (6 if times else 0), high + (6 if times else 0))


def _text(text: str, size: int, look: str = "middle") -> Piece:
    half = width(text, size) / 2
    return Piece((Part("text", look, 0, size, 2 * half, size, text),), half, half, size + 4.0)


def width(text: str, size_px: int, is_bold: bool = False) -> float:
    """Width of a text in the fonts that a slide will show, a tenth narrower than DejaVu Sans: in that it still fits its box."""
    return round(0.9 * letters.width(text, size_px, is_bold), 1)
