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
    sound = {
        "ill": lambda home: fuzz_readers.Target("ill", [b"raise", b"abort", b"spin", b"grow", b"refuse", b"read"], (), _ignore)
    }
    monkeypatch.setattr(fuzz_readers, "TARGETS", sound)
    result = fuzz_readers.campaign(tmp_path, ["ill"], 24, seed=0)
    found = {number: said for _, number, said in result.failures}
    places = [fuzz_readers.mutated(sound["ill"](tmp_path), number, 0)[0] for number in range(24)]
    words = ("ZeroDivisionError", "SIGABRT", "of processor time", " MB")
    for place, word in enumerate(words):
        assert place in places and all(word in found[number] for number in range(24) if places[number] == place)
    assert sorted(found) == [number for number in range(24) if places[number] < 4]
    assert result.outcomes["ill"]["read"] == places.count(5) and result.crashes == places.count(1)
    assert {path.stem for path in (tmp_path / "failures").glob("*.bin")} == {f"ill-{number}" for number in found}


def _ignore(number: int, data: bytes) -> None:
    """A reader."""
