"""`striate runs`: the state of each run from its small files, damaged ones included; fast, and without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from striate.errors import UserError
from striate.files import write_json
from striate.recipe import Recipe, change, to_plain
from striate.run.listing import Listed, listing
from striate.run.lock import locked

START = {"classes": 3, "steps_per_epoch": 4, "total_steps": 16, "parameters": 9}


def make(
    folder: Path, state: str = "done", step: int = 16, reason: str = "done", epochs: float = 4, time: str | None = None
) -> Path:
    """A run folder of small files, with checkpoints of a few bytes at steps 8 and `step`."""
    folder.mkdir(parents=True)
    changes = {"model": "resnet18", "for": time} if time else {"model": "resnet18", "epochs": epochs}
    write_json(folder / "recipe.json", to_plain(change(Recipe(), changes)))
    write_json(folder / "data.json", {"path": "/data/photos", "splits": {}})
    write_json(folder / "status.json", {"state": state, "step": step, "reason": reason})
    lines = [{"kind": "start", "step": 0, **START, **({"total_steps": None} if time else {})}]
    for at in range(1, step + 1):
        lines.append({"kind": "step", "step": at, "epoch": at / 4, "elapsed_s": 2.0 * at, "total_steps": None if time else 16})
        if at % 8 == 0:
            lines += [score(at, "raw", at / 100), score(at, "EMA", at / 50)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for at in {8, step}:
        place = folder / "checkpoints" / f"step-{at}"
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(b"12345")
        write_json(place / "manifest.json", {"format": 1, "step": at, "files": {"model.safetensors": {"bytes": 5, "sha256": ""}}})
    write_json(folder / "best.json", {"step": 8, "checkpoint": "step-8", "split": "val", "weights": "EMA", "top1": 0.16})
    return folder


def score(step: int, weights: str, top1: float) -> dict[str, object]:
    return {
        "kind": "evaluation",
        "step": step,
        "split": "val",
        "weights": weights,
        "top1": top1,
        "top1_interval": [top1 / 2, top1 * 2],
    }


def one(folder: Path) -> Listed:
    (found,), _ = listing(folder)
    return found


def test_a_run_that_is_done(tmp_path):
    found = one(make(tmp_path / "x"))
    assert (found.name, found.state, found.reason) == ("x", "done", "")
    assert (found.step, found.total_steps, found.epoch, found.share, found.left_s) == (16, 16, 4.0, 1.0, None)
    assert (found.top1, found.top1_interval, found.split, found.weights) == (0.16, (0.08, 0.32), "val", "EMA")
    assert (found.model, found.data) == ("resnet18", "photos")
    assert found.size_bytes == sum(path.stat().st_size for path in (tmp_path / "x").rglob("*") if path.is_file())
    assert abs(found.changed_s - time.time()) < 60


def test_a_run_that_a_living_process_trains(tmp_path):
    folder = make(tmp_path / "x", "running", step=12)
    write_json(folder / "status.json", {"state": "running", "step": 0})  # as the sitting began
    with locked(folder):
        found = one(folder)
    assert (found.state, found.reason, found.step, found.share) == ("running", "", 12, 0.75)
    assert found.left_s == 2.0 * 4


def test_a_run_that_was_killed(tmp_path):
    write_json(make(tmp_path / "x", "running", step=12) / "status.json", {"state": "running", "step": 0})  # as the sitting began
    found = one(tmp_path / "x")
    assert (found.state, found.reason) == ("broken", "killed; the same command goes on from step 12")
    assert (found.step, found.share) == (12, 0.75)
    shutil.rmtree(tmp_path / "x" / "checkpoints")
    assert one(tmp_path / "x").reason == "killed; the same command begins again"
    (tmp_path / "x" / "status.json").unlink()  # in its preparation
    assert one(tmp_path / "x").state == "broken"


def test_a_run_that_is_saved(tmp_path):
    found = one(make(tmp_path / "x", "saved", step=12, reason="SIGTERM"))
    assert (found.state, found.reason) == ("saved", "SIGTERM; the same command goes on")
    trained = one(make(tmp_path / "y", "trained"))
    assert (trained.state, trained.reason) == ("saved", "trained, not scored yet; the same command goes on")


def test_a_run_that_ended_early_is_done_and_says_why(tmp_path):
    folder = make(tmp_path / "x", step=12)
    end = {"kind": "end", "step": 12, "reason": "no better top-1 in 2 evaluations (--patience)", "exit_code": 0}
    note = {"kind": "note", "step": 12, "text": "a tracker was slow"}
    with open(folder / "log.jsonl", "a") as log:
        log.write("".join(json.dumps(line) + "\n" for line in (end, note)))
    found = one(folder)
    assert (found.state, found.share) == ("done", 0.75)
    assert found.reason == "ended early: no better top-1 in 2 evaluations (--patience)"
    with open(folder / "log.jsonl", "a") as log:  # it was given more patience, and went on to its end
        log.write(json.dumps({"kind": "end", "step": 16, "reason": "done", "exit_code": 0}) + "\n")
    assert one(folder).reason == ""


def test_a_run_that_failed_says_why(tmp_path):
    found = one(make(tmp_path / "x", "failed", step=9, reason="Step 9: loss is NaN"))
    assert (found.state, found.reason) == ("broken", "Step 9: loss is NaN")


def test_a_checkpoint_that_is_cut_or_gone(tmp_path):
    folder = make(tmp_path / "x", "saved", step=12, reason="SIGTERM")
    (folder / "checkpoints" / "step-12" / "model.safetensors").write_bytes(b"12")
    assert one(folder).state == "saved"  # the one before is whole
    (folder / "checkpoints" / "step-8" / "model.safetensors").unlink()
    found = one(folder)
    assert found.state == "broken"
    assert found.reason == "step-12/model.safetensors has 2 bytes instead of 5; step-8/model.safetensors is missing"


def test_a_done_run_whose_best_checkpoint_is_gone(tmp_path):
    folder = make(tmp_path / "x")
    shutil.rmtree(folder / "checkpoints" / "step-8")
    assert (one(folder).state, one(folder).reason) == ("broken", "step-8 is missing")


def test_what_evaluate_scored_comes_before_what_the_training_did(tmp_path):
    folder = make(tmp_path / "x")
    summary = {"split": "val", "weights": "EMA", "checkpoint": "step-8", "top1": 0.2, "top1_interval": [0.1, 0.3]}
    for name, other in (
        ("val-center-abcdef", {}),
        ("val-10crop-abcdef", {"top1": 0.9}),
        ("train-center-abcdef", {"split": "train"}),
    ):
        (folder / "evaluation" / name).mkdir(parents=True)
        write_json(folder / "evaluation" / name / "summary.json", summary | other)
    assert (one(folder).top1, one(folder).top1_interval) == (0.2, (0.1, 0.3))


def test_a_time_budget_counts_time(tmp_path):
    folder = make(tmp_path / "x", "running", step=12, time="40s")
    with locked(folder):
        found = one(folder)
    assert (found.share, found.left_s, found.total_steps) == (0.6, 16.0, None)


@pytest.mark.parametrize("name", ["recipe.json", "status.json", "data.json", "best.json", "log.jsonl"])
@pytest.mark.parametrize(
    "content", [b"", b'{"half": ', b"[]", b"\xff\xfe\x00", b'{"step": "x", "state": 3, "top1": "y", "model": 1}']
)
def test_a_damaged_file_breaks_its_run_at_most_and_never_the_listing(tmp_path, name, content):
    make(tmp_path / "good")
    folder = make(tmp_path / "x")
    (folder / name).write_bytes(content)
    found = {run.name: run for run in listing(tmp_path)[0]}
    assert found["good"].state == "done"
    if found["x"].state == "broken":
        assert found["x"].reason
    else:
        assert name == "log.jsonl" or content.startswith(b'{"step"')
    json.dumps(vars(found["x"]), allow_nan=False)


def test_a_damaged_file_is_named(tmp_path):
    folder = make(tmp_path / "x")
    (folder / "best.json").write_text("{")
    found = one(folder)
    assert found.state == "broken" and "best.json: not valid JSON (line 1" in found.reason


def test_the_newest_comes_first_and_other_folders_are_counted(tmp_path):
    for age, name in enumerate(("new", "middle", "old")):
        folder = make(tmp_path / name)
        for path in folder.iterdir():
            os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "photos").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "compare-a-b.html").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    found, others = listing(tmp_path)
    assert [run.name for run in found] == ["new", "middle", "old"] and others == 1


def test_no_such_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        listing(tmp_path / "runs")


def test_hundreds_of_runs_take_less_than_two_seconds_and_no_torch(tmp_path):
    first = make(tmp_path / "runs" / "run-0", step=16)
    with open(first / "log.jsonl", "a") as log:
        log.write("".join(json.dumps({"kind": "step", "step": 16, "epoch": 4.0, "norms": "x" * 2000}) + "\n" for _ in range(500)))
    for number in range(1, 300):
        shutil.copytree(first, tmp_path / "runs" / f"run-{number}")
    code = (
        "import sys, time; from striate.cli import run\n"
        f"assert run(['runs', {str(tmp_path / 'runs')!r}, '--json']) == 0\n"
        "assert not {'torch', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "print(time.process_time(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stderr) < 2  # of processor time: another process of this machine may be busy
    plain = json.loads(done.stdout.splitlines()[-1])
    assert len(plain["runs"]) == 300 and plain["runs"][0]["state"] == "done" and plain["others"] == 0
    table = done.stdout.splitlines()[:301]
    assert max(map(len, table)) <= 100 and table[0].split()[:3] == ["run", "state", "steps"]


def test_the_verb_says_what_is_broken_below_the_table(tmp_path, capsys):
    from striate import cli

    make(tmp_path / "runs" / "x", "failed", step=9, reason="Step 9: loss is NaN")
    (tmp_path / "runs" / "other").mkdir()
    assert cli.run(["runs", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "x: Step 9: loss is NaN\n1 other folder in " in out
    (tmp_path / "empty").mkdir()
    assert cli.run(["runs", str(tmp_path / "empty")]) == 0
    assert "No runs here yet" in capsys.readouterr().out
    assert cli.run(["runs", str(tmp_path / "nowhere")]) == 2


def test_the_verb_says_what_ended_early_to_people_and_machines(tmp_path, capsys):
    from striate import cli

    folder = make(tmp_path / "x", step=12)
    with open(folder / "log.jsonl", "a") as log:
        log.write(json.dumps({"kind": "end", "step": 12, "reason": "no better top-1", "exit_code": 0}) + "\n")
    assert cli.run(["runs", str(tmp_path), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "x: ended early: no better top-1" in lines
    assert json.loads(lines[-1])["runs"][0]["reason"] == "ended early: no better top-1"


def test_the_usage_shows_that_the_folder_may_be_left_out(capsys):
    from striate import cli

    with pytest.raises(SystemExit, match="0"):
        cli.run(["runs", "--help"])
    assert capsys.readouterr().out.startswith("usage: striate runs [-h] [FOLDER] [--json]")
