"""`report.html`: the page of a run, in one file that needs nothing else, and its curves as files in plots/."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from striate import files
from striate.report import charts, confidence, confusable, diagnosis, evaluations, sections, templates
from striate.report.gather import Facts, gather


def write_report(run_folder: Path) -> Path:
    """Writes `report.html` and `plots/*.svg` into a run folder, from that folder's files and the images they name.

    The page is complete in itself: no script, no network (its content policy forbids both), pictures and plots
    inside. What is missing is said in a sentence. The same folder gives the same bytes.
    Returns the path of the page.
    Raises UserError when this is no run folder, or (as ResourceError too) when it cannot be written to.
    """
    facts = gather(run_folder)
    pages = templates.templates()
    drawn = [charts.lay_out(chart) for chart in sections.curves(facts)]
    page = _page(pages, facts, drawn)
    plots, report = run_folder / "plots", run_folder / "report.html"
    try:
        plots.mkdir(exist_ok=True)
        for one in drawn:
            files.write_whole(plots / f"{one.chart.slug}.svg", templates.svg(pages, one, style=templates.style("chart.css")))
        files.write_whole(report, page.encode("utf-8", "backslashreplace"))  # a file name need not be UTF-8
    except OSError as error:
        raise files.refuse(error, run_folder, "writing the report") from error
    return report


def _page(pages: Environment, facts: Facts, drawn: list[charts.Drawn]) -> str:
    main = facts.main
    said = sections.judged(facts)
    counts_KK = sections.counts_of(main, said)
    scored = sections.scored(facts, counts_KK) if counts_KK is not None and counts_KK.sum() else None
    matrix = pages.get_template("matrix.svg.jinja").render(m=scored.matrix) if scored and scored.matrix else ""
    mosaic_split, mosaic = sections.mosaic(facts)
    mistakes = sections.mistakes(facts, said)
    if not mosaic:
        facts.gaps.append("No image of the data could be read, so there is no mosaic: the data is not where the run found it.")
    elif mistakes and not any(one.uri for one in mistakes):
        facts.gaps.append("The images of the mistakes could not be read: they are not where the run found its data.")
    worth = confidence.confidence(facts)
    said_by_doctor = diagnosis.diagnosis(facts)
    values = {
        "name": facts.folder.resolve().name,
        "facts": facts,
        "title": facts.title,
        "headline": sections.headline(facts),
        "state": sections.state(facts),
        "remarks": sections.notes(facts),
        "diagnosis": said_by_doctor,
        "plots": [templates.plot(pages, one.plot) if one.plot is not None else None for one in said_by_doctor.findings],
        "splits": sections.split_rows(facts),
        "notes": sections.data_notes(facts),
        "mosaic_split": mosaic_split,
        "mosaic": mosaic,
        "charts": [templates.svg(pages, one) for one in drawn],
        "chart_notes": sections.curve_notes(facts, drawn),
        "main": main,
        "scored": scored,
        "without_images": [facts.title(label) for label in scored.without_images[:10]] if scored else [],
        "matrix": Markup(matrix),
        "confusable": confusable.pairs(facts, counts_KK, said) if scored and counts_KK is not None else [],
        "mistakes": mistakes,
        "confidence": worth,
        "reliability": templates.reliability(pages, worth.diagram) if worth.diagram else "",
        "coverage": templates.svg(pages, charts.lay_out(worth.coverage)) if worth.coverage else "",
        "evaluations": evaluations.rows(facts),
        "evaluation_notes": evaluations.notes(facts),
        "recipe_base": sections.recipe_base(facts),
        "recipe": sections.recipe_groups(facts),
        "bad_files": sections.bad_files(facts),
        "bad_shown": sections.BAD_SHOWN,
        "environment": sections.environment(facts),
        "commands": sections.commands(facts),
    }
    return templates.page(pages, "report.html.jinja", templates.style("chart.css", "report.css"), values)
