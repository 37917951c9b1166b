"""The page of several runs: what it says, what it refuses to compare, and what it survives."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from striate import cli, predictions
from striate.errors import ResourceError, UserError
from striate.evaluate import metrics
from striate.evaluate.compare import mcnemar
from striate.report import compare
from striate.report.compare import write_comparison
from striate.report.gather import gather


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path]) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "photos")


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Callable[..., list[Path]]:
    """runs("a", "b"): copies of one run under these names; the photos stay where they are."""

    def copies(*names: str) -> list[Path]:
        return [Path(shutil.copytree(made, tmp_path / "runs" / name)) for name in names]

    return copies


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def set_recipe(run: Path, **values: object) -> None:
    plain = json.loads((run / "recipe.json").read_text())
    for name, value in values.items():
        group, _, field = name.partition("__")
        plain[group][field] = value
    (run / "recipe.json").write_text(json.dumps(plain))


def spoil(run: Path, images: int) -> None:
    """Makes the saved predictions of the first `images` recognised images wrong, and the summary with them."""
    (place,) = run.glob("evaluation/*")
    said = predictions.read(place / "predictions.parquet")
    scores = said.scores.copy()
    right = np.flatnonzero(metrics.hits(scores, said.labels, 1))[:images]
    scores[right, said.labels[right]] = -50.0
    changed = predictions.Predictions(said.keys, said.labels, scores, said.scale, said.classes)
    changed.write(place / "predictions.parquet")
    count = int(metrics.hits(scores, said.labels, 1).sum())
    change(place / "summary.json", top1=count / len(said), top1_interval=list(metrics.wilson(count, len(said))))


def text_of(page: Path) -> str:
    """What a reader sees."""
    body = page.read_text().partition("<body>")[2]
    words = re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", "", body, flags=re.DOTALL))
    return re.sub(r"[ \n\u00a0]+", " ", words.replace("&lt;", "<").replace("&gt;", ">").replace("&#39;", "'"))


def test_the_page_lies_beside_the_runs_and_needs_nothing_from_outside(runs):
    a, b = runs("a", "b")
    path = write_comparison([a, b])
    page = path.read_text()
    assert path == a.parent / "compare-a-b.html"
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)|<script|url\(|@import", page)
    assert "default-src 'none'" in page
    assert write_comparison([a, b]).read_text() == page  # the same folders, the same bytes


def test_runs_that_are_alike_are_not_distinguishable(runs):
    a, b = runs("a", "b")
    text = text_of(write_comparison([a, b]))
    assert re.search(r"a and b are not distinguishable at 95\u202f%: (\S+\u202f%) and \1 top-1 on the same \d+ images;", text)
    assert "McNemar’s exact test, image by image, p = 1." in text
    assert "Nowhere: the runs have the same recipe." in text


def test_the_verdict_is_that_of_the_test(runs):
    for images in (3, 60):
        name = f"spoilt-{images}"
        a, b = runs(f"good-{images}", name)
        spoil(b, images)
        hits = [compare._hits(gather(run)) for run in (a, b)]
        chance = mcnemar(*(np.array([one[key] for key in hits[0]]) for one in hits))
        text = text_of(write_comparison([b, a]))  # the order given does not matter
        if chance < 0.05:
            assert f"good-{images} is better than {name} at 95\u202f%" in text
        else:
            assert f"good-{images} and {name} are not distinguishable at 95\u202f%" in text
        assert (chance < 0.05) is (images == 60)


def test_several_runs_are_held_against_the_best(runs):
    a, b, c = runs("a", "b", "c")
    spoil(b, 2)
    spoil(c, 90)
    text = text_of(write_comparison([a, b, c]))
    assert "a has the highest top-1" in text and "of 3 runs scored on the same" in text
    assert re.search(r"Not distinguishable from it at 95\u202f%: b \(", text)
    assert re.search(r"Worse than it at 95\u202f%: c \([^)]*p < 0\.001\)", text)
    assert "p adjusted for 2 comparisons (Holm)" in text


def test_without_predictions_the_proportions_are_tested(runs):
    a, b = runs("a", "b")
    spoil(b, 60)
    next(b.glob("evaluation/*/predictions.parquet")).unlink()
    text = text_of(write_comparison([a, b]))
    assert "on the same set of images; two-proportion z-test, p < 0.001" in text


def test_other_classes_and_other_images_are_said_and_not_tested(runs, make_run, tmp_path):
    (a,) = runs("a")
    other = make_run(tmp_path / "other" / "b", classes=5)
    text = text_of(write_comparison([a, other]))
    assert "The runs know different classes: their accuracies are of different tasks and cannot be compared." in text
    assert "distinguishable" not in text and "better than" not in text

    (c,) = runs("c")
    change(next(c.glob("evaluation/*/summary.json")), data_fingerprint="f" * 64)
    text = text_of(write_comparison([a, c]))
    assert "scored on different images: their accuracies cannot be compared one to one" in text
    assert "distinguishable" not in text


def test_only_fields_that_differ_stand_in_the_table_and_old_files_have_defaults(runs):
    a, b, c = runs("a", "b", "c")
    set_recipe(b, optim__lr=0.2, budget__epochs=20)  # 20 is 20.0
    plain = json.loads((c / "recipe.json").read_text())
    del plain["augment"]["mixup"], plain["data"]["colour"]  # as if written before there was mixup
    plain["model"]["options"] = {"stem": "small", "width": 32}
    (c / "recipe.json").write_text(json.dumps(plain))
    rows = compare.differences([gather(run) for run in (a, b, c)])
    assert rows == [("model.options.width", ["—", "—", "32"]), ("optim.lr", ["0.05", "0.2", "0.05"])]


def test_every_accuracy_has_its_interval_and_protocol(runs):
    a, b = runs("a", "b")
    spoil(b, 10)
    text = text_of(write_comparison([a, b]))
    for run in (a, b):
        summary = json.loads(next(run.glob("evaluation/*/summary.json")).read_text())
        low, high = summary["top1_interval"]
        assert f"{100 * low:.1f}\u202f% to {100 * high:.1f}\u202f%" in text
        assert text.count(summary["protocol"]) == 2
    assert text.count("11,173,962") == 2


def test_charts_are_sound_and_carry_each_run(runs):
    places = runs(*(f"run {number}" for number in range(7)))
    page = write_comparison(places).read_text()
    charts = re.findall(r'<svg class="chart".*?</svg>', page, flags=re.DOTALL)
    assert len(charts) == 6
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert all(f"run {number} ends at" in root.attrib["aria-label"] for number in range(7))
        curves = {path.attrib["class"].replace(" thin", "") for path in root.iter() if "curve" in path.attrib.get("class", "")}
        assert curves == {f"curve run-{n % 6 + 1} dash-{n // 6}" for n in range(7)}  # each its own look
        assert "nan" not in chart.lower()


def test_a_run_that_has_just_begun_is_shown_with_what_it_has(runs):
    a, b = runs("a", "b")
    (b / "log.jsonl").write_text("")
    (b / "best.json").unlink()
    shutil.rmtree(b / "evaluation")
    text = text_of(write_comparison([a, b]))
    assert "Nothing has been scored yet: b." in text and "Not trained to the end: b." in text
    assert "b: No evaluation has been written yet" in text


@pytest.mark.parametrize("name", ["log.jsonl", "recipe.json", "classes.json", "data.json", "environment.json"])
def test_a_damaged_file_becomes_a_sentence(runs, name):
    a, b = runs("a", "b")
    (b / name).write_bytes(b'{"half": [1, 2')
    assert "2 runs compared" in text_of(write_comparison([a, b]))


def test_names_of_strangers_are_escaped(runs):
    a, b = runs("<script>x()</script>".replace("/", "∕"), "b & c")
    page = write_comparison([a, b]).read_text()
    assert "<script" not in page and "b &amp; c" in page


def test_runs_of_one_name_are_told_apart_by_their_folder(runs, tmp_path):
    (a,) = runs("x")
    b = Path(shutil.copytree(a, tmp_path / "elsewhere" / "x"))
    path = write_comparison([a, b])
    assert path.name == "compare-runs-x-elsewhere-x.html" and "elsewhere/x" in text_of(path)


def test_long_names_make_a_short_file_name(runs):
    path = write_comparison(runs(*(f"{letter}{'-long' * 30}" for letter in "abc")))
    assert len(path.name) < 120 and "-and-2-more-" in path.name


def test_bad_input(runs, tmp_path):
    a, b = runs("a", "b")
    with pytest.raises(UserError, match="named twice"):
        write_comparison([a, b, a.parent / "." / "a"])
    with pytest.raises(UserError, match="19 runs: a page compares 2 to 18"):
        write_comparison([tmp_path / str(number) for number in range(19)])
    with pytest.raises(UserError, match="no such run folder"):
        write_comparison([a, tmp_path / "nothing"])
    with pytest.raises((UserError, ResourceError), match="page"):
        write_comparison([a, b], tmp_path / "no folder" / "page.html")


def test_several_processes_of_one_machine_are_no_other_machine(runs):
    a, b = runs("a", "b")
    change(a / "environment.json", device="cuda:0", cores=2, threads=1)
    change(b / "environment.json", device="cuda", cores=2, threads=2)
    with open(a / "log.jsonl", "a") as log:
        log.write("\n" + json.dumps({"kind": "resume", "step": 600, "processes": 2}) + "\n")
    text = text_of(write_comparison([a, b]))
    assert "Where the machines differ" not in text and "different machines" not in text
    assert "processes 2 1 threads of each 1 2 " in text.partition("Where the processes differ")[2]
    assert "Times and speeds come from different numbers of processes or threads." in text
    change(b / "environment.json", cores=4)
    text = text_of(write_comparison([a, b]))
    assert "cores 2 4 " in text.partition("Where the machines differ")[2]


def test_runs_of_one_machine_and_one_process_differ_in_neither(runs):
    text = text_of(write_comparison(runs("a", "b")))
    assert "machines differ" not in text and "processes differ" not in text


def test_the_verb(runs, tmp_path, capsys):
    a, b = map(str, runs("a", "b"))
    out = tmp_path / "page.html"
    assert cli.run(["report", a, b, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"report": str(out)} and out.exists()
    (tmp_path / "empty").mkdir()
    for argv, words in (
        ([], "give a run folder"),
        ([a, str(tmp_path / "empty")], "not a run folder"),
        ([a, str(tmp_path / "none")], "no such run"),
        ([a, "--out", str(out)], "--out is for the page that compares several runs"),
        ([a, a], "named twice"),
    ):
        assert cli.run(["report", *argv]) == 2
        assert words in capsys.readouterr().err
