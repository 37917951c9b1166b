"""How long a training lasts: the plan of steps, the clock, and what stops a sitting."""

from __future__ import annotations

import signal
import threading
import time
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from striate.errors import Interrupted

# A time budget is planned to be used up to this share, so that a slow minute at the end does not break it.
AIM = 0.97
# When the last evaluation and the last save begin at the latest.
LAST_CALL = 0.99


@dataclass(frozen=True)
class Plan:
    """Where the schedule stands at each step: a pure function of step.

    total_steps: steps at which the training ends. From start_step on, progress rises linearly from
    start_progress to 1. A plan laid without a clock starts at 0; a time budget lays new plans on the way,
    each going on where the one before it stands.
    """

    total_steps: int
    warmup_steps: int = 0
    start_step: int = 0
    start_progress: float = 0.0

    def progress(self, step: int) -> float:
        """Share of the schedule done after `step` steps, 0..1."""
        left = self.total_steps - self.start_step
        if left <= 0:
            return 1.0
        return min(1.0, self.start_progress + (1 - self.start_progress) * (step - self.start_step) / left)

    def to_plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Costs:
    """Measured durations, in seconds: one step with its data, one evaluation, one save; and the saves of plans to come."""

    step_s: float
    evaluation_s: float
    save_s: float
    plans_left: int = 0


def first_plan(total_steps: int | None, warmup_steps: int) -> Plan:
    """The plan before the first step; without a step count (a time budget) one that is surely too long."""
    if total_steps is None:
        return Plan(10**9, warmup_steps)
    return Plan(total_steps, min(warmup_steps, total_steps))


def replan(
    plan: Plan, step: int, remaining_s: float, costs: Costs, evaluations_left: Callable[[int], int], warmup_steps: int
) -> Plan:
    """The plan that uses up the remaining time, going on from the progress that `plan` has at `step`.

    evaluations_left: how many evaluations a plan of so many total steps still holds. The last one and the last
    save always count. warmup_steps: as the recipe wants; at most a tenth of the new plan.
    """
    for_steps_s = remaining_s - costs.evaluation_s - (1 + costs.plans_left) * costs.save_s
    left = int(max(0.0, for_steps_s) / max(costs.step_s, 1e-6))
    for_steps_s -= max(0, evaluations_left(step + left) - 1) * (costs.evaluation_s + costs.save_s)
    left = int(max(0.0, for_steps_s) / max(costs.step_s, 1e-6))
    total = step + left
    warmup = min(warmup_steps, max(1, total // 10)) if warmup_steps else 0
    return Plan(total, plan.warmup_steps if step >= plan.warmup_steps > 0 else warmup, step, plan.progress(step))


def ended(plan: Plan, step: int) -> Plan:
    """The plan of a training whose time is up: it ends here, so that no later sitting takes another step."""
    return replace(plan, total_steps=step)


def reopened(plan: Plan, step: int, done_share: float, warmup_steps: int) -> Plan:
    """The plan of a training that has ended and was given more time: open-ended, from that share of the new budget on."""
    return Plan(10**9, min(warmup_steps, step), step, done_share) if plan.total_steps <= step else plan


class Clock:
    """Training time over all sittings: runs from the first batch on, and starts at what the checkpoint holds."""

    def __init__(self, elapsed_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._before = elapsed_s
        self._now = now
        self._began: float | None = None

    def start(self) -> None:
        """Called when the first batch of a sitting is there."""
        if self._began is None:
            self._began = self._now()

    def elapsed_s(self) -> float:
        """Seconds of training so far, this sitting and those before it."""
        return self._before + (self._now() - self._began if self._began is not None else 0.0)


class Stop:
    """Why this sitting should end now, if it should: a signal came, or its time is nearly up.

    A handler only sets a flag; the loop reads it between steps. The handlers that were there before come
    back on exit, and a second signal changes nothing.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

    def __init__(
        self, after_s: float | None = None, began: float | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._now = now
        start = now() if began is None else began
        self._deadline = None if after_s is None else start + after_s
        self._after_s = after_s
        self._signal: str | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for one in self.SIGNALS:
                self._old[one] = signal.signal(one, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._old.items():
            signal.signal(one, handler)
        self._old.clear()

    def _note(self, number: int, _: types.FrameType | None) -> None:
        self._signal = signal.Signals(number).name

    def request(self, reason: str) -> None:
        """Asks the sitting to end, as a signal does."""
        self._signal = reason

    def watching(self, progress: Callable[[int, int], None] | None) -> Callable[[int, int], None]:
        """`progress` that raises Interrupted when the sitting should end, for work before the first step."""

        def watched(done: int, total: int) -> None:
            reason = self.reason()
            if reason is not None:
                raise Interrupted(reason)
            if progress is not None:
                progress(done, total)

        return watched

    def reason(self, reserve_s: float = 0.0) -> str | None:
        """Why to stop now, or None. reserve_s: what the step and the save still need before the sitting's limit."""
        if self._signal is not None:
            return self._signal
        if self._deadline is not None and self._now() + reserve_s >= self._deadline:
            return f"--stop-after {self._after_s:.0f}s"
        return None
