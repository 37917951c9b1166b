"""The images' side and channels against the network.

Looks at one forward pass of an image, convolution by convolution: which weights of each kernel ever meet a pixel, given the
grid that they run on. A network made for 224 pixels halves its grid five times; from 32 pixels its last convolutions run on one
cell, and eight of their nine weights only ever see the zeros around it. Also at the sides of the stored photos, where there is an
index: images that are enlarged several times cost time and hold nothing more.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from striate import machine
from striate.data import decode
from striate.data.decode import BadImage
from striate.doctor import passes
from striate.doctor.finding import Cause, Curve, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.taps import Tap, taps

SOURCE = (
    "He et al. 2016, section 4.2 (another stem for 32 pixels); "
    "Richter et al. 2021 (input size and the utilisation of layers), sections 3 and 4"
)
# Share of the convolutions' weights that never meet a pixel. ResNet-18: 62 % at 32 pixels, 0 at 64.
UNUSED = 0.2
# Cells along the last grid at which position is lost: a note. Networks for 224 pixels end with 7; ResNet-18 learns well with 2.
FEW_CELLS = 1
# Times that the stored photos are enlarged.
ENLARGED = 2.0
_PHOTOS = 48


@dataclass(frozen=True)
class Used:
    """One convolution: how many weights it has, the share of them that meet pixels, and the cells of its grid along a side."""

    name: str
    weights: int
    share: float
    cells: int


def check(patient: Patient) -> Finding | None:
    """The finding, or None where the network can use every pixel and every weight."""
    images = patient.images
    if images.dim() != 4 or images.numel() == 0:
        raise NotJudged("no images of shape [B, C, H, W]")
    found = _channels(patient, images)
    if found is not None:
        return found
    side = int(min(images.shape[2:]))
    convolutions = _convolutions(patient.model, images[:1])
    if convolutions:
        found = _too_small(patient, side, convolutions)
    found = found or _enlarged(patient, side)
    if found is None and not convolutions:
        raise NotJudged("no convolution that runs")
    return found


def _channels(patient: Patient, images: torch.Tensor) -> Finding | None:
    """Where the first convolution wants another number of channels, and the batch has its channels in their place."""
    first = next((layer for layer in patient.model.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None or first.in_channels not in (1, 3) or images.shape[1] not in (1, 3):
        return None
    wanted, there = first.in_channels, int(images.shape[1])
    if wanted == there:
        return None
    changes: dict[str, Any] = {"data.colour": "rgb" if wanted == 3 else "grey"} if patient.recipe is not None else {}
    advice = (
        "Repeat the grey channel three times (images.expand(-1, 3, -1, -1)), or give the first convolution one channel."
        if wanted == 3
        else "Make the images grey, or give the first convolution three channels."
    )
    return Finding(
        "image-size",
        "error",
        f"The first convolution wants {wanted} channel{'s' * (wanted > 1)}, the images have {there}.",
        {"channels of the network": wanted, "channels of the images": there},
        (Cause("image-size", 0.8, f"images of shape {list(images.shape[1:])}"),),
        (Remedy(advice, changes),),
        SOURCE,
    )


# ---------------------------------------------------------------- too small


def _too_small(patient: Patient, side: int, convolutions: list[Used]) -> Finding | None:
    weights = sum(one.weights for one in convolutions)
    unused = sum(one.weights * (1 - one.share) for one in convolutions) / max(weights, 1)
    spatial = [one for one in convolutions if one.cells > 0]
    last = spatial[-1].cells if spatial else 0
    idle = [one for one in convolutions if one.share < 1]
    is_short = last <= FEW_CELLS and side > 4 * FEW_CELLS and len(spatial) > 3
    if unused < UNUSED and not is_short:
        return None
    wanted = _larger(side, 7, last)
    sentence = (
        f"Of images of {side} px this network's last convolution sees {last} x {last} cells: nothing is left of where things are."
    )
    if unused >= UNUSED:
        sentence = (
            f"Images of {side} px are too small for this network: {unused:.0%} of its convolutions' weights never meet a pixel, "
            f"and its last convolution sees {last} x {last} cells."
        )
    return Finding(
        "image-size",
        "warning" if unused >= UNUSED else "note",
        sentence,
        {"side": side, "cells of the last grid": last, "unused weights": unused, "convolutions with unused weights": len(idle)},
        (
            Cause(
                "image-size",
                0.8 if unused >= UNUSED else 0.4,
                (f"{len(idle)} convolutions run on grids smaller than their kernels reach, " if idle else "")
                + f"{side} pixels along a side become {last} x {last} cells",
            ),
        ),
        (
            Remedy("Show it larger images.", {"data.size_px": wanted} if patient.recipe is not None else {}),
            Remedy("Use a network for small images (resnet20, all-cnn), or take stride and pool out of the first layers."),
        ),
        SOURCE,
        layer=idle[0].name if idle else None,
        curve=Curve(
            "Cells along the grid, by depth",
            "convolution",
            "cells",
            [one.name for one in convolutions],
            {"cells": [float(one.cells) for one in convolutions]},
            is_log=True,
        ),
    )


def _larger(side: int, cells: int, last: int) -> int:
    """The side at which the last grid has about that many cells, as a multiple of 32 and at most 224."""
    return min(224, max(2 * side, 32 * round(side * cells / max(last, 1) / 32)))


def _convolutions(model: nn.Module, images: torch.Tensor) -> list[Used]:
    """Every convolution that runs, in the order in which it does. Empty where the network does not take the images."""
    found: dict[str, Used] = {}

    def watch(name: str) -> Tap:
        def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(layer, nn.Conv2d) and inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].dim() == 4:
                sides = (int(inputs[0].shape[2]), int(inputs[0].shape[3]))
                found.setdefault(name, _used(name, layer, sides))

        return note

    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    # In evaluation mode one image will do; some parts change their statistics in it all the same.
    with passes.preserved(model), torch.no_grad(), taps(model, {name: watch(name) for name in names}):
        model.eval()
        try:
            model(images)
        except (RuntimeError, ValueError):  # a network that refuses these images says so itself, in the rules that run it
            return []
    return list(found.values())


def _used(name: str, layer: nn.Conv2d, sides: tuple[int, int]) -> Used:
    padding = layer.padding if isinstance(layer.padding, tuple) else (0, 0)
    share = 1.0
    for axis in (0, 1):
        kernel, stride, dilation = layer.kernel_size[axis], layer.stride[axis], layer.dilation[axis]
        if layer.padding == "same":
            share *= _met(sides[axis], kernel, stride, dilation, dilation * (kernel - 1) // 2)
        else:
            share *= _met(sides[axis], kernel, stride, dilation, int(padding[axis]))
    # A gate's 1 x 1 convolutions run on one cell on purpose.
    is_gate = layer.kernel_size == (1, 1) and max(sides) == 1
    return Used(name, layer.weight.numel(), share, 0 if is_gate else min(sides))


@functools.cache
def _met(side: int, kernel: int, stride: int, dilation: int, padding: int) -> float:
    """Share of a kernel's places along one axis that ever lie on a pixel."""
    outputs = max(1, (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
    starts = np.arange(outputs) * stride - padding
    met = sum(bool(((starts + tap * dilation >= 0) & (starts + tap * dilation < side)).any()) for tap in range(kernel))
    return met / kernel


# ---------------------------------------------------------------- enlarged


def _enlarged(patient: Patient, side: int) -> Finding | None:
    """Photos that are much smaller than what the network is shown. With trained weights, which want their size, it is meant."""
    if patient.train_index is None or (patient.recipe is not None and patient.recipe.model.weights is not None):
        return None
    index = patient.train_index
    shorter = []
    for row in itertools.islice(machine.permutation(0, "doctor sides", 0, len(index)).tolist(), _PHOTOS):
        try:
            shorter.append(min(decode.sides(index.content(row))))
        except BadImage:
            continue
    if not shorter:
        return None
    stored = float(np.median(shorter))
    times = side / stored
    if times < ENLARGED:
        return None
    return Finding(
        "image-size",
        "note",
        f"Photos of {stored:.0f} px are enlarged to {side} px: {times * times:.0f} times the work, and nothing more to see.",
        {"side": side, "median shorter side of the photos": stored, "times": times},
        (Cause("image-size", 0.3, f"enlarged {times:.1f} times along each side"),),
        (
            Remedy(
                f"Show the network images of about {stored:.0f} px, if it is made for that.",
                {"data.size_px": int(stored)} if patient.recipe is not None else {},
            ),
        ),
        SOURCE,
    )
