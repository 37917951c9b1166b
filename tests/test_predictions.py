"""Predictions: what is written comes back equal, and what was changed is refused."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from striate import predictions
from striate.classes import Classes
from striate.errors import CheckpointError, ResourceError, UserError
from striate.predictions import Predictions

CLASSES = Classes(("n1", "n2", "n3"), ("crane", "crane", ""))
KEYS = ["val/n1/a.jpg", "val/n2/line\nbreak.jpg", "val/n3/日本.jpg", os.fsdecode(b"val/n1/\xff\xfe.jpg"), "test/x.jpg"]


def some(scale: predictions.Scale = "logits", keys: list[str] = KEYS) -> Predictions:
    scores = np.random.default_rng(0).normal(size=(len(keys), 3)).astype(np.float32)
    return Predictions(keys, np.array([0, 1, 2, 0, -1])[: len(keys)], scores, scale, CLASSES, "val split · 5 images")


def edited(path: Path, **facts: str) -> None:
    table = pq.read_table(path)
    before = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    pq.write_table(table.replace_schema_metadata(before | facts), path)


def test_read_gives_back_what_was_written_bit_for_bit(tmp_path: Path) -> None:
    said = some()
    said.write(tmp_path / "predictions.parquet")
    back = predictions.read(tmp_path / "predictions.parquet")
    assert list(back.keys) == KEYS
    assert np.array_equal(back.labels, said.labels)
    assert np.array_equal(back.scores, said.scores)
    assert back.scores.dtype == np.float32
    assert (back.scale, back.classes, back.protocol) == ("logits", CLASSES, "val split · 5 images")


def test_the_file_is_plain_parquet_with_the_stated_columns(tmp_path: Path) -> None:
    some(keys=KEYS[:3]).write(tmp_path / "p.parquet")
    schema = pq.read_schema(tmp_path / "p.parquet")
    assert schema.names == ["key", "label", "scores"]
    assert schema.field("key").type == pa.string()
    assert schema.field("scores").type.list_size == 3
    assert schema.field("scores").type.value_type == pa.float32()
    assert schema.metadata[b"scale"] == b"logits"


def test_d26_keys_that_are_no_utf8_are_kept_and_shown(tmp_path: Path) -> None:
    some().write(tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column("key")[3].as_py() == "val/n1/\\xff\\xfe.jpg"
    assert table.column("key_bytes")[3].as_py() == b"val/n1/\xff\xfe.jpg"


def test_no_images_and_minus_infinity_of_log_probabilities_survive(tmp_path: Path) -> None:
    some(keys=[]).write(tmp_path / "empty.parquet")
    assert predictions.read(tmp_path / "empty.parquet").scores.shape == (0, 3)
    scores = np.array([[0.0, -np.inf, -np.inf]], np.float32)
    Predictions(["a"], np.array([1]), scores, "log-probabilities", CLASSES).write(tmp_path / "p.parquet")
    assert np.array_equal(predictions.read(tmp_path / "p.parquet").scores, scores)


@pytest.mark.parametrize(
    ("labels", "scores", "scale", "said"),
    [
        ([0, 3], [[1, 2, 3], [1, 2, 3]], "logits", "label 3 of 'b'"),
        ([0, -2], [[1, 2, 3], [1, 2, 3]], "logits", "label -2 of 'b'"),
        ([0, 1], [[1, 2, 3], [1, np.nan, 3]], "logits", "'b' are NaN"),
        ([0, 1], [[1, 2, 3], [1, -np.inf, 3]], "logits", "'b' are NaN or infinite"),
        ([0, 1], [[1, 2, 3], [1, np.nan, 3]], "log-probabilities", "'b' are NaN"),
        ([0, 1], [[1, 2], [1, 2]], "logits", "3 classes"),
        ([0], [[1, 2, 3], [1, 2, 3]], "logits", "2 keys"),
        ([0, 1], [[1, 2, 3], [1, 2, 3]], "probabilities", "scale 'probabilities'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(labels: list[int], scores: list[list[float]], scale: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Predictions(["a", "b"], np.array(labels, np.int64), np.array(scores, np.float32), scale, CLASSES)  # type: ignore[arg-type]


def test_float64_scores_are_refused() -> None:
    with pytest.raises(UserError, match="float32 scores"):
        Predictions(["a"], np.array([0]), np.zeros((1, 3)), "logits", CLASSES)


def test_e13_a_class_list_without_its_hash_is_refused(tmp_path: Path) -> None:
    some().write(tmp_path / "p.parquet")
    swapped = '{"ids": ["n2", "n1", "n3"], "names": ["", "", ""], "hash": "' + CLASSES.hash + '"}'
    edited(tmp_path / "p.parquet", classes=swapped)
    with pytest.raises(CheckpointError, match=r"p\.parquet.*hash"):
        predictions.read(tmp_path / "p.parquet")


@pytest.mark.parametrize(
    ("facts", "said"), [({"format": "2"}, "format 2"), ({"scale": "odds"}, "scale"), ({"classes": "{"}, "class")]
)
def test_odd_metadata_is_refused(tmp_path: Path, facts: dict[str, str], said: str) -> None:
    some().write(tmp_path / "p.parquet")
    edited(tmp_path / "p.parquet", **facts)
    with pytest.raises(CheckpointError, match=said):
        predictions.read(tmp_path / "p.parquet")


def test_missing_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        predictions.read(tmp_path / "nowhere.parquet")
    some().write(tmp_path / "p.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "p.parquet").read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="cut"):
        predictions.read(tmp_path / "cut.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(CheckpointError, match="no key, label, scores"):
        predictions.read(tmp_path / "foreign.parquet")
    facts = pq.read_schema(tmp_path / "p.parquet").metadata
    pq.write_table(
        pa.table({"key": ["a"], "label": [0], "scores": ["1,2,3"]}).replace_schema_metadata(facts), tmp_path / "odd.parquet"
    )
    with pytest.raises(CheckpointError, match="columns"):
        predictions.read(tmp_path / "odd.parquet")


def test_e12_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.parquet"
    some().write(path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(ResourceError, match="no room"):
        some(keys=KEYS[:2]).write(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["p.parquet"]


def test_select_keeps_rows_together() -> None:
    said = some()
    for rows in (np.array([4, 1]), np.array([False, True, False, False, True])):
        part = said.select(rows)
        assert {key: tuple(scores) for key, scores in zip(part.keys, part.scores, strict=True)} == {
            KEYS[1]: tuple(said.scores[1]),
            KEYS[4]: tuple(said.scores[4]),
        }
