"""predict: every image once and in order, the model left as it was, never a number from NaN."""

from collections import namedtuple
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from striate.classes import Classes
from striate.data.loader import Batch
from striate.errors import NonFiniteError, ResourceError, UserError
from striate.evaluate.predict import evaluation_mode, main_logits, predict, renumber
from striate.predictions import Predictions
from striate.view import View

VIEW = View(8, "crop", 8, "bilinear", False, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
CLASSES = Classes(("a", "b", "c"), ("ant", "bee", "cat"))
CPU = torch.device("cpu")
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (23, 3, 8, 8), dtype=np.uint8))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 3)
    )


def batches(size: int, rows: np.ndarray | None = None) -> Iterator[Batch]:
    rows = np.arange(len(PIXELS)) if rows is None else rows
    for first in range(0, len(rows), size):
        part = torch.from_numpy(rows[first : first + size])
        keys = tuple(f"{row:02}.jpg" for row in part.tolist())
        yield Batch(PIXELS[part], part % 3, part, keys, ())


def scored(model: nn.Module, size: int = 7, rows: np.ndarray | None = None) -> Predictions:
    return predict(model, batches(size, rows), VIEW, CPU, "fp32", CLASSES, channels_last=True)[0]


def test_scores_equal_torch_by_hand() -> None:
    model = network()
    said = scored(model)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (VIEW.mean, VIEW.std))
    theirs = model.eval()((PIXELS / 255 - mean) / std).detach().numpy()
    assert np.allclose(said.scores, theirs, atol=1e-5)
    assert said.labels.tolist() == [row % 3 for row in range(23)]
    assert list(said.keys) == [f"{row:02}.jpg" for row in range(23)]
    assert (said.scores.dtype, said.scale) == (np.float32, "logits")


@pytest.mark.parametrize("size", [1, 7, 64])
def test_e9_scores_do_not_depend_on_batch_size_or_order(size: int) -> None:
    model, base = network(), scored(network(), 23)
    order = np.random.default_rng(size).permutation(23)
    said = scored(model, size, order)
    assert np.abs(said.scores - base.scores[order]).max() < 1e-5
    assert np.array_equal(said.scores.argmax(1), base.scores.argmax(1)[order])


def test_e4_modes_gradients_and_statistics_are_left_as_they_were() -> None:
    model = network().train()
    model[1].eval()  # a frozen BatchNorm inside a training model
    before = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    scored(model)
    assert [module.training for module in model.modules()] == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_e4_training_is_bit_equal_with_and_without_evaluations() -> None:
    def trained(evaluate: bool) -> dict[str, torch.Tensor]:
        model = network().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(6):
            if evaluate:
                scored(model)
            torch.manual_seed(step)
            loss = nn.functional.cross_entropy(model(PIXELS[:12] / 255), torch.arange(12) % 3)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.state_dict()

    never, always = trained(False), trained(True)
    assert all(torch.equal(never[name], always[name]) for name in never)


def test_e4_modes_come_back_after_an_error_of_the_model_and_of_the_loader() -> None:
    def broken() -> Iterator[Batch]:
        yield from batches(7)
        raise OSError("disk gone")

    class Failing(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("a bug in the network")

    model = network().train()
    with pytest.raises(OSError, match="disk gone"):
        predict(model, broken(), VIEW, CPU, "fp32", CLASSES, channels_last=True)
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()
    failing = Failing().train()
    with pytest.raises(RuntimeError, match="a bug in the network"):
        scored(failing)
    assert failing.training


def test_e4_a_tensor_cached_by_the_network_can_be_trained_with_afterwards() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.weight = network(), nn.Parameter(torch.ones(3))
            self.scale: torch.Tensor | None = None

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if self.scale is None:
                self.scale = torch.linspace(1, 2, 3)
            return self.inner(images) * self.scale * self.weight

    model = Caching().train()
    scored(model)
    model(PIXELS / 255).sum().backward()


def test_e4_batches_are_made_outside_of_the_forward_context() -> None:
    def watching() -> Iterator[Batch]:
        for batch in batches(7):
            assert torch.is_grad_enabled()
            assert not torch.is_autocast_enabled("cpu")
            yield batch

    predict(network(), watching(), VIEW, CPU, "bf16", CLASSES, channels_last=False)


def test_e4_a_layer_that_stays_in_training_mode_is_refused() -> None:
    class Stubborn(nn.Dropout):
        def train(self, mode: bool = True) -> "Stubborn":
            return super().train(True)

    model = nn.Sequential(network(), Stubborn())
    with pytest.raises(UserError, match=r"training mode: 1\."):
        scored(model)


def test_e4_a_module_that_acts_on_train_and_eval_is_undone_by_its_own_train() -> None:
    class Merging(nn.Linear):
        merged = False

        def train(self, mode: bool = True) -> "Merging":
            self.merged = not mode
            return super().train(mode)

    model = nn.Sequential(nn.Flatten(), Merging(192, 3)).train()
    scored(model)
    assert not model[1].merged
    with evaluation_mode(model):
        assert model[1].merged


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_e5_a_non_finite_logit_names_the_first_image(value: float) -> None:
    class Poisoned(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            scores = images.flatten(1)[:, :3].clone()
            first = VIEW.normalise(PIXELS[9:10], torch.float32)
            scores[(images == first).flatten(1).all(1), 1] = value
            return scores

    with pytest.raises(NonFiniteError, match=r"'09\.jpg'.* 1 of the 7") as caught:
        scored(Poisoned().train())
    assert caught.value.exit_code == 5


def test_bf16_and_fp32_agree_roughly_and_scores_stay_float32() -> None:
    base = scored(network())
    said, _ = predict(network(), batches(7), VIEW, CPU, "bf16", CLASSES, channels_last=True)
    assert said.scores.dtype == np.float32
    assert 0 < np.abs(said.scores - base.scores).max() < 0.05


def test_heads_dicts_and_named_outputs_give_the_main_logits() -> None:
    main, aux = torch.zeros(2, 3), torch.ones(2, 3)
    named = namedtuple("named", "logits aux_logits2 aux_logits1")  # as torchvision's GoogLeNet returns them
    for output in (
        main,
        (main, aux),
        [main],
        {"aux": aux, "logits": main},
        named(main, aux, aux),
        SimpleNamespace(aux=aux, logits=main),
    ):
        assert main_logits(output) is main
    for odd in ({"out": main}, None, (), "text"):
        with pytest.raises(UserError, match="logits"):
            main_logits(odd)


@pytest.mark.parametrize("layer", [nn.Linear(192, 4), nn.Sequential(nn.Linear(192, 3), nn.Unflatten(1, (3, 1)))])
def test_e13_outputs_that_do_not_fit_the_classes_are_refused(layer: nn.Module) -> None:
    with pytest.raises(UserError, match=r"Expected logits \[7, 3\].*class list"):
        scored(nn.Sequential(nn.Flatten(), layer))


def test_bad_images_have_no_row_and_a_batch_of_only_bad_ones_is_no_batch() -> None:
    none = torch.empty(0, dtype=torch.int64)
    all_bad = Batch(PIXELS[:0], none, none, (), (("x.jpg", "truncated"),))
    one_bad = next(batches(4))
    one_bad.bad = (("y.jpg", "empty"),)
    said, bad = predict(network(), [all_bad, one_bad], VIEW, CPU, "fp32", CLASSES, channels_last=True)
    assert bad == [("x.jpg", "truncated"), ("y.jpg", "empty")]
    assert len(said) == 4
    said, bad = predict(network(), [all_bad], VIEW, CPU, "fp32", CLASSES, channels_last=True)
    assert said.scores.shape == (0, 3)


def test_e13_labels_are_joined_by_class_id_not_by_position() -> None:
    data = Classes(("c", "a", "b"), ("", "", ""))  # the data set lists the same classes in another order
    said, _ = predict(network(), batches(7), VIEW, CPU, "fp32", CLASSES, True, class_map=CLASSES.match(data))
    ids = [CLASSES.ids[label] for label in said.labels]
    assert ids == [data.ids[row % 3] for row in range(23)]
    assert renumber(np.array([-1, 0, 2]), np.array([2, 0, 1])).tolist() == [-1, 2, 1]
    assert renumber(np.array([-1, -1]), np.array([], np.int64)).tolist() == [-1, -1]


def test_a_compiled_network_is_scored_and_put_back_too() -> None:
    model = network().train()
    compiled = torch.compile(model, backend="eager")
    said, _ = predict(compiled, batches(7), VIEW, CPU, "fp32", CLASSES, channels_last=True)
    assert np.allclose(said.scores, scored(network()).scores, atol=1e-5)
    assert all(module.training for module in model.modules())


def test_out_of_memory_names_a_smaller_batch() -> None:
    class Greedy(nn.Module):
        def forward(self, images: torch.Tensor) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ResourceError, match="--device cpu"):
        scored(Greedy())
