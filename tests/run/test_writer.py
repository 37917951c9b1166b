"""Checkpoints written beside the training hold what was true when they were asked for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from striate.errors import NonFiniteError, ResourceError, UserError
from striate.files import read_json
from striate.run import checkpoint
from striate.run.checkpoint import Tensors
from striate.run.writer import Writer

FACTS: dict[str, Any] = {"seed": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints"
    path.mkdir()
    return path


def parts(value: float, side: int = 4) -> dict[str, Tensors]:
    weight = torch.full((2, 3, side, side), value).contiguous(memory_format=torch.channels_last)
    return {"model": {"weight": weight, "count": torch.tensor(7)}, "optimizer": {"weight/momentum": torch.full((5,), -value)}}


class Gate:
    """Holds the writing thread until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        real = checkpoint.save

        def save(*arguments: Any) -> checkpoint.Saved:
            self.reached.set()
            assert self.open.wait(20)
            return real(*arguments)

        monkeypatch.setattr(checkpoint, "save", save)


def test_c18_what_is_saved_is_the_state_at_the_call(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, writer, state = Gate(monkeypatch), Writer(folder, 2), parts(1.0)
    expected = {part: {name: tensor.clone() for name, tensor in tensors.items()} for part, tensors in state.items()}
    writer.begin(5, state, FACTS, None, None)
    for tensors in state.values():
        for tensor in tensors.values():
            tensor.fill_(99)
    gate.open.set()
    written = writer.poll(wait=True)
    assert written is not None and written.step == 5
    found = checkpoint.read(folder / "step-5")
    for part in ("model", "optimizer"):
        ours = getattr(found, part)
        assert ours.keys() == expected[part].keys()
        assert all(torch.equal(ours[name], expected[part][name]) for name in ours)
    assert found.state["seed"] == 3
    writer.close()


def test_c18_the_second_snapshot_does_not_change_the_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both use the same memory, so the second waits until the first is on the disk."""
    gate, writer = Gate(monkeypatch), Writer(folder, 2)
    writer.begin(1, parts(1.0), FACTS, None, None)
    second = threading.Thread(target=writer.begin, args=(2, parts(2.0), FACTS, None, None))
    second.start()
    assert gate.reached.wait(10)
    second.join(0.2)
    assert second.is_alive()
    gate.open.set()
    second.join(10)
    writer.poll(wait=True)
    assert [float(checkpoint.read(folder / f"step-{step}").model["weight"].max()) for step in (1, 2)] == [1.0, 2.0]
    writer.close()


def test_c18_taking_the_room_of_a_snapshot_leaves_the_one_that_is_written_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, writer = Gate(monkeypatch), Writer(folder, 2)
    writer.begin(1, parts(1.0), FACTS, None, None)
    later = threading.Thread(target=writer.reserve, args=(parts(2.0),))
    later.start()
    assert gate.reached.wait(10)
    later.join(0.2)
    gate.open.set()
    later.join(10)
    assert float(checkpoint.read(folder / "step-1").model["weight"].max()) == 1.0
    writer.close()


def test_a_tensor_that_a_checkpoint_cannot_hold(folder: Path) -> None:
    writer = Writer(folder, 2)
    writer.begin(1, {"model": {"wave": torch.zeros(3, dtype=torch.complex64)}, "optimizer": {}}, FACTS, None, None)
    with pytest.raises(UserError, match=r"'wave' is of type torch\.complex64"):
        writer.poll(wait=True)
    writer.close()


def test_the_training_goes_on_while_the_disk_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, writer = Gate(monkeypatch), Writer(folder, 2)
    assert writer.poll() is None
    writer.begin(1, parts(1.0), FACTS, None, {"step": 1, "top1": 0.5})
    assert gate.reached.wait(10)
    assert writer.poll() is None
    assert not (folder.parent / "best.json").exists()  # it names no checkpoint that is not on the disk
    gate.open.set()
    assert writer.poll(wait=True) is not None
    assert read_json(folder.parent / "best.json")["step"] == 1
    assert writer.poll() is None
    writer.close()


def test_closing_waits_for_the_checkpoint_under_way(folder: Path) -> None:
    writer = Writer(folder, 2)
    writer.begin(1, parts(1.0, side=64), FACTS, None, None)
    writer.close()
    assert checkpoint.read(folder / "step-1").step == 1


def test_c01_an_error_of_the_disk_comes_with_the_next_poll(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(folder, 2)
    writer.begin(1, parts(1.0), FACTS, None, None)
    writer.poll(wait=True)
    monkeypatch.setattr(checkpoint, "free_bytes", lambda path: 10)
    writer.begin(2, parts(2.0), FACTS, None, {"step": 2})
    with pytest.raises(ResourceError, match="Free some disk"):
        writer.poll(wait=True)
    assert checkpoint.steps_in(folder) == [1]
    assert not (folder.parent / "best.json").exists()
    writer.close()
    writer = Writer(folder, 2)
    writer.begin(3, parts(3.0), FACTS, None, None)
    writer.begin(4, parts(4.0), FACTS, None, None)  # nothing is raised here, where one process of several would be alone
    with pytest.raises(ResourceError, match="Free some disk"):
        writer.poll()
    assert writer.has_failed
    writer.close()


@pytest.mark.parametrize("part, name", [("model", "weight"), ("optimizer", "weight/momentum")])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_t08_a_state_that_is_not_finite_is_never_written(folder: Path, part: str, name: str, value: float) -> None:
    writer, state = Writer(folder, 2), parts(1.0)
    state[part][name][-1].fill_(value)
    writer.begin(8, state, FACTS, None, {"step": 8})
    with pytest.raises(NonFiniteError, match=f"Step 8: {part} '{name}' is not finite"):
        writer.poll(wait=True)
    assert list(folder.iterdir()) == []
    assert not (folder.parent / "best.json").exists()
    writer.close()


def test_c09_older_ones_go_after_the_new_one_is_there_and_the_copy_comes_last(folder: Path) -> None:
    seen = []

    def copy(path: Path, last_step: int, keep: int, spared: tuple[int, ...]) -> list[str]:
        seen.append((path.name, checkpoint.steps_in(folder), keep, spared))
        return ["the mirror is gone"] if last_step == 3 else []

    writer = Writer(folder, 2, copy)
    for step in (1, 2, 3, 4):
        writer.begin(step, parts(float(step)), FACTS, None, {"step": 1})
        written = writer.poll(wait=True)
        assert written is not None
        assert written.complaints == (("the mirror is gone",) if step == 3 else ())
    there = [[1], [2, 1], [3, 2, 1], [4, 3, 1]]
    assert seen == [(f"step-{step}", found, 2, (1,)) for step, found in enumerate(there, start=1)]
    writer.close()


def test_parts_that_come_later_and_tensors_that_change_their_shape(folder: Path) -> None:
    writer, state = Writer(folder, 9), parts(1.0)
    writer.reserve({"model": state["model"]})
    for step, more in enumerate(({}, {"ema": {"weight": torch.ones(3)}}, {"ema": {"weight": torch.ones(4), "b": torch.ones(1)}})):
        writer.begin(step, state | more, FACTS, None, None)
        writer.poll(wait=True)
        found = checkpoint.read(folder / f"step-{step}")
        assert (found.ema is None) == (not more)
        if more and found.ema is not None:
            assert found.ema.keys() == more["ema"].keys()
            assert all(torch.equal(found.ema[name], more["ema"][name]) for name in found.ema)
    writer.close()


def test_c19_a_mirror_that_is_slower_than_the_checkpoints_holds_nothing_up(folder: Path) -> None:
    """It gets the first, and the last when the training ends; what it reads is not deleted under it."""
    free, copied = threading.Event(), []

    def copy(path: Path, last_step: int, keep: int, spared: tuple[int, ...]) -> list[str]:
        assert free.wait(20)
        copied.append(checkpoint.read(path).step)
        return [f"copied {last_step}"]

    writer = Writer(folder, 2, copy)
    said: list[str] = []
    for step in range(1, 7):
        writer.begin(step, parts(float(step)), FACTS, None, None)
        while (written := writer.poll()) is None:
            pass
        said += written.complaints
    assert said == copied == []
    assert checkpoint.steps_in(folder) == [6, 5, 1]
    free.set()
    writer.begin(7, parts(7.0), FACTS, None, None)
    written = writer.poll(wait=True)
    assert written is not None and written.complaints[-1] == "copied 7"
    assert copied[0] == 1 and copied[-1] == 7
    writer.close()


def test_the_best_one_stays_while_the_mirror_reads_it(folder: Path) -> None:
    free, missing = threading.Event(), []

    def copy(path: Path, last_step: int, keep: int, spared: tuple[int, ...]) -> list[str]:
        assert free.wait(20)
        missing.extend(step for step in (last_step, *spared) if not (folder / f"step-{step}").exists())
        return []

    writer = Writer(folder, 1, copy)
    for step, best in ((1, 1), (2, 1), (3, 3), (4, 4)):
        writer.begin(step, parts(float(step)), FACTS, None, {"step": best})
        while writer.poll() is None:
            pass
    free.set()
    writer.poll(wait=True)
    writer.close()
    assert missing == []
