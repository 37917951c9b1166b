"""Pairs of classes with pictures: which are shown, and what a reader sees without the predictions or the images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from striate import predictions
from striate.classes import Classes
from striate.report import confusable, sections
from striate.report.gather import gather
from striate.report.write import write_report

FOLDER = "evaluation/val-center-0a1b2c"


@pytest.fixture
def run(tmp_path: Path, make_run: Callable[..., Path]) -> Path:
    """A run whose network takes every second image of "anchor" for "<script>…", and some the other way."""
    folder = make_run(tmp_path / "run")
    path = folder / FOLDER / "predictions.parquet"
    said = predictions.read(path)
    scores_NK = np.eye(12, dtype=np.float32)[said.labels] * 4
    for label, guess, count in ((0, 8, 12), (8, 0, 3)):
        rows = np.flatnonzero(said.labels == label)[:count]
        scores_NK[rows] = np.eye(12, dtype=np.float32)[guess] * np.linspace(3, 9, count, dtype=np.float32)[:, None]
    for label in range(12):  # other mistakes, spread evenly
        scores_NK[np.flatnonzero(said.labels == label)[-1]] = np.eye(12, dtype=np.float32)[(label + 5) % 12]
    replace(said, scores=scores_NK).write(path)
    return folder


def test_pair_has_up_to_four_pictures_of_its_mistakes(run: Path) -> None:
    facts = gather(run)
    said = sections.judged(facts)
    counts_KK = sections.counts_of(facts.main, said)
    assert said is not None and counts_KK is not None
    (shown,) = confusable.pairs(facts, counts_KK, said)
    assert (shown.pair.first, shown.pair.second) == (0, 8)
    assert (shown.pair.first_as_second, shown.pair.second_as_first) == (12, 3)
    assert [(one.mistake.label, one.mistake.predicted) for one in shown.mistakes] == [(0, 8), (0, 8), (8, 0), (8, 0)]
    assert all(one.uri is not None and one.uri.startswith("data:image/jpeg;base64,") for one in shown.mistakes)
    keys_0 = [key for key, label in zip(said.keys, said.labels, strict=True) if label == 0]
    assert [one.mistake.key for one in shown.mistakes][:2] == [keys_0[11], keys_0[10]]  # the surest first


def test_page_names_the_pair_safely(run: Path) -> None:
    page = write_report(run).read_text()
    section = page.split('<section id="confusable">')[1].split("</section>")[0]
    assert "<script" not in page
    assert "15 of 50 images (30.0\u202f%)" in section
    assert section.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    assert 'alt="anchor, taken for &lt;script&gt;alert(1)&lt;/script&gt;"' in section
    assert section.count("data:image/jpeg") == 4


def test_without_predictions_the_pair_has_no_pictures(run: Path) -> None:
    facts = gather(run)
    said = sections.judged(facts)
    counts_KK = sections.counts_of(facts.main, said)
    assert counts_KK is not None
    (shown,) = confusable.pairs(facts, counts_KK, None)
    assert shown.pair.mistakes == 15 and shown.mistakes == []


def test_images_that_are_gone_are_said(run: Path) -> None:
    data = json.loads((run / "data.json").read_text())
    data["splits"]["val"]["root"] = "/nowhere"
    (run / "data.json").write_text(json.dumps(data))
    section = write_report(run).read_text().split('<section id="confusable">')[1].split("</section>")[0]
    assert section.count("image not readable here") == 4 and "data:image" not in section


def test_no_pair_is_said_too(run: Path) -> None:
    path = run / FOLDER / "predictions.parquet"
    said = predictions.read(path)
    scores_NK = np.eye(12, dtype=np.float32)[said.labels]
    scores_NK[0] = np.eye(12, dtype=np.float32)[3]
    replace(said, scores=scores_NK).write(path)
    assert "No two classes are mistaken for each other more often than chance explains." in write_report(run).read_text()


def test_names_in_markup_and_many_letters(run: Path) -> None:
    known = Classes.read(run / "classes.json")
    Classes(known.ids, ('"><img src=x onerror=alert(1)>' * 20, *known.names[1:])).write(run / "classes.json")
    page = write_report(run).read_text()
    assert "<img src=x" not in page
    assert "&#34;&gt;&lt;img src=x onerror=alert(1)&gt;" in page.split('<section id="confusable">')[1]
