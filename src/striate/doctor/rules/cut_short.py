"""The training ended before its time, for the machine had no more to give.

Looks at: the exit code and the reason that the end of the last sitting was recorded with. Exit code 6 says that disk, memory or a
worker ran out; numbers that are not finite (5) are the rule `non-finite`'s, and a training that will go on (75) is none.
"""

from __future__ import annotations

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History
from striate.errors import ResourceError

SOURCE = "the run's own log: the reason with which it ended"
# Words of a reason by what ran out, the first that fits.
WORDS = {
    "disk": ("disk", "no space", "checkpoint needs"),
    "memory": ("memory", "out of", "killed"),
    "waiting-for-data": ("worker", "loader"),
}
ADVICE = {
    "disk": "Free some disk, keep fewer checkpoints, or write to another one (--out); then run the same command again.",
    "memory": "Take a smaller batch, or compute it in parts (--optim.accumulate); then run the same command again.",
    "waiting-for-data": "Run the same command again with fewer workers (--workers).",
}


def check(history: History) -> Finding | None:
    """The finding of a training that ended for lack of disk, memory or workers."""
    if history.end is None:
        raise NotJudged("it has not ended")
    if history.end.get("exit_code") != ResourceError.exit_code:
        return None
    reason = str(history.end.get("reason") or "no reason was kept")
    name = next((name for name, words in WORDS.items() if any(word in reason.lower() for word in words)), "memory")
    return Finding(
        code="cut-short",
        severity="error",
        sentence=f"The training ended at step {history.last_step:,}: {reason}",
        evidence={"exit code": ResourceError.exit_code, "step": history.last_step, "reason": reason},
        causes=(Cause(name, 0.9, "the reason with which it ended"),),
        remedies=(Remedy(ADVICE[name]),),
        source=SOURCE,
    )
