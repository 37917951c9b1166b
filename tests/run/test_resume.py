"""Going on with a run: what is taken over, what is refused, what is said (C7, C9 to C13, C16, T15, T16, T18, T19)."""

import errno
import io
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from striate import files, machine, sitting
from striate.errors import CheckpointError, ResourceError, UserError
from striate.run import checkpoint
from striate.run.folder import open_run
from striate.run.log import Record
from striate.train import loop, scoring


def kinds(records: list[Record]) -> list[str]:
    return [record.kind for record in records]


def rewrite(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Changes state.json of a checkpoint, and its manifest with it."""
    state = json.loads((path / "state.json").read_bytes())
    change(state)
    (path / "state.json").write_bytes(files.to_json(state).encode())
    seal(path)


def seal(path: Path) -> None:
    """Writes a checkpoint's manifest anew, for the files that are there."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    manifest["files"] = {
        file.name: {"bytes": file.stat().st_size, "sha256": files.sha256_file(file)}
        for file in path.iterdir()
        if file.name != "manifest.json"
    }
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_a_run_in_two_sittings_ends_as_one_that_was_not_stopped(sittings, tmp_path):
    whole = sittings.train(name="whole")
    assert kinds(sittings.train(until=3))[-1] == "end"
    first = checkpoint.newest(sittings.run.checkpoints)[0]
    assert first is not None and first.step == 3
    second = sittings.train()
    assert (second[0].kind, second[0].step) == ("resume", 3)
    ours, theirs = (checkpoint.newest(tmp_path / "runs" / name / "checkpoints")[0] for name in ("x", "whole"))
    assert ours is not None and theirs is not None and ours.step == theirs.step == 8
    for part in ("model", "optimizer", "ema"):
        one, other = getattr(ours, part), getattr(theirs, part)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    losses = {record.step: record.values["loss"] for record in whole if record.kind == "step"}
    assert all(record.values["loss"] == losses[record.step] for record in second if record.kind == "step")


# ---------------------------------------------------------------- C7, C9, C10: best and last


def score_as(monkeypatch: pytest.MonkeyPatch, top1: dict[int, float]) -> None:
    """Evaluations with given results, by step."""

    def score(training: loop.Training, *_: object) -> dict[str, object]:
        value = top1[training.state.step]
        facts = {"top1": value, "top5": value, "loss": 1.0, "top1_interval": [0.0, 1.0], "expected": 12, "used": 12, "bad": 0}
        return facts | {"seconds": 0.0}

    monkeypatch.setattr(scoring, "_score", score)


def test_c10_a_worse_epoch_after_a_resume_leaves_the_best_alone(sittings, monkeypatch):
    score_as(monkeypatch, {4: 0.9, 8: 0.5, 12: 0.9, 16: 0.1})
    sittings.train(budget__steps=16, until=5)
    assert sittings.run.best["step"] == 4
    sittings.train(budget__steps=16)
    best = sittings.run.best
    assert (best["step"], best["top1"], best["checkpoint"]) == (4, 0.9, "step-4")  # step 12 is a tie, and ties keep the first
    assert checkpoint.steps_in(sittings.run.checkpoints) == [16, 12, 4]  # C9: the last two and the best
    assert sittings.run.checkpoint("best").step == 4 and sittings.run.checkpoint("last").step == 16


def test_c07_a_best_file_that_a_kill_left_behind_or_away_is_written_again(sittings, monkeypatch):
    score_as(monkeypatch, {4: 0.1, 8: 0.5})
    sittings.train(until=5)
    old = (sittings.run.path / "best.json").read_bytes()
    sittings.train()
    for left in (old, None):  # killed between the last save and its best.json; lost
        (sittings.run.path / "best.json").write_bytes(left) if left else (sittings.run.path / "best.json").unlink()
        assert kinds(sittings.train())[-1] == "end"
        assert sittings.run.best["step"] == 8


def test_c09_the_new_checkpoint_is_on_the_disk_before_an_old_one_goes(sittings):
    seen = []

    def watch(record: Record) -> None:
        if record.kind == "checkpoint":
            there = checkpoint.read(sittings.run.checkpoints / record.values["name"])
            seen.append((record.step, there.step, len(checkpoint.steps_in(sittings.run.checkpoints))))

    sittings.train(watch=watch, budget__save_every_s=1e-6)
    assert [newest for newest, _, _ in seen][-8:] == list(range(1, 9))
    assert all(newest == valid for newest, valid, _ in seen)
    assert max(count for _, _, count in seen) <= 4  # two, the best, and the one that was just written


# ---------------------------------------------------------------- C1, C2, C3: saves that fail, checkpoints that are cut


def test_c01_a_full_disk_stops_the_run_and_the_same_command_goes_on(sittings, monkeypatch):
    sittings.train(until=3)
    tried = []

    def full(*_: object) -> None:
        tried.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="no room left while saving a checkpoint"):
        patch.setattr(checkpoint, "write_synced", full)
        sittings.train()
    assert tried == [1]  # a save that failed is not tried again on the way out
    assert os.listdir(sittings.run.checkpoints) == ["step-3"]
    assert sittings.train()[-1].values["exit_code"] == 0


def test_c03_a_damaged_newest_is_passed_over_and_said(sittings):
    sittings.train(until=3)
    sittings.train(until=5)
    os.truncate(sittings.run.checkpoints / "step-5" / "optimizer.safetensors", 100)
    (sittings.run.checkpoints / "step-7.tmp-1").mkdir()
    records = sittings.train()
    assert (records[0].kind, records[0].step) == ("resume", 4)  # saved at the evaluation
    notes = [record.values["text"] for record in records if record.kind == "note"]
    assert any(note.startswith("Passed over:") and "step-5/optimizer.safetensors: 100 bytes instead of" in note for note in notes)
    assert any("Removed step-7.tmp-1" in note for note in notes)
    assert checkpoint.newest(sittings.run.checkpoints)[0].step == 8


def test_c03_no_valid_checkpoint_is_exit_4_never_a_fresh_start(sittings):
    sittings.train(until=3)
    os.truncate(sittings.run.checkpoints / "step-3" / "state.json", 0)
    with pytest.raises(CheckpointError, match="no checkpoint is usable"):
        sittings.train()


# ---------------------------------------------------------------- C11, C12: which run, which recipe


def test_c11_a_checkpoint_that_is_not_there_is_exit_4_with_what_there_is(sittings):
    with pytest.raises(UserError, match="no such run"):
        open_run(sittings.out / "y")
    sittings.train(until=3)
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=r"step-99: no such checkpoint\. There are: step-3\."):
        sittings.run.checkpoint("step-99")
    assert time.monotonic() - began < 1
    shutil.rmtree(sittings.run.checkpoints)
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        sittings.run.checkpoint("last")


@pytest.mark.parametrize(
    "changes",
    [{"optim__lr": 0.5}, {"optim__batch_size": 8}, {"model__name": "resnet34"}, {"model__options__width": "16"}],
    ids=lambda changes: next(iter(changes)),
)
def test_c12_another_recipe_under_the_same_name_is_exit_2_with_a_table(sittings, changes):
    sittings.train(until=1)
    with pytest.raises(UserError, match="this run exists with another recipe") as caught, sittings.prepared(**changes):
        pass
    ((name, value),) = changes.items()
    assert f"  {name.replace('__', '.')}  " in str(caught.value) and f"→ {value}" in str(caught.value)


def test_c12_an_override_is_said_and_stored(sittings):
    sittings.train(until=3)
    said = io.StringIO()
    with sittings.prepared(said, optim__lr=0.5, override=("optim.lr",)) as ready:
        assert ready.recipe.optim.lr == 0.5
    assert "accepted: optim.lr 0.02 → 0.5" in said.getvalue()
    with sittings.prepared(optim__lr=0.5) as ready:  # from now on that is the run
        assert ready.run.recipe.optim.lr == 0.5


def test_c12_other_classes_or_images_are_exit_4_with_the_difference(sittings, tmp_path):
    shutil.copytree(sittings.photos, tmp_path / "copy")
    sittings.train(until=1, data=str(tmp_path / "copy"))
    (tmp_path / "copy" / "train" / "red" / "0.jpg").unlink()
    with pytest.raises(CheckpointError, match=r"(?s)the train images changed.*red/0\.jpg.*--accept-data-change"):
        sittings.train(data=str(tmp_path / "copy"))
    for split in ("train", "val"):
        (tmp_path / "copy" / split / "red").rename(tmp_path / "copy" / split / "rot")
    with pytest.raises(CheckpointError, match=r"its classes are not those of .* \(missing: red; new: rot\)"):
        sittings.train(data=str(tmp_path / "copy"))


def test_a_run_that_never_began_holds_no_name(sittings):
    with pytest.raises(UserError, match="no option 'steam'"):
        sittings.train(model__options__steam="small")
    assert sittings.train(until=1)[-1].kind == "end"


def test_new_starts_beside_the_run(sittings):
    for name in ("x", "x-2"):
        with sittings.prepared(new=True) as ready:
            assert ready.run.name == name


# ---------------------------------------------------------------- C13, C16: weights and parts that do not fit


def test_c13_weights_are_taken_with_wrappers_prefixes_and_refused_with_names(sittings):
    sittings.train(until=3)
    file = sittings.run.checkpoints / "step-3" / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()}
    safetensors.torch.save_file(wrapped, file)
    seal(file.parent)
    model, weights, _ = sittings.run.model("last", raw=True)
    assert weights == "raw" and not model.training
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in tensors.items())

    tensors["extra"] = tensors.pop("conv1.weight")
    tensors["fc.bias"] = torch.zeros(7)
    safetensors.torch.save_file(tensors, file)
    seal(file.parent)
    for use in (lambda: sittings.run.model("last", raw=True), sittings.train):
        with pytest.raises(CheckpointError) as caught:
            use()
        for words in ("1 missing: conv1.weight", "1 unknown: extra", "fc.bias [7] for [3]"):
            assert words in str(caught.value)


def test_c13_weights_of_another_variant_are_refused(sittings):
    sittings.train(until=3)
    path = sittings.run.checkpoints / "step-3"
    for name in ("model", "ema"):
        assert checkpoint._variant((path / f"{name}.safetensors").read_bytes()) == "basic"
    safetensors.torch.save_file(
        safetensors.torch.load_file(path / "model.safetensors"), path / "model.safetensors", {"variant": "v1"}
    )
    seal(path)
    with pytest.raises(CheckpointError, match="of variant 'v1', the network is 'basic'"):
        sittings.train()


@pytest.mark.parametrize(
    "part", ["plan", "scaler", "ema_updates", "best", "evaluated_step", "elapsed_s", "skipped", "bad", "step"]
)
def test_c16_a_missing_number_is_an_error_that_names_it(sittings, part):
    sittings.train(until=1)
    rewrite(sittings.run.checkpoints / "step-1", lambda state: state.pop(part))
    with pytest.raises(CheckpointError, match=part):
        sittings.train()


@pytest.mark.parametrize("part", ["momentum of one layer", "EMA"])
def test_c16_missing_tensors_are_an_error_that_names_them(sittings, part):
    sittings.train(until=1)
    path = sittings.run.checkpoints / "step-1"
    if part == "EMA":
        (path / "ema.safetensors").unlink()
    else:
        tensors = safetensors.torch.load_file(path / "optimizer.safetensors")
        del tensors["fc.weight/momentum_buffer"]
        safetensors.torch.save_file(tensors, path / "optimizer.safetensors")
    seal(path)
    with pytest.raises(CheckpointError, match=r"ema\.safetensors|tensors of the optimiser instead of"):
        sittings.train()


# ---------------------------------------------------------------- T15, T16, T18, T19


def test_t15_t19_a_clock_that_jumps_changes_no_rate_and_no_order(sittings, monkeypatch):
    real, calls = time.time, []

    def jumping() -> float:
        calls.append(1)
        return real() + (0.0 if len(calls) < 6 else -3600.0 if len(calls) < 12 else 86_400.0)

    monkeypatch.setattr(time, "time", jumping)
    records, code = sittings.sit()
    assert code == 0
    steps = [record.values for record in records if record.kind == "step"]
    assert [values["step"] for values in steps] == list(range(1, 9))
    assert all(values["images_per_s"] > 0 and 0 <= values["wait_share"] <= 1 for values in steps)
    elapsed = [values["elapsed_s"] for values in steps]
    assert elapsed == sorted(elapsed) and elapsed[0] >= 0 and elapsed[-1] < 600
    clock = [record.values["time"] for record in records]
    assert min(clock) < clock[0] - 1800 and max(clock) > clock[0] + 80_000  # it did jump
    # T19: the same command on the finished run takes no step.
    before = {file: file.stat().st_mtime_ns for file in sittings.run.path.rglob("*") if file.is_file() and file.name != "lock"}
    again, code = sittings.sit()
    assert code == 0 and len(again) == len(records)
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_t19_a_run_that_was_killed_after_its_last_save_takes_no_extra_step(sittings):
    sittings.train()
    with sittings.prepared() as ready:
        assert not ready.finished  # not scored and reported yet
    records = sittings.train()
    assert kinds(records) == ["resume", "end"]
    assert (records[-1].step, records[-1].values["exit_code"]) == (8, 0)


def test_t16_the_lock_is_held_while_a_run_is_prepared_and_trained(sittings):
    with sittings.prepared() as ready:
        assert ready.run.is_running()
        with pytest.raises(UserError, match=f"in use by process {os.getpid()}"), sittings.prepared():
            pass
    assert not sittings.run.is_running()


def test_t18_another_number_of_threads_is_said_and_goes_on(sittings, monkeypatch):
    described = machine.describe
    sittings.train(until=3)
    path = sittings.run.checkpoints / "step-3"
    rewrite(path, lambda state: state["environment"].update(described(torch.device("cpu")), threads=64))  # type: ignore[attr-defined]
    monkeypatch.setattr(machine, "threads_wanted", lambda: 1)
    monkeypatch.setattr(sitting, "_finish", lambda *_: (line for line in ()))  # neither scored nor reported: that takes seconds
    records, code = sittings.sit()
    notes = [record.values["text"] for record in records if record.kind == "note"]
    assert code == 0 and notes[0] == "From here on not bit-exact: threads 64 → 1."


def test_e7_a_run_begun_before_resamplers_could_be_chosen_goes_on_with_pillow(sittings, tmp_path):
    def losses(records: list[Record]) -> dict[int, float]:
        return {record.step: record.values["loss"] for record in records if record.kind == "step"}

    expected = losses(sittings.train(out=tmp_path / "whole", **{"augment.resampler": "pillow"}))
    assert expected != losses(sittings.train(out=tmp_path / "other", **{"augment.resampler": "torch"}))
    found = losses(sittings.train(until=3, **{"augment.resampler": "pillow"}))

    def without(value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: without(each) for name, each in value.items() if name not in {"resampler", "augment.resampler"}}

    path = sittings.run.path / "recipe.json"
    path.write_text(json.dumps(without(json.loads(path.read_text()))))
    assert found | losses(sittings.train()) == expected
