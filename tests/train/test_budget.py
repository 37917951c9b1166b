from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from striate.data.loader import Batch
from striate.ranks import Ranks
from striate.recipe import Recipe, change
from striate.run.checkpoint import Saved
from striate.run.log import Record
from striate.run.writer import Written
from striate.train import budget, loop, scoring
from striate.train.budget import Clock, Costs, Interrupted, Plan, Stop
from striate.train.state import State
from striate.train.step import Outcome

# ---------------------------------------------------------------- plans


def test_a_plan_rises_from_0_to_1() -> None:
    plan = budget.first_plan(10, 3)
    assert [plan.progress(step) for step in (0, 5, 10, 11)] == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert plan.warmup_steps == 3
    assert budget.first_plan(2, 3).warmup_steps == 2
    assert Plan(**plan.to_plain()) == plan


def test_progress_goes_on_from_plan_to_plan_and_never_falls() -> None:
    dice = np.random.default_rng(0)
    for _ in range(100):
        plan, step, last = budget.first_plan(None, 5), 0, 0.0
        remaining = 100.0
        while remaining > 5 and step < 10_000:
            step_s = float(dice.uniform(0.05, 0.5))
            plan = budget.replan(plan, step, remaining, Costs(step_s, 0.3, 0.1), lambda total: 2, 5)
            assert plan.progress(step) == pytest.approx(last)
            for _ in range(int(dice.integers(1, 40))):
                step += 1
                remaining -= step_s
                assert plan.progress(step) >= last
                last = plan.progress(step)
        assert plan.progress(plan.total_steps) == 1.0


def test_a_new_plan_by_hand() -> None:
    # 100 s are left; 3 evaluations and saves take 3 * (2 + 1) s; the rest are steps of half a second.
    plan = budget.replan(Plan(1000), 50, 100.0, Costs(0.5, 2.0, 1.0), lambda total: 3, 0)
    assert plan == Plan(50 + 182, 0, 50, 0.05)
    assert plan.progress(50) == 0.05
    assert plan.progress(50 + 91) == pytest.approx(0.05 + 0.95 / 2)
    assert budget.replan(Plan(1000), 50, -3.0, Costs(0.5, 2.0, 1.0), lambda total: 1, 0).total_steps == 50


def test_warm_up_is_at_most_a_tenth_of_a_timed_plan_and_stays_once_it_is_over() -> None:
    costs = Costs(1.0, 0.0, 0.0)
    assert budget.replan(Plan(10**9, 50), 10, 90.0, costs, lambda total: 1, 50).warmup_steps == 10
    assert budget.replan(Plan(10**9, 5), 10, 90.0, costs, lambda total: 1, 50).warmup_steps == 5
    assert budget.replan(Plan(10**9, 0), 10, 90.0, costs, lambda total: 1, 0).warmup_steps == 0


# ---------------------------------------------------------------- clock and stop


class FakeTime:
    """A clock that only moves when it is told to; stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_the_clock_runs_from_the_first_batch_and_goes_on_after_a_resume() -> None:
    time = FakeTime()
    clock = Clock(7.0, time.monotonic)
    time.now += 50
    assert clock.elapsed_s() == 7.0
    clock.start()
    time.now += 3
    clock.start()
    assert clock.elapsed_s() == 10.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_t03_t04_a_signal_only_sets_a_flag_and_the_old_handlers_come_back(number: signal.Signals) -> None:
    before = {one: signal.getsignal(one) for one in Stop.SIGNALS}
    with Stop() as stop:
        assert stop.reason() is None
        os.kill(os.getpid(), number)
        assert stop.reason() == number.name
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason() == "SIGTERM"
    assert {one: signal.getsignal(one) for one in Stop.SIGNALS} == before


def test_in_another_thread_no_handler_is_set() -> None:
    found = []

    def use() -> None:
        with Stop() as stop:
            stop.request("asked")
            found.append(stop.reason())

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == ["asked"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_t05_the_sittings_limit_leaves_room_for_the_save() -> None:
    time = FakeTime()
    stop = Stop(60.0, began=990.0, now=time.monotonic)  # ten seconds went into imports
    time.now += 44
    assert stop.reason(5.0) is None
    time.now += 1
    assert stop.reason(5.0) == "--stop-after 60s"
    assert stop.reason() is None
    time.now += 5
    assert stop.reason() == "--stop-after 60s"


def test_reading_images_is_interrupted() -> None:
    stop, seen = Stop(), []
    watched = stop.watching(lambda done, total: seen.append((done, total)))
    watched(1, 2)
    stop.request("SIGTERM")
    with pytest.raises(Interrupted, match="SIGTERM"):
        watched(2, 2)
    assert seen == [(1, 2)]


# ---------------------------------------------------------------- the loop on a machine of changing speed


class Machine:
    """The real loop with everything that takes time replaced by a clock: steps, evaluations and saves.

    step_s: seconds of a step at a time, from 0 on.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, step_s: Callable[[float], float], evaluation_s: float = 2.0, save_s: float = 0.3
    ) -> None:
        self.time = FakeTime()
        self.step_s, self.evaluation_s, self.save_s = step_s, evaluation_s, save_s
        self.saves: list[tuple[int, dict[str, Any]]] = []
        self.under_way: Written | None = None
        for module in (loop, scoring):
            monkeypatch.setattr(module, "time", self.time)
        monkeypatch.setattr(loop, "Clock", lambda elapsed_s: Clock(elapsed_s, self.time.monotonic))
        monkeypatch.setattr(loop, "build", lambda *arguments: self.training)
        monkeypatch.setattr(loop, "_introduction", lambda training: iter(()))
        monkeypatch.setattr(loop, "_save", self.save)
        monkeypatch.setattr(loop, "Writer", lambda *arguments: self)
        monkeypatch.setattr(loop, "train_batches", lambda *arguments, **named: self.batches())
        monkeypatch.setattr(scoring, "evaluate", self.evaluate)

    def run(
        self,
        recipe: Recipe,
        stop: Stop | None = None,
        resumed: dict[str, Any] | None = None,
        on: Callable[[Record], None] | None = None,
    ) -> list[Record]:
        """One sitting; `resumed` is the state that an earlier one saved."""
        model = nn.Linear(1, 1)
        plan = budget.first_plan(None, round(100 * recipe.optim.warmup_epochs))
        state = State(model, torch.optim.SGD(model.parameters()), None, torch.amp.GradScaler("cpu", enabled=False), plan)
        for name, value in (resumed or {}).items():
            setattr(state, name, value)
        index: Any = range(100)
        members = {"__call__": lambda _, *arguments: self.step(*arguments), "usable": lambda _, count: count}
        step = type("Step", (), {**members, "scaler": state.scaler})()
        self.training: Any = SimpleNamespace(
            state=state,
            recipe=recipe,
            steps_per_epoch=100,
            step=step,
            scored=[SimpleNamespace(index=range(100), split="val")],
            train=index,
            source=None,
            augmentation=None,
            device=torch.device("cpu"),
            workers=None,
            order=None,
            is_batched=False,
            on_device=None,
            boxes=None,
            ranks=Ranks(),
        )
        records = []
        for record in loop.steps(recipe, SimpleNamespace(checkpoints=None), splits=index, device="cpu", workers="0", stop=stop):  # type: ignore[arg-type]
            records.append(record)
            if on is not None:
                on(record)
        return records

    def step(self, batch: Batch, step: int, lr: float, look: bool, count: int) -> Outcome:
        self.time.now += max(1e-4, self.step_s(self.time.now - 1000.0))
        return Outcome(1.0, {}, 0, 2, 1.0)

    def evaluate(self, training: Any, stop: Stop, pace: Any) -> list[Record] | None:
        for _ in range(10):
            if stop.reason(pace.reserve_s()):
                return None
            self.time.now += self.evaluation_s / 10
        training.state.evaluated_step = training.state.step
        training.state.evaluations += 1
        return [Record("evaluation", training.state.step)]

    def save(self, training: Any, writer: Any) -> float:
        """As the loop's: the training stands still for a tenth of what the disk takes."""
        self.time.now += self.save_s / 10
        state = training.state
        names = ("step", "elapsed_s", "plan", "evaluated_step", "evaluations")
        self.saves.append((state.step, {name: getattr(state, name) for name in names}))
        self.under_way = Written(state.step, Saved(SimpleNamespace(name=f"step-{state.step}"), self.save_s, 1), self.save_s, ())  # type: ignore[arg-type]
        return self.save_s / 10

    def poll(self, wait: bool = False) -> Written | None:
        """As the writer's: the checkpoint is on the disk at the next look, and at once where it is waited for."""
        if wait and self.under_way is not None:
            self.time.now += 0.9 * self.save_s
        found, self.under_way = self.under_way, None
        return found

    copy_s = 0.0
    has_failed = False

    def reserve(self, parts: Any) -> None: ...

    def close(self) -> None: ...

    @staticmethod
    def batches() -> Iterator[Batch]:
        empty = torch.zeros(2, dtype=torch.int64)
        while True:
            yield Batch(empty, empty, empty, ("a", "b"), ())


def _recipe(time: str, **changes: Any) -> Recipe:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return change(Recipe(), {"budget.time": time, "budget.log_every": 1, "optim.lr": 1.0, "optim.warmup_epochs": 0.5, **named})


SPEEDS: dict[str, Callable[[float], float]] = {
    "steady": lambda t: 0.1,
    "noisy": lambda t: 0.1 * (1 + 0.8 * np.sin(37 * t) ** 3),
    "slower and slower": lambda t: 0.05 + 0.15 * t / 120,
    "faster and faster": lambda t: 0.2 - 0.15 * t / 120,
    "twice as slow from the middle on": lambda t: 0.1 if t < 60 else 0.2,
    "three times as slow near the end": lambda t: 0.1 if t < 108 else 0.3,
    "three times as fast near the end": lambda t: 0.3 if t < 108 else 0.1,
    "a slow first step": lambda t: 9.0 if t < 1 else 0.1,
    "now and then ten seconds lost": lambda t: 10.0 if 30 <= t < 30.2 or 80 <= t < 80.2 else 0.1,
    "steps of two seconds": lambda t: 2.0,
}


@pytest.mark.parametrize("speed", SPEEDS)
def test_for_two_minutes_uses_85_to_100_percent_and_ends_below_2_percent_of_the_peak(
    monkeypatch: pytest.MonkeyPatch, speed: str
) -> None:
    records = Machine(monkeypatch, SPEEDS[speed]).run(_recipe("2m"))
    end = records[-1]
    assert (end.kind, end.values["exit_code"]) == ("end", 0)
    assert 0.85 <= end.values["elapsed_s"] / 120 <= 1.0
    assert end.values["lr"] < 0.02
    rates = [record.values["lr"] for record in records if record.kind == "step"]
    assert max(rates) > 0.9
    top = rates.index(max(rates))
    assert all(later <= earlier + 1e-9 for earlier, later in zip(rates[top:], rates[top + 1 :], strict=False))
    assert [record.kind for record in records[-3:]] == ["evaluation", "checkpoint", "end"]


@pytest.mark.parametrize("time", ["20s", "15m", "2h"])
def test_other_budgets_too(monkeypatch: pytest.MonkeyPatch, time: str) -> None:
    limit_s = {"20s": 20.0, "15m": 900.0, "2h": 7200.0}[time]
    machine = Machine(monkeypatch, lambda t: limit_s / 1200 * (1 + 0.5 * np.sin(t / limit_s * 9)), limit_s / 120, limit_s / 1200)
    end = machine.run(_recipe(time))[-1]
    assert 0.85 <= end.values["elapsed_s"] / limit_s <= 1.0
    assert end.values["lr"] < 0.02


@pytest.mark.parametrize("sittings_s", [13.0, 31.0])
def test_time_is_summed_over_sittings_and_a_slower_machine_goes_on_with_the_plan(
    monkeypatch: pytest.MonkeyPatch, sittings_s: float
) -> None:
    resumed: dict[str, Any] | None = None
    rates: list[float] = []
    for sitting in range(40):
        machine = Machine(monkeypatch, lambda t, factor=1 + sitting % 3: 0.1 * factor)  # type: ignore[misc]
        stop = Stop(sittings_s, now=machine.time.monotonic)
        records = machine.run(_recipe("2m"), stop, resumed)
        rates += [record.values["lr"] for record in records if record.kind == "step"]
        if records[-1].values["exit_code"] == 0:
            break
        resumed = machine.saves[-1][1]
        assert machine.time.now - 1000.0 <= sittings_s
    assert sitting > 2
    assert 0.85 <= records[-1].values["elapsed_s"] / 120 <= 1.0
    assert records[-1].values["lr"] < 0.02
    top = rates.index(max(rates))
    assert all(later <= earlier + 1e-9 for earlier, later in zip(rates[top:], rates[top + 1 :], strict=False))


def test_t05_stop_after_saves_before_the_limit_and_exits_75(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda t: 0.4, save_s=2.0)
    records = machine.run(change(Recipe(), {"epochs": 100.0}), Stop(30.0, now=machine.time.monotonic))
    assert records[-1].values["exit_code"] == 75
    assert records[-1].values["reason"] == "--stop-after 30s"
    assert machine.saves[-1][0] == records[-1].step > 0
    assert 20 < machine.time.now - 1000.0 <= 30.0


def test_stopped_before_any_step_was_measured_the_plan_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Machine(monkeypatch, lambda t: 0.1)
    first.run(_recipe("2m"), Stop(30.0, now=first.time.monotonic))
    step, resumed = first.saves[-1]
    second = Machine(monkeypatch, lambda t: 0.1)
    stop = Stop()
    second.run(_recipe("2m"), stop, resumed, on=lambda record: stop.request("SIGTERM"))
    after, again = second.saves[-1]
    assert after > step
    assert again["plan"] == resumed["plan"]


def test_a_constant_rate_stays_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    records = Machine(monkeypatch, SPEEDS["noisy"]).run(_recipe("2m", optim__schedule="constant", optim__warmup_epochs=0.0))
    assert {record.values["lr"] for record in records if record.kind == "step"} == {1.0}
    assert 0.85 <= records[-1].values["elapsed_s"] / 120 <= 1.0
