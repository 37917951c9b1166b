"""`report.html`: the page of a run, in one file that needs nothing else, and its curves as files in plots/."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from striate import files
from striate.report import charts, sections
from striate.report.gather import Facts, gather, predictions_of

_PAGES = Path(__file__).parent / "pages"


def write_report(run_folder: Path) -> Path:
    """Writes `report.html` and `plots/*.svg` into a run folder, from that folder's files and the images they name.

    The page is complete in itself: no script, no network (its content policy forbids both), pictures and plots
    inside. What is missing is said in a sentence. The same folder gives the same bytes.
    Returns the path of the page.
    Raises UserError when this is no run folder, or (as ResourceError too) when it cannot be written to.
    """
    facts = gather(run_folder)
    pages = _pages()
    drawn = [charts.lay_out(chart) for chart in sections.curves(facts)]
    page = _page(pages, facts, drawn)
    plots, report = run_folder / "plots", run_folder / "report.html"
    try:
        plots.mkdir(exist_ok=True)
        for one in drawn:
            files.write_whole(plots / f"{one.chart.slug}.svg", _svg(pages, one, style=_style("chart.css")))
        files.write_whole(report, page.encode("utf-8", "backslashreplace"))  # a file name need not be UTF-8
    except OSError as error:
        raise files.refuse(error, run_folder, "writing the report") from error
    return report


def _pages() -> Environment:
    """The templates. Everything that is put into a page is escaped: class and file names come from strangers."""
    pages = Environment(
        loader=FileSystemLoader(_PAGES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters |= {"percent": _percent, "thousands": "{:,}".format}
    return pages


def _percent(share: float, digits: int = 1) -> str:
    """A share 0..1 as a percentage, with a thin space: "92.4 %"."""
    return f"{100 * share:.{digits}f}\u202f%"


def _style(*names: str) -> Markup:
    """Style sheets of ours, whole; the only text that is not escaped."""
    return Markup("\n".join((_PAGES / name).read_text(encoding="utf-8") for name in names))


def _svg(pages: Environment, drawn: charts.Drawn, style: Markup | None = None) -> Markup:
    """A line chart as SVG; with `style` it stands alone."""
    return Markup(pages.get_template("lines.svg.jinja").render(d=drawn, words=sections.in_words(drawn.chart), style=style))


def _page(pages: Environment, facts: Facts, drawn: list[charts.Drawn]) -> str:
    main = facts.main
    said = predictions_of(facts, main) if main else None
    counts_KK = sections.counts_of(main, said)
    scored = sections.scored(facts, counts_KK) if counts_KK is not None and counts_KK.sum() else None
    matrix = pages.get_template("matrix.svg.jinja").render(m=scored.matrix) if scored and scored.matrix else ""
    mosaic_split, mosaic = sections.mosaic(facts)
    mistakes = sections.mistakes(facts, said)
    if not mosaic:
        facts.gaps.append("No image of the data could be read, so there is no mosaic: the data is not where the run found it.")
    elif mistakes and not any(one.uri for one in mistakes):
        facts.gaps.append("The images of the mistakes could not be read: they are not where the run found its data.")
    style = _style("chart.css", "report.css")
    values: dict[str, Any] = {
        "style": style,
        "style_hash": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii"),
        "name": facts.folder.resolve().name,
        "facts": facts,
        "title": facts.title,
        "headline": sections.headline(facts),
        "state": sections.state(facts),
        "remarks": sections.notes(facts),
        "findings": sections.findings(facts),
        "splits": sections.split_rows(facts),
        "notes": sections.data_notes(facts),
        "mosaic_split": mosaic_split,
        "mosaic": mosaic,
        "charts": [_svg(pages, one) for one in drawn],
        "chart_notes": sections.curve_notes(facts, drawn),
        "main": main,
        "scored": scored,
        "matrix": Markup(matrix),
        "mistakes": mistakes,
        "recipe_base": sections.recipe_base(facts),
        "recipe": sections.recipe_groups(facts),
        "bad_files": sections.bad_files(facts),
        "bad_shown": sections.BAD_SHOWN,
        "environment": sections.environment(facts),
        "commands": sections.commands(facts),
    }
    return pages.get_template("report.html.jinja").render(values)
