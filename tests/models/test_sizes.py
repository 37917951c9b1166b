"""Forward passes on shapes alone, and the smallest input of a network."""

import pytest
import torch
from torch import nn

from striate.errors import UserError
from striate.models import catalog, sizes


@pytest.mark.parametrize(
    "name", ["resnet18", "torchvision/squeezenet1_1", "timm/convnext_atto", "torchvision/shufflenet_v2_x0_5"]
)
@pytest.mark.parametrize("training", [False, True])
def test_shapes_are_those_of_a_pass_with_numbers(name, training):
    model = catalog.build(name, 10, {})
    found: dict[str, list[torch.Size]] = {}
    layers = [layer for layer in model.modules() if not any(layer.children())]
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output: found.setdefault(kind, []).append(output.shape))
        for layer in layers
    ]
    kind = "outlined"
    outlined = sizes.outline(model, sizes.blank(model, 64, batch=2), training=training)
    kind = "real"
    real = model.train(training)(torch.rand(2, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    assert outlined.is_meta and outlined.shape == real.shape
    assert found["outlined"] == found["real"]


def test_nothing_is_computed_and_nothing_changes():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    sizes.outline(model, sizes.blank(model, 8, batch=2), training=True)
    assert [layer.training for layer in model] == [True, False, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert sizes.blank(model.double(), 8).dtype == torch.float64


def test_each_operation_is_told():
    told = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    sizes.outline(
        model, sizes.blank(model, 8), look=lambda operation, args, named, result: told.append((str(operation), result.shape))
    )
    assert told == [("aten.convolution.default", (1, 4, 6, 6)), ("aten.relu.default", (1, 4, 6, 6))]


def test_tensors_that_are_no_weights_may_have_numbers():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = torch.ones(3, 1, 1)  # not registered, so it stays where it is

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            places = torch.arange(images.shape[-1])
            assert int(places.sum()) == 28  # numbers of its own it may have
            return (images - self.mean)[:, :, places]

    assert sizes.outline(Odd(), torch.empty(1, 3, 8, 8, device="meta")).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("name", "smallest", "smallest_training"),
    [
        ("torchvision/alexnet", 63, 63),
        ("torchvision/vgg11", 32, 32),
        ("torchvision/inception_v3", 75, 299),  # its auxiliary head wants more
        ("torchvision/vit_b_16", 224, 224),  # made for one size
    ],
)
def test_the_smallest_input(name, smallest, smallest_training):
    with torch.device("meta"):
        model = catalog.build(name, 10, {})
    assert sizes.smallest(model) == smallest
    assert sizes.smallest(model, training=True) == smallest_training
    assert sizes.takes(model, smallest) and not sizes.takes(model, smallest - 1)


def test_the_smallest_input_is_the_smallest_with_numbers_too():
    model = nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 3)).eval()
    smallest = sizes.smallest(model)
    assert model(torch.rand(1, 3, smallest, smallest)).shape[-1] == 1
    with pytest.raises(RuntimeError):
        model(torch.rand(1, 3, smallest - 1, smallest - 1))


def test_what_the_error_says():
    model = nn.Sequential(nn.Conv2d(3, 4, 7))
    sizes.check_input(model, "net", 7)
    with pytest.raises(
        UserError, match=r"net: an input of 6x6 px is too small; the smallest is 7x7\. Use --img-size 7 or more\."
    ):
        sizes.check_input(model, "net", 6)
    with pytest.raises(UserError, match="net: it cannot take images of 1 channels and 32x32 px"):
        sizes.check_input(model, "net", 32, channels=1)
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
    with pytest.raises(UserError, match=r"it cannot take images of 3 channels and 9x9 px .* It takes 8x8\."):
        sizes.check_input(fixed, "net", 9)
    # In training batch norm wants two numbers of a channel: with one unit of the grid and two images it has them.
    sizes.check_input(nn.Sequential(nn.Conv2d(3, 4, 7), nn.BatchNorm2d(4)), "net", 7, training=True)


def test_an_error_of_another_cause_goes_through():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(ZeroDivisionError), sizes.explained(model, "net", 8):
        raise ZeroDivisionError
    with pytest.raises(UserError, match="too small"), sizes.explained(model, "net", 2):
        raise ZeroDivisionError


def test_no_size_that_works():
    class Never(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise ValueError("no images, please")

    assert sizes.smallest(Never()) is None
    with pytest.raises(UserError, match=r"net: it cannot take .*\(ValueError: no images, please\)\."):
        sizes.check_input(Never(), "net", 64)


def test_a_network_that_looks_at_values_is_tried_with_numbers() -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if float(images.mean()) > 3:
                images = images / 2
            return self.conv(images).mean((2, 3))

    assert sizes.smallest(Looking()) is None  # shapes alone cannot tell
    sizes.check_input(Looking(), "mine:looking", 32)
    with pytest.raises(UserError, match="mine:looking: it cannot take images of 3 channels and 2x2 px"):
        sizes.check_input(Looking(), "mine:looking", 2)


def test_what_is_built_without_numbers_has_shapes_and_draws_none() -> None:
    state = torch.random.get_rng_state()
    with sizes.without_numbers():
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
        nn.init.trunc_normal_(model[2].weight)
    assert [tuple(weight.shape) for weight in model.parameters()] == [(4, 3, 3, 3), (4,), (2, 16), (2,)]
    assert all(weight.is_meta and weight.requires_grad for weight in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sizes.outline(model, sizes.blank(model, 4)).shape == (1, 2)
