"""How fast a sitting goes: measured durations of steps, of waiting for data, of evaluations and saves."""

from __future__ import annotations

import statistics
from collections import deque

# The first steps of a sitting are slow (kernels are chosen, memory is taken): they tell nothing about the others.
_SETTLING_STEPS = 2
# Steps that a plan is laid on, at least.
_LEAST_STEPS = 5
# Shares of a time budget at which the plan is laid anew in any case.
_REPLAN_SHARES = (0.04, 0.08, 0.15, 0.25, 0.4, 0.55, 0.7, 0.8, 0.88, 0.94)
# A plan that is this far off, as a share of what remains, is laid anew at once, but no sooner than _REPLAN_PAUSE after the last.
_REPLAN_ERROR = 0.15
_REPLAN_PAUSE = 0.04


class Pace:
    """Measured durations of this sitting, in seconds; what is not measured yet is guessed from the steps.

    guessed_evaluation_steps: about how many steps an evaluation takes, until one is measured.
    """

    def __init__(self, guessed_evaluation_steps: float) -> None:
        self.save_s = 0.5
        self.stall_s = 0.05
        self._evaluation_s: float | None = None
        self._evaluation_steps = guessed_evaluation_steps
        self._durations: deque[float] = deque(maxlen=200)
        self._earlier_step_s = 0.0
        self._seen = 0
        self._images, self._seconds, self._waiting = 0, 0.0, 0.0
        self._reached: set[float] = set()
        self._planned_at_s = 0.0

    # ------------------------------------------------ measuring

    def waited(self, duration_s: float) -> None:
        """Time that a step waited for its batch."""
        self._waiting += duration_s

    def stepped(self, images: int, duration_s: float) -> None:
        """A step with its batch took that long."""
        self._images += images
        self._seconds += duration_s
        self._seen += 1
        if self._seen > _SETTLING_STEPS:
            self._durations.append(duration_s)

    def remember(self, measured: dict[str, float | None]) -> None:
        """Takes over what an earlier sitting measured (`measured`), until this one knows better."""
        self._earlier_step_s = measured.get("step_s") or 0.0
        self._evaluation_s = measured.get("evaluation_s")

    def measured(self) -> dict[str, float | None]:
        """What the next sitting starts with: step_s, evaluation_s."""
        return {"step_s": self.step_s or None, "evaluation_s": self._evaluation_s}

    def saved(self, duration_s: float) -> None:
        """A checkpoint and its copy take that long when the training waits for them, as it does at the end."""
        self.save_s = duration_s

    def stood_still(self, duration_s: float) -> None:
        """The training stood still that long for a checkpoint."""
        self.stall_s = duration_s

    def evaluated(self, duration_s: float) -> None:
        """An evaluation of everything that is scored took that long."""
        self._evaluation_s = duration_s

    def speed(self) -> dict[str, float]:
        """Images per second and the share of time spent waiting for data, since the last call."""
        facts = {
            "images_per_s": self._images / self._seconds if self._seconds > 0 else 0.0,
            "wait_share": min(1.0, self._waiting / self._seconds) if self._seconds > 0 else 0.0,
        }
        self._images, self._seconds, self._waiting = 0, 0.0, 0.0
        return facts

    # ------------------------------------------------ judging

    @property
    def step_s(self) -> float:
        """Typical duration of a step with its data: the median of few, the mean of many without the extremes.

        Before any it is that of an earlier sitting, or 0.
        """
        if not self._durations:
            return self._earlier_step_s
        middle = statistics.median(self._durations)
        if len(self._durations) < 20:
            return middle
        return statistics.fmean(duration for duration in self._durations if duration <= 10 * middle)

    @property
    def evaluation_s(self) -> float:
        """Duration of an evaluation."""
        return self._evaluation_s if self._evaluation_s is not None else self._evaluation_steps * self.step_s

    def reserve_s(self) -> float:
        """What must be left of a sitting to finish a step and save, with a margin."""
        return 1.0 + 2 * max(self.step_s, self._durations[-1] if self._durations else 0.0) + 2 * self.save_s

    def plan_due(self, limit_s: float, elapsed_s: float, steps_left: int) -> bool:
        """Whether a time budget asks for a new plan (and so for a checkpoint).

        limit_s, elapsed_s: of the training. steps_left: by the plan in force.
        """
        if len(self._durations) < _LEAST_STEPS or steps_left < _LEAST_STEPS:
            return False
        reached = {share for share in _REPLAN_SHARES if elapsed_s >= share * limit_s}
        remaining_s = limit_s - elapsed_s - self.evaluation_s - self.save_s
        is_off = abs(steps_left * self.step_s - remaining_s) > _REPLAN_ERROR * max(remaining_s, 0.0) + 0.02 * limit_s
        has_paused = elapsed_s - self._planned_at_s >= _REPLAN_PAUSE * limit_s
        if not (reached - self._reached or (is_off and has_paused and self._reached)):
            return False
        self._reached |= reached
        return True

    def plans_left(self, limit_s: float, elapsed_s: float) -> int:
        """How many plans, each with its save, are still to come at fixed shares of the time."""
        return sum(share * limit_s > elapsed_s for share in _REPLAN_SHARES)

    def planned(self, elapsed_s: float) -> None:
        """A plan was laid."""
        self._planned_at_s = elapsed_s
