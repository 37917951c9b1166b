"""Accuracy against what it costs: MACs, and latency where it was measured; the area of a circle is the network's parameters.

After Canziani, Paszke, Culurciello 2016 (practical applications), figures 1 and 2. The accuracies are published ones, so
networks of another data set than most are not drawn, and those of another protocol are drawn apart; the foot says all of it.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markupsafe import Markup
from PIL import Image, ImageDraw

from striate import files
from striate.errors import UserError
from striate.measure.latency import Timing
from striate.measure.listing import Measured
from striate.report import templates
from striate.report.charts import plain, ticks
from striate.report.letters import font, width, wrapped

_LEFT, _TOP, _BELOW = 62, 52, 52  # room around a panel for its axes, in user units
_MANY = 20  # networks; more of them get smaller circles and a higher panel
_LETTERS = 13
# Okabe and Ito 2008, without the yellow that is too light for lines on white: told apart with any colour vision.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5d6770")
_DATA = re.compile(r"(Tiny ImageNet|ImageNet|CIFAR-100|CIFAR-10|MNIST)")
_ENDINGS = (".png", ".svg", ".html")


@dataclass(frozen=True)
class Point:
    """A network in the chart. Accuracies 0..1, None where nobody published one; latency_s: least, median, most of a pass."""

    name: str
    year: int | None
    parameters: int
    macs: int
    top1: float | None
    top5: float | None
    protocol: str
    source: str
    latency_s: tuple[float, float, float] | None

    @property
    def data(self) -> str:
        """The data set that the accuracy is of."""
        found = _DATA.search(self.protocol)
        return found[0] if found else self.protocol


@dataclass(frozen=True)
class Mark:
    """One mark: a circle (size: radius), a line to (x2, y2), or a text (size: height of its letters)."""

    kind: Literal["circle", "line", "text"]
    look: str
    x: float
    y: float
    size: float = 0.0
    text: str = ""
    colour: str = ""
    x2: float = 0.0
    y2: float = 0.0
    turned: bool = False


@dataclass(frozen=True)
class Drawn:
    """A chart in coordinates; `words` say it to those who cannot see it."""

    width: int
    height: int
    words: str
    marks: list[Mark]


def check_place(path: Path) -> None:
    """Raises UserError unless the name of the file says which kind of picture it is."""
    if path.suffix.lower() not in _ENDINGS:
        raise UserError(f"--chart {path}: expected a name that ends in .png, .svg or .html.")


def points(found: Sequence[Measured], timing: Timing | None) -> list[Point]:
    """What a chart shows of measured networks; parameters as in inference. timing: None, or passes of one image."""
    rows = {row.name: row for row in timing.rows if row.batch == 1} if timing is not None else {}
    made = []
    for one in found:
        said, row = one.subject.published, rows.get(one.subject.name)
        made.append(
            Point(
                one.subject.name,
                one.subject.year,
                one.cost.parameters_without_aux,
                one.cost.macs,
                said.top1 if said else None,
                said.top5 if said else None,
                said.protocol if said else "",
                said.source if said else "",
                (row.least_s, row.median_s, row.most_s) if row else None,
            )
        )
    return made


def check_scored(shown: Sequence[Point]) -> list[Point]:
    """The networks with an accuracy. Raises UserError where there is none, so that nothing can be drawn."""
    scored = [point for point in shown if point.top1 is not None]
    if not scored:
        raise UserError(
            f"--chart: nobody published an accuracy of {_names(shown)}, so there is nothing to draw. "
            "Name networks that `striate measure` lists with one."
        )
    return scored


def write_chart(path: Path, shown: Sequence[Point], timing: Timing | None) -> Path:
    """Writes the chart, whole or not at all: a picture, or a page with the chart and a table that needs nothing else.

    timing: where the latencies are from. Returns the path. Raises UserError for another ending, where no network has
    an accuracy to draw, and where the file cannot be written.
    """
    check_place(path)
    drawn = lay_out(shown, "" if timing is None else timing.conditions)
    pages, sheet = templates.templates(), templates.style("chart.css", "cost.css")
    form = path.suffix.lower()
    content: bytes | str
    if form == ".png":
        content = _as_png(drawn)
    elif form == ".svg":
        content = pages.get_template("cost.svg.jinja").render(d=drawn, style=sheet)
    else:
        chart = Markup(pages.get_template("cost.svg.jinja").render(d=drawn, style=None))
        whole = templates.style("chart.css", "report.css", "cost.css")
        timed = any(point.latency_s for point in shown)
        content = templates.page(pages, "cost.html.jinja", whole, {"points": shown, "chart": chart, "timed": timed})
    files.write_whole(path, content)
    return path


# ---------------------------------------------------------------- layout


def lay_out(shown: Sequence[Point], machine: str) -> Drawn:
    """Places one panel or two, the legend of areas, and at the foot what has to be known beside the numbers.

    machine: in words, what the latencies depend on.
    """
    scored = check_scored(shown)
    data = Counter(point.data for point in scored).most_common(1)[0][0]
    drawn = [point for point in scored if point.data == data]
    usual = Counter(point.protocol for point in drawn).most_common(1)[0][0]
    families = list(dict.fromkeys(_family(point.name) for point in drawn))
    colours = {point.name: _COLOURS[families.index(_family(point.name)) % len(_COLOURS)] for point in drawn}
    most = max(point.parameters for point in drawn)
    timed = [point for point in drawn if point.latency_s is not None]
    panel = 620 if timed else 940
    high, greatest = (700, 26.0) if len(drawn) > _MANY else (470, 34.0)

    def radius(parameters: float) -> float:
        return round(greatest * math.sqrt(parameters / most), 2)

    size = panel, high
    marks = _panel(0, size, drawn, lambda point: (point.macs,) * 3, "MACs of one image", _count, radius, colours, usual, data)
    if timed:
        latency = "latency of one image, ms (median; line: least to most, cut at the edges)"
        marks += _panel(
            panel, size, timed, lambda point: point.latency_s or (0.0,) * 3, latency, _ms, radius, colours, usual, data
        )
    wide = panel * 2 if timed else panel
    y = float(high + _TOP + 8)
    marks += _sizes(most, radius, y)
    y += 2 * greatest + 26
    for line in _foot(shown, drawn, usual, data, machine if timed else ""):
        for part in wrapped(line, 12, wide - 32):
            marks.append(Mark("text", "muted", 16, y, 12, part))
            y += 17
    ends = ", ".join(f"{point.name} {100 * (point.top1 or 0):.1f} % with {_count(point.macs)} MACs" for point in drawn)
    return Drawn(wide, math.ceil(y + 4), f"Published top-1 on {data} against cost: {ends}.", marks)


def _family(name: str) -> str:
    """Networks of one family have one colour: the first word of the name without its library, and whether it squeezes."""
    return (re.match(r"(?:se-)?[a-z]+", name.rpartition("/")[2].lower()) or [name])[0]


def _count(value: float) -> str:
    for unit, of in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= of:
            return f"{float(f'{value / of:.3g}'):g}\u202f{unit}"
    return f"{value:g}"


def _ms(value: float) -> str:
    return plain(float(f"{1000 * value:.3g}"))


def _panel(
    left: float,
    size: tuple[int, int],
    drawn: Sequence[Point],
    cost: Callable[[Point], tuple[float, float, float]],
    unit: str,
    written: Callable[[float], str],
    radius: Callable[[float], float],
    colours: dict[str, str],
    usual: str,
    data: str,
) -> list[Mark]:
    """Axes, circles and labels of one panel. cost: least, middle and most of a network's place on the horizontal axis."""
    low_x, high_x, low_y, high_y = left + _LEFT, left + size[0] - 16.0, float(_TOP + size[1] - _BELOW), float(_TOP)
    inner = 14 + max(radius(point.parameters) for point in drawn)
    costs = [math.log10(cost(point)[1]) for point in drawn]
    tops = [100 * (point.top1 or 0.0) for point in drawn]
    from_x, to_x = _spanned(min(costs), max(costs), 0.15)
    from_y, to_y = _spanned(min(tops), max(tops), 1.0)

    def x_at(value: float) -> float:
        share = (math.log10(value) - from_x) / (to_x - from_x)
        return round(low_x + inner + share * (high_x - low_x - 2 * inner), 1)

    def y_at(value: float) -> float:
        return round(low_y - inner - (value - from_y) / (to_y - from_y) * (low_y - high_y - 2 * inner), 1)

    marks = [
        Mark("text", "bold", left + 16, 24, 15, f"Published top-1 on {data} (%) against {unit.split(',')[0].split(' of ')[0]}")
    ]
    slope = (to_y - from_y) / (low_y - high_y - 2 * inner)
    for tick in ticks(max(0.0, from_y - inner * slope), min(100.0, to_y + inner * slope), 8):
        y = y_at(tick)
        marks += [Mark("line", "grid", low_x, y, x2=high_x, y2=y), Mark("text", "muted end", low_x - 8, y + 4, 12, f"{tick:g}")]
    for tick in _decades(10 ** (from_x - 0.2), 10 ** (to_x + 0.2)):
        x = x_at(tick)
        if low_x + 4 <= x <= high_x - 4:
            marks += [
                Mark("line", "grid", x, low_y, x2=x, y2=high_y),
                Mark("text", "muted middle", x, low_y + 18, 12, written(tick)),
            ]
    marks += [Mark("line", "axis", low_x, low_y, x2=high_x, y2=low_y), Mark("line", "axis", low_x, low_y, x2=low_x, y2=high_y)]
    marks.append(Mark("text", "muted middle", (low_x + high_x) / 2, low_y + 40, 13, unit))
    circles = []
    for point in sorted(drawn, key=lambda point: -point.parameters):  # the large ones first, so that none is hidden
        least, middle, most = cost(point)
        x, y, reach = x_at(middle), y_at(100 * (point.top1 or 0.0)), radius(point.parameters)
        colour = colours[point.name]
        if most > least:
            ends = [min(max(x_at(value), low_x), high_x) for value in (least, most)]
            marks.append(Mark("line", "spread", ends[0], y, colour=colour, x2=ends[1], y2=y))
        numbers = f"{point.parameters:,} parameters, {point.macs:,} MACs; {point.protocol}"
        said = f"{point.name}: {100 * (point.top1 or 0):.2f} % top-1, {numbers}"
        marks.append(Mark("circle", "network" if point.protocol == usual else "network apart", x, y, reach, said, colour))
        circles.append((point.name, x, y, reach))
    return marks + _labels(circles, (low_x, high_y, high_x, low_y))


def _spanned(low: float, high: float, least: float) -> tuple[float, float]:
    """The two ends, moved apart where they are nearly one."""
    lacking = max(0.0, 2 * least - (high - low)) / 2
    return low - lacking, high + lacking


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two ends."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [times * 10.0**power for power in powers for times in (1, 2, 5) if low <= times * 10.0**power <= high]


_Rect = tuple[float, float, float, float]  # left, top, right, bottom


def _labels(circles: Sequence[tuple[str, float, float, float]], within: _Rect) -> list[Mark]:
    """A name for each circle where it hides least: tried around the circle at growing distances, with a line to those afar."""
    placed: list[_Rect] = []
    best: tuple[float, _Rect, int] | None
    marks: list[Mark] = []
    for name, x, y, size in sorted(circles, key=lambda circle: (circle[2], circle[1])):
        wide = width(name, _LETTERS)
        best = None
        for away, turn in itertools.product((3, 12, 24, 40, 60, 84), range(0, 360, 30)):
            reach = size + away
            middle_x = x + math.cos(math.radians(turn)) * (reach + wide / 2)
            middle_y = y - math.sin(math.radians(turn)) * (reach + _LETTERS / 2)
            rect = (middle_x - wide / 2, middle_y - _LETTERS / 2 - 1, middle_x + wide / 2, middle_y + _LETTERS / 2 + 2)
            if rect[0] < within[0] + 2 or rect[2] > within[2] or rect[1] < within[1] or rect[3] > within[3]:
                continue
            hidden = sum(_shared(rect, other) for other in placed) * 8
            hidden += sum(_shared(rect, (cx - r, cy - r, cx + r, cy + r)) for _, cx, cy, r in circles)
            hidden += 4.0 * away + (0 if turn % 180 == 0 else 6) + turn / 360
            if best is None or hidden < best[0]:
                best = hidden, rect, away
        if best is None:
            continue
        _, rect, away = best
        placed.append(rect)
        if away > 3:
            end_x, end_y = min(max(x, rect[0]), rect[2]), min(max(y, rect[1]), rect[3])
            far = math.hypot(end_x - x, end_y - y) or 1.0
            start = round(x + (end_x - x) / far * size, 1), round(y + (end_y - y) / far * size, 1)
            marks.append(Mark("line", "leader", *start, x2=round(end_x, 1), y2=round(end_y, 1)))
        marks.append(Mark("text", "label middle", round((rect[0] + rect[2]) / 2, 1), round(rect[3] - 4, 1), _LETTERS, name))
    return marks


def _shared(one: _Rect, other: _Rect) -> float:
    """Area that two rectangles share."""
    wide, high = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _sizes(most: int, radius: Callable[[float], float], y: float) -> list[Mark]:
    """The legend: circles of round numbers of parameters."""
    power = 10.0 ** math.floor(math.log10(most))
    top = next(times * power for times in (5, 2, 1) if times * power <= most)
    middle = y + radius(most)
    words = "area: parameters without auxiliary heads"
    marks = [Mark("text", "muted", 16, middle + 4, 13, words)]
    x = 16 + width(words, 13) + 40
    for value in (top / 10, top / 5 * 2 if str(top)[0] == "5" else top / 2, top):
        size, said = radius(value), _count(value)
        marks.append(Mark("circle", "size", x + size, middle, size))
        marks.append(Mark("text", "muted", x + 2 * size + 7, middle + 4, 13, said))
        x += 2 * size + 7 + width(said, 13) + 26
    return marks


def _foot(shown: Sequence[Point], drawn: Sequence[Point], usual: str, data: str, machine: str) -> list[str]:
    """What has to be known beside the numbers, and which networks are not drawn, and why."""
    lines = [f"Accuracies are published ones. Protocol: {usual}."]
    others = dict.fromkeys(point.protocol for point in drawn if point.protocol != usual)
    said = [f"{protocol}: {_names(point for point in drawn if point.protocol == protocol)}" for protocol in others]
    lines += [f"Dashed, of another protocol: {'; '.join(said)}."] if said else []
    lines += [f"Latency here: {machine}."] if machine else []
    without = [point for point in shown if point.top1 is None]
    lines += [f"Not drawn, without a published accuracy: {_names(without)}."] if without else []
    elsewhere = [point for point in shown if point.top1 is not None and point.data != data]
    said = [f"{other}: {_names(p for p in elsewhere if p.data == other)}" for other in dict.fromkeys(p.data for p in elsewhere)]
    lines += [f"Not drawn, their accuracy is of other data: {'; '.join(said)}."] if said else []
    return lines


def _names(some: Iterable[Point]) -> str:
    return ", ".join(point.name for point in some)


# ---------------------------------------------------------------- as pixels

_TIMES, _FINE = 2, 3  # pixels for a unit, and finer still while it is drawn
_INKS = {"muted": "#59626d", "grid": "#eceff1", "axis": "#59626d", "leader": "#59626d", "size": "#59626d"}


def _as_png(drawn: Drawn) -> bytes:
    """The same marks as a picture on white, two pixels for a unit."""
    scale = _TIMES * _FINE
    picture = Image.new("RGB", (drawn.width * scale, drawn.height * scale), "#ffffff")
    for mark in drawn.marks:
        ink = mark.colour or _INKS.get(mark.look.split()[0], "#1b1f24")
        if mark.kind == "circle":
            _circle(picture, mark, ink, scale)
        elif mark.kind == "line":
            heavy = {"spread": 1.6, "leader": 0.8}.get(mark.look, 1.0)
            ends = [side * scale for side in (mark.x, mark.y, mark.x2, mark.y2)]
            ImageDraw.Draw(picture).line(ends, fill=ink, width=round(heavy * scale))
    picture = picture.resize((drawn.width * _TIMES, drawn.height * _TIMES), Image.Resampling.BOX)
    draw = ImageDraw.Draw(picture)
    for mark in drawn.marks:
        if mark.kind == "text":
            _write(draw, mark)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _circle(picture: Image.Image, mark: Mark, ink: str, scale: int) -> None:
    around = [round((centre + side * mark.size) * scale) for side in (-1, 1) for centre in (mark.x, mark.y)]
    box = (around[0] - scale, around[1] - scale, around[2] + scale, around[3] + scale)
    part = picture.crop(box)
    inside = [around[0] - box[0], around[1] - box[1], around[2] - box[0], around[3] - box[1]]
    if mark.look.startswith("network"):
        veil = Image.new("L", part.size, 0)
        ImageDraw.Draw(veil).ellipse(inside, fill=round(0.32 * 255))
        part.paste(Image.new("RGB", part.size, ink), mask=veil)
    heavy = round(1.6 * scale)
    if mark.look.endswith("apart"):
        around_px = 2 * math.pi * max(mark.size, 1.0)
        dashes = max(4, round(around_px / 8))
        for place in range(dashes):
            begin = 360 * place / dashes
            ImageDraw.Draw(part).arc(inside, begin, begin + 0.62 * 360 / dashes, fill=ink, width=heavy)
    else:
        ImageDraw.Draw(part).ellipse(inside, outline=ink, width=heavy if mark.look == "network" else scale)
    picture.paste(part, box[:2])


def _write(draw: ImageDraw.ImageDraw, mark: Mark) -> None:
    looks = mark.look.split()
    letters = font(round(mark.size * _TIMES), "bold" in looks)
    anchor = "ms" if "middle" in looks else "rs" if "end" in looks else "ls"
    halo = 4 if "label" in looks else 0
    draw.text(
        (mark.x * _TIMES, mark.y * _TIMES),
        mark.text,
        fill=_INKS.get(looks[0], "#1b1f24"),
        font=letters,
        anchor=anchor,
        stroke_width=halo,
        stroke_fill="#ffffff",
    )
