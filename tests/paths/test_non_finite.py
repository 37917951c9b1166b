"""Numbers that are not finite: a step is left out and named, too many end the run, and none reaches a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from striate import cli
from striate.data.loader import Batch
from striate.errors import NonFiniteError
from striate.run import checkpoint
from striate.run.folder import open_run
from striate.train import loop


@pytest.fixture
def whiten(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], None]:
    """whiten({2, 3}): the first image of those steps (from 0) comes out white, which the network `spoilt` cannot stand."""

    def apply(steps: set[int]) -> None:
        real = loop.train_batches

        def whitened(*arguments: Any, **named: Any) -> Iterator[Batch]:
            first = arguments[4]
            for step, batch in enumerate(real(*arguments, **named), first):
                if step in steps:
                    batch.images[0] = 255
                yield batch

        monkeypatch.setattr(loop, "train_batches", whitened)

    return apply


def _all_finite(folder: Path) -> bool:
    steps = checkpoint.steps_in(folder)
    saved = [checkpoint.read(folder / f"step-{step}") for step in steps]
    tensors = [tensor for one in saved for part in (one.model, one.optimizer, one.ema or {}) for tensor in part.values()]
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def test_t06_one_bad_batch_is_skipped_counted_and_named(sit: Any, whiten: Any) -> None:
    whiten({2, 5})
    end = sit("spoilt", model__name="path_networks:spoilt")
    skips = [record for record in end.records if record.kind == "skip"]
    assert [record.step for record in skips] == [3, 6]
    assert [record.values["in_row"] for record in skips] == [1, 1]
    for record in skips:
        assert record.values["first_bad_layer"] == "0"
        assert record.values["keys"]
    assert (end.exit_code, end.last.step, end.last.state["skipped"], end.last.state["skipped_in_row"]) == (0, 8, 2, 0)
    assert end.last.state["ema_updates"] == 6
    assert end.last.model["1.num_batches_tracked"].item() == 6 * 2  # two micro-batches a step
    assert _all_finite(end.run.checkpoints)


def test_t06_a_run_with_skipped_steps_resumes_to_the_same_end(sit: Any, whiten: Any) -> None:
    from striate.train.budget import Stop

    whiten({2, 3, 6})
    whole = sit("whole", model__name="path_networks:spoilt")
    stop = Stop()
    cut = sit(
        "cut", stop, model__name="path_networks:spoilt", on=lambda record: record.kind == "skip" and stop.request("SIGTERM")
    )
    assert (cut.exit_code, cut.last.step, cut.last.state["skipped_in_row"]) == (75, 3, 1)
    assert sit("cut", model__name="path_networks:spoilt").differences(whole) == []


def test_t06_too_many_in_a_row_end_the_run_with_exit_code_5(sit: Any, whiten: Any, tmp_path: Path) -> None:
    whiten(set(range(5, 100)))
    with pytest.raises(NonFiniteError, match=r"for 3 steps in a row.*layer '0'.*Images: .*Try a tenth of --lr") as caught:
        sit("spoilt", model__name="path_networks:spoilt", optim__max_skips=3, budget__epochs=4.0)
    assert caught.value.exit_code == 5
    assert checkpoint.steps_in(tmp_path / "runs" / "spoilt" / "checkpoints") == [4]  # the evaluation's; none of the bad
    assert _all_finite(tmp_path / "runs" / "spoilt" / "checkpoints")


def test_t07_an_infinite_loss_for_ever_ends_the_run_long_before_the_scale_is_0(sit: Any, whiten: Any) -> None:
    whiten(set(range(100)))
    with pytest.raises(NonFiniteError, match=r"for 17 steps in a row \(loss scale 0\.5\)"):
        sit("spoilt", model__name="path_networks:spoilt", optim__precision="fp16", optim__max_skips=1000, budget__epochs=20.0)
    with pytest.raises(NonFiniteError, match=r"for 10 steps in a row \(loss scale 64\)"):
        sit("spoilt-2", model__name="path_networks:spoilt", optim__precision="fp16", budget__epochs=20.0)


def test_t08_divergence_is_never_saved(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", str(images), "--model", "path_networks:small", "--img-size", "32", "--batch-size", "12", "--steps", "40"]
    train += [
        "--recipe",
        "small",
        "--optimizer",
        "sgd",
        "--lr",
        "1e20",
        "--optim.warmup-epochs",
        "0",
        "--budget.save-every-s",
        "1e-6",
    ]
    assert cli.run([*train, "--device", "cpu", "--out", str(tmp_path), "--name", "run"]) == 5
    said = capsys.readouterr().err  # what is met first depends on the machine's arithmetic
    assert any(words in said for words in ("is not finite", "steps in a row", "the weights have diverged"))
    run = open_run(tmp_path / "run")
    assert (run.status["state"], run.status["exit_code"]) == ("failed", 5)
    assert _all_finite(run.checkpoints)
    assert [record for record in run.log() if record["kind"] == "end"][-1]["exit_code"] == 5


def test_t08_a_state_with_a_weight_that_is_not_finite_is_refused(
    sit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from striate.train.step import Step

    real = Step.__call__

    def spoil_at_the_end(step: Step, batch: Batch, number: int, *rest: Any) -> Any:
        outcome = real(step, batch, number, *rest)
        if number == 6:
            with torch.no_grad():
                next(step.model.parameters()).fill_(torch.nan)
        return outcome

    monkeypatch.setattr(Step, "__call__", spoil_at_the_end)
    with pytest.raises(NonFiniteError) as caught:
        sit("spoilt", budget__evaluate_epochs=1.0)
    assert caught.value.exit_code == 5
    folder = tmp_path / "runs" / "spoilt"
    assert checkpoint.steps_in(folder / "checkpoints") == [4]
    assert open_run(folder).best["step"] == 4  # type: ignore[index]
    assert _all_finite(folder / "checkpoints")
