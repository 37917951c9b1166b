"""A training whose filters are kept in bounds keeps them there in every checkpoint, and resumes bit for bit."""

from __future__ import annotations

from typing import Any

import pytest

from striate.run.log import Record
from striate.train.budget import Stop


def test_stopped_and_gone_on_with_it_ends_the_same_with_no_filter_beyond_the_bound(sit: Any) -> None:
    changes = {"optim__filter_rms": 0.1, "optim__name": "sgd-alexnet"}
    stop = Stop()

    def on(record: Record) -> None:
        if record.kind == "step" and record.step == 3:
            stop.request("SIGTERM")

    whole, free = sit("whole", **changes), sit("free", optim__name="sgd-alexnet")
    assert sit("cut", stop, on=on, **changes).last.step == 3
    assert sit("cut", **changes).differences(whole) == []
    largest = [float(end.last.model["0.weight"].square().mean((1, 2, 3)).sqrt().max()) for end in (whole, free)]
    assert largest[0] == pytest.approx(0.1) and largest[1] > 0.12
