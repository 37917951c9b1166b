"""The campaign of real SIGKILLs, short: six kills of real processes, some of them within a save."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def kill_campaign() -> ModuleType:
    """benchmarks/kill_campaign.py as a module."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_campaign.py"
    spec = importlib.util.spec_from_file_location("kill_campaign", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_campaign"] = module  # where dataclasses look for the names in their annotations
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_t01_t02_six_kills_and_the_end_is_the_same(
    kill_campaign: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STRIATE_TEST_DATA", raising=False)
    result = kill_campaign.campaign(tmp_path, 6, seed=0)
    numbers = result.numbers()
    assert numbers["differences"] == []
    assert (numbers["kills"], numbers["bytes_of_finished_checkpoints_lost"]) == (6, 0)
    assert numbers["kills_inside_a_save"] >= 1
    assert numbers["batches_compared"] > 2 * numbers["steps"]
    assert result.is_good
