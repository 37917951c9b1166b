"""The page: complete in itself, safe with strangers' names, honest about gaps, and the same for the same folder."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from striate import predictions
from striate.errors import ResourceError, UserError
from striate.evaluate import metrics
from striate.report import confusable, ranking
from striate.report.write import write_report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path]) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "photos")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy whose files a test may break; the photos stay where they are."""
    return Path(shutil.copytree(made, tmp_path / "photos"))


class _Tags(HTMLParser):
    """Every tag with its attributes, and the text between tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "rect", "path", "circle"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _pairs(run: Path) -> list[ranking.MutualPair]:
    said = predictions.read(run / "evaluation/val-center-0a1b2c/predictions.parquet")
    return ranking.mutual_pairs(metrics.confusion(said.scores, said.labels), confusable.PAIRS)


def test_page_needs_nothing_from_outside(run: Path) -> None:
    path = write_report(run)
    page = path.read_text()
    parsed = _Tags(page)
    assert path == run / "report.html"
    assert path.stat().st_size < 3_000_000
    assert parsed.open == []  # every tag is closed, in order
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in parsed.tags}
    for tag, values in parsed.tags:
        assert not any(name.startswith("on") or name in {"href", "srcset", "style", "action"} for name in values), tag
        assert (values.get("src") or "data:image/").startswith("data:image/")
    assert "url(" not in page
    assert "@import" not in page
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_content_policy_forbids_scripts_and_network(run: Path) -> None:
    page = write_report(run).read_text()
    policy = next(values["content"] for tag, values in _Tags(page).tags if values.get("http-equiv") == "Content-Security-Policy")
    style = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_names_of_strangers_are_escaped(run: Path) -> None:
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "command": "striate train '</pre><script>x()</script>'"}))
    (run / "findings.json").write_text(json.dumps([{"<b>finding</b>": "<script>y()</script>"}]))
    page = write_report(run).read_text()
    assert "<script" not in page
    assert "<img onerror" not in page
    assert "<b>" not in page
    text = _Tags(page).text
    for name in (
        "<script>alert(1)</script>",
        "jug & cup",
        "empty file <b>",
        "</pre><script>x()</script>",
        "<script>y()</script>",
    ):
        assert name in text
    assert "<img onerror=x> 00000.jpg" in page.replace("&lt;", "<").replace("&gt;", ">")


def test_page_shows_the_result_with_its_protocol(run: Path) -> None:
    text = _Tags(write_report(run).read_text()).text
    summary = json.loads(next(run.glob("evaluation/*/summary.json")).read_text())
    assert f"{100 * summary['top1']:.1f}\u202f%" in text
    assert summary["protocol"] in text
    assert "95\u202f% interval" in text
    assert "chosen by its score on these same images" in text
    assert "The training is done." in text
    assert "resumed once" in text
    assert "striate train 'my photos' --recipe small" in text
    assert "truncated JPEG" in text
    assert "10 % of each class are held out" in text
    assert f"Macro-F1{summary['macro_f1']:.3f}" in text
    assert "Not shown" not in text


def test_pictures_are_of_the_mosaic_and_the_mistakes(run: Path) -> None:
    images = [values for tag, values in _Tags(write_report(run).read_text()).tags if tag == "img"]
    assert len(images) == 24 + 12 + 4 * len(_pairs(run))
    assert all((values["src"] or "").startswith("data:image/jpeg;base64,") and values["alt"] for values in images)


def test_curves_are_files_too(run: Path) -> None:
    write_report(run)
    names = {path.stem for path in (run / "plots").glob("*.svg")}
    assert names == {"loss", "top1", "top5", "learning-rate", "images-per-s", "waiting"}
    for path in (run / "plots").glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert "nan" not in re.sub(r"<style>.*</style>", "", path.read_text(), flags=re.DOTALL).lower()


def test_same_folder_same_bytes(run: Path) -> None:
    first = {path: path.read_bytes() for path in [write_report(run), *(run / "plots").iterdir()]}
    write_report(run)
    assert {path: path.read_bytes() for path in first} == first


@pytest.mark.parametrize(
    "name", ["recipe.json", "classes.json", "view.json", "environment.json", "log.jsonl", "data.json", "evaluation"]
)
def test_missing_part_is_said(run: Path, name: str) -> None:
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    text = _Tags(write_report(run).read_text()).text
    assert f"{name} is missing." in text or "No evaluation has been written yet" in text
    assert "Commands" in text


@pytest.mark.parametrize(
    "name",
    ["recipe.json", "classes.json", "view.json", "data.json", "best.json", "log.jsonl", "index-val.parquet"]
    + [
        f"evaluation/val-center-0a1b2c/{name}"
        for name in ("summary.json", "confusion.csv", "reliability.csv", "coverage.csv", "predictions.parquet", "bad_files.csv")
    ],
)
@pytest.mark.parametrize("content", [b"", b'{"ids": 3, "splits": {"val": 7}}', b"\xff\x00[1, 2"])
def test_broken_file_never_stops_the_report(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    assert "Commands" in _Tags(write_report(run).read_text()).text


@pytest.mark.parametrize("content", ["[]", '"text"', '{"top1": "high", "top1_interval": [null, 1], "loss": null, "warnings": 3}'])
def test_odd_json_never_stops_the_report(run: Path, content: str) -> None:
    for path in [*run.glob("*.json"), *run.glob("evaluation/*/summary.json")]:
        path.write_text(content)
    (run / "log.jsonl").write_text(
        '{"kind": "step", "step": "x"}\n{"kind": 3}\n[]\n{"kind": "step", "step": 1, "loss": {}, "epoch": "one"}\n'
    )
    assert "Commands" in _Tags(write_report(run).read_text()).text


def test_images_that_are_gone_are_said(run: Path) -> None:
    data = json.loads((run / "data.json").read_text())
    for split in data["splits"].values():
        split["root"] = "/nowhere"
    (run / "data.json").write_text(json.dumps(data))
    text = _Tags(write_report(run).read_text()).text
    assert "there is no mosaic" in text
    assert "image not readable here" in text


def test_without_evaluation_the_log_gives_the_result(run: Path) -> None:
    shutil.rmtree(run / "evaluation")
    text = _Tags(write_report(run).read_text()).text
    assert "The best score in the log." in text


def test_without_predictions_the_confusion_table_serves(run: Path) -> None:
    (run / "evaluation/val-center-0a1b2c/predictions.parquet").unlink()
    text = _Tags(write_report(run).read_text()).text
    assert "Most confused" in text
    assert "No saved predictions" in text


def test_file_name_that_is_no_utf8(run: Path) -> None:
    with open(run / "log.jsonl", "a") as file:
        file.write("\n" + json.dumps({"kind": "bad", "step": 600, "key": "caf\udce9.jpg", "reason": "empty file"}) + "\n")
    assert "caf\\udce9.jpg" in write_report(run).read_text()


def test_many_classes_get_a_picture_and_two_tables(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    page = write_report(make_run(tmp_path / "many", classes=200, images=12, resumes=tuple(range(50, 560, 50)))).read_text()
    heat_map = next(values["src"] or "" for tag, values in _Tags(page).tags if values.get("class") == "heat")
    file = tmp_path / "heat.png"
    file.write_bytes(base64.b64decode(heat_map.removeprefix("data:image/png;base64,")))
    with Image.open(file) as picture:
        assert picture.size == (200, 200)
        assert np.asarray(picture.convert("RGBA"))[..., 3].max() == 255
    assert "Best classes" in page
    assert "Worst classes" in page
    assert "resumed 11 times" in page


def test_the_run_of_a_release_gives_a_report(tmp_path: Path) -> None:
    run = Path(shutil.copytree(Path(__file__).parents[1] / "golden/0.1.0", tmp_path / "golden"))
    text = _Tags(write_report(run).read_text()).text
    assert "The best score in the log." in text
    assert "Confidence" not in text and "Mistaken for each other" not in text


def test_a_summary_from_before_confidence_was_kept_gives_a_report(run: Path) -> None:
    folder = run / "evaluation/val-center-0a1b2c"
    summary = json.loads((folder / "summary.json").read_text())
    for name in ("macro_f1", "calibration_error", "calibration_error_interval", "coverage", "strata", "labels", "left_out"):
        del summary[name]
    (folder / "summary.json").write_text(json.dumps(summary))
    for name in ("reliability.csv", "coverage.csv", "images.csv"):
        (folder / name).unlink()
    text = _Tags(write_report(run).read_text()).text
    assert "Macro-F1" not in text and "Calibration error" not in text
    assert "has no reliability.csv and no coverage.csv" in text
    assert f"{100 * summary['top1']:.1f}\u202f%" in text


def test_not_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        write_report(tmp_path / "absent")
    with pytest.raises(UserError, match="no run folder: it has neither"):
        write_report(tmp_path)


def test_folder_that_cannot_be_written(run: Path) -> None:
    (run / "plots").write_text("in the way")
    with pytest.raises(ResourceError, match="writing the report"):
        write_report(run)
