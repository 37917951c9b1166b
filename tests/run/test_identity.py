"""Which run a command means: default names, folders that are no run, and C12, the table of differences."""

import errno
import os
from pathlib import Path

import pytest

from striate import recipe as recipes
from striate.errors import ResourceError, UserError
from striate.recipe import Recipe
from striate.run import identity
from striate.run.folder import Run, Typed


def typed(**changes: object) -> Typed:
    named = {recipes.full_name(name): value for name, value in changes.items()}
    return Typed("small", Recipe(), named)


def test_the_default_name_is_data_model_and_six_digits_and_is_stable():
    name = identity.default_name("/data/My photos/", "resnet18", typed(lr=0.1, epochs=3))
    assert name == "My-photos-resnet18-" + name[-6:]
    assert name == identity.default_name("/data/My photos", "resnet18", typed(epochs=3, lr=0.1))
    assert name[-6:] == identity.default_name("builtin", "resnet18", typed(lr=0.1, epochs=3))[-6:]


def test_the_default_name_changes_with_every_change_and_the_base():
    names = {identity.default_name("builtin", "kth-d", one) for one in (typed(), typed(lr=0.1), typed(lr=0.2), typed(wd=0.1))}
    names.add(identity.default_name("builtin", "kth-d", Typed("kth-d", Recipe(), {})))
    assert len(names) == 5


@pytest.mark.parametrize(
    ("data", "model", "start"),
    [
        ("builtin", "torchvision/resnet50", "builtin-torchvision-resnet50-"),
        ("builtin", "package.module:my_net", "builtin-my_net-"),
        ("/", "resnet18", "resnet18-"),
        ("/data/.hidden…ü", "resnet18", "hidden-resnet18-"),
        ("x" * 300, "resnet18", "x" * 60 + "-resnet18-"),
    ],
)
def test_odd_data_and_models_make_plain_folder_names(data: str, model: str, start: str):
    name = identity.default_name(data, model, typed())
    assert name.startswith(start) and len(name) < 150 and "/" not in name


# ---------------------------------------------------------------- folders


def existing(out: Path, name: str, one: Typed) -> Run:
    run, there = identity.make_folder(out, name, fresh=False)
    assert not there
    run.write(one, one.recipe)
    return run


def test_a_folder_is_made_once_and_then_found(tmp_path: Path):
    run = existing(tmp_path / "a" / "runs", "x", typed())
    assert identity.make_folder(tmp_path / "a" / "runs", "x", fresh=False) == (run, True)


def test_new_starts_beside_it(tmp_path: Path):
    for expected in ("x", "x-2", "x-3"):
        run, there = identity.make_folder(tmp_path, "x", fresh=True)
        assert (run.name, there) == (expected, False)
        run.write(typed(), Recipe())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0b"])
def test_g5_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str):
    with pytest.raises(UserError, match="one folder name, without '/'"):
        identity.make_folder(tmp_path, name, fresh=False)


def test_g5_a_file_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for out, name in ((tmp_path, "file"), (tmp_path / "file", "x"), (tmp_path / "file" / "deep", "x")):
        with pytest.raises(UserError, match=r"is a file, or lies below one"):
            identity.make_folder(out, name, fresh=False)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EACCES, UserError, "no permission while making the run folder"),
        (errno.EROFS, UserError, "Choose another folder with --out"),
        (errno.ENOSPC, ResourceError, "no room left while making the run folder"),
    ],
)
def test_g5_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch, number, kind, words):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "touch", fail)
    with pytest.raises(kind, match=words):
        identity.make_folder(tmp_path, "x", fresh=False)


def test_g5_names_with_spaces_and_other_alphabets_are_names(tmp_path: Path):
    run, _ = identity.make_folder(tmp_path / "my runs", "日本 1", fresh=False)
    assert run.path.is_dir() and run.name == "日本 1"


def test_g5_a_folder_of_something_else_is_never_written_into(tmp_path: Path):
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(UserError, match=r"holds other things \(a.jpg, cats\) and no run"):
        identity.make_folder(tmp_path, "photos", fresh=False)
    assert sorted(os.listdir(tmp_path / "photos")) == ["a.jpg", "cats"]


def test_t02_a_preparation_that_was_killed_is_begun_again(tmp_path: Path):
    run, _ = identity.make_folder(tmp_path, "x", fresh=False)
    for name in ("lock", "classes.json", "view.json", ".data.json.tmp-1-abc", "index-train.parquet"):
        (run.path / name).touch()
    run.checkpoints.mkdir()
    assert identity.make_folder(tmp_path, "x", fresh=False) == (run, False)


def test_checkpoints_without_their_recipe_are_not_built_upon(tmp_path: Path):
    (tmp_path / "x" / "checkpoints" / "step-5").mkdir(parents=True)
    (tmp_path / "x" / "checkpoints" / "step-5" / "manifest.json").touch()
    with pytest.raises(UserError, match=r"holds other things \(checkpoints/step-5\) and no run"):
        identity.make_folder(tmp_path, "x", fresh=False)


# ---------------------------------------------------------------- C12: differences


def test_c12_the_same_recipe_has_no_differences(tmp_path: Path):
    run = existing(tmp_path, "x", typed(lr=0.1))
    assert identity.reconcile(run, typed(lr=0.1), ()) == {}


def test_c12_another_recipe_is_refused_with_a_table(tmp_path: Path):
    run = existing(tmp_path, "x", typed(lr=0.1, model="resnet18"))
    other = typed(lr=0.2, model="resnet50", **{"model.options.stem": "small"})
    with pytest.raises(UserError) as caught:
        identity.reconcile(run, other, ())
    text = str(caught.value)
    assert caught.value.exit_code == 2
    for line in (
        "  model.name          resnet18 → resnet50\n",
        "  optim.lr            0.1 → 0.2\n",
        "  model.options.stem  none → small\n",
        "--override optim.lr",
        "--new",
    ):
        assert line in text


def test_c12_an_override_accepts_one_difference_and_no_other(tmp_path: Path):
    run = existing(tmp_path, "x", typed(lr=0.1, epochs=3))
    assert identity.reconcile(run, typed(lr=0.2, epochs=3), ("lr",)) == {"optim.lr": (0.1, 0.2)}
    with pytest.raises(UserError, match=r"optim\.lr") as caught:
        identity.reconcile(run, typed(lr=0.2, epochs=5), ("budget.epochs",))
    assert "budget.epochs" not in str(caught.value)
    with pytest.raises(UserError, match=r"no field 'optim\.lrr'.*'optim\.lr'"):
        identity.reconcile(run, typed(lr=0.2), ("optim.lrr",))


def test_c12_a_budget_in_another_unit_is_one_difference(tmp_path: Path):
    run = existing(tmp_path, "x", typed(epochs=3))
    assert set(identity.reconcile(run, typed(steps=100), ("budget.steps",))) == {"budget.epochs", "budget.steps"}
