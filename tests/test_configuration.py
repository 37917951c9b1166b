"""Where a value comes from and what a file may hold: G2 to G5 through the command and `recipe.json`."""

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from striate import cli
from striate import recipe as recipes
from striate.data import decode
from striate.recipe import Recipe
from striate.run import checkpoint
from striate.run.folder import open_run

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--model.options.width", "8", "--model.options.stem", "small", "--img-size", "16", "--batch-size", "4",
        "--precision", "fp32", "--data.resident", "no", "--workers", "0", "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configuration") / "photos"
    for split in ("train", "val"):
        for number, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for image in range(4):
                pixels = np.full((18, 20, 3), 60 + 100 * number + image, np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{image}.png")
    return folder


def prepared(photos: Path, out: Path, *typed: str) -> int:
    """Runs `striate train` up to its first save, which comes before its first step."""
    return cli.run(["train", str(photos), *TINY, "--out", str(out), "--name", "x", "--stop-after", "1s", *typed])


def write(path: Path, plain: dict[str, Any]) -> str:
    path.write_text(json.dumps(plain))
    return str(path)


# ---------------------------------------------------------------- G4: which value wins


def test_g4_what_is_typed_wins_over_the_file_and_the_file_over_the_default(photos, tmp_path, monkeypatch):
    for name in ("LR", "STRIATE_LR", "STRIATE_OPTIM_LR", "OPTIM_MOMENTUM", "STRIATE_OPTIM_MOMENTUM", "STRIATE_RECIPE"):
        monkeypatch.setenv(name, "0.9876")  # no environment variable is a source
    file = write(tmp_path / "my.json", {"model": {"name": "resnet18"}, "optim": {"lr": 0.02, "momentum": 0.8}})
    assert prepared(photos, tmp_path / "runs", "--recipe", file, "--lr", "0.3") == 75
    run = open_run(tmp_path / "runs" / "x")
    assert Recipe().optim.lr not in (0.02, 0.3)
    assert run.recipe.optim.lr == 0.3  # typed, though the file says otherwise
    assert run.recipe.optim.momentum == 0.8  # the file, though the default is another
    assert run.recipe.optim.weight_decay == Recipe().optim.weight_decay
    assert "0.9876" not in (run.path / "recipe.json").read_text()


def test_g4_the_effective_recipe_is_saved_whole_and_hashed(photos, tmp_path):
    assert prepared(photos, tmp_path / "runs", "--model", "resnet18", "--lr", "0.3") == 75
    run = open_run(tmp_path / "runs" / "x")
    plain = json.loads((run.path / "recipe.json").read_text())
    assert {f"{group}.{name}" for group in recipes.GROUPS for name in plain[group]} == set(recipes.field_names())
    assert plain["_typed"]["changes"]["optim.lr"] == 0.3
    (step,) = checkpoint.steps_in(run.checkpoints)
    assert checkpoint.read(run.checkpoints / f"step-{step}").state["recipe"] == run.recipe.hash
    # The file is a recipe in its turn, and gives the same hash.
    assert recipes.read(run.path / "recipe.json").hash == run.recipe.hash != Recipe().hash


def test_g4_flags_that_disagree_are_refused_or_the_last_one_counts(photos, tmp_path, capsys):
    assert prepared(photos, tmp_path / "runs", "--model", "resnet18", "--epochs", "3", "--for", "1h") == 2
    assert "give one of --epochs, --steps and --for" in capsys.readouterr().err
    assert prepared(photos, tmp_path / "runs", "--model", "resnet18", "--lr", "0.3", "--optim.lr", "0.4") == 75
    assert open_run(tmp_path / "runs" / "x").recipe.optim.lr == 0.4


def test_g4_the_environment_variables_that_are_read_are_documented():
    documented = set(re.findall(r"`([A-Z][A-Z_]+)`", (ROOT / "docs" / "runs.md").read_text()))
    read = set()
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        read |= set(re.findall(r"environ(?:\.get|\.setdefault|\.pop)?[(\[]\s*f?[\"']([A-Z0-9_]+)", text))
        if "os.environ.get(name" in text:
            read |= set(re.findall(r"_number\(\"([A-Z_]+)\"", text))
    assert read >= {"STRIATE_CACHE", "OMP_NUM_THREADS", "WORLD_SIZE"}
    assert read <= documented


# ---------------------------------------------------------------- G2: what a file says wrongly


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"optimm": {"lr": 1}}, "no group 'optimm'. Did you mean 'optim'?"),
        ({"optim": {"learning_rate": 1}}, "group 'optim' has no field 'learning_rate'"),
        ({"optim": {"batchsize": 8}}, "has no field 'batchsize'. Did you mean 'batch_size'"),
        ({"optim": {"lr": "1e-3"}}, "optim.lr: expected a number, found '1e-3'"),
        ({"optim": {"batch_size": 8.5}}, "optim.batch_size: expected a whole number, found 8.5"),
        ({"optim": {"nesterov": 1}}, "optim.nesterov: expected true or false, found 1"),
        ({"budget": {"epochs": -3}}, "budget.epochs: found -3.0, but it must be more than 0"),
        ({"budget": {"epochs": 1, "steps": 5}}, "exactly one of epochs, steps and time"),
        ({"data": {"fit": "corp"}}, "data.fit: expected one of crop, squash, found 'corp'. Did you mean 'crop'?"),
    ],
)
def test_g2_a_recipe_file_with_a_mistake_ends_the_command_with_2(photos, tmp_path, capsys, plain, words):
    assert prepared(photos, tmp_path / "runs", "--recipe", write(tmp_path / "my.json", plain)) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ['{"optim": {"lr": NaN}}', '{"optim": {"lr": Infinity}}', '{"optim": {"lr": 1e999}}'])
def test_g2_a_rate_that_is_no_number_ends_the_command_with_2(photos, tmp_path, capsys, text):
    (tmp_path / "my.json").write_text(text)
    assert prepared(photos, tmp_path / "runs", "--recipe", str(tmp_path / "my.json")) == 2
    said = capsys.readouterr().err
    assert ("is no number in JSON" in said or "not a finite number" in said) and not (tmp_path / "runs").exists()


# ---------------------------------------------------------------- G3: files that are too much


def deep(levels: int, inner: str = "1.5") -> str:
    return "[" * levels + inner + "]" * levels


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a 10 MB list", '{"optim": {"drop_epochs": [' + "1," * 5_000_000 + "1]}}"),
        ("a 10 MB name", '{"optim": {"' + "k" * 10_000_000 + '": 1}}'),
        ("a 2 MB name", '{"optim": {"' + "k" * 2_000_000 + '": 1}}'),
        ("500,000 groups", "{" + ",".join(f'"k{number}": 1' for number in range(500_000)) + "}"),
        ("a number of a million digits", '{"optim": {"lr": ' + "1" * 1_000_000 + "}}"),
        *((f"lists {levels} deep", f'{{"optim": {{"lr": {deep(levels)}}}}}') for levels in (13, 490, 900, 960, 10**6)),
        ("a deep option", f'{{"model": {{"options": {{"a": {deep(900)}}}}}}}'),
        ("tables 100,000 deep", '{"a":' * 100_000 + "1" + "}" * 100_000),
        ("a deep comment", f'{{"_why": {deep(900)}}}'),
    ],
    ids=lambda value: value if len(value) < 40 else "",
)  # fmt: skip
def test_g3_files_that_are_too_much_are_refused_within_a_second(photos, tmp_path, capsys, name, text):
    (tmp_path / "my.json").write_text(text)
    prepared(photos, tmp_path / "runs", "--recipe", str(tmp_path / "none.json"))  # imports and caches are not counted
    capsys.readouterr()
    began = time.process_time()
    code = prepared(photos, tmp_path / "runs", "--recipe", str(tmp_path / "my.json"))
    seconds = time.process_time() - began
    said = capsys.readouterr().err
    assert code == 2 and "my.json" in said and len(said) < 1000, said[:300]
    assert seconds < 1.0 and not (tmp_path / "runs").exists()


def test_g3_the_largest_recipe_that_is_one_is_read(tmp_path):
    wanted = recipes.change(Recipe(), {"loss.class_weights": [1 / 3] * 20_000})
    plain = recipes.to_plain(wanted)
    file = write(
        tmp_path / "large.json", plain | {"_typed": {"start": plain, "changes": {"loss.class_weights": [1 / 3] * 20_000}}}
    )
    assert recipes.read(Path(file)) == wanted


# ---------------------------------------------------------------- G5: where a run may be written


def test_g5_a_missing_folder_with_spaces_and_other_alphabets_is_made(photos, tmp_path):
    out = tmp_path / "my runs" / "été" / "日本"
    assert prepared(photos, out, "--model", "resnet18") == 75
    run = open_run(out / "x")
    assert run.status["state"] == "saved" and checkpoint.steps_in(run.checkpoints)


def test_g5_a_file_in_the_way_is_said_before_an_image_is_read(photos, tmp_path, capsys, monkeypatch):
    def read(*_: object, **__: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(decode, "decode", read)
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "runs"):
        assert prepared(photos, out, "--model", "resnet18") == 2
        assert "is a file, or lies below one" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
