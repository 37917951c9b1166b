"""Stopped anywhere and gone on with, a training ends as if it had never been stopped, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from striate.run import checkpoint
from striate.run.checkpoint import Checkpoint
from striate.run.log import Record
from striate.train.budget import Stop
from striate.train.state import State


class StopAt(Stop):
    """Asks for the end when the loop looks for the `call`-th time, be it between steps or within an evaluation."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.calls, self._call = 0, call

    def reason(self, reserve_s: float = 0.0) -> str | None:
        self.calls += 1
        if self.calls == self._call:
            self.request("SIGTERM")
        return super().reason()


def stop_after(step: int) -> tuple[Stop, Callable[[Record], None]]:
    """A Stop, and what to do on each record so that it asks for the end after `step` steps."""
    stop = Stop()

    def on(record: Record) -> None:
        if record.kind == "step" and record.step == step:
            stop.request("SIGTERM")

    return stop, on


def test_t03_t20_stopped_after_every_step_of_two_epochs_it_ends_the_same(sit: Any) -> None:
    whole = sit("whole")
    assert (whole.exit_code, whole.last.step) == (0, 8)
    for step in range(1, 9):
        stop, on = stop_after(step)
        cut = sit(f"cut-{step}", stop, on=on)
        assert (cut.exit_code, cut.last.step, cut.records[-1].values["reason"]) == (75, step, "SIGTERM")
        rest = sit(f"cut-{step}")
        assert rest.exit_code == 0
        assert rest.differences(whole) == []


def test_t04_stopped_wherever_the_loop_looks_it_ends_the_same(sit: Any) -> None:
    counter = StopAt(0)
    whole = sit("whole", counter)
    in_evaluations = counter.calls - 9  # one look before each of 8 steps, and one at the end
    assert in_evaluations >= 6
    for call in range(1, counter.calls + 1):
        cut = sit(f"cut-{call}", StopAt(call))
        assert cut.exit_code == 75
        assert cut.last.step == cut.records[-1].step
        assert sit(f"cut-{call}").differences(whole) == []


def test_t04_stopped_at_every_step_it_ends_the_same(sit: Any) -> None:
    whole = sit("whole")
    for _ in range(20):
        begun: list[int] = []
        stop = Stop()

        def on(record: Record, stop: Stop = stop) -> None:
            if record.kind == "step":
                stop.request("SIGUSR1")

        piece = sit("pieces", stop, workers=str(len(begun) % 2), on=on)
        if piece.exit_code == 0:
            break
    assert piece.differences(whole) == []


def test_t04_asked_before_the_first_step_it_saves_and_goes_on(sit: Any) -> None:
    stop = Stop()
    stop.request("SIGINT")
    cut = sit("early", stop)
    assert (cut.exit_code, cut.last.step) == (75, 0)
    stop.request("SIGINT")
    assert sit("early", stop).last.step == 0
    assert sit("early").differences(sit("whole")) == []


def test_t19_a_finished_run_takes_no_further_step(sit: Any) -> None:
    done = sit("done")
    again = sit("done")
    assert again.exit_code == 0
    assert [record.kind for record in again.records if record.kind in {"step", "checkpoint", "evaluation"}] == []
    assert again.differences(done) == []


# ---------------------------------------------------------------- the negative control


def _without_optimizer(state: State, fresh: dict[str, Any]) -> None:
    state.optimizer.state.clear()


def _without_average(state: State, fresh: dict[str, Any]) -> None:
    assert state.average is not None
    state.average.model.load_state_dict(fresh["ema"])


def _without_buffers(state: State, fresh: dict[str, Any]) -> None:
    buffers = dict(state.model.named_buffers())
    with torch.no_grad():
        for name, buffer in buffers.items():
            buffer.copy_(fresh["model"][name])


def _without_weights(state: State, fresh: dict[str, Any]) -> None:
    parameters = dict(state.model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(fresh["model"][name])


def _without_step(state: State, fresh: dict[str, Any]) -> None:
    state.step = 0


def _without_update_count(state: State, fresh: dict[str, Any]) -> None:
    assert state.average is not None
    state.average.updates = 0


def _without_best(state: State, fresh: dict[str, Any]) -> None:
    state.best = None


def _without_evaluated_step(state: State, fresh: dict[str, Any]) -> None:
    state.evaluated_step = -1


@pytest.mark.parametrize(
    "forget",
    [
        None,
        _without_optimizer,
        _without_average,
        _without_buffers,
        _without_weights,
        _without_step,
        _without_update_count,
        _without_best,
        _without_evaluated_step,
    ],
)
def test_with_a_part_of_the_state_left_out_it_does_not_end_the_same(
    sit: Any, monkeypatch: pytest.MonkeyPatch, forget: Callable[[State, dict[str, Any]], None] | None
) -> None:
    """Proof that the tests above can see: each part that is saved is needed."""
    whole = sit("whole", budget__evaluate_epochs=0.5)
    stop, on = stop_after(5)
    sit("cut", stop, on=on, budget__evaluate_epochs=0.5)
    complete = State.restore

    def partial(state: State, saved: Checkpoint) -> None:
        parts = {"model": state.model.state_dict(), "ema": state.average.model.state_dict() if state.average else {}}
        fresh = {part: {name: tensor.clone() for name, tensor in tensors.items()} for part, tensors in parts.items()}
        complete(state, saved)
        if forget is not None:
            forget(state, fresh)

    monkeypatch.setattr(State, "restore", partial)
    rest = sit("cut", budget__evaluate_epochs=0.5)
    assert (rest.differences(whole) == []) == (forget is None)


def test_a_step_that_is_saved_again_with_its_evaluation_is_the_same_step(sit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at the end of an epoch before its evaluation; the next sitting evaluates, saves the step again, and trains on
    while that is being written."""
    real = checkpoint.save

    def slow(*arguments: Any) -> checkpoint.Saved:
        time.sleep(0.3)
        return real(*arguments)

    stop, on = stop_after(4)
    first = sit("x", stop, on=on)
    monkeypatch.setattr(checkpoint, "save", slow)
    stop, on = stop_after(6)
    sit("x", stop, on=on)
    again = checkpoint.read(first.run.checkpoints / "step-4")
    assert again.state["evaluated_step"] == 4
    for part in ("model", "optimizer", "ema"):
        ours, theirs = getattr(first.last, part), getattr(again, part)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
