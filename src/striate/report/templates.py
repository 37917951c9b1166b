"""Templates and style sheets of `pages/`, and how a page is put together from them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from striate.report import charts
from striate.report.confidence import Diagram
from striate.report.diagnosis import Plot

_PAGES = Path(__file__).parent / "pages"


def templates() -> Environment:
    """The templates. Everything that is put into a page is escaped: class and file names come from strangers."""
    pages = Environment(
        loader=FileSystemLoader(_PAGES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters |= {"percent": charts.rounded, "span": charts.span, "thousands": "{:,}".format}
    return pages


def style(*names: str) -> Markup:
    """Style sheets of ours, whole; the only text that is not escaped."""
    return Markup("\n".join((_PAGES / name).read_text(encoding="utf-8") for name in names))


def svg(pages: Environment, drawn: charts.Drawn, style: Markup | None = None) -> Markup:
    """A line chart as SVG; with `style` it stands alone."""
    return Markup(pages.get_template("lines.svg.jinja").render(d=drawn, words=charts.in_words(drawn.chart), style=style))


def reliability(pages: Environment, drawn: Diagram) -> Markup:
    """A reliability diagram as SVG."""
    return Markup(pages.get_template("reliability.svg.jinja").render(d=drawn))


def plot(pages: Environment, drawn: Plot) -> Markup:
    """The small plot of a finding as SVG."""
    return Markup(pages.get_template("curve.svg.jinja").render(p=drawn))


def page(pages: Environment, name: str, sheet: Markup, values: Mapping[str, Any]) -> str:
    """A page of its template and values. Its content policy allows `sheet`, pictures within the page, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode("ascii")
    return pages.get_template(name).render({**values, "style": sheet, "style_hash": digest})
