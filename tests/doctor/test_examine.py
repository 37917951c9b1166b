"""The doctor for strangers: whatever a loader yields and a network does, findings or a clear error; nothing is left."""

from __future__ import annotations

import collections
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import striate
from striate.doctor import catalog, examine
from striate.errors import DataError, UserError
from tests.doctor import makers


def hooks(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks)
        + len(module._forward_pre_hooks)
        + len(module._backward_hooks)
        + len(module._backward_pre_hooks)
        for module in model.modules()
    )


def batches(count: int = 4):
    return [makers.images(32, seed=number) for number in range(count)]


def test_a_healthy_network_gets_silence_with_what_was_checked():
    model = makers.small()
    found = striate.examine(model, batches(8), optimizer=makers.sgd(model), classes=12)
    assert not found.is_ill and "the first loss" in found.in_order
    assert [one.code for one in found] == [] and str(found).startswith("Nothing found.")
    assert not [why for why in found.unchecked.values() if why.startswith("failed")]


def test_nothing_is_left_behind_on_any_path():
    model = makers.network("googlenet-bn")
    own = [model.conv1.register_forward_hook(lambda *_: None), model.register_full_backward_hook(lambda *_: None)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes, held = [module.training for module in model.modules()], hooks(model)
    optimizer = makers.sgd(model, 0.01)
    striate.examine(model, [makers.images(8, 64)] * 2, optimizer=optimizer)
    assert hooks(model) == held == 2
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not optimizer.state and all(parameter.grad is None for parameter in model.parameters())
    for one in own:
        one.remove()


@pytest.mark.parametrize(
    "shape",
    [
        lambda x, y: (x, y),
        lambda x, y: [x, y, "more"],
        lambda x, y: {"pixel_values": x, "labels": y},
        lambda x, y: {"image": x, "label": y},
        lambda x, y: (x.numpy(), y.numpy()),
        lambda x, y: (x, y.to(torch.int32)),
        lambda x, y: (x, y[:, None]),
        lambda x, y: (x, nn.functional.one_hot(y, 12).float()),
        lambda x, y: collections.namedtuple("Pair", "images labels")(x, y),
    ],
    ids=["tuple", "three", "hugging face", "dict", "numpy", "int32", "column", "one-hot", "namedtuple"],
)
def test_whatever_a_loader_yields(shape):
    found = striate.examine(makers.small(), [shape(*one) for one in batches(2)], classes=12, seconds=20)
    assert not found.is_ill and "forward-pass" in found.checked


def test_a_generator_is_read_once():
    found = striate.examine(makers.small(), (one for one in batches()), classes=12)
    assert "one-batch" in found.checked


class Wraps(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.inner, self.wrap = makers.small(), wrap

    def forward(self, x):
        return self.wrap(self.inner(x))


Named = collections.namedtuple("Named", "logits extra")


@pytest.mark.parametrize(
    "wrap",
    [lambda y: (y,), lambda y: {"logits": y}, lambda y: Named(y, y.detach() * 0), lambda y: [y]],
    ids=["tuple", "dict", "namedtuple", "list"],
)
def test_networks_that_return_something_else(wrap):
    found = striate.examine(Wraps(wrap), batches(2), classes=12, seconds=20)
    assert "forward-pass" in found.checked and not [why for why in found.unchecked.values() if why.startswith("failed")]


class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 12)

    def forward(self, x):
        raise ZeroDivisionError("in the middle")


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 12)

    def forward(self, images, boxes):
        return self.fc(images.mean((2, 3)))


@pytest.mark.parametrize(("model", "words"), [(Raises(), "in the middle"), (Two(), "boxes")], ids=["raises", "two inputs"])
def test_networks_that_cannot_be_run_are_a_finding(model, words):
    found = striate.examine(model, batches(2))
    assert found[0].code == "forward-pass" and words in found[0].sentence and hooks(model) == 0
    assert found.unchecked["constant-function"] == "the network does not run, or its loss"


def test_a_network_without_parameters():
    found = striate.examine(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), batches(2))
    assert any("no parameters" in one.sentence for one in found)


def test_a_network_on_the_device_meta():
    with torch.device("meta"):
        model = makers.small()
    with pytest.raises(UserError, match="meta"):
        striate.examine(model, batches(1))


@pytest.mark.parametrize(
    ("loader", "error", "words"),
    [
        ([], DataError, "yields nothing"),
        ([3], UserError, "yields int"),
        ([{"a": 1}], UserError, "a dict with a"),
        ([(torch.rand(4, 3, 8, 8), torch.zeros(3))], UserError, r"\[4, 3, 8, 8\] with 3 labels"),
        ([(torch.rand(4, 3, 8, 8), ["cat"] * 4)], UserError, "no numbers"),
        ([(torch.rand(0, 3, 8, 8), torch.zeros(0))], DataError, "yields nothing"),
    ],
    ids=["empty", "number", "dict", "lengths", "words", "empty batch"],
)
def test_loaders_that_are_none(loader, error, words):
    with pytest.raises(error, match=words):
        striate.examine(makers.small(), loader)


def test_no_network():
    with pytest.raises(UserError, match=r"torch\.nn\.Module"):
        striate.examine("resnet18", batches(1))


def test_images_of_bytes():
    images, labels = makers.images(32)
    loud = (images * 60 + 128).clamp(0, 255).to(torch.uint8)
    found = striate.examine(makers.small(), [(loud, labels)] * 2, classes=12)
    assert "pixel-range" in {one.cause for one in found}


def test_a_batch_that_is_not_finite_never_crashes():
    images, labels = makers.images(32)
    images[3, 0, 0, 0] = float("nan")
    found = striate.examine(makers.small(), [(images, labels)] * 2, classes=12, seconds=20)
    assert found.is_ill
    assert not [why for why in found.unchecked.values() if why.startswith("failed")], found.unchecked


def test_a_rule_that_fails_is_named_and_ends_nothing(monkeypatch):
    def broken(patient):
        raise KeyError("oh")

    rule = catalog.Rule(broken, "x", "data")
    monkeypatch.setitem(catalog.BEFORE, "batch-size", rule)
    found = striate.examine(makers.small(), batches(1), seconds=10)
    assert found.unchecked["batch-size"] == "failed: KeyError: 'oh'"


SCRIPT = """
import torch, torchvision
from torch import nn
import striate

# A plain training script that knows nothing of striate: a torchvision network, torch's own loader.
images = torch.randn(96, 3, 32, 32) * 80 + 120
labels = torch.randint(0, 10, (96,))
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=16, shuffle=True)
model = torchvision.models.resnet18(num_classes=10)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
print(striate.examine(model, loader, optimizer=optimizer, seconds=30))
"""


def test_a_plain_script():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "pixels in 0..255" in " ".join(done.stdout.split())


def test_arrays_of_numpy_and_a_batch_of_one():
    images, labels = makers.images(1)
    found = striate.examine(makers.small(), [(np.asarray(images), np.asarray(labels))], seconds=10)
    assert "batch-norm-single" in {one.cause for one in found}


def test_a_float64_network_and_its_images():
    model = makers.small().double()
    found = striate.examine(model, [(images.double(), labels) for images, labels in batches(2)], classes=12, seconds=20)
    assert "forward-pass" in found.checked and not found.is_ill
    assert not [why for why in found.unchecked.values() if why.startswith("failed")], found.unchecked


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda outputs, labels: nn.functional.cross_entropy(outputs.nothing, labels), "nothing"),
        (lambda outputs, labels: nn.functional.cross_entropy(outputs, labels, reduction="none"), r"tensor [32]"),
        (lambda outputs, labels: None, "NoneType"),
    ],
    ids=["raises", "no number", "nothing"],
)
def test_a_loss_that_cannot_be_computed_is_a_finding(loss, words):
    found = striate.examine(makers.small(), batches(2), loss=loss, classes=12, seconds=20)
    assert found[0].code == "forward-pass" and found[0].severity == "error" and "loss" in found[0].sentence
    assert words.replace("[32]", "") in found[0].sentence


@pytest.mark.parametrize("detached", ["frozen", "no gradient"])
def test_a_loss_that_nothing_comes_back_from(detached):
    model = makers.network("googlenet-bn")
    if detached == "frozen":
        model.requires_grad_(False)
    found = striate.examine(
        model,
        [makers.images(8, 64)],
        loss=lambda outputs, labels: nn.functional.cross_entropy(outputs.logits.detach(), labels),
        seconds=20,
    )
    assert found[0].code == "untrained-parameters" and found[0].severity == "error"


def test_a_rate_that_a_scheduler_has_set_to_zero():
    model = makers.small()
    optimizer = makers.sgd(model, 0.05)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: epoch / 5)
    assert optimizer.param_groups[0]["lr"] == 0.0
    found = striate.examine(model, batches(8), optimizer=optimizer, classes=12)
    assert "learning-rate" in found.checked and not found.is_ill


def test_optimisers_that_take_no_plain_steps():
    model = makers.small()
    found = striate.examine(model, batches(2), optimizer=torch.optim.LBFGS(model.parameters()), classes=12, seconds=20)
    assert found.unchecked["learning-rate"] == "LBFGS takes no steps of its own"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "sgd"}, "optimizer must be"),
        ({"classes": "12"}, "classes must be"),
        ({"seconds": None}, "seconds must be"),
        ({"loss": 3}, "loss must be"),
        ({"val_loader": 3}, "val_loader must be"),
    ],
)
def test_options_of_the_wrong_type(options, words):
    with pytest.raises(UserError, match=words):
        striate.examine(makers.small(), batches(1), **options)


def test_a_loader_that_fails_at_once_and_one_that_is_none():
    def broken():
        raise FileNotFoundError("no/such/photo.jpg")
        yield

    with pytest.raises(DataError, match=r"no/such/photo\.jpg"):
        striate.examine(makers.small(), broken())
    with pytest.raises(UserError, match="loader must be"):
        striate.examine(makers.small(), None)


def test_labels_that_are_no_whole_numbers():
    images, _ = makers.images(8)
    with pytest.raises(UserError, match="no whole numbers"):
        striate.examine(makers.small(), [(images, torch.rand(8))])


class Odd(nn.Module):
    """Replaces a buffer in its forward pass, and hands out one of its parameters."""

    def __init__(self):
        super().__init__()
        self.inner, self.prompt = makers.small(), Prompt()
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean().detach()
        return self.inner(x) + self.prompt(x).sum()


class Prompt(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4, 4))

    def forward(self, x):
        return self.table


def test_replaced_buffers_hooks_on_parameters_and_gradients_outside_the_optimiser():
    model = Odd()
    head = torch.optim.SGD(model.inner[-1].parameters(), 0.01)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    buffer, state = model.mean, torch.get_rng_state()
    striate.examine(model, batches(2), optimizer=head, classes=12, seconds=20)
    assert model.mean is buffer and float(buffer) == 0.0
    assert all(torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in model.parameters())
    assert not model.prompt.table._backward_hooks
    assert torch.equal(torch.get_rng_state(), state)


class Counted:
    """A loader that counts its passes and its batches, and can take its time or fail."""

    def __init__(self, count=4, fails_at=None):
        self.count, self.fails_at, self.passes, self.loaded = count, fails_at, 0, 0

    def __iter__(self):
        self.passes += 1
        for number in range(self.count):
            if number == self.fails_at:
                raise OSError("disk gone")
            self.loaded += 1
            yield makers.images(8, seed=number)


CPU = torch.device("cpu")


def test_what_was_loaded_is_kept_for_the_next_rule():
    loader = Counted()
    loading = examine._Loading(loader, CPU, "the loader")
    first = next(loading())
    assert loader.loaded == 1  # no more than what was asked for
    whole, again = list(loading()), list(loading())
    assert (loader.passes, loader.loaded) == (1, 4) and len(loading.seconds) == 4
    assert len(whole) == len(again) == 4 and whole[0][0] is again[0][0] is first[0]


def test_two_passes_at_once_see_the_same_batches():
    loading = examine._Loading(Counted(), CPU, "the loader")
    pairs = list(zip(loading(), loading(), strict=True))
    assert len(pairs) == 4 and all(one[0] is other[0] for one, other in pairs)


def test_of_a_generator_all_is_kept_whatever_its_size(monkeypatch):
    monkeypatch.setattr(examine, "KEPT_BYTES", 1)
    loader = Counted()
    loading = examine._Loading(iter(loader), CPU, "the loader")
    for _ in range(2):
        assert [float(images.sum()) for images, _ in loading()] == [
            float(makers.images(8, seed=number)[0].sum()) for number in range(4)
        ]
    assert loader.loaded == 4


def test_a_slow_loader_is_waited_for_once():
    loader = Counted(8)
    striate.examine(makers.small(), loader, classes=12, seconds=10)
    assert (loader.passes, loader.loaded) == (1, 8)


class Unopened:
    def __iter__(self):
        raise PermissionError("no/such/folder")


def test_a_loader_that_cannot_be_opened():
    with pytest.raises(DataError, match=r"PermissionError: no/such/folder"):
        striate.examine(makers.small(), Unopened())


@pytest.mark.parametrize("val_loader", [Unopened(), Counted(fails_at=0), [3]], ids=["unopened", "fails", "no batches"])
def test_a_validation_loader_that_fails_is_named_and_ends_nothing(val_loader):
    found = striate.examine(makers.small(), batches(2), val_loader=val_loader, classes=12, seconds=10)
    assert found.unchecked["scored-images"].startswith("failed: ") and "one-batch" in found.checked


def test_the_length_of_a_loader_is_its_steps():
    big = [makers.images(128, 16)] * 2
    found = striate.examine(makers.small(), big, classes=12, seconds=10)
    assert "batch-too-large" in {one.cause for one in found}
    found = striate.examine(makers.small(), (one for one in big), classes=12, seconds=10)
    assert found.unchecked["batch-size"] == "the loader does not say its length"
