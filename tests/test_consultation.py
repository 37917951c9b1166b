"""The doctor asked by hand, and the fix: one remedy at a time, each in a run that names its parent; the data stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from striate import cli, consultation
from striate.data import synthetic
from striate.doctor.examination import Examination
from striate.doctor.finding import Cause, Finding, Remedy
from striate.errors import UserError
from striate.files import read_json
from striate.sitting import Request

ILL = ["--model", "kth-a", "--img-size", "32", "--optimizer", "sgd", "--lr", "0.01", "--batch-size", "16", "--steps", "12"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("consultation") / "photos"
    synthetic.make(folder, classes=4, per_class=24, val_per_class=6)
    return folder


def last_line(text: str) -> dict:
    return json.loads(text.strip().splitlines()[-1])


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def test_before_a_training(photos, capsys):
    assert cli.run(["doctor", str(photos), *ILL, "--limit", "30s", "--json"]) == 0
    shown = capsys.readouterr().out
    found = last_line(shown)
    assert found["findings"][0]["code"] == "constant-function"
    assert found["findings"][0]["causes"][0]["name"] == "initialisation"
    assert "The network is a constant function" in shown and "--model.options.init he" in shown
    assert not [why for why in found["unchecked"].values() if why.startswith("failed")]


def test_a_fix_applies_remedies_one_at_a_time_and_touches_no_data(photos, tmp_path, capsys):
    before = contents(photos)
    command = ["doctor", str(photos), *ILL, "--limit", "20s", "--fix", "--out", str(tmp_path), "--name", "x", "--json"]
    assert cli.run(command) == 0
    fixes = last_line(capsys.readouterr().out)["fixes"]
    assert fixes[0]["changes"] == {"model.name": "kth-b"} and fixes[0]["parent"] == "x"
    assert [one["trained"] for one in fixes] == [False] * (len(fixes) - 1) + [True]
    for number, made in enumerate(fixes, start=1):
        folder = tmp_path / f"x-fix-{number}"
        kept = read_json(folder / "fix.json")
        assert kept["parent"] == ("x" if number == 1 else f"x-fix-{number - 1}")
        assert kept["changes"] == made["changes"] and kept["advice"]
        assert (folder / "findings.json").is_file() and (folder / "recipe.json").is_file()
    assert read_json(tmp_path / f"x-fix-{len(fixes)}" / "status.json")["state"] == "done"
    assert contents(photos) == before
    # Of a run that ended, the next fix takes the next number and names that run.
    found = consultation.of_run(tmp_path / f"x-fix-{len(fixes)}", 10.0, quiet=True)
    request = consultation.request_of(consultation.open_run(tmp_path / f"x-fix-{len(fixes)}"))
    slower = Remedy("Slower.", {"optim.lr": 0.001})
    more = Finding("z", "error", "Z.", {}, (Cause("learning-rate-high", 1, ""),), (slower,), "here")
    ill = Examination((more, *found.findings), {}, {})
    made = list(consultation.fix(request, ill, 5.0, quiet=True))
    assert made[0].run.name == f"x-fix-{len(fixes) + 1}" and made[0].parent == f"x-fix-{len(fixes)}"
    assert read_json(made[0].run / "recipe.json")["optim"]["lr"] == 0.001


def finding(*remedies: Remedy, severity: str = "error") -> Finding:
    return Finding("x", severity, "X.", {}, (Cause("initialisation", 1, ""),), remedies, "here")


def test_no_field_is_changed_twice_and_advice_alone_is_passed_over():
    request = Request("data", None, {"model": "resnet20"})
    slower, advice = Remedy("Slower.", {"optim.lr": 0.01}), Remedy("Think.")
    found = Examination((finding(advice, slower),), {}, {})
    assert consultation.next_remedy(found, request, set())[1] is slower
    assert consultation.next_remedy(found, request, {"optim.lr"}) is None
    same = Remedy("As it is.", {"optim.lr": 0.1})
    assert consultation.next_remedy(Examination((finding(same),), {}, {}), request, set()) is None
    note = Examination((finding(slower, severity="note"),), {}, {})
    assert consultation.next_remedy(note, request, set()) is None


def test_another_network_leaves_behind_options_that_it_does_not_have():
    changes = {"model.options.padding": "valid", "model.options.init": "he", "optim.lr": 0.1}
    changed = consultation.applied(changes, Remedy("", {"model.name": "resnet20"}))
    assert changed == {"model.options.init": "he", "optim.lr": 0.1, "model.name": "resnet20"}


def test_a_fix_that_must_keep_the_network_takes_the_next_remedy(photos, tmp_path):
    changes = {"model": "kth-a", "img_size": 32, "optimizer": "sgd", "lr": 0.01, "batch_size": 16, "steps": 4}
    request = Request(str(photos), None, changes, out=tmp_path, name="k")
    found = consultation.of_data(request, 15.0, quiet=True)
    made = list(consultation.fix(request, found, 10.0, quiet=True, keep={"model.name"}))
    assert made[0].changes == {"model.options.init": "he"} and not any("model.name" in one.changes for one in made)
    assert not made[0].found.findings or made[0].found[0].code != "constant-function"


def test_nothing_to_fix_is_said(photos):
    request = Request(str(photos), None, {"model": "resnet20"}, name="x")
    with pytest.raises(UserError, match="no finding has a remedy"):
        list(consultation.fix(request, Examination((), {}, {}), 5.0))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["doctor"], "one of them"),
        (["doctor", "builtin", "--log", "x.csv"], "one of them"),
        (["doctor", "--log", "missing.csv"], "missing.csv"),
        (["doctor", "--log", "x.csv", "--fix"], "leave out --fix"),
        (["doctor", "builtin", "--model", "resnet20", "--limit", "soon"], "no duration"),
        (["doctor", "no/such/folder", "--model", "resnet20"], "no/such/folder"),
    ],
)
def test_wrong_commands(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(argv) in (2, 3)
    assert words in capsys.readouterr().err


def test_a_table_of_a_stranger(tmp_path, capsys):
    rows = ["epoch,loss,val_loss,accuracy,val_accuracy"]
    for e in range(20):
        val_loss, right = 1.6 + 0.06 * max(0, e - 5), min(0.99, 0.2 + 0.06 * e)
        rows.append(f"{e},{2.4 * 0.8**e:.4f},{val_loss:.4f},{right:.3f},{0.45 - 0.004 * e:.3f}")
    path = tmp_path / "log.csv"
    path.write_text("\n".join(rows) + "\n")
    assert cli.run(["doctor", "--log", str(path), "--json"]) == 0
    found = last_line(capsys.readouterr().out)
    assert found["findings"][0]["causes"][0]["name"] == "overfitting"


def test_a_run_has_its_recipe(photos, tmp_path, capsys):
    from striate import sitting

    changes = {"model": "resnet20", "img_size": 32, "batch_size": 16, "steps": 4}
    sitting.train(photos, changes=changes, out=tmp_path, name="r", quiet=True)
    assert cli.run(["doctor", str(tmp_path / "r"), "--lr", "3"]) == 2
    assert "has its recipe" in capsys.readouterr().err
    assert cli.run(["doctor", str(tmp_path / "r"), "--limit", "5s", "--json"]) == 0
    assert "checked" in last_line(capsys.readouterr().out)
