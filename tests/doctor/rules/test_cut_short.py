"""A training whose log ends with exit code 6, by what ran out."""

from __future__ import annotations

import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import cut_short
from striate.run.log import Record


def _ended(makers, reason, exit_code=6):
    history = makers.training(makers.falling(2.4, 1.0), until=0.5)
    history.observe(Record("end", 1000, {"reason": reason, "exit_code": exit_code}))
    return history


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("The checkpoint needs 45 MB and the disk has 12 MB.", "disk"),
        ("[Errno 28] No space left on device", "disk"),
        ("CUDA out of memory. Tried to allocate 2 GB", "memory"),
        ("A loader worker exited with code 1.", "waiting-for-data"),
        ("runs/x/checkpoints: a checkpoint needs 53 MB (and a fifth to spare), 42 MB are free. Free some disk.", "disk"),
        ("the loader's process was killed: memory ran out", "memory"),
        ("a worker gave no sign for 300 s", "waiting-for-data"),
    ],
)
def test_what_ran_out_is_the_cause(makers, reason, cause):
    found = cut_short.check(_ended(makers, reason))
    assert (found.cause, found.severity) == (cause, "error")
    assert found.sentence == f"The training ended at step 1,000: {reason}"


@pytest.mark.parametrize("exit_code", [0, 5, 75])
def test_silent_for_other_ends(makers, exit_code):
    assert cut_short.check(_ended(makers, "disk", exit_code)) is None


def test_not_judged_while_it_runs(makers):
    with pytest.raises(NotJudged, match="not ended"):
        cut_short.check(makers.training(makers.falling(2.4, 1.0), until=0.5))


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(cut_short, healthy) is None
