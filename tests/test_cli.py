"""The command on bad input: a message that says what to do, the exit code, and no traceback but for a bug."""

import errno
import importlib.util
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from striate import cli, files, machine
from striate.models import catalog
from striate.run import checkpoint

TINY = ["--model", "resnet18", "--model.options.width", "8", "--model.options.stem", "small", "--img-size", "16",
        "--batch-size", "4", "--precision", "fp32", "--data.resident", "no", "--workers", "0", "--device", "cpu"]  # fmt: skip


@dataclass
class Said:
    """What one command line left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def striate(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Runs a command line in this process, in an empty folder. A traceback fails the test at once."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()

    def run(*argv: str | Path, bug: bool = False) -> Said:
        try:
            code = cli.run([str(word) for word in argv])
        except SystemExit as error:  # how the parser of options ends
            code = int(error.code or 0)
        torch.set_num_threads(threads)
        said = Said(code, *capfd.readouterr())
        assert ("Traceback" in said.err) is bug, said.err
        return said

    return run


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four training and two validation images; not to be written to."""
    folder = tmp_path_factory.mktemp("cli") / "photos"
    make(folder, {"cat": (200, 40, 40), "dog": (40, 40, 200)})
    return folder


def make(folder: Path, classes: dict[str, tuple[int, int, int]]) -> None:
    numbers = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name, colour in classes.items():
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                noise = numbers.integers(-30, 30, (18, 20, 3))
                Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(folder / split / name / f"{i}.jpg")


# ---------------------------------------------------------------- data


def test_an_empty_folder(striate, tmp_path):
    (tmp_path / "empty").mkdir()
    said = striate("train", "empty")
    assert said.code == 3
    assert said.err.startswith("striate: ") and "empty: no image set that striate knows." in said.err
    assert "Seen: 0 folders" in said.err and "Known layouts:" in said.err


def test_one_class(striate, tmp_path):
    make(tmp_path / "photos", {"cat": (200, 40, 40)})
    said = striate("train", "photos", *TINY)
    assert said.code == 3 and "cat" in said.err and "class" in said.err


def test_a_file_instead_of_a_folder(striate, photos, tmp_path):
    said = striate("train", photos / "train" / "cat" / "0.jpg")
    assert said.code == 2 and "a file, where a folder of images is expected" in said.err
    (tmp_path / "photos.zip").touch()
    assert "Unpack it, and name the folder" in striate("train", "photos.zip").err


def test_a_folder_that_is_not_there_names_the_nearest(striate, tmp_path):
    (tmp_path / "photos").mkdir()
    said = striate("train", "photo")
    assert said.code == 2 and "no such file or folder. Did you mean 'photos'?" in said.err


@pytest.mark.parametrize("place", [".", "train", "train/dog"])
def test_an_unreadable_folder(striate, photos, place, monkeypatch):
    real = os.scandir
    shut = os.path.normpath(photos / place)

    def scandir(path: str | bytes = ".") -> object:  # root may read all, so the refusal is played
        if os.path.normpath(os.fsdecode(path)) == shut:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    said = striate("train", photos, *TINY)
    assert said.code == 2 and f"'{shut}': no permission to read it" in said.err and "chmod" in said.err
    assert not Path("runs").exists()


def test_d26_a_folder_whose_name_is_not_utf8(striate, photos, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/photos \xff")
    os.symlink(photos, odd)
    said = striate("train", odd, *TINY, "--steps", "1", "--stop-after", "1s", "--name", "x")
    assert said.code == 75, said.err
    assert files.read_json(tmp_path / "runs" / "x" / "data.json")["path"] == odd


# ---------------------------------------------------------------- recipes and options


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--recipe", "kth-dd"], "No recipe 'kth-dd'. Did you mean 'kth-d'"),
        (["--recipe", "no.json"], "no.json: cannot be read (No such file or directory)"),
        (["--lr", "nan"], "optim.lr: nan is not a finite number"),
        (["--lr", "-0.1"], "optim.lr: found -0.1, but it must be more than 0"),
        (["--epochs", "-3"], "budget.epochs: found -3.0, but it must be more than 0"),
        (["--epochs", "0"], "budget.epochs: found 0.0"),
        (["--epochs", "1", "--steps", "5"], "give one of --epochs, --steps and --for"),
        (["--for", "soon"], "'soon' is no duration: write it as 90s, 15m, 2h or 1h30m"),
        (["--stop-after", "soon"], "'soon' is no duration"),
        (["--batch-size", "10", "--optim.accumulate", "3"], "a divisor of the batch size 10"),
        (["--model", "resnet81"], "'resnet81' is no network. Did you mean 'resnet18'"),
        (["--model.options.steam", "small"], "resnet18 has no option 'steam'. Did you mean 'stem'?"),
        (["--model.options.stem"], "--model.options.stem: expected a value after it"),
        (["--name", "a/b"], "a run's name is one folder name"),
        (["--override", "optim.lrr", "--name", "there"], "no field 'optim.lrr'"),
        (["--batch-size", "999"], "there are only 8 training images. Use 8 or less"),
    ],
)
def test_g2_options_that_make_no_sense(striate, photos, typed, words, tmp_path):
    if "there" in typed:
        assert striate("train", photos, *TINY, "--steps", "1", "--stop-after", "1s", "--name", "there").code == 75
    said = striate("train", photos, *TINY, *typed)
    assert said.code == 2
    assert words in said.err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--loss.balance", "--loss.class-weights", "1", "2"], "loss.balance: found True, but it must be left out where"),
        (["--loss.class-weights", "1", "2", "3"], "2 classes"),
        (["--data.colour", "grey", "--augment.hue", "0.1"], "augment.hue: found 0.1, but it must be 0 with data.colour grey"),
        (["--augment.shorter-px", "20", "30", "--img-size", "32"], "augment.shorter_px: found (20, 30)"),
        (["--augment.execution", "batched", "--data.resident", "no"], "--augment.execution batched: needs the images in memory"),
        (["--augment.policy-operations", "9"], "augment.policy_operations: found 9, but it must be between 1 and 8"),
        (["--patience", "-1"], "budget.patience: found -1, but it must be 0 (never) or more"),
        (["--mirror", "no/such/place"], "no/such does not exist. Mount the drive"),
        (["--mirror", "runs"], "is the run itself"),
        (["--track", "tensorbord"], "Did you mean 'tensorboard'?"),
    ],
)
def test_options_that_contradict_each_other_or_make_no_sense(striate, photos, typed, words):
    said = striate("train", photos, *TINY, *typed)
    assert said.code == 2 and words in said.err, said.err


@pytest.mark.parametrize("typed", [["--patience", "2"], ["--schedule", "plateau"]])
def test_waiting_for_a_better_evaluation_needs_validation_images(striate, tmp_path, typed):
    make(tmp_path / "single", {"cat": (200, 40, 40), "dog": (40, 40, 200)})
    shutil.rmtree(tmp_path / "single" / "val")
    for name in ("cat", "dog"):  # one image of a class is not held out
        for number in (1, 2, 3):
            (tmp_path / "single" / "train" / name / f"{number}.jpg").unlink()
    said = striate("train", tmp_path / "single", *TINY, "--batch-size", "2", *typed)
    assert said.code == 2 and "needs validation images" in said.err, said.err


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_is_not_installed(striate, photos, monkeypatch, name):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked, *more: None if asked.startswith(name) else real(asked, *more))
    monkeypatch.setitem(sys.modules, name, None)
    said = striate("train", photos, *TINY, "--track", name)
    assert said.code == 2 and "pip install 'striate[track]'" in said.err, said.err
    assert not list(Path("runs").rglob("step-*"))


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--optim.lrr", "0.1"], ["--optim.lrr", "--optim.lr"]),
        (["--momentun", "0.9"], ["--momentun", "optim.momentum"]),
        (["--wrokers", "2"], ["--wrokers", "--workers"]),
        (["--batch-size", "many"], ["--batch-size", "many"]),
        (["--precision", "bf61"], ["bf61", "bf16"]),
    ],
)
def test_g2_an_unknown_option_is_answered_with_the_nearest(striate, photos, typed, words):
    said = striate("train", photos, *TINY, *typed)
    assert said.code == 2
    assert all(word in said.out + said.err for word in words)


def test_an_unknown_verb_and_no_verb(striate):
    said = striate("trian", "x")
    assert said.code == 2 and "no verb 'trian'. Did you mean 'train'?" in said.err
    assert striate().code == 2
    assert striate("data", "mkae").code == 2
    assert striate("--help").code == 0 and striate("train", "--help").code == 0


def test_json_says_errors_on_the_last_line_of_standard_output(striate, photos):
    said = striate("train", photos, *TINY, "--lr", "nan", "--json")
    assert json.loads(said.out.splitlines()[-1]) == {
        "error": "optim.lr: nan is not a finite number.",
        "exit_code": 2,
    }


# ---------------------------------------------------------------- the GPU


def test_a_gpu_that_is_not_there(striate, photos, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "gpu_present", lambda: False)
    said = striate("train", photos, *TINY, "--device", "cuda")
    assert said.code == 2 and "--device cuda: this machine has no NVIDIA GPU. Use --device cpu" in said.err
    assert not Path("runs").exists()


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_gpu_that_cannot_be_used(striate, photos, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(machine, "gpu_present", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    said = striate("train", photos, *TINY, "--device", device)
    assert said.code == 6 and "cannot use it: the driver is probably older" in said.err
    assert not Path("runs").exists()


# ---------------------------------------------------------------- runs, weights, the disk


@pytest.mark.parametrize("verb", [["evaluate"], ["predict"], ["report"]])
@pytest.mark.parametrize(("place", "words"), [("photos", "not a run folder"), ("runs/none", "no such run")])
def test_a_run_folder_that_is_no_run(striate, photos, verb, place, words):
    run = photos if place == "photos" else place
    said = striate(*verb, run, *([photos / "val/cat/0.jpg"] if verb == ["predict"] else []))
    assert said.code == 2 and words in said.err and str(run) in said.err


def test_g5_a_name_that_is_taken_by_something_else(striate, photos, tmp_path):
    (tmp_path / "runs" / "holiday").mkdir(parents=True)
    (tmp_path / "runs" / "holiday" / "a.jpg").touch()
    said = striate("train", photos, *TINY, "--name", "holiday")
    assert said.code == 2 and "holds other things (a.jpg) and no run" in said.err
    (tmp_path / "file").touch()
    said = striate("train", photos, *TINY, "--out", "file")
    assert said.code == 2 and "is a file, or lies below one" in said.err


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(errno.EACCES, 2, "no permission"), (errno.EROFS, 2, "no permission"), (errno.ENOSPC, 6, "no room left")],
)
def test_g5_no_permission_and_no_room_for_the_run(striate, photos, tmp_path, monkeypatch, number, code, words):
    real = os.mkdir

    def mkdir(path: str | os.PathLike[str], *given: int, **named: int) -> None:
        if str(path).startswith(str(tmp_path / "elsewhere")):
            raise OSError(number, os.strerror(number), path)
        real(path, *given, **named)

    monkeypatch.setattr(os, "mkdir", mkdir)
    said = striate("train", photos, *TINY, "--out", tmp_path / "elsewhere")
    assert said.code == code and words in said.err and "--out" in said.err


@pytest.fixture
def trained(striate, photos, tmp_path) -> Path:
    """A run that was stopped after its preparation, with a checkpoint of untrained weights."""
    said = striate("train", photos, *TINY, "--steps", "2", "--budget.evaluate-epochs", "99", "--name", "x", "--stop-after", "1s")
    assert said.code == 75, said.err
    run = tmp_path / "runs" / "x"
    if not checkpoint.steps_in(run / "checkpoints"):
        weights = dict(catalog.build("resnet18", 2, {"width": 8, "stem": "small"}).state_dict())
        checkpoint.save(run / "checkpoints", 1, {"model": weights, "optimizer": {}}, {"best": None}, "basic")
    return run


def test_c01_disk_full_in_the_middle_of_a_training(striate, photos, tmp_path):
    argv = ["train", photos, *TINY, "--name", "x", "--steps", "2"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        said = striate(*argv)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said.code == 6 and "no room left while saving a checkpoint" in said.err
    assert list((tmp_path / "runs/x/checkpoints").iterdir()) == []
    status = files.read_json(tmp_path / "runs/x/status.json")
    assert (status["state"], status["exit_code"]) == ("failed", 6)


def test_c01_room_that_would_not_do_is_seen_before_the_save(striate, photos, monkeypatch):
    monkeypatch.setattr(checkpoint, "free_bytes", lambda _: 1000)
    said = striate("train", photos, *TINY, "--steps", "1")
    assert said.code == 6 and "MB are free" in said.err and "run the same command again" in said.err


def test_c11_a_checkpoint_that_is_not_there(striate, trained):
    said = striate("evaluate", trained, "--checkpoint", "step-99")
    assert said.code == 4 and "step-99: no such checkpoint. There are: step-" in said.err


@pytest.mark.parametrize("name", ["view.json", "data.json", "classes.json", "status.json", "recipe.json"])
def test_a_damaged_file_of_a_run_is_named(striate, photos, trained, name):
    (trained / name).write_text("[1, 2]" if name != "recipe.json" else "{")
    said = striate("train", photos, *TINY, "--steps", "2", "--budget.evaluate-epochs", "99", "--name", "x")
    assert said.code in {2, 4} and name in said.err


def test_more_classes_in_the_weights_than_in_the_data(striate, photos, tmp_path):
    wide = catalog.build("resnet18", 9, {})
    safetensors.torch.save_file(wide.state_dict(), tmp_path / "wide.safetensors")
    said = striate("evaluate", "resnet18", "--weights", "wide.safetensors", "--data", photos, "--img-size", "32")
    assert said.code == 4
    assert "wide.safetensors: not weights of this ResNet" in said.err and "fc.weight [9, 512] for [2, 512]" in said.err


def test_e13_a_run_with_more_classes_than_the_data(striate, trained, tmp_path):
    make(tmp_path / "cats", {"cat": (200, 40, 40), "horse": (0, 200, 0)})
    said = striate("evaluate", trained, "--data", tmp_path / "cats", "--device", "cpu")
    assert said.code == 2 and "horse" in said.err
    (tmp_path / "only" / "cat").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(tmp_path / "only" / "cat" / "0.jpg")
    said = striate("evaluate", trained, "--data", tmp_path / "only", "--device", "cpu")
    assert said.code == 2 and "dog" in said.err and "subset" in said.err


# ---------------------------------------------------------------- bugs, and the end of a session


def test_a_bug_shows_its_traceback_and_how_to_report_it(striate, monkeypatch):
    def broken(argv: list[str]) -> int:
        raise KeyError("a bug")

    monkeypatch.setitem(cli.VERBS, "train", broken)
    said = striate("train", "my photos", "--lr", "0.1", bug=True)
    assert said.code == 1
    assert "KeyError: 'a bug'" in said.err
    assert "this is a bug in striate, not a mistake of yours. Please report it" in said.err
    assert "striate train 'my photos' --lr 0.1" in said.err


def test_an_interrupt_before_there_is_anything_to_save(striate, monkeypatch):
    def interrupted(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.VERBS, "train", interrupted)
    said = striate("train", "photos")
    assert said.code == 130 and "interrupted" in said.err


# ---------------------------------------------------------------- a run that is there already


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_refused_command_leaves_a_finished_run_as_it_was(striate, photos, tmp_path):
    typed = ["train", photos, *TINY, "--steps", "4", "--name", "x"]
    assert striate(*typed).code == 0
    before = contents(tmp_path / "runs" / "x")
    (tmp_path / "file").touch()
    longer = ["train", photos, *TINY, "--steps", "6", "--name", "x", "--override", "budget.steps"]
    for more, words in (
        (["--mirror", tmp_path / "file"], "is a file"),
        (["--mirror", tmp_path / "a" / "b"], "does not exist"),
        (["--track", "tensorbored"], "Did you mean 'tensorboard'?"),
    ):
        said = striate(*longer, *more)
        assert said.code == 2 and words in said.err, said.err
        assert contents(tmp_path / "runs" / "x") == before
    said = striate("train", photos, *TINY, "--steps", "3", "--name", "x", "--override", "budget.steps")
    assert said.code == 2 and "has taken 4 steps already" in said.err
    assert contents(tmp_path / "runs" / "x") == before
    assert striate(*longer).code == 0


def test_a_mirror_that_is_new_to_a_finished_run_gets_its_copy(striate, photos, tmp_path):
    typed = ["train", photos, *TINY, "--steps", "4", "--name", "x"]
    assert striate(*typed).code == 0
    said = striate(*typed, "--mirror", tmp_path / "drive")
    assert said.code == 0 and "has a copy now" in said.err
    there = tmp_path / "drive" / "x" / "checkpoints" / "step-4" / "manifest.json"
    assert there.read_bytes() == (tmp_path / "runs" / "x" / "checkpoints" / "step-4" / "manifest.json").read_bytes()


@pytest.mark.parametrize("option", ["--out", "--mirror"])
@pytest.mark.parametrize("plan", [[], ["--plan"]])
def test_nothing_is_written_into_the_data(striate, photos, option, plan):
    before = contents(photos)
    said = striate("train", photos, *TINY, "--steps", "2", option, photos / "deep", *plan)
    assert said.code == 2 and "which is never written to" in said.err
    assert contents(photos) == before and not (photos / "deep").exists()


def test_a_plan_refuses_what_training_would_refuse(striate, photos):
    for more in (["--mirror", "runs"], ["--mirror", "no/such/place"], ["--track", "wandbb"], ["--override", "optim.lr"]):
        assert striate("train", photos, *TINY, "--steps", "2", "--plan", *more).code == 2
    assert not Path("runs").exists()


def test_a_batch_that_the_images_do_not_fill_leaves_no_run_behind(striate, photos):
    said = striate("train", photos, *TINY, "--batch-size", "600")
    assert said.code == 2 and "Use 8 or less" in said.err
    assert not Path("runs").exists()


def test_a_wrong_option_is_answered_for_machines_too(striate, photos):
    said = striate("train", photos, *TINY, "--optimizer", "adm", "--json")
    assert said.code == 2 and json.loads(said.out.splitlines()[-1])["exit_code"] == 2


def test_a_named_network_trains_with_the_defaults_of_the_help(striate, photos):
    assert striate("train", photos, *TINY, "--steps", "2", "--name", "x").code == 0
    optim = json.loads(Path("runs/x/recipe.json").read_text())["optim"]
    assert (optim["name"], optim["lr"], optim["ema"], optim["weight_decay"]) == ("sgd", 0.1, 0.0, 1e-4)
