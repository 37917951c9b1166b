"""The readers among mutated files, short: none may crash, take long, grow, or raise what is not ours."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def fuzz_readers() -> ModuleType:
    """benchmarks/fuzz_readers.py as a module."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_readers.py"
    spec = importlib.util.spec_from_file_location("fuzz_readers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_readers"] = module  # where dataclasses look for the names in their annotations
    spec.loader.exec_module(module)
    return module


def test_two_thousand_mutated_files_are_read_or_refused(fuzz_readers: ModuleType, tmp_path: Path) -> None:
    result = fuzz_readers.campaign(tmp_path, list(fuzz_readers.TARGETS), 2000, seed=0)
    assert result.failures == []
    assert (result.inputs, result.crashes) == (2000, 0)
    for name, counts in result.outcomes.items():
        assert sum(count for kind, count in counts.items() if kind.startswith("refused")) > 0, f"{name}: too tame"


def test_an_input_is_a_function_of_its_number(fuzz_readers: ModuleType, tmp_path: Path) -> None:
    target = fuzz_readers.make("images", tmp_path)
    inputs = [fuzz_readers.mutated(target, number, 7) for number in range(50)]
    assert inputs == [fuzz_readers.mutated(target, number, 7) for number in range(50)]
    assert len(set(inputs)) > 45 and inputs[:5] != [fuzz_readers.mutated(target, number, 8) for number in range(5)]


# Readers that do what must not be done with anything but the sound files.
ILL = """
import os, sys, time
sys.path.insert(0, {folder!r})
import fuzz_readers
from striate.errors import DataError

fuzz_readers.LIMIT_S, fuzz_readers.GROWTH_BYTES = 0.2, 80_000_000


def ill(home):
    seeds = [b"raise", b"abort", b"spin", b"grow", b"refuse", b"read"]

    def read(number, data):
        if data == seeds[number] or number == 5:
            return
        if number == 0:
            raise ZeroDivisionError("not one of ours")
        if number == 1:
            os.abort()
        if number == 2:
            end = time.process_time() + 0.3
            while time.process_time() < end:
                pass
        if number == 3:
            bytearray(200_000_000)[::4096] = bytes(48829)
        raise DataError("as it should be")

    return fuzz_readers.Target("ill", seeds, (), read)


fuzz_readers.TARGETS["ill"] = ill
if __name__ == "__main__":
    sys.exit(fuzz_readers.main())
"""


def test_what_must_not_happen_is_found_and_kept(
    fuzz_readers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "ill.py"
    script.write_text(ILL.format(folder=str(Path(fuzz_readers.__file__).parent)))
    monkeypatch.setattr(fuzz_readers, "SCRIPT", script)
    seeds = [b"raise", b"abort", b"spin", b"grow", b"refuse", b"read"]
    target = fuzz_readers.Target("ill", seeds, (), lambda number, data: None)
    monkeypatch.setattr(fuzz_readers, "TARGETS", {"ill": lambda home: target})
    inputs = [fuzz_readers.mutated(target, number, 28) for number in range(8)]
    kinds = [seeds[place].decode() if data != seeds[place] else "read" for place, data in inputs]
    assert set(kinds) == {seed.decode() for seed in seeds}, "another seed has them all"

    result = fuzz_readers.campaign(tmp_path, ["ill"], 8, seed=28)
    words = {"raise": "ZeroDivisionError", "abort": "SIGABRT", "spin": "of processor time", "grow": " MB"}
    found = {number: said for _, number, said in result.failures}
    assert sorted(found) == [number for number, kind in enumerate(kinds) if kind in words], found
    assert all(words[kinds[number]] in said for number, said in found.items())
    assert result.outcomes["ill"]["read"] == kinds.count("read") and result.crashes == kinds.count("abort")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "failures").glob("*.bin")}
    assert kept == {f"ill-{number}.bin": inputs[number][1] for number in found}
