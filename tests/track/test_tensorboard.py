"""TensorBoard's files, read back by TensorBoard."""

from __future__ import annotations

from pathlib import Path

import pytest

from striate.run.log import Record

from .conftest import begins, steps

pytest.importorskip("tensorboard", reason="needs the extra track: pip install 'striate[track]'")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

END = Record("end", 12, {"reason": "done", "exit_code": 0})


def read(run) -> EventAccumulator:
    found = EventAccumulator(str(run.path / "track" / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def scalars(found: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 6)) for event in found.Scalars(tag)]


def texts(found: EventAccumulator, tag: str) -> list[str]:
    return [event.tensor_proto.string_val[0].decode() for event in found.Tensors(f"{tag}/text_summary")]


def test_every_number_with_its_step_and_the_recipe(run, sit):
    note = Record("note", 0, {"text": "train: 60 images: grey"})
    assert sit(["tensorboard"], [begins(), note, *steps(1, 12), END]) == []
    found = read(run)
    assert scalars(found, "train/loss") == [(step, round(1 / step, 6)) for step in range(1, 13)]
    assert scalars(found, "val/raw/top1") == [(4, 0.2), (8, 0.4), (12, 0.6)]
    assert scalars(found, "val/EMA/top1") == [(4, 0.16), (8, 0.32), (12, 0.48)]
    assert scalars(found, "norms/conv1/weight")[-1] == (12, 24.0)
    assert scalars(found, "dead_share/relu")[0] == (1, 0.125)
    assert "| optim.lr | `0.25` |" in texts(found, "recipe")[0]
    assert '| model.options.stem | `"small"` |' in texts(found, "recipe")[0]
    assert texts(found, "notes") == ["train: 60 images: grey", "Ended at step 12: done."]


def test_a_resume_leaves_each_step_once(run, sit):
    """Stopped at step 7, on from the checkpoint of step 5 with other speeds."""
    sit(["tensorboard"], [begins(), *steps(1, 7)])
    again = [Record(one.kind, one.step, one.values | {"images_per_s": 50.0}) for one in steps(6, 12)]
    sit(["tensorboard"], [begins(5), *again, END])
    found = read(run)
    assert scalars(found, "train/loss") == [(step, round(1 / step, 6)) for step in range(1, 13)]
    assert scalars(found, "speed/images_per_s") == [(step, 90.0) for step in range(1, 6)] + [
        (step, 50.0) for step in range(6, 13)
    ]
    assert [step for step, _ in scalars(found, "val/raw/top1")] == [4, 8, 12]
    assert texts(found, "notes") == ["Went on at step 5.", "Ended at step 12: done."]


def test_a_tensorboard_that_was_open_all_the_time_sees_each_step_once(run, sit):
    sit(["tensorboard"], [begins(), *steps(1, 7), Record("end", 7, {"reason": "asked", "exit_code": 75})])
    found = read(run)
    assert len(found.Scalars("train/loss")) == 7
    sit(["tensorboard"], [begins(5), *steps(6, 12), END])
    found.Reload()
    assert [step for step, _ in scalars(found, "train/loss")] == list(range(1, 13))


def test_a_tracker_that_comes_late_gets_the_past(run, sit):
    sit([], [begins(), *steps(1, 8), Record("end", 8, {"reason": "asked", "exit_code": 75})])
    assert not (run.path / "track").exists()
    sit(["tensorboard"], [begins(8), *steps(9, 12), END])
    assert [step for step, _ in scalars(read(run), "train/loss")] == list(range(1, 13))


def test_many_sittings_keep_two_files(run, sit, monkeypatch):
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(10))  # names in order within a second
    for step in range(0, 8, 2):
        sit(["tensorboard"], [begins(step), *steps(step + 1, step + 2), Record("end", step + 2, {"exit_code": 75})])
    assert len(list((run.path / "track" / "tensorboard").glob("events.*"))) == 2
    assert [step for step, _ in scalars(read(run), "train/loss")] == list(range(1, 9))


def test_files_of_others_in_the_folder_stay(run, sit):
    mine = run.path / "track" / "tensorboard" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("x")
    sit(["tensorboard"], [begins(), *steps(1, 2), END])
    assert [path.name for path in Path(mine.parent).iterdir() if not path.name.startswith("events.")] == ["mine.txt"]
