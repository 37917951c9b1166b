"""Many views of each photo: averages by hand, one decode of each, and nothing that depends on how the work was divided."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import log_softmax, logsumexp, softmax
from torch import nn

from striate.classes import Classes
from striate.data import crops, views
from striate.data.decode import Pixels
from striate.data.index import Index
from striate.data.layouts.detect import open_split
from striate.data.loader import Streaming, Workers, ordered_batches
from striate.errors import NonFiniteError, UserError
from striate.evaluate import look, metrics
from striate.evaluate.look import photos, predict_views, refuse_compiled
from striate.evaluate.network import Network
from striate.evaluate.predict import predict
from striate.evaluate.route import Answers, Route, ask
from striate.evaluate.view_sets import Averaging, ViewSet, named
from striate.models import dense
from striate.predictions import Predictions
from striate.view import View

VIEW = View(16, "crop", 18, "bilinear", False, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
CPU = torch.device("cpu")
NONE = Workers("threads", 0)


def network(outputs: int = 3, channels: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, outputs)
    ).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of five photos, each of another shape; two files are no images, one is a long thin strip, one is grey."""
    root = tmp_path_factory.mktemp("looked") / "photos"
    numbers = np.random.default_rng(0)
    for place, name in enumerate("abc"):
        (root / name).mkdir(parents=True)
        for number in range(5):
            photo = numbers.integers(0, 256, (20 + 3 * number, 24 + 5 * place, 3), dtype=np.uint8)
            if (name, number) == ("a", 2):
                photo[:] = photo[..., :1]
            if (name, number) == ("c", 4):
                photo = photo[:1, :1].repeat(200_000, 1)
            Image.fromarray(photo).save(root / name / f"{number}.png")
    for name in ("b/1.png", "c/0.png"):
        (root / name).write_bytes((root / name).read_bytes()[:150])
    return root


BAD = ["b/1.png", "c/0.png", "c/4.png"]


@pytest.fixture(scope="module")
def index(folder: Path) -> Index:
    return open_split(folder)


def looked(
    model: nn.Module,
    index: Index,
    view_set: ViewSet | str,
    workers: Workers = NONE,
    view: View = VIEW,
    rows: np.ndarray | None = None,
    precision: Any = "fp32",
    average: Averaging = "probabilities",
) -> tuple[Predictions, list[tuple[str, str]]]:
    if isinstance(view_set, str):
        view_set = named(view_set, view, average)
    seen = photos(Streaming(index, False), index, rows, view_set, view, workers)
    return predict_views(model, seen, index, view_set, view, CPU, precision, index.classes, True)


def own_logits(model: nn.Module, images_VSS3: Pixels, view: View = VIEW) -> np.ndarray:
    images = torch.from_numpy(np.ascontiguousarray(images_VSS3)).permute(0, 3, 1, 2)
    with torch.no_grad():
        return model(view.normalise(images, torch.float32)).double().numpy()


# ---------------------------------------------------------------- averages


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("name", ["flip", "10crop", "3scale", "50crop"])
def test_crops_are_averaged_as_by_hand(index: Index, name: str, average: Averaging) -> None:
    model, view_set = network(), named(name, VIEW, average)
    said, _ = looked(model, index, view_set)
    assert said.scale == "log-probabilities"
    for key, scores_K in zip(said.keys, said.scores, strict=True):
        cut = crops.cut(np.asarray(Image.open(index.root / key)), view_set.crops, 16, "bilinear")
        logits_VK = own_logits(model, cut)
        mean_K = np.log(softmax(logits_VK, 1).mean(0)) if average == "probabilities" else log_softmax(logits_VK.mean(0))
        assert np.allclose(scores_K, mean_K, atol=1e-5)
    assert np.allclose(logsumexp(said.scores, 1), 0, atol=1e-6)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_dense_views_are_averaged_over_places_before_the_softmax(index: Index, average: Averaging) -> None:
    model = network()
    said, _ = looked(model, index, "dense:20,31", average=average)
    slid = dense.slide(model, 16, 3, lambda output: output)
    for key, scores_K in zip(said.keys, said.scores, strict=True):
        photo = np.asarray(Image.open(index.root / key))
        logits = []
        for side in (20, 31):
            whole = crops.at_shorter_side(photo, side, "bilinear")
            for one in (whole, whole[:, ::-1]):
                image = torch.from_numpy(one.copy()).permute(2, 0, 1)[None]
                with torch.no_grad():
                    logits.append(slid(VIEW.normalise(image, torch.float32)).mean((2, 3))[0].double().numpy())
        logits_VK = np.stack(logits)
        mean_K = np.log(softmax(logits_VK, 1).mean(0)) if average == "probabilities" else log_softmax(logits_VK.mean(0))
        assert np.allclose(scores_K, mean_K, atol=1e-5)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_joined_sets_have_equal_weight_whatever_their_views(index: Index, average: Averaging) -> None:
    model = network()
    both, first, second = (
        looked(model, index, name, average=average)[0].scores for name in ("flip+dense:20+50crop", "flip", "dense:20")
    )
    third = looked(model, index, "50crop", average=average)[0].scores
    # A log-softmax takes the same number from all logits of an image, so the mean of logits is that of what was kept, made whole.
    means = np.stack([first, second, third]).astype(np.float64)
    expected = np.log(np.exp(means).mean(0)) if average == "probabilities" else log_softmax(means.mean(0), 1)
    assert np.allclose(both, expected, atol=1e-5)


def test_a_file_with_the_centre_alone_is_what_predict_says(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"crops": [{"shorter_px": 18, "square": "whole"}]}))
    model = network()
    said, bad = looked(model, index, str(path))
    batches = ordered_batches(Streaming(index, False), index, VIEW, None, 4, NONE)
    own, own_bad = predict(model, batches, VIEW, CPU, "fp32", index.classes, True)
    assert list(said.keys) == list(own.keys)
    assert np.array_equal(said.labels, own.labels)
    assert np.allclose(said.scores, metrics.log_probabilities(own.scores), atol=1e-6)
    assert bad == own_bad


def test_a_squashed_view_is_mirrored(index: Index) -> None:
    view = View(16, "squash", 16, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
    model = network()
    said, bad = looked(model, index, "flip", view=view)
    for key, scores_K in zip(said.keys, said.scores, strict=True):
        own = views.apply(np.asarray(Image.open(index.root / key)), view)
        logits_VK = own_logits(model, np.stack([own, own[:, ::-1]]), view)
        assert np.allclose(scores_K, np.log(softmax(logits_VK, 1).mean(0)), atol=1e-5)
    assert [key for key, _ in bad] == BAD[:2]  # squashed, the strip is no large image


def test_dense_at_the_networks_own_size_is_the_own_view_of_a_square_photo(tmp_path: Path) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "b").mkdir()
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name / "0.png")
    index = open_split(tmp_path / "photos")
    view = View(16, "crop", 16, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
    slid, flipped = (looked(network(2), index, name, view=view)[0].scores for name in ("dense:16", "flip"))
    assert np.allclose(slid, flipped, atol=1e-5)


# ---------------------------------------------------------------- how the work is divided


@pytest.fixture(scope="module")
def base(index: Index) -> Predictions:
    return looked(network(), index, "10crop+dense:20")[0]


@pytest.mark.parametrize("workers", [NONE, Workers("threads", 1), Workers("threads", 3), Workers("processes", 2)])
def test_workers_change_nothing(index: Index, base: Predictions, workers: Workers) -> None:
    said, bad = looked(network(), index, "10crop+dense:20", workers)
    assert list(said.keys) == list(base.keys)
    assert np.array_equal(said.scores, base.scores)
    assert [key for key, _ in bad] == BAD


@pytest.mark.parametrize("together", [1, 2, 5, 100])
def test_the_size_of_groups_and_batches_changes_nothing(
    index: Index, base: Predictions, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "_TOGETHER", together)
    monkeypatch.setattr(look, "scoring_batch_size", lambda view: 3 * together)
    said, bad = looked(network(), index, "10crop+dense:20")
    assert list(said.keys) == list(base.keys)
    assert np.abs(said.scores - base.scores).max() < 1e-5
    assert [key for key, _ in bad] == BAD


def test_the_order_of_the_images_changes_nothing(index: Index, base: Predictions) -> None:
    order = np.random.default_rng(1).permutation(len(index))
    said, bad = looked(network(), index, "10crop+dense:20", rows=order)
    place = {key: row for row, key in enumerate(base.keys)}
    rows = [place[key] for key in said.keys]
    assert [index.keys[row] for row in order if index.keys[row] not in BAD] == list(said.keys)
    assert np.abs(said.scores - base.scores[rows]).max() < 1e-5
    assert np.array_equal(said.labels, base.labels[rows])
    assert sorted(key for key, _ in bad) == BAD


def test_bf16_is_near_float32(index: Index, base: Predictions) -> None:
    said, _ = looked(network(), index, "10crop+dense:20", precision="bf16")
    assert 0 < np.abs(said.scores - base.scores).max() < 0.05


def test_labels_are_renumbered_for_the_network(index: Index) -> None:
    view_set = named("flip", VIEW)
    seen = photos(Streaming(index, False), index, None, view_set, VIEW, NONE)
    classes = Classes(("c", "b", "a"), ("", "", ""))
    said, _ = predict_views(network(), seen, index, view_set, VIEW, CPU, "fp32", classes, True, classes.match(index.classes))
    assert [classes.ids[label] for label in said.labels] == [key.split("/")[0] for key in said.keys]


# ---------------------------------------------------------------- what it costs


def test_each_photo_is_decoded_once(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[int] = Counter()
    original = Streaming.image

    def counted(source: Streaming, row: int) -> Pixels:
        decoded[row] += 1
        return original(source, row)

    monkeypatch.setattr(Streaming, "image", counted)
    looked(network(), index, "144crop+dense:20,24+flip", Workers("threads", 2))
    assert decoded == {row: 1 for row in range(len(index))}


@pytest.mark.parametrize(("name", "times"), [("flip", 2), ("10crop", 10), ("3scale", 6), ("144crop", 144), ("flip+10crop", 12)])
def test_the_network_sees_as_many_images_as_there_are_views(index: Index, name: str, times: int) -> None:
    model = network()
    seen: list[tuple[int, ...]] = []
    model[0].register_forward_hook(lambda layer, inputs, output: seen.append(tuple(inputs[0].shape)))
    said, _ = looked(model, index, name)
    assert sum(shape[0] for shape in seen) == times * len(said)
    assert {shape[1:] for shape in seen} == {(3, 16, 16)}


def test_dense_looks_at_each_size_twice(index: Index) -> None:
    model = network()
    seen: list[tuple[int, ...]] = []
    model[0].register_forward_hook(lambda layer, inputs, output: seen.append(tuple(inputs[0].shape)))
    said, _ = looked(model, index, "dense:20,24")
    proved = sum(shape[0] for shape in seen if shape[2] == 16)  # what `slide` tries first
    larger = [shape for shape in seen if min(shape[2:]) in (20, 24)]
    assert sum(shape[0] for shape in larger) == 4 * len(said)
    assert proved <= 6


# ---------------------------------------------------------------- bad images, bad networks


def test_bad_images_are_listed_with_their_reasons(index: Index) -> None:
    said, bad = looked(network(), index, "10crop")
    assert [key for key, _ in bad] == BAD
    assert "too long and thin: resizing 200000 x 1 pixels" in dict(bad)["c/4.png"]
    assert set(said.keys) == set(index.keys) - set(BAD)
    assert len(said) == 12


def test_only_bad_images_give_no_rows(index: Index) -> None:
    rows = np.array([row for row in range(len(index)) if index.keys[row] in BAD])
    said, bad = looked(network(), index, "10crop", rows=rows)
    assert said.scores.shape == (0, 3)
    assert said.labels.dtype == np.int64
    assert len(bad) == 3
    nothing, bad = looked(network(), index, "dense", rows=rows[:0])
    assert (len(nothing), bad) == (0, [])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("name", "average"), [("10crop", "probabilities"), ("10crop", "logits"), ("dense:20", "probabilities")])
def test_one_view_that_is_not_finite_names_the_image(index: Index, value: float, name: str, average: Averaging) -> None:
    class Spoiling(nn.Linear):
        """Spoils the last row of a batch, but for the pairs of noise that `slide` tries a network with."""

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            out = super().forward(input)
            if len(out) > 2:
                out[-1, 1] = value
            return out

    model = nn.Sequential(*network()[:4], Spoiling(6, 3)).train()
    with pytest.raises(NonFiniteError, match=r"'a/[012]\.png' is NaN or infinite"):
        looked(model, index, name, rows=np.arange(3), average=average)
    assert all(layer.training for layer in model.modules())


def test_modes_come_back_and_outputs_are_checked(index: Index) -> None:
    model = network().train()
    looked(model, index, "flip+dense:20")
    assert all(layer.training for layer in model.modules())
    with pytest.raises(UserError, match=r"Expected logits \[\d+, 3\].*class list"):
        looked(network(4).train(), index, "flip")


def test_two_classes_have_a_top_5_of_two(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name / "0.png")
    index = open_split(tmp_path / "photos")
    said, _ = looked(network(2), index, "144crop")
    assert said.scores.shape == (2, 2)
    assert metrics.hits(said.scores, said.labels, 5).all()


def test_dense_views_of_a_network_that_cannot_be_slid_are_refused(index: Index) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).train()
    with pytest.raises(UserError, match="dense views: Sequential has no layer that gives a grid"):
        looked(model, index, "dense:20")
    assert model.training
    said, _ = looked(model, index, "10crop")
    assert len(said) == 12


def test_a_compiled_network_is_not_slid() -> None:
    with pytest.raises(UserError, match=r"--views dense --compile: dense views look inside"):
        refuse_compiled(named("dense", VIEW), True)
    refuse_compiled(named("dense", VIEW), False)
    refuse_compiled(named("10crop", VIEW), True)


# ---------------------------------------------------------------- routes


def asked(index: Index, route: Route, looking: str, average: Averaging = "probabilities", watch: Any = None) -> Answers:
    return ask(route, Streaming(index, False), index, CPU, "fp32", NONE, watch=watch, looking=looking, average=average)


def of(model: nn.Module, view: View, classes: Classes, home: Path) -> Network:
    return Network(model, classes, view, "raw", "0" * 64, home, "step-1")


def test_a_route_of_one_network_is_what_it_says(index: Index, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    route = Route(of(network(), VIEW, index.classes, tmp_path))
    answers = asked(index, route, "10crop", "logits", lambda images, count: done.append((images, count)))
    said, bad = looked(network(), index, "10crop", average="logits")
    assert np.array_equal(answers.found.scores, said.scores)
    assert answers.bad == bad
    assert [index.keys[row] for row in answers.rows_N] == list(said.keys)
    assert [key for key, grey in zip(said.keys, answers.is_grey_N, strict=True) if grey] == ["a/2.png"]
    own = [views.apply(np.asarray(Image.open(index.root / key)), VIEW).mean() / 255 for key in said.keys]
    assert np.allclose(answers.brightness_N, own, atol=0.05)
    assert done == [(0, 15)]


def test_a_grey_photo_is_looked_at_by_the_grey_network_through_its_own_views(index: Index, tmp_path: Path) -> None:
    grey_view = View(16, "crop", 24, "bicubic", False, (0.45,), (0.2,), "grey")
    colour, grey = network(), network(channels=1)
    route = Route(of(colour, VIEW, index.classes, tmp_path), of(grey, grey_view, index.classes, tmp_path))
    answers = asked(index, route, "10crop+dense:20")
    alone, _ = looked(colour, index, "10crop+dense:20")
    row = list(answers.found.keys).index("a/2.png")
    own, _ = looked(grey, index, "10crop+dense:20", view=grey_view, rows=np.array([list(index.keys).index("a/2.png")]))
    assert np.allclose(answers.found.scores[row], own.scores[0], atol=1e-6)
    assert not np.allclose(answers.found.scores[row], alone.scores[row], atol=1e-3)
    others = np.arange(len(alone)) != row
    assert np.allclose(answers.found.scores[others], alone.scores[others], atol=1e-6)


def test_the_same_names_give_other_sizes_for_other_views(index: Index) -> None:
    wider = View(16, "crop", 24, "bilinear", False, VIEW.mean, VIEW.std)
    one, other = (looked(network(), index, "10crop", view=view)[0].scores for view in (VIEW, wider))
    assert not np.allclose(one, other, atol=1e-3)
