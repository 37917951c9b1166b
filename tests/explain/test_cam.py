"""CAM, Grad-CAM and Grad-CAM++: against pytorch-grad-cam, against the linear layer by hand, and refused with the reason."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from striate.errors import NonFiniteError, UserError
from striate.explain import cam
from striate.explain.heatmap import bilinear, scaled
from striate.models import heads
from tests.explain.makers import Small, hooks, itself, noise, trained

LAYERS = {"resnet18": ("layer4", "layer3"), "alexnet": ("features.11", "features.4"), "googlenet": ("inception5b", "inception4e")}


def enlarged(maps_Bhw: torch.Tensor, side: int) -> np.ndarray:
    at_S = (np.arange(side) + 0.5) / side
    large = [bilinear(one, at_S * one.shape[1], at_S * one.shape[0]) for one in scaled(maps_Bhw.numpy())]
    return scaled(np.stack(large))


@pytest.mark.parametrize("network", LAYERS)
@pytest.mark.parametrize(("ours", "theirs"), [(cam.grad_cam, "GradCAM"), (cam.grad_cam_plus_plus, "GradCAMPlusPlus")])
def test_the_maps_are_those_of_pytorch_grad_cam(networks, network, ours, theirs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own dependencies warn when they are imported
        package = pytest.importorskip("pytorch_grad_cam")
        targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    model, images, labels_B = networks[network], noise(3, 3, 64, 64), torch.tensor([0, 5, 2])
    for layer in LAYERS[network]:
        found_Bhw, name = ours(model, images, labels_B, layer, itself)
        with getattr(package, theirs)(model, [model.get_submodule(layer)]) as peer:
            expected_BSS = peer(images, [targets.ClassifierOutputTarget(label) for label in labels_B.tolist()])
        assert name == layer and found_Bhw.dtype == torch.float32 and expected_BSS.std() > 0.01
        assert np.abs(enlarged(found_Bhw, 64) - expected_BSS).max() < 1e-4


def test_grad_cam_is_the_formula_though_layers_behind_work_in_place(networks):
    """bn2 of the last block: the addition and the ReLU behind it write into what it gave."""
    model, images, labels_B = networks["resnet18"], noise(2, 3, 64, 64), torch.tensor([1, 4])
    block = model.layer4[1]
    with torch.no_grad():
        stem = model.maxpool(model.relu(model.bn1(model.conv1(images))))
        before = model.layer4[0](model.layer3(model.layer2(model.layer1(stem))))
        grid = block.bn2(block.conv2(functional.relu(block.bn1(block.conv1(before)))))
    leaf = grid.clone().requires_grad_()
    logits = model.fc(functional.relu(leaf + before).mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits[0, 1] + logits[1, 4], leaf)
    expected = functional.relu((gradient.mean((2, 3), keepdim=True) * grid).sum(1))
    found, _ = cam.grad_cam(model, images, labels_B, "layer4.1.bn2", itself)
    assert expected.max() > 1e-3 and torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [cam.grad_cam, cam.grad_cam_plus_plus, cam.cam])
def test_several_classes_at_once_are_each_class_by_itself(networks, method):
    several = {cam.grad_cam: cam.grad_cam_of, cam.grad_cam_plus_plus: cam.grad_cam_plus_plus_of, cam.cam: cam.cam_of}[method]
    model, images, labels_BM = networks["resnet18"], noise(2, 3, 64, 64), torch.tensor([[3, 0, 3], [1, 2, 5]])
    found_BMhw, _ = several(model, images, labels_BM, None, itself)
    assert found_BMhw.shape == (2, 3, 2, 2)
    for number in range(3):
        alone, _ = method(model, images, labels_BM[:, number], None, itself)
        assert torch.allclose(found_BMhw[:, number], alone, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found_BMhw[:, 0], found_BMhw[:, 1])


def test_an_image_has_one_map_in_any_batch(networks):
    model, images, labels_B = networks["googlenet"], noise(3, 3, 64, 64), torch.tensor([1, 2, 3])
    together, _ = cam.grad_cam(model, images, labels_B, None, itself)
    alone, _ = cam.grad_cam(model, images[1:2], labels_B[1:2], None, itself)
    assert torch.allclose(together[1:2], alone, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- CAM


def test_cam_is_the_linear_layer_on_every_cell(networks):
    model, images, labels_B = networks["resnet18"], noise(3, 3, 64, 64), torch.tensor([5, 0, 2])
    found, name = cam.cam(model, images, labels_B, None, itself)
    with torch.no_grad():
        grid = nn.Sequential(*list(model.children())[:-2])(images)
        logits = model(images)
    expected = torch.einsum("kc,bchw->bkhw", model.fc.weight, grid)
    assert name == "layer4" and found.min() < 0 < found.max()
    assert torch.allclose(found, expected[torch.arange(3), labels_B].detach(), rtol=1e-4, atol=1e-5)
    own = logits[torch.arange(3), labels_B]
    assert torch.allclose(found.mean((1, 2)) + model.fc.bias[labels_B].detach(), own, atol=1e-4)
    of_all, _ = cam.cam_of(model, images, torch.arange(6).repeat(3, 1), None, itself)
    assert of_all.shape == (3, 6, 2, 2) and torch.allclose(of_all, expected.detach(), rtol=1e-4, atol=1e-5)


class ReluIsAFunction(nn.Module):
    """As DenseNet: behind the last layer with a grid stands a ReLU that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(functional.relu(self.body(images), inplace=True).mean((2, 3)))


def test_cam_sees_a_relu_that_is_no_layer():
    torch.manual_seed(0)
    model, images = ReluIsAFunction(), noise(2, 3, 16, 16)
    found, name = cam.cam(model, images, torch.tensor([0, 3]), None, itself)
    with torch.no_grad():
        grid = functional.relu(model.body(images))
        expected = torch.einsum("bc,bchw->bhw", model.fc.weight[[0, 3]], grid)
    assert name == "body" and torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_cam_of_a_grid_of_classes_is_the_channel_of_the_class():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = noise(2, 3, 16, 16)
    found, name = cam.cam(model, images, torch.tensor([2, 1]), None, itself)
    with torch.no_grad():
        grid = model[:4](images)
    assert name == "3" and torch.allclose(found, torch.stack([grid[0, 2], grid[1, 1]]), rtol=1e-4, atol=1e-6)


class OneRelu(nn.Module):
    """One ReLU that stands in three places: its first call gives a larger grid, its third gives vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 5, 3), nn.ReLU(inplace=True)
        self.hidden, self.last = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.second(self.relu(self.first(images))))
        return self.last(self.relu(self.hidden(x.mean((2, 3)))))


def test_of_a_layer_that_runs_several_times_the_last_grid_counts():
    torch.manual_seed(0)
    model, images, labels_B = OneRelu().eval(), noise(2, 3, 17, 17), torch.tensor([1, 2])
    with torch.no_grad():
        grid = functional.relu(model.second(functional.relu(model.first(images))))
    leaf = grid.clone().requires_grad_()
    logits = model.last(functional.relu(model.hidden(leaf.mean((2, 3)))))
    (gradient,) = torch.autograd.grad(logits[0, 1] + logits[1, 2], leaf)
    expected = functional.relu((gradient.mean((2, 3), keepdim=True) * grid).sum(1))
    found, _ = cam.grad_cam(model, images, labels_B, "relu", itself)
    assert found.shape == (2, 6, 6) and expected.max() > 1e-5
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7)
    with pytest.raises(UserError, match="something else than average"):  # two linear layers
        cam.cam(model, images, labels_B, "relu", itself)


class Flat(nn.Module):
    """One linear layer, with a weight for each place of the grid. scale: of its weights."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 14 * 14, 5)
        with torch.no_grad():
            self.fc.weight *= scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(images).flatten(1))


class TwoGrids(nn.Module):
    """The classes are made of the named grid and of another one beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.side, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.cat([self.side(images).mean((2, 3)), self.body(images).mean((2, 3))], 1))


@pytest.mark.parametrize("build", [lambda: Flat(1.0), lambda: Flat(1e-6), TwoGrids], ids=["flat", "small weights", "two grids"])
def test_cam_is_refused_where_no_weight_belongs_to_a_channel(build):
    torch.manual_seed(0)
    model, images, labels_B = build(), noise(2, 3, 16, 16), torch.tensor([0, 1])
    with pytest.raises(UserError, match=r"cam: between 'body' and its classes .* Use --method grad-cam"):
        cam.cam(model, images, labels_B, "body", itself)
    assert cam.grad_cam(model, images, labels_B, "body", itself)[0].shape == (2, 14, 14)
    assert hooks(model) == 0


def test_cam_of_alexnet_is_refused(networks):
    with pytest.raises(UserError, match=r"cam: between 'features\.11' and its classes AlexNet does something else"):
        cam.cam(networks["alexnet"], noise(1, 3, 64, 64), torch.tensor([0]), None, itself)


# ---------------------------------------------------------------- layers


def test_the_last_grid_is_taken_where_no_layer_is_named(networks):
    names = {
        name: cam.grad_cam(model, noise(1, 3, 64, 64), torch.tensor([0]), None, itself)[1] for name, model in networks.items()
    }
    assert names == {"resnet18": "layer4", "alexnet": "features.11", "googlenet": "inception5b"}


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("layer5", r"'layer5' is no layer of this ResNet\. Did you mean 'layer"),
        ("avgpool", r"layer 'avgpool' gives \[1, 512, 1, 1\], which is no grid .* near it that give one: .*layer4"),
        ("fc", r"layer 'fc' gives \[1, 6\], which is no grid"),
    ],
)
def test_layers_without_a_grid_are_refused_with_those_near_them(networks, layer, words):
    model = networks["resnet18"]
    with pytest.raises(UserError, match=words):
        cam.grad_cam(model, noise(1, 3, 64, 64), torch.tensor([0]), layer, itself)
    assert hooks(model) == 0


class Beside(nn.Module):
    """A branch that gives a grid of which the classes know nothing, and one that runs in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.aux, self.body, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.branch(images)
        if self.training:
            self.aux(images)
        return self.fc(self.body(images).mean((2, 3)))


def test_layers_that_the_classes_do_not_hear_are_refused():
    model, images, labels_B = Beside().train(), noise(1, 3, 8, 8), torch.tensor([0])
    with pytest.raises(UserError, match=r"--layer branch: the classes of this Beside do not depend on.* leave --layer out"):
        cam.grad_cam(model, images, labels_B, "branch", itself)
    with pytest.raises(UserError, match="layer 'aux' gives nothing: it does not run in evaluation mode"):
        cam.grad_cam(model, images, labels_B, "aux", itself)


class Cut(nn.Module):
    """A grid whose way to the classes autograd does not know ("behind", "detached", "within"), or that has none ("deaf")."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.body, self.fc = how, nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(self.how != "within"):
            grid = self.body(images)
        if self.how == "deaf":
            return self.fc(images.mean((2, 3))[:, [0, 1, 2, 0]])
        with torch.set_grad_enabled(self.how != "behind"):
            means = grid.mean((2, 3))
        return self.fc(means.detach() if self.how == "detached" else means)


@pytest.mark.parametrize("method", [cam.cam, cam.grad_cam, cam.grad_cam_plus_plus])
@pytest.mark.parametrize("how", ["behind", "detached", "within", "deaf"])
@pytest.mark.parametrize("layer", [None, "body"])
def test_why_there_is_no_gradient_is_said(unchanged, method, how, layer):
    torch.manual_seed(0)
    network, images, labels_B = Cut(how), noise(2, 3, 8, 8), torch.tensor([0, 3])
    for model in (network, heads.with_boxes(network, "shared", 5, 8, 3, "cut")):  # the user's class, not that of the box head
        with unchanged(model, images), pytest.raises(UserError, match="lasses") as raised:
            method(model, images, labels_B, layer, itself)
        said = str(raised.value)
        if how == "deaf":
            assert "do not depend on" in said and "autograd" not in said
        else:
            assert "do not depend" not in said and "not through autograd" in said and "no_grad, or its output is detached" in said
        assert "of this Cut" in said and "Localizer" not in said
        assert said.startswith("--layer body: ") is (layer is not None)
        assert ("leave --layer out" in said) is (layer is not None and how == "deaf")
        if layer is None:
            assert "'body' gives the last grid of features of this Cut. Its classes" in said


def test_of_a_network_with_a_box_head_all_messages_name_the_network(small):
    images, labels_B = noise(1, 3, 16, 16), torch.tensor([0])
    model = heads.with_boxes(small, "shared", 4, 16, 3, "small")
    assert torch.equal(*(cam.grad_cam(one, images, labels_B, None, itself)[0] for one in (model, small)))
    with pytest.raises(UserError, match="'6 6' is no layer of this Small"):
        cam.grad_cam(model, images, labels_B, "6 6", itself)
    with torch.no_grad():
        small[9].bias[0] = np.inf
    with pytest.raises(NonFiniteError, match="Small gives logits"):
        cam.grad_cam(model, images, labels_B, "5", itself)


def vision_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(16, 8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=5)


@pytest.mark.parametrize("layer", [None, "0"])
@pytest.mark.parametrize("method", [cam.cam, cam.grad_cam, cam.grad_cam_plus_plus])
def test_networks_of_vectors_are_told_of_methods_that_need_no_grid(method, layer):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    with pytest.raises(UserError, match=r"Sequential has no grid of features .*--method gradient, smoothgrad, integrated-grad"):
        method(model, noise(1, 3, 16, 16), torch.tensor([0]), layer, itself)


def test_a_transformer_is_told_of_methods_that_need_no_grid():
    with pytest.raises(UserError, match=r"VisionTransformer has no grid of features .* or occlusion"):
        cam.grad_cam(vision_transformer(), noise(1, 3, 16, 16), torch.tensor([0]), None, itself)


# ---------------------------------------------------------------- left as it was


@pytest.mark.parametrize("method", [cam.cam, cam.grad_cam, cam.grad_cam_plus_plus])
def test_everything_is_as_before(small, unchanged, method):
    small.train()
    small[1].eval()  # one part differs from the rest
    small[0].weight.requires_grad_(False)
    small[9].weight.grad = torch.ones_like(small[9].weight)
    images = noise(2, 3, 16, 16)
    for layer in (None, "0"):  # at the first layer the ReLU and the batch norm stand behind
        with unchanged(small, images):
            if layer is None or method is not cam.cam:
                method(small, images, torch.tensor([0, 3]), layer, itself)
        with unchanged(small, images), pytest.raises(UserError, match="4 classes"):
            method(small, images, torch.tensor([0, 4]), layer, itself)
    with unchanged(small, images), pytest.raises(UserError, match="no layer"):
        method(small, images, torch.tensor([0, 3]), "none", itself)


def test_everything_is_as_before_when_the_network_fails_or_draws(unchanged):
    class Draws(Small):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            torch.rand(3)
            return super().forward(functional.dropout(images, 0.5))

    class Fails(Small):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            super().forward(images)
            raise RuntimeError("no more")

    images = noise(2, 3, 16, 16)
    model = Draws()
    with unchanged(model, images):
        cam.grad_cam(model, images, torch.tensor([0, 3]), "5", itself)
    model = Fails()
    with unchanged(model, images), pytest.raises(RuntimeError, match="no more"):
        cam.grad_cam(model, images, torch.tensor([0, 3]), "5", itself)


@pytest.mark.parametrize("method", [cam.cam, cam.grad_cam, cam.grad_cam_plus_plus])
def test_frozen_weights_and_callers_without_gradients_change_nothing(small, method):
    images, labels_B = noise(2, 3, 16, 16), torch.tensor([0, 3])
    expected, _ = method(small, images, labels_B, None, itself)
    assert expected.abs().max() > 0
    with torch.no_grad():
        assert torch.equal(method(small, images, labels_B, None, itself)[0], expected)
    with torch.inference_mode():
        assert torch.equal(method(small, images * 1, labels_B, None, itself)[0], expected)
    small.requires_grad_(False)
    assert torch.equal(method(small, images, labels_B, None, itself)[0], expected)


def test_of_several_heads_the_main_one_is_asked_in_evaluation_mode():
    from torchvision.models import googlenet

    torch.manual_seed(0)
    model = trained(googlenet(num_classes=6, init_weights=False, aux_logits=True)).train()
    images = noise(2, 3, 64, 64)
    seen = []

    def main(output: object) -> torch.Tensor:
        seen.append(output)
        return itself(output)

    found, name = cam.grad_cam(model, images, torch.tensor([0, 5]), None, main)
    model.eval()
    assert name == "inception5b" and all(isinstance(one, torch.Tensor) for one in seen) and found.max() > 0
    assert torch.equal(found, cam.grad_cam(model, images, torch.tensor([0, 5]), None, itself)[0])


def test_weights_that_diverged_are_told_as_such(small):
    with torch.no_grad():
        small[9].weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"logits that are NaN or infinite.* earlier checkpoint"):
        cam.grad_cam(small, noise(1, 3, 16, 16), torch.tensor([2]), None, itself)
    assert hooks(small) == 0


def test_no_class_at_all_is_refused(small):
    with pytest.raises(UserError, match="grad-cam: expected a class for each image, found none"):
        cam.grad_cam_of(small, noise(2, 3, 16, 16), torch.zeros(2, 0, dtype=torch.int64), None, itself)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (noise(2, 3, 16, 12), torch.tensor([0, 1]), "images: expected shape"),
        (noise(2, 3, 16, 16), torch.tensor([0]), "found 2 images and 1 labels"),
        (noise(2, 3, 16, 16), torch.tensor([0.0, 1.0]), "whole numbers"),
        (noise(2, 3, 16, 16), torch.tensor([0, -1]), "label -1: the network has 4 classes, so labels are 0 to 3"),
    ],
)
def test_images_and_labels_are_checked(small, images, labels, words):
    with pytest.raises(UserError, match=re.escape(words)):
        cam.grad_cam(small, images, labels, None, itself)
