"""How fast a sitting goes: measured durations of steps, of waiting for data, of evaluations and saves."""

from __future__ import annotations

from striate.train import budget


class Pace:
    """Measured durations of this sitting: of steps, of waiting, of evaluations and saves."""

    def __init__(self) -> None:
        self.evaluation_s = 0.0
        self.save_s = 0.5
        self.step_s = 0.0
        self._images, self._seconds, self._waiting = 0, 0.0, 0.0
        self._window_steps, self._window_s = 0, 0.0
        self._replans: set[float] = set()

    def waited(self, duration_s: float) -> None:
        """Time that a step waited for its batch."""
        self._waiting += duration_s

    def stepped(self, images: int, duration_s: float) -> None:
        """A step with its batch took that long."""
        self._images += images
        self._seconds += duration_s
        self._window_steps += 1
        self._window_s += duration_s
        self.step_s = duration_s if self.step_s == 0 else 0.9 * self.step_s + 0.1 * duration_s

    def speed(self) -> dict[str, float]:
        """Images per second and the share of time spent waiting for data, since the last call."""
        facts = {
            "images_per_s": self._images / self._seconds if self._seconds > 0 else 0.0,
            "wait_share": min(1.0, self._waiting / self._seconds) if self._seconds > 0 else 0.0,
        }
        self._images, self._seconds, self._waiting = 0, 0.0, 0.0
        return facts

    def reserve_s(self) -> float:
        """What must be left of a sitting to finish a step and save, with a margin."""
        return 1.0 + 2 * self.step_s + 2 * self.save_s

    def replan_due(self, limit_s: float | None, elapsed_s: float) -> bool:
        """Whether the elapsed share of a time budget asks for a new plan (and so for a checkpoint)."""
        if limit_s is None or self._window_steps < 3:
            return False
        reached = {share for share in budget.REPLAN_SHARES if elapsed_s >= share * limit_s}
        new = not reached <= self._replans
        self._replans |= reached
        return new

    def mean_step_s(self) -> float:
        """Seconds of one step with its data, over the steps since the window began; the recent ones before the first window."""
        return self._window_s / self._window_steps if self._window_steps else self.step_s

    def new_window(self) -> None:
        """Begins to measure anew, once there is enough in the window to have planned with."""
        if self._window_steps >= 20 or self._window_s > 5:
            self._window_steps, self._window_s = 0, 0.0
