"""Networks slid over photos: against the network's own answers on every window, and refused with the reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from striate.errors import NonFiniteError, UserError
from striate.models import catalog, dense
from striate.models.blocks import GridPool
from striate.models.dense import Dense, slide

Prepare = Callable[[nn.Module], nn.Module]


def noise(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def itself(output: torch.Tensor) -> torch.Tensor:
    return output


def slid(network: nn.Module, size_px: int) -> Dense:
    return slide(network.eval(), size_px, 3, itself)


def hooks(network: nn.Module) -> int:
    layers = list(network.modules())
    return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) + len(layer._backward_hooks) for layer in layers)


def on_windows(network: nn.Module, photos: torch.Tensor, size_px: int, stride: int) -> torch.Tensor:
    """The network's own logits on every window, [B, K, h, w]."""
    rows = range(0, photos.shape[2] - size_px + 1, stride)
    columns = range(0, photos.shape[3] - size_px + 1, stride)
    with torch.no_grad():
        lines = [torch.stack([network(photos[:, :, y : y + size_px, x : x + size_px]) for x in columns], dim=-1) for y in rows]
    return torch.stack(lines, dim=-2)


# ---------------------------------------------------------------- without padding: equal to the network on every window


def flat_head() -> nn.Sequential:
    """A window of 18 px: 16, pooled to 8, 6. Its neighbours are 2 px apart."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 6 * 6, 7)
    )


def mean_head() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7)
    )


def pooled_head() -> nn.Sequential:
    """A pool of fixed size, which over a larger photo would be 6 cells apart: the windows are to be one cell apart."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(5, 7)
    )


def two_linear_layers() -> nn.Sequential:
    """BatchNorm1d, ReLU and dropout between the linear layers; the ReLU works in place."""
    head = (nn.Linear(180, 9), nn.BatchNorm1d(9), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(9, 7))
    network = nn.Sequential(*flat_head()[:-1], *head)
    network[7].running_mean.normal_(generator=torch.Generator().manual_seed(3))
    network[7].running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(4))
    return network


def shared_relu() -> nn.Sequential:
    """One ReLU module stands in three places; its second call gives the grid, its third belongs to the head."""
    relu = nn.ReLU()
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), relu, nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), relu, nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(5, 9), relu, nn.Linear(9, 7)),
    )


def in_place_head() -> nn.Sequential:
    """An activation that is no ReLU and writes over what the linear layer gave, as MobileNetV3 has it."""
    return nn.Sequential(*flat_head()[:-1], nn.Linear(180, 9), nn.Hardswish(inplace=True), nn.Linear(9, 7))


def one_by_one() -> nn.Sequential:
    """The grid is a single cell, as the last convolution of LeNet-5 leaves it."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 8), nn.Tanh(), nn.Flatten(), nn.Linear(5, 7)
    )


def no_linear_layer() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


class Functional(nn.Module):
    """Everything but the weights is a function: relu, dropout, mean, flatten; one ReLU module is called three times."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.relu = nn.ReLU(inplace=True)
        self.hidden, self.last = nn.Linear(180 if head == "flat" else 5, 9), nn.Linear(9, 7)
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(self.relu(self.first(images)), 2)
        x = functional.relu(self.second(x))
        x = functional.dropout(x, 0.5, self.training)
        x = torch.flatten(x, 1) if self.head == "flat" else x.mean([2, 3])
        x = functional.dropout(self.relu(self.hidden(x)), 0.5, self.training)
        return self.last(self.relu(x))


class ByReshape(nn.Module):
    """A convolutional head behind vectors: the mean, as [B, C], is made a grid of one cell again."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mean_head()[:4]
        self.fc, self.norm, self.last = nn.Linear(5, 6), nn.GroupNorm(2, 6), nn.Conv2d(6, 7, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.fc(self.body(images).mean((2, 3)))
        return self.last(self.norm(x[:, :, None, None])).flatten(1)


WITHOUT_PADDING: dict[str, Callable[[], nn.Module]] = {
    "flat": flat_head,
    "mean": mean_head,
    "a pool of fixed size": pooled_head,
    "two linear layers": two_linear_layers,
    "one ReLU in three places": shared_relu,
    "in place": in_place_head,
    "one cell": one_by_one,
    "no linear layer": no_linear_layer,
    "functional, flat": lambda: Functional("flat"),
    "functional, mean": lambda: Functional("mean"),
    "by reshape": ByReshape,
}


@pytest.mark.parametrize("name", WITHOUT_PADDING)
@pytest.mark.parametrize(("height", "width"), [(18, 18), (26, 32), (33, 21)])
def test_without_padding_the_map_is_the_network_on_every_window(name: str, height: int, width: int) -> None:
    torch.manual_seed(0)
    network = WITHOUT_PADDING[name]().eval()
    photos = noise(2, 3, height, width)
    expected = on_windows(network, photos, 18, 2)
    with torch.no_grad():
        found = slid(network, 18)(photos)
    assert expected.shape == (2, 7, (height - 18) // 2 + 1, (width - 18) // 2 + 1)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4
    assert expected.std() > 1e-3


def test_the_first_linear_layer_is_a_convolution() -> None:
    torch.manual_seed(0)
    network = flat_head().eval()
    photos = noise(2, 3, 26, 32)
    with torch.no_grad():
        by_torch = functional.conv2d(network[:5](photos), network[6].weight.view(7, 5, 6, 6), network[6].bias)
        found = slid(network, 18)(photos)
    assert torch.allclose(found, by_torch, atol=1e-5)


@pytest.mark.slow
def test_the_first_linear_layer_of_vgg_by_hand() -> None:
    """VGG's first linear layer over each 7 x 7 window, unfolded by torch, then its two others."""
    torch.manual_seed(0)
    network = catalog.build("vgg-a", 10, {"init": "glorot"}).eval()
    photo = noise(1, 3, 256, 288)
    with torch.no_grad():
        grid = network.features(photo)
        assert grid.shape == (1, 512, 8, 9)
        windows = functional.unfold(grid, 7).transpose(1, 2)[0]
        by_hand = network.classifier(windows).T.reshape(1, 10, 2, 3)
        network_slid = slid(network, 224)
        found = network_slid(photo)
    assert (network_slid.joins, network_slid.window) == ("flat", (7, 7))
    assert torch.allclose(found, by_hand, rtol=1e-4, atol=1e-5 * float(by_hand.abs().max()))


def test_two_sizes_and_two_calls_do_not_disturb_each_other() -> None:
    torch.manual_seed(0)
    network = flat_head().eval()
    network_slid = slid(network, 18)
    small, large = noise(1, 3, 20, 20), noise(3, 3, 31, 27)
    with torch.no_grad():
        first, _, again = network_slid(small), network_slid(large), network_slid(small)
    assert torch.equal(first, again)


# ---------------------------------------------------------------- networks of the papers


def checked(network: nn.Module, size_px: int, channels: int = 3) -> Dense:
    """Slid; on S by S pixels equal to the network, on a larger photo a larger map, and elsewhere different."""
    network_slid = slide(network, size_px, channels, lambda output: output if isinstance(output, torch.Tensor) else output[0])
    same, larger = noise(2, channels, size_px, size_px, seed=3), noise(1, channels, size_px + 64, size_px + 96, seed=4)
    with torch.no_grad():
        own = network(same)
        found, of_map = network_slid(same), network_slid(larger)
    assert found.shape == (*own.shape, 1, 1)
    assert (found[:, :, 0, 0] - own).abs().max() <= 1e-4 * max(1.0, float(own.abs().max()))
    assert of_map.shape[2] >= 2 and of_map.shape[3] >= of_map.shape[2]
    assert of_map[0, :, 0, 0].sub(of_map[0, :, -1, -1]).abs().max() > 0
    return network_slid


@pytest.mark.parametrize(
    ("name", "options", "size_px", "joins", "window"),
    [
        ("resnet18", {}, 64, "mean", (2, 2)),
        ("resnet18", {}, 32, "mean", (1, 1)),
        ("densenet121", {}, 64, "mean", (2, 2)),
        ("googlenet", {}, 64, "mean", (2, 2)),
        ("alexnet", {}, 224, "flat", (6, 6)),
        ("all-cnn-c", {}, 32, "mean", None),
        ("kth-a", {"size_px": 64}, 64, "flat", (8, 8)),
        ("kth-b", {"size_px": 64}, 64, "flat", (8, 8)),
        ("torchvision/mobilenet_v2", {}, 64, "mean", (2, 2)),
        ("torchvision/convnext_tiny", {}, 64, "mean", (2, 2)),
    ],
)
def test_networks_of_the_papers_are_slid(
    name: str, options: dict[str, object], size_px: int, joins: str, window: tuple[int, int] | None, as_after_training: Prepare
) -> None:
    torch.manual_seed(0)
    network = catalog.build(name, 10, options)
    if name.startswith("kth"):
        network.eval()  # takes photos of its own size only, as it is
    else:
        as_after_training(network)
    found = checked(network, size_px)
    assert found.joins == joins
    assert window is None or found.window == window


def test_a_pool_to_a_fixed_grid_is_slid_only_where_it_does_nothing() -> None:
    """As VGG and AlexNet have it: at the paper's size the pool hands its grid on, at others it makes means of cells."""
    torch.manual_seed(0)
    network = nn.Sequential(*flat_head()[:-2], GridPool(6), nn.Flatten(), nn.Linear(180, 7)).eval()
    photos = noise(2, 3, 26, 32)
    with torch.no_grad():
        assert (slid(network, 18)(photos) - on_windows(network, photos, 18, 2)).abs().max() < 1e-4
    with pytest.raises(UserError, match="cannot be made convolutional"):
        slid(network, 24)


def test_a_network_of_timm_is_slid(as_after_training: Prepare) -> None:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    assert checked(as_after_training(catalog.build("timm/resnet18", 10, {})), 64).joins == "mean"


def test_a_grey_network_is_slid() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    assert checked(network, 32, channels=1).window == (30, 30)


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
@pytest.mark.parametrize("name", ["flat", "mean", "two linear layers", "functional, flat"])
def test_under_autocast_the_map_is_near_that_of_float32(name: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    network_slid = slid(WITHOUT_PADDING[name](), 18)
    photos = noise(2, 3, 26, 32).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        base = network_slid(photos)
        with torch.autocast("cpu", dtype):
            found = network_slid(photos)
    assert found.dtype == dtype
    assert 0 < (found.float() - base).abs().max() < tolerance * max(1.0, float(base.abs().max()))


# ---------------------------------------------------------------- refused


class AttentionPool(nn.Module):
    """The grid's cells as words of a sentence, of which the first answers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, stride=2)
        self.attend, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        words = self.body(images).flatten(2).transpose(1, 2)
        return self.fc(self.attend(words, words, words)[0][:, 0])


class MaximumPool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(images).amax((2, 3)))


class TwoGrids(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.side, self.fc = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(3, 4, 3, stride=2), nn.Linear(12, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.cat([self.body(images).mean((2, 3)), self.side(images).mean((2, 3))], 1))


class OneSize(nn.Module):
    """Knows where each pixel of 32 by 32 is, and nothing of other sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Parameter(torch.ones(1, 3, 32, 32))
        self.body, self.fc = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(images + self.where).mean((2, 3)))


class OfItsOwnSize(nn.Module):
    """Shrinks every photo to one size first, so that its grid never grows."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(functional.interpolate(images, (32, 32))).mean((2, 3)))


def small_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(32, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a transformer": (
        small_transformer,
        "VisionTransformer does something else than average the grid.*--views 10crop or 144crop",
    ),
    "attention": (AttentionPool, "AttentionPool does something else"),
    "a maximum": (MaximumPool, "MaximumPool does something else"),
    "an adaptive maximum": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
        "Sequential does something else",
    ),
    "two grids": (TwoGrids, "TwoGrids does something else"),
    "a grid that does not grow": (OfItsOwnSize, "OfItsOwnSize does something else"),
    "no grid": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5)), "has no layer that gives a grid of features"),
    "one size only": (OneSize, r"OneSize takes photos of 32 px and fails with 64 px \(RuntimeError: .*Use crops instead"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_cannot_be_slid_are_refused_with_the_reason(name: str) -> None:
    torch.manual_seed(0)
    build, words = REFUSED[name]
    network = build().eval()
    with pytest.raises(UserError, match=words) as caught:
        slid(network, 32)
    assert str(caught.value).startswith("dense views: ")
    assert hooks(network) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_diverged_are_told_as_such(value: float) -> None:
    torch.manual_seed(0)
    network = mean_head().eval()
    with torch.no_grad():
        network[-1].weight.fill_(value)
    with pytest.raises(
        NonFiniteError, match=r"dense views: Sequential gives logits that are NaN or infinite.* earlier checkpoint"
    ):
        slid(network, 18)
    assert hooks(network) == 0


class ByHalves(nn.Module):
    """Averages the grid of the first photo it sees, and the maximum of others: what was found on one is not true on another."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 5)
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x = self.body(images)
        return self.fc(x.mean((2, 3)) if self.calls == 1 else x.amax((2, 3)))


def test_what_was_found_is_proved_on_other_noise() -> None:
    torch.manual_seed(0)
    network = ByHalves().eval()
    with pytest.raises(UserError, match=r"gives logits that differ by .* from its own on the same pixels"):
        slid(network, 32)
    assert hooks(network) == 0


# ---------------------------------------------------------------- the network is left alone


def test_the_network_is_left_as_it_was(as_after_training: Prepare) -> None:
    torch.manual_seed(0)
    network = as_after_training(catalog.build("resnet18", 10, {}))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    network_slid = slid(network, 64)
    with torch.no_grad():
        network_slid(noise(1, 3, 96, 64))
    assert hooks(network) == 0
    assert not any(layer.training for layer in network.modules())
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    shared = {id(parameter) for parameter in network.parameters()}
    assert {id(parameter) for parameter in network_slid.parameters()} == shared


def test_hooks_are_there_while_it_looks_and_gone_after_an_error() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fails = flat_head(), False
            self.seen: list[int] = []

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.seen.append(hooks(self))
            if self.fails:
                raise RuntimeError("a bug in the network")
            return self.body(images)

    torch.manual_seed(0)
    network = Failing().eval()
    network_slid = slid(network, 18)
    assert max(network.seen) > 0
    network.fails = True
    with torch.no_grad(), pytest.raises(RuntimeError, match="a bug in the network"):
        network_slid(noise(1, 3, 20, 20))
    assert hooks(network) == 0
    with pytest.raises(RuntimeError, match="a bug in the network"):
        slid(network, 18)
    assert hooks(network) == 0


def test_layers_behind_the_grid_do_not_run_over_the_whole_photo() -> None:
    torch.manual_seed(0)
    network = flat_head().eval()
    network_slid = slid(network, 18)
    seen: list[tuple[int, ...]] = []
    handle = network[-1].register_forward_hook(lambda layer, inputs, output: seen.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        network_slid(noise(2, 3, 26, 32))
    handle.remove()
    assert seen == [(2, 5, 8, 180)]


def test_a_grid_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ways the end of a network can be read, each grid is tried at twice the size once."""
    tried: list[str] = []
    original = dense._grows

    def counted(found: Dense, images: torch.Tensor) -> bool:
        tried.append(found._name)
        return original(found, images)

    monkeypatch.setattr(dense, "_grows", counted)
    torch.manual_seed(0)
    slid(mean_head(), 18)
    assert len(tried) == len(set(tried))
