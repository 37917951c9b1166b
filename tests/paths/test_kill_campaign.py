"""The campaigns of real SIGKILLs, short: of trainings, some within a save, and of packing, some within a shard."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def benchmark(name: str) -> ModuleType:
    """A file of benchmarks/ as a module."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for the names in their annotations
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_t01_t02_three_kills_and_the_end_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRIATE_TEST_DATA", raising=False)
    result = benchmark("kill_campaign").campaign(tmp_path, 3, seed=0)
    numbers = result.numbers()
    assert numbers["differences"] == []
    assert (numbers["kills"], numbers["bytes_of_finished_checkpoints_lost"]) == (3, 0)
    assert {kill.run for kill in result.kills} == {"originals", "pack", "resident"}
    assert numbers["kills_inside_a_save"] >= 1
    assert numbers["batches_compared"] > 2 * numbers["steps"]
    assert result.is_good


def test_four_kills_of_packing_and_the_pack_is_the_same(tmp_path: Path) -> None:
    result = benchmark("kill_pack").campaign(tmp_path, 4, seed=0, images=1200)
    assert result.differences == []
    assert len(result.kills) == 4 and result.packs >= 1
    assert sum(result.kept) >= 256  # a record batch at least
