"""Heads: where a network's classes come out, and a second head that says where the object is.

The box head reads the last grid of features of any network (`grid.last`) and gives one box for all classes, or one for each.
Source: Sermanet et al. 2014 (OverFeat), section 4.1: a regression network on the pooled features of the classifier, its last
layer for each class; Simonyan and Zisserman 2015 (VGG), appendix A: one box or a box for each class (SCR, PCR), as centre and
sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError
from striate.models import catalog, grid
from striate.taps import taps

Boxes = Literal["shared", "per-class"]
# Under this name the box head stands in a state dict; all other names are those of the network alone.
BOX_HEAD = "box_head"
# Most places along each side that the head tells apart: VGG's pooled grid has 7, OverFeat's 5 and 6.
_MOST_PLACES = 7
# Most channels, and units, of the head's two layers: less than OverFeat's 4096 and 1024, for networks of a tenth of its size.
_REDUCED, _HIDDEN = 128, 512


def of(name: str, options: Mapping[str, object]) -> tuple[str, ...]:
    """Names of the parameters (and buffers) of the heads, auxiliary ones included, in the order of the state dict.

    name, options: as `catalog.build` takes them. The network is built twice, with two numbers of classes, without memory.
    Raises UserError as `catalog.build`, and when no shape follows the number of classes.
    """
    few, more = shapes(name, 5, options), shapes(name, 7, options)
    found = tuple(key for key, shape in few.items() if more.get(key) != shape)
    if not found:
        raise UserError(f"{name}: no layer of it follows the number of classes, so it has no head that could be replaced.")
    return found


def shapes(name: str, num_classes: int, options: Mapping[str, object]) -> dict[str, torch.Size]:
    """The shape of everything in the state dict of a network, by name, from a build that takes no memory."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                model = catalog.build(name, num_classes, options)
        except UserError:  # a builder that computes with its tensors cannot do so without memory; a wrong option fails again
            model = catalog.build(name, num_classes, options)
    return {key: tensor.shape for key, tensor in model.state_dict().items()}


# ---------------------------------------------------------------- where the object is


class BoxHead(nn.Module):
    """From a grid of features to boxes: pooled, fewer channels, two linear layers, so that it knows the place of each feature.

    boxes: how many for each image, 1 or K.
    """

    def __init__(self, found: grid.Grid, boxes: int) -> None:
        super().__init__()
        # A fixed pool: the adaptive one has no deterministic backward pass on GPUs.
        stride = -(-found.height // _MOST_PLACES)
        places = found.height // stride
        self.pool = nn.AvgPool2d(found.height - (places - 1) * stride, stride)
        reduced = min(_REDUCED, found.channels)
        self.reduce = nn.Conv2d(found.channels, reduced, 1)
        self.hidden = nn.Linear(reduced * places**2, _HIDDEN)
        self.norm = nn.LayerNorm(_HIDDEN, elementwise_affine=False)
        self.box = nn.Linear(_HIDDEN, 4 * boxes)
        for layer in (self.reduce, self.hidden):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        # The first boxes are nearly the middle half of the view, whatever is in it.
        nn.init.normal_(self.box.weight, std=0.1)
        nn.init.zeros_(self.box.bias)

    def forward(self, grid_BChw: torch.Tensor) -> torch.Tensor:
        """grid_BChw: [B, C, h, w]. Returns [B, boxes, 4]: centre x, centre y, width, height over the view's side, in 0..1."""
        x = functional.relu(self.reduce(self.pool(grid_BChw)))
        # Of length 1, or a rate that suits the classifier (SGD's 0.1) would drive the sigmoids to their ends in a few steps.
        x = self.norm(functional.relu(self.hidden(x.flatten(1)))) / math.sqrt(_HIDDEN)
        boxes_B4: torch.Tensor = self.box(x).reshape(len(x), -1, 4).float().sigmoid()
        return boxes_B4


class Localizer(nn.Module):
    """A classifier with a box head: a module of the same layers under the same names, and `box_head`.

    In training it returns a dict of the heads of the network and "boxes" [B, 1 or K, 4]; in evaluation what the network returns,
    so that whoever only wants classes need not know of it. `localize` gives both.
    """

    _network: nn.Module

    def __init__(self, network: nn.Module, name: str, box_head: BoxHead) -> None:
        super().__init__()
        self.__dict__["_network"] = network  # no child: its layers are children of this module, once
        self._parameters, self._buffers = network._parameters, network._buffers
        for child_name, child in network.named_children():
            self.add_module(child_name, child)
        self.add_module(BOX_HEAD, box_head)
        self._grid_name = name

    def forward(self, images: torch.Tensor) -> Any:
        """images: [B, C, S, S] normalised."""
        if not self.training:
            return self._classes(images)
        outputs, boxes = self.localize(images)
        return {**_named(outputs), "boxes": boxes}

    def localize(self, images: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """What the network returns, and boxes [B, 1 or K, 4] float32 as `BoxHead` gives them, from one forward pass."""
        grids: list[torch.Tensor] = []

        def look(layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            grids.append(output)

        with taps(self, {self._grid_name: look}):
            outputs = self._classes(images)
        return outputs, self.get_submodule(BOX_HEAD)(grids[-1])

    def _classes(self, images: torch.Tensor) -> Any:
        self._network.training = self.training  # no child, so nobody else tells it
        return self._network(images)


def classifier_of(model: nn.Module) -> nn.Module:
    """The network without its box head, if it has one; the same layers."""
    return model._network if isinstance(model, Localizer) else model


def with_boxes(network: nn.Module, boxes: Boxes, class_count: int, size_px: int, channels: int, name: str) -> Localizer:
    """The network with a fresh box head on its last grid. channels: C of its input. name: of the network, for the message.

    Raises UserError where the network has no grid of features.
    """
    found = grid.last(network, size_px, channels)
    if found is None:
        has_convolution = any(isinstance(layer, nn.Conv2d) for layer in network.modules())
        is_small = has_convolution and not grid.grids(network, size_px, channels)
        hint = ", or a larger --img-size" if is_small else ""
        raise UserError(
            f"model.boxes {boxes}: {name} has no grid of features at {size_px} px that a box could be read from. Take a "
            f"convolutional network, such as resnet18{hint}."
        )
    return Localizer(network, found.name, BoxHead(found, class_count if boxes == "per-class" else 1))


def _named(outputs: Any) -> dict[str, Any]:
    """The heads of whatever a network returns, by name, the main one first."""
    if isinstance(outputs, torch.Tensor):
        return {"logits": outputs}
    if isinstance(outputs, Mapping):
        return dict(outputs)
    names = getattr(outputs, "_fields", None) or [f"aux{place}" if place else "logits" for place in range(len(outputs))]
    return dict(zip(names, outputs, strict=True))
