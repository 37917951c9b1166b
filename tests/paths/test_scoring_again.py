"""Scoring what was trained: on the run's own splits, through a weight file, and when the sitting must end first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import striate
from striate import predictions, sitting
from striate.data import synthetic
from striate.errors import TO_BE_CONTINUED, UserError
from striate.recipe import Recipe, change
from striate.train import budget

FIELDS = {"model": "path_networks:small", "img-size": 32, "steps": 3, "batch-size": 6}


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders without a validation split."""
    folder = tmp_path_factory.mktemp("flat")
    synthetic.make(folder / "made", classes=3, per_class=8, val_per_class=1)
    return folder / "made" / "train"


def test_train_and_val_of_a_split_by_hash_never_share_an_image(flat: Path, tmp_path: Path) -> None:
    run = striate.train(flat, out=tmp_path, changes={**FIELDS, "data.val_share": 0.4}, quiet=True)
    keys = {}
    for split in ("train", "val"):
        _, folder = striate.evaluate(run, split=split, device="cpu")
        keys[split] = set(predictions.read(folder / "predictions.parquet").keys)
    assert not keys["train"] & keys["val"]
    assert len(keys["train"] | keys["val"]) == 24
    assert keys["val"] == set(run.index("val").keys)  # type: ignore[union-attr]


def test_a_checkpoint_of_a_run_is_not_scored_as_a_bare_weight_file(flat: Path, tmp_path: Path) -> None:
    run = striate.train(flat, out=tmp_path, changes=FIELDS, quiet=True)
    with pytest.raises(UserError, match="belongs to a run"):
        striate.evaluate("path_networks:small", flat, weights=str(run.checkpoint("last").path))


def test_a_recipe_may_be_a_file_or_an_object_and_fields_change_it(flat: Path, tmp_path: Path) -> None:
    recipe = change(Recipe(), FIELDS)
    run = striate.train(flat, recipe, out=tmp_path, name="object", steps=2, quiet=True)
    assert (run.recipe.budget.steps, run.recipe.data.size_px) == (2, 32)
    again = striate.train(flat, run.path / "recipe.json", out=tmp_path, name="file", steps=1, quiet=True)
    assert (again.recipe.model.name, again.recipe.budget.steps) == ("path_networks:small", 1)
    same = striate.train(flat, recipe, out=tmp_path, name="object", steps=2, quiet=True)
    assert same.status["state"] == "done"


@pytest.mark.parametrize("field", ["optim.name=adam", "optim.ema=0.9", "data.size_px=40", "optim.batch_size=8"])
def test_c12_what_the_state_was_made_with_cannot_be_overridden(flat: Path, tmp_path: Path, field: str) -> None:
    striate.train(flat, out=tmp_path, name="x", changes=FIELDS, quiet=True)
    name, _, text = field.partition("=")
    value = text if text.isalpha() else float(text)
    with pytest.raises(UserError, match="cannot change within a run"):
        striate.train(flat, out=tmp_path, name="x", changes=FIELDS | {name: value}, override=(name,), quiet=True)


def test_t04_a_stop_during_the_last_scoring_is_75_and_the_next_sitting_finishes(
    flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = sitting.Request(str(flat), change(Recipe(), FIELDS), None, tmp_path, "x")

    def interrupted(*_: object, **__: object) -> None:
        raise budget.Interrupted("SIGTERM")

    with monkeypatch.context() as patched:
        patched.setattr(sitting, "evaluate_run", interrupted)
        run, code = sitting.sit(request, quiet=True)
    assert (code, run.status["state"]) == (TO_BE_CONTINUED, "trained")
    run, code = sitting.sit(request, quiet=True)
    assert (code, run.status["state"]) == (0, "done")
    assert (run.path / "report.html").is_file()


def test_a_bug_in_the_middle_leaves_the_status_failed(flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(sitting.loop, "train_batches", broken)
    with pytest.raises(ZeroDivisionError):
        striate.train(flat, out=tmp_path, name="x", changes=FIELDS, quiet=True)
    status = striate.open_run(tmp_path / "x").status
    assert (status["state"], status["exit_code"]) == ("failed", 1)


def test_e11_raw_and_averaged_weights_are_told_apart(flat: Path, tmp_path: Path) -> None:
    run = striate.train(flat, out=tmp_path, changes=FIELDS | {"optim.ema": 0.9, "steps": 6}, quiet=True)
    averaged, folder = striate.evaluate(run, device="cpu")
    raw, other = striate.evaluate(run, raw=True, device="cpu")
    assert ("EMA weights" in averaged["protocol"], "raw weights" in raw["protocol"]) == (True, True)
    scores = [predictions.read(place / "predictions.parquet").scores for place in (folder, other)]
    assert folder != other
    assert not np.array_equal(*scores)


def test_classes_with_a_single_image_train_without_a_validation_set(tmp_path: Path) -> None:
    synthetic.make(tmp_path / "made", classes=6, per_class=1, val_per_class=1)
    run = striate.train(tmp_path / "made" / "train", out=tmp_path, changes=FIELDS, quiet=True)
    assert (run.status["state"], run.index("val")) == ("done", None)
    assert run.best is not None and run.best["split"] == "train-sample"
    assert (run.path / "report.html").is_file()
    with pytest.raises(UserError, match="no validation images"):
        striate.evaluate(run)
