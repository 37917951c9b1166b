"""Grey networks from training to prediction, and two networks that share the images by greyness."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import striate
from striate import cli, predictions
from striate.data import decode, views
from striate.data.index import Index
from striate.data.layouts.detect import open_data
from striate.data.loader import Streaming, Workers, ordered_batches
from striate.errors import CheckpointError, UserError
from striate.evaluate import metrics
from striate.evaluate.network import from_run
from striate.evaluate.route import Route, ask
from striate.run.folder import Run
from striate.train.budget import Stop
from striate.view import IMAGENET_GREY_MEAN

FIELDS: dict[str, Any] = {"model": "path_networks:small", "img-size": 32, "steps": 3, "batch-size": 12}


@pytest.fixture(scope="module")
def mixed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 64 photos, of which every third of the validation set is grey, as one or three channels in the file."""
    folder = tmp_path_factory.mktemp("mixed") / "photos"
    shutil.copytree(images, folder)
    for place, path in enumerate(sorted((folder / "val").rglob("*.*"))[::3]):
        grey = Image.open(path).convert("L")
        (grey if place % 2 else grey.convert("RGB")).save(path)
    return folder


@pytest.fixture(scope="module")
def pair(mixed: Path, networks: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A colour run and a grey run on the same photos."""
    out = tmp_path_factory.mktemp("runs")
    colour = striate.train(mixed, out=out, name="colour", changes=FIELDS, quiet=True, device="cpu")
    grey = striate.train(mixed, out=out, name="grey", changes={**FIELDS, "data.colour": "grey"}, quiet=True, device="cpu")
    return colour, grey


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("resident", ["no", "yes"])
def test_d7_t01_a_grey_run_that_was_stopped_ends_as_one_that_was_not(sit: Any, resident: str) -> None:
    changes = {"data__colour": "grey", "data__resident": resident, "optim__precision": "bf16"}
    whole = sit("whole", **changes)
    stop = Stop()
    cut = sit("cut", stop=stop, on=lambda record: stop.request("SIGTERM") if record.step == 3 else None, **changes)
    assert (whole.exit_code, cut.exit_code) == (0, 75)
    resumed = sit("cut", workers="2", **changes)
    assert resumed.exit_code == 0
    assert whole.differences(resumed) == []
    assert whole.last.model["0.weight"].shape == (8, 1, 3, 3)
    assert whole.run.view.mean == IMAGENET_GREY_MEAN


def test_d7_streaming_and_resident_give_the_same_grey_run(sit: Any) -> None:
    streamed, resident = (sit(how, data__colour="grey", data__resident=how) for how in ("no", "yes"))
    assert [name for name in streamed.differences(resident) if not name.startswith("state recipe")] == []


@pytest.mark.parametrize(
    ("normalise", "mean", "std"), [("divide", (0.0,), (1.0,)), ("dataset-mean", None, (1 / 255,)), ("dataset", None, None)]
)
def test_d7_every_normalisation_has_one_number(sit: Any, images: Path, normalise: str, mean: Any, std: Any) -> None:
    end = sit(normalise, data__colour="grey", data__normalise=normalise, budget__epochs=0.5)
    view = end.run.view
    index = open_data(str(images), 0.1).train
    photos = [views.apply(decode.load(index.path(row), view.exif), view) for row in range(len(index))]
    shades = [np.asarray(Image.fromarray(photo).convert("L")) / 255 for photo in photos]
    assert view.mean == (mean or (pytest.approx(np.mean(shades), abs=1e-6),))
    assert view.std == (std or (pytest.approx(np.std(shades), abs=1e-6),))


def test_d7_a_network_that_cannot_be_grey_is_a_usage_error(
    images: Path, tmp_path: Path, networks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "from torch import nn\n\n\ndef flat(num_classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n"
    )
    (networks / "flat_networks.py").write_text(code)
    words = ["train", str(images), "--model", "flat_networks:flat", "--img-size", "32", "--data.colour", "grey", "--steps", "1"]
    assert cli.run([*words, "--batch-size", "12", "--device", "cpu", "--out", str(tmp_path)]) == 2
    assert "flat_networks:flat cannot be made grey: it has no convolution" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["augment.saturation", "augment.hue", "augment.lighting"])
def test_d7_colour_augmentations_contradict_grey(images: Path, tmp_path: Path, field: str) -> None:
    with pytest.raises(UserError, match=f"{field}.* with data.colour grey"):
        striate.train(images, out=tmp_path, changes={**FIELDS, "data.colour": "grey", field: 0.1}, quiet=True)


def test_d7_colour_cannot_change_within_a_run(images: Path, tmp_path: Path) -> None:
    striate.train(images, out=tmp_path, name="x", changes=FIELDS, quiet=True, device="cpu")
    with pytest.raises((UserError, CheckpointError), match=r"cannot change within a run|another shape"):
        changes = {**FIELDS, "data.colour": "grey", "steps": 5}
        striate.train(images, out=tmp_path, name="x", changes=changes, override=("data.colour", "budget.steps"), quiet=True)


# ---------------------------------------------------------------- one view for all


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What entered the first layer of the network, batch by batch; training and scoring alike."""
    found: list[torch.Tensor] = []
    original = nn.Conv2d.forward

    def forward(layer: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        found.append(images.detach().clone())
        return original(layer, images)

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    return found


def test_e7_evaluate_and_predict_see_the_grey_pixels_that_pillow_gives(pair: tuple[Run, Run], seen: list[torch.Tensor]) -> None:
    _, grey = pair
    index, view = grey.index("val"), grey.view
    assert index is not None
    striate.evaluate(grey, device="cpu")
    striate.predict(grey, [index.path(row) for row in range(len(index))], device="cpu")
    evaluated, predicted = seen
    assert evaluated.shape == (16, 1, 32, 32)
    assert torch.equal(evaluated, predicted)
    for row in range(len(index)):
        photo = Image.fromarray(views.apply(decode.load(index.path(row), view.exif), view)).convert("L")
        expected = (torch.from_numpy(np.asarray(photo) / 255).float() - view.mean[0]) / view.std[0]
        torch.testing.assert_close(evaluated[row, 0], expected, rtol=0, atol=2e-6)


def test_e7_training_sees_the_grey_pixels_that_evaluation_sees(images: Path, tmp_path: Path, seen: list[torch.Tensor]) -> None:
    """Without augmentation, one epoch of 4 batches holds the same 48 images as an evaluation of the training split."""
    still = {"augment.crop": "resize", "augment.flip": 0.0, "data.fit": "squash", "data.shrink_px": 0, "data.colour": "grey"}
    still |= {"augment.resampler": "pillow"}  # evaluation's
    run = striate.train(images, out=tmp_path, changes={**FIELDS, **still, "steps": 4}, quiet=True, device="cpu")
    trained = torch.cat([batch for batch in seen if len(batch) == 12])
    seen.clear()
    striate.evaluate(run, split="train", device="cpu")
    (evaluated,) = seen
    assert trained.shape == evaluated.shape == (48, 1, 32, 32)
    assert sorted(image.numpy().tobytes() for image in trained) == sorted(image.numpy().tobytes() for image in evaluated)


def test_d7_grey_weights_in_a_bare_file_are_scored_as_grey(pair: tuple[Run, Run], mixed: Path, tmp_path: Path) -> None:
    _, grey = pair
    shutil.copy(grey.checkpoint("best").path / "model.safetensors", tmp_path / "w.safetensors")
    arguments: dict[str, Any] = {"weights": str(tmp_path / "w.safetensors"), "size_px": 32, "device": "cpu", "out": tmp_path}
    summary, folder = striate.evaluate("path_networks:small", mixed, **arguments)
    assert "grey (BT.601)" in summary["protocol"]
    ours, _ = striate.evaluate(grey, device="cpu")
    assert summary["used"] == ours["used"] == 16
    assert summary["view"]["mean"] == list(IMAGENET_GREY_MEAN)
    assert predictions.read(folder / "predictions.parquet").scale == "logits"


# ---------------------------------------------------------------- two networks


def _scores(folder: Path) -> predictions.Predictions:
    return predictions.read(folder / "predictions.parquet")


def test_d7_each_image_is_scored_by_the_network_for_it(pair: tuple[Run, Run], capsys: pytest.CaptureFixture[str]) -> None:
    colour, grey = pair
    alone, colour_folder = striate.evaluate(colour, device="cpu")
    _, grey_folder = striate.evaluate(grey, device="cpu")
    assert cli.run(["evaluate", str(colour.path), "--grey", str(grey.path), "--device", "cpu", "--json"]) == 0
    out = capsys.readouterr().out
    summary = json.loads(out.splitlines()[-1])
    folder = Path(summary["folder"])
    merged, by_colour, by_grey = _scores(folder), _scores(colour_folder), _scores(grey_folder)
    index = colour.index("val")
    assert index is not None
    photos = [decode.load(index.path(row), False) for row in range(16)]
    is_grey = np.array([bool((photo == photo[:, :, :1]).all()) for photo in photos])
    assert is_grey.sum() == 6
    assert list(merged.keys) == list(by_colour.keys) == list(index.keys)
    assert merged.scale == "log-probabilities"
    chosen = np.where(is_grey[:, None], by_grey.scores, by_colour.scores)
    np.testing.assert_allclose(merged.scores, metrics.log_probabilities(chosen), rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.exp(merged.scores.astype(np.float64)).sum(1), 1, atol=1e-5)
    right = chosen.argmax(1) == merged.labels
    assert summary["top1"] == right.mean()
    assert summary["routed"] == {"grey": 6, "colour": 10}
    assert summary["parts"]["grey"]["top1"] == right[is_grey].mean()
    assert summary["parts"]["colour"] == alone["parts"]["colour"]
    assert summary["scale"] == "log-probabilities"
    assert f"6 grey images (channels at most {views.GREY_TOLERANCE} levels apart) by grey (" in summary["protocol"]
    assert summary["protocol"].endswith("the other 10 by colour")
    assert "grey images: 6, top-1" in out
    assert folder.parent == colour.path / "evaluation"
    assert folder not in {colour_folder, grey_folder}


def test_d7_predict_routes_as_evaluate_does(pair: tuple[Run, Run], capsys: pytest.CaptureFixture[str]) -> None:
    colour, grey = pair
    _, folder = striate.evaluate(colour, grey=grey, device="cpu")
    merged = _scores(folder)
    index = colour.index("val")
    assert index is not None
    photos = [str(index.path(row)) for row in range(16)]
    assert cli.run(["predict", str(colour.path), *photos, photos[0], "--grey", str(grey.path), "--device", "cpu", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert len(rows) == 17
    assert rows[0] == rows[16]
    for row, scores_K in zip(rows, merged.scores, strict=False):
        assert row["ranks"][0]["class_id"] == merged.classes.ids[int(scores_K.argmax())]
        assert row["ranks"][0]["probability"] == pytest.approx(float(np.exp(scores_K.max())), abs=1e-5)


def test_d7_the_report_of_a_run_stays_about_its_own_network(pair: tuple[Run, Run]) -> None:
    from striate.report.gather import gather

    colour, grey = pair
    _, folder = striate.evaluate(colour, device="cpu")
    _, routed = striate.evaluate(colour, grey=grey, device="cpu")
    main = gather(colour.path).main
    assert main is not None
    assert main.folder == folder != routed
    assert (grey.path / "report.html").is_file()


def test_d7_an_image_that_only_one_view_can_hold_is_counted_bad(
    pair: tuple[Run, Run], mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colour, grey = pair
    index = colour.index("val")
    assert index is not None
    route = Route(from_run(colour, "best", False), from_run(grey, "best", False))
    lost = 3
    assert views.is_grey(decode.load(index.path(lost), False)[None]).all()

    def image(streaming: Streaming, row: int) -> decode.Pixels:
        if row == lost and streaming is not source:
            raise decode.BadImage("too long and thin")
        return decode.load(streaming.index.path(row), streaming.exif)

    source = Streaming(index, route.colour.view.exif, 0)
    monkeypatch.setattr(Streaming, "image", image)
    answers = ask(route, source, index, torch.device("cpu"), "fp32", Workers("threads", 0))
    assert answers.bad == [(index.keys[lost], "too long and thin")]
    assert len(answers.found) == len(answers.is_grey_N) == 15
    assert answers.is_grey_N.sum() == 5


def test_d7_without_a_grey_image_the_second_network_is_not_asked(pair: tuple[Run, Run], images: Path) -> None:
    colour, grey = pair
    alone, _ = striate.evaluate(colour, images, device="cpu")
    both, _ = striate.evaluate(colour, images, grey=grey, device="cpu")
    assert (both["top1"], both["routed"], both["parts"]) == (alone["top1"], {"grey": 0, "colour": 16}, {})


@pytest.fixture(scope="module")
def other_classes(images: Path, networks: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A grey run on three of the four classes."""
    folder = tmp_path_factory.mktemp("three") / "photos"
    shutil.copytree(images, folder)
    for split in ("train", "val"):
        shutil.rmtree(sorted((folder / split).iterdir())[0])
    changes = {**FIELDS, "data.colour": "grey"}
    return striate.train(folder, out=folder.parent, name="three", changes=changes, quiet=True, device="cpu")


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("grey", "grey", "sees grey only"),
        ("colour", "colour", "this run sees colour"),
        ("colour", "three", "its classes are not those of"),
        ("colour", "nowhere", "no such run"),
        ("timm/resnet18", "grey", "--grey goes with a run"),
    ],
)
@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_d7_two_networks_that_do_not_go_together_are_a_usage_error(
    pair: tuple[Run, Run],
    other_classes: Run,
    mixed: Path,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    first: str,
    second: str,
    words: str,
) -> None:
    paths = {"colour": str(pair[0].path), "grey": str(pair[1].path), "three": str(other_classes.path)}
    what = [str(mixed / "val")] if verb == "predict" else ["--data", str(mixed)]
    code = cli.run([verb, paths.get(first, first), *what, "--grey", paths.get(second, second), "--device", "cpu"])
    assert code == 2
    assert (words in capsys.readouterr().err) or (verb == "predict" and first.startswith("timm"))


def test_grey_pixels_in_memory_are_those_of_the_files(pair: tuple[Run, Run]) -> None:
    from striate.data import resident

    index: Index | None = pair[1].index("val")
    assert index is not None
    view = pair[1].view
    sources = [Streaming(index, view.exif, 0), resident.build(index, view, 1)]
    batches = [next(ordered_batches(source, index, view, None, 16, Workers("threads", 0))).images for source in sources]
    assert batches[0].shape == (16, 3, 32, 32)
    assert torch.equal(*batches)
