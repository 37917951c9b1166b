"""No tracker can hurt the training: one that fails, hangs or is missing."""

from __future__ import annotations

import contextlib
import sys
import threading
import time

import pytest

from striate import sitting
from striate.errors import UserError
from striate.run.log import Record
from striate.track import trackers

from .conftest import begins, steps

END = Record("end", 12, {"reason": "done", "exit_code": 0})


def put(monkeypatch, **opened) -> None:
    """Trackers of a test, by name."""
    monkeypatch.setattr(trackers, "TRACKERS", {name: (one, ()) for name, one in opened.items()})


def test_an_unknown_tracker_names_the_nearest():
    with pytest.raises(
        UserError, match=r"--track tensorbord: no such tracker\. Did you mean 'tensorboard'\?.*tensorboard, wandb"
    ):
        trackers.require(["tensorbord"])


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_says_how_to_install_it_before_anything_is_made(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not there
    with pytest.raises(UserError, match=rf"'{name}', which is not installed: pip install 'striate\[track\]'"):
        sitting.sit(sitting.Request("no such data", out=tmp_path / "runs", track=(name,)), quiet=True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("error", [OSError("No space left on device\nmore"), SystemExit(1), ValueError()])
def test_a_tracker_that_fails_in_the_middle_says_so_once(run, sit, monkeypatch, error):
    written = []

    @contextlib.contextmanager
    def failing(story):
        def write(entry):
            if entry.step == 5:
                raise error
            written.append(entry.step)

        yield write

    put(monkeypatch, failing=failing, fine=lambda story: contextlib.nullcontext(lambda entry: fine.append(entry.step)))
    fine: list[int] = []
    said = sit(["failing", "fine"], [begins(), *steps(1, 12), END])
    reason = str(error).splitlines()[0] if str(error) else "ValueError"
    assert said == [f"failing: tracking failed and is off for this sitting ({reason}). The training goes on; its log has all."]
    assert max(written) == 4 and fine[-1] == 12  # the others go on


def test_a_tracker_that_hangs_costs_no_time(run, sit, monkeypatch):
    hold = threading.Event()

    @contextlib.contextmanager
    def hanging(story):
        hold.wait()
        yield lambda entry: None

    put(monkeypatch, hanging=hanging)
    monkeypatch.setattr(trackers, "END_S", 0.2)
    monkeypatch.setattr(trackers, "MOST_WAITING", 5)
    began = time.monotonic()
    said = sit(["hanging"], [begins(), *steps(1, 12), END])
    assert time.monotonic() - began < 2
    assert said == ["hanging: is 5 records behind and is given up for this sitting."]
    monkeypatch.setattr(trackers, "MOST_WAITING", 1000)
    said = sit(["hanging"], [begins(), *steps(1, 12), END])
    assert len(said) == 1 and said[0].startswith("hanging: is not ready")
    hold.set()


def test_a_tracker_named_twice_is_opened_once(run, sit, monkeypatch):
    opened = []
    put(monkeypatch, one=lambda story: opened.append(story) or contextlib.nullcontext(lambda entry: None))
    sit(["one", "one"], [begins(), END])
    assert len(opened) == 1


def test_nothing_is_opened_for_a_sitting_that_never_starts(run, sit, monkeypatch):
    put(monkeypatch, one=lambda story: pytest.fail("opened"))
    assert sit(["one"], [Record("note", 0, {"text": "x"}), Record("end", 0, {"reason": "bad data", "exit_code": 3})]) == []
