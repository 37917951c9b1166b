"""Snapshots, SWA and bootstrap samples in whole trainings: what stays, what is averaged, and that a resume changes none of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from striate import cli
from striate.data import order
from striate.errors import UserError
from striate.evaluate.open import evaluate_snapshots, snapshots
from striate.run import checkpoint
from striate.train.budget import Stop
from striate.train.state import State
from tests.paths.test_resume import StopAt, stop_after

CYCLES: dict[str, Any] = {
    "optim__schedule": "cosine-cycles",
    "optim__cycles": 4,
    "budget__epochs": 4.0,
    "optim__warmup_epochs": 0.0,
}
SWA: dict[str, Any] = {
    "optim__ema": 0.0,
    "optim__swa_from": 0.5,
    "optim__swa_epochs": 0.5,
    "optim__swa_lr": 0.4,
    "optim__warmup_epochs": 0.0,
    "budget__epochs": 4.0,
}


def rates(records: list[Any]) -> list[float]:
    return [record.values["lr"] for record in records if record.kind == "step"]


# ---------------------------------------------------------------- snapshots


def test_the_network_at_the_end_of_each_cycle_stays(sit: Any) -> None:
    end = sit("cycles", **CYCLES)
    assert end.last.step == 16 and end.run.snapshots == (4, 8, 12, 16)
    assert checkpoint.steps_in(end.run.checkpoints) == [16, 12, 8, 4]
    found = rates(end.records)
    assert found[0] == found[4] == found[8] == found[12] == 0.01  # the peak, at the first step of each cycle
    assert all(later < earlier for earlier, later in itertools.pairwise(found[:4]))
    scored = [record.step for record in end.records if record.kind == "evaluation" and record.values["split"] == "val"]
    assert set(scored) == {4, 8, 12, 16}


def test_a_cycle_ends_where_no_epoch_does(sit: Any) -> None:
    end = sit("thirds", **CYCLES | {"optim__cycles": 3, "budget__evaluate_epochs": 100.0})
    assert end.run.snapshots == (6, 11, 16)  # the steps at which a third of the plan, two thirds, and all of it are done
    scored = {record.step for record in end.records if record.kind == "evaluation"}
    assert scored == {6, 11, 16}


def test_stopped_anywhere_the_snapshots_are_the_same(sit: Any) -> None:
    whole = sit("whole", **CYCLES)
    for step in (3, 4, 11):
        stop, on = stop_after(step)
        assert sit(f"cut-{step}", stop, on=on, **CYCLES).exit_code == 75
        rest = sit(f"cut-{step}", **CYCLES)
        assert rest.differences(whole) == [] and rest.run.snapshots == whole.run.snapshots
        for snapshot in whole.run.snapshots:
            ours, theirs = (checkpoint.read(run.checkpoints / f"step-{snapshot}").model for run in (rest.run, whole.run))
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_stopped_within_the_evaluation_of_a_snapshot(sit: Any) -> None:
    counter = StopAt(0)
    whole = sit("whole", counter, **CYCLES)
    for call in (7, 9, 11):  # about the first end of a cycle
        cut = sit(f"call-{call}", StopAt(call), **CYCLES)
        assert cut.exit_code == 75
        rest = sit(f"call-{call}", **CYCLES)
        assert rest.differences(whole) == [] and rest.run.snapshots == (4, 8, 12, 16)


def test_the_mirror_has_the_snapshots_too(sit: Any, tmp_path: Path) -> None:
    end = sit("mirrored", mirror=tmp_path / "drive", **CYCLES)
    there = tmp_path / "drive" / "mirrored" / "checkpoints"
    assert set(checkpoint.steps_in(there)) == set(end.run.snapshots)


def test_snapshots_are_scored_one_by_one_and_together(sit: Any) -> None:
    end = sit("scored", **CYCLES)
    from striate.data.layouts.detect import open_data

    val = open_data(end.run.data["path"], end.run.recipe.data.val_share).val
    assert val is not None
    found, together = evaluate_snapshots(end.run, index=val)
    assert (
        [summary["checkpoint"] for summary, _ in found]
        == list(snapshots(end.run.path))
        == ["step-4", "step-8", "step-12", "step-16"]
    )
    assert together is not None and together.summary["used"] == len(val)
    assert [name for name, _ in together.of_members] == [f"scored/step-{step}" for step in (4, 8, 12, 16)]
    for (summary, _), (_, top1) in zip(found, together.of_members, strict=True):
        assert top1 == pytest.approx(summary["top1"])


def test_a_run_without_cycles_has_none(sit: Any) -> None:
    end = sit("plain")
    assert end.run.snapshots == ()
    with pytest.raises(UserError, match="has no snapshots"):
        snapshots(end.run.path)


def test_a_checkpoint_of_an_older_version_goes_on(sit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those know nothing of snapshots."""
    whole = sit("whole")
    numbers = State.numbers
    monkeypatch.setattr(State, "numbers", lambda self: {k: v for k, v in numbers(self).items() if k != "snapshots"})
    stop, on = stop_after(3)
    sit("old", stop, on=on)
    monkeypatch.undo()
    rest = sit("old")
    assert rest.exit_code == 0 and rest.differences(whole) == []


# ---------------------------------------------------------------- SWA


def test_swa_is_the_plain_mean_of_its_checkpoints(sit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from striate.train.average import Average

    seen: list[dict[str, torch.Tensor]] = []
    update = Average.update

    def kept(self: Any, model: torch.nn.Module) -> None:
        seen.append({name: value.detach().clone() for name, value in model.named_parameters()})
        update(self, model)

    monkeypatch.setattr(Average, "update", kept)
    end = sit("swa", **SWA)
    assert end.last.step == 16 and len(seen) == 5  # steps 8, 10, 12, 14 and 16
    assert end.last.ema is not None
    for name in seen[0]:
        mean = torch.stack([one[name].double() for one in seen]).mean(0)
        torch.testing.assert_close(end.last.ema[name].double(), mean, rtol=1e-5, atol=1e-7)
    assert end.run.best is not None and end.run.model("last")[1] == "SWA"


def test_the_rate_falls_to_that_of_swa_and_stays(sit: Any) -> None:
    found = rates(sit("rates", **SWA).records)
    assert found[8:] == [pytest.approx(0.004)] * 8
    assert found[0] == 0.01 and all(later <= earlier for earlier, later in itertools.pairwise(found[:9]))


def test_statistics_of_batch_norm_are_those_of_the_mean_network(sit: Any) -> None:
    """The first layer's inputs are the images, so its statistics can be worked out from the scored sample alone."""
    end = sit("statistics", **SWA)
    model, weights, _ = end.run.model("last")
    assert weights == "SWA"
    averaged, raw = end.last.ema, end.last.model
    assert averaged is not None
    assert not torch.allclose(averaged["1.running_mean"], raw["1.running_mean"], rtol=1e-3)
    assert int(averaged["1.num_batches_tracked"]) == 1  # one batch of the whole sample
    assert torch.isfinite(averaged["1.running_var"]).all() and not model.training


def test_before_it_begins_it_is_the_network_itself(sit: Any) -> None:
    stop, on = stop_after(5)
    end = sit("early", stop, on=on, **SWA)
    assert end.last.ema is not None
    assert all(torch.equal(end.last.ema[name], end.last.model[name]) for name in end.last.model)


def test_swa_stopped_anywhere_ends_the_same(sit: Any) -> None:
    whole = sit("whole", **SWA)
    for step in (7, 11):
        stop, on = stop_after(step)
        sit(f"cut-{step}", stop, on=on, **SWA)
        assert sit(f"cut-{step}", **SWA).differences(whole) == []


def test_swa_and_ema_exclude_each_other(sit: Any) -> None:
    with pytest.raises(UserError, match=r"optim\.swa_from"):
        sit("both", **SWA | {"optim__ema": 0.9})
    with pytest.raises(UserError, match=r"optim\.swa_from"):
        sit("step", **SWA | {"optim__schedule": "step"})


# ---------------------------------------------------------------- bootstrap samples and members


def test_a_bootstrap_sample_leaves_out_a_third(sit: Any) -> None:
    end = sit("bag", data__sampling="bootstrap")
    assert end.exit_code == 0
    drawn = order.bootstrap(0, 100_000)
    assert 0.627 < len(set(drawn.tolist())) / 100_000 < 0.637  # 1 - 1/e = 0.632
    stop, on = stop_after(3)
    sit("cut", stop, on=on, data__sampling="bootstrap")
    assert sit("cut", data__sampling="bootstrap").differences(end) == []


def test_members_by_one_command(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(images), "--model", "path_networks:small", "--img-size", "32", "--steps", "3", "--batch-size", "8"]
    command += ["--members", "3", "--data.sampling", "bootstrap", "--out", str(tmp_path / "runs"), "--name", "bag"]
    command += ["--workers", "0", "--device", "cpu", "--no-doctor", "--json"]
    assert cli.run(command) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [Path(run).name for run in said["runs"]] == ["bag-1", "bag-2", "bag-3"]
    seeds = [json.loads((tmp_path / "runs" / f"bag-{one}" / "recipe.json").read_text())["optim"]["seed"] for one in (1, 2, 3)]
    assert seeds == [0, 1, 2]
    assert "mean probability of 3 members: bag-1" in said["together"]["answered_by"]
    assert (Path(said["together"]["folder"]) / "predictions.parquet").exists()
    assert cli.run(command) == 0  # finished: says so, and scores again


def test_members_that_are_stopped_go_on(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from striate import ensemble
    from striate.sitting import Request

    changes = {"model.name": "path_networks:small", "data.size_px": 32, "budget.steps": 4, "optim.batch_size": 8}
    request = Request(str(images), None, changes, tmp_path / "runs", "m", workers="0", device="cpu", doctor=False)
    reason, asked = Stop.reason, []

    def once(self: Stop, reserve_s: float = 0.0) -> str | None:
        asked.append(1)
        return "SIGTERM" if len(asked) == 3 else reason(self, reserve_s)

    monkeypatch.setattr(Stop, "reason", once)
    cut = ensemble.sit(request, 2, quiet=True)
    assert cut.exit_code == 75 and len(cut.runs) == 1 and cut.together is None
    monkeypatch.undo()
    whole = ensemble.sit(request, 2, quiet=True)
    assert whole.exit_code == 0 and len(whole.runs) == 2 and whole.together is not None


@pytest.mark.parametrize("members", [0, -1, 101])
def test_too_few_or_many_members(images: Path, members: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", str(images), "--members", str(members), "--no-doctor"]) == 2
    assert "--members" in capsys.readouterr().err
