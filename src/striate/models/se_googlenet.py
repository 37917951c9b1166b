"""Squeeze-and-excitation in GoogLeNet: at the end of every path, after each module, or at the beginning of every path.

Hu, Shen and Sun put one block behind each Inception module ("Squeeze-and-Excitation Networks", CVPR 2018, figure 2): `concat`.
A student's paper of 2024, "A Novel Approach to the ILSVRC Classification Competition", has one on each of the four paths,
"between the filter concatenation and previous layers": `paths`, and `inputs` if one reads it as the paths' inputs.

That paper's network is `se-googlenet-paths`: the trunk of 2014 without batch norm, torch's own initial weights. It starts as a
constant function. Each gate is near 1/2, so nine blocks in a row halve what passes, on top of what torch's weights lose in
each of 22 layers: the logits are the biases of the last layer, and those of two images of noise differ by 7e-10 (without the
blocks by 3e-7, with Caffe's start, which is that of `googlenet`, by 5e-3). The loss then stands at 1.6 ln K, the 11.05 for 1,000
classes that the paper reports. The summary that it prints, 13,004,888 parameters, is torchvision's GoogLeNet, without any
such block (`googlenet-bn`).

The blocks stand beside the paths, as `inception3a.se1` to `se4` (`se` for concat), so that the names of GoogLeNet's own layers
stay: weights of `googlenet-bn` fit `se-googlenet-bn-paths`, with only se* missing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from striate.models import init
from striate.models.blocks import SqueezeExcite
from striate.models.entry import Entry
from striate.models.googlenet import BATCH_NORM, PAPER, Branches, GoogLeNet, ModuleBuilder, Trunk, Widths, branches

Placement = Literal["paths", "concat", "inputs"]


class SEAfterPaths(nn.Module):
    """An Inception module with a block at the end of each path, behind its last ReLU."""

    def __init__(self, paths: Branches, blocks: Branches) -> None:
        super().__init__()
        self.branch1, self.branch2, self.branch3, self.branch4 = paths
        self.se1, self.se2, self.se3, self.se4 = blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns [B, sum of the paths' channels, H, W]."""
        ends = (self.se1(self.branch1(x)), self.se2(self.branch2(x)), self.se3(self.branch3(x)), self.se4(self.branch4(x)))
        return torch.cat(ends, 1)


class SEBeforePaths(nn.Module):
    """An Inception module with a block at the beginning of each path, each with gates of its own for the same input."""

    def __init__(self, paths: Branches, blocks: Branches) -> None:
        super().__init__()
        self.branch1, self.branch2, self.branch3, self.branch4 = paths
        self.se1, self.se2, self.se3, self.se4 = blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns [B, sum of the paths' channels, H, W]."""
        ends = (self.branch1(self.se1(x)), self.branch2(self.se2(x)), self.branch3(self.se3(x)), self.branch4(self.se4(x)))
        return torch.cat(ends, 1)


class SEAfterConcat(nn.Module):
    """An Inception module with one block behind the concatenation. Source: Hu, Shen, Sun 2018, figure 2."""

    def __init__(self, paths: Branches, block: nn.Module) -> None:
        super().__init__()
        self.branch1, self.branch2, self.branch3, self.branch4 = paths
        self.se = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns [B, sum of the paths' channels, H, W]."""
        whole: torch.Tensor = self.se(torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), 1))
        return whole


def _with_blocks(placement: Placement, r: int, bias: bool) -> ModuleBuilder:
    """A function that builds GoogLeNet's modules with blocks in that placement."""

    def module(in_channels: int, widths: Widths, trunk: Trunk) -> tuple[nn.Module, int]:
        paths = branches(in_channels, widths, trunk)
        ends = (widths.ones, widths.threes, widths.fives, widths.pooled)
        if placement == "concat":
            return SEAfterConcat(paths, SqueezeExcite(sum(ends), r, bias)), sum(ends)
        one, two, three, four = ends if placement == "paths" else (in_channels,) * 4
        blocks = (
            SqueezeExcite(one, r, bias),
            SqueezeExcite(two, r, bias),
            SqueezeExcite(three, r, bias),
            SqueezeExcite(four, r, bias),
        )
        return (SEAfterPaths if placement == "paths" else SEBeforePaths)(paths, blocks), sum(ends)

    return module


def se_googlenet_paths(
    num_classes: int,
    placement: Placement = "paths",
    r: int = 16,
    bias: bool = True,
    aux: bool = True,
    aux_features: int = 1024,
    gate_bias: float = 0.0,
) -> GoogLeNet:
    """The paper's GoogLeNet with a block on each path, torch's own initial weights: 13,531,919 parameters, 36 blocks.

    Without auxiliary heads 7,152,191. It starts as a constant function; see above.
    placement: "paths" at the end of each path; "concat" behind the module (13,858,383 parameters); "inputs" at the
    beginning of each path (14,789,300). r: by how much a block's inner layer is smaller; it divides all of its channels.
    bias: of the blocks' two layers. aux: the two auxiliary heads, which only training computes. aux_features: outputs of
    their first linear layer; 2,048 in the implementation that the source paper started from (19,776,271 parameters).
    gate_bias: bias before each gate's sigmoid at the start; 0 halves what passes, 4 lets 0.98 of it pass.
    Raises UserError for a gate_bias without biases.
    """
    model = GoogLeNet(num_classes, PAPER, _with_blocks(placement, r, bias), aux, aux_features)
    _open_gates(model, gate_bias)
    return model


def se_googlenet_bn_paths(
    num_classes: int,
    placement: Placement = "paths",
    r: int = 16,
    bias: bool = True,
    aux: bool = True,
    gate_bias: float = 0.0,
) -> GoogLeNet:
    """torchvision's GoogLeNet with a block on each path: 13,158,527 parameters, 36 blocks; 6,778,543 without auxiliary heads.

    placement: "concat" 13,484,991 parameters, "inputs" 14,415,908. Options as `se_googlenet_paths`.
    """
    model = GoogLeNet(num_classes, BATCH_NORM, _with_blocks(placement, r, bias), aux)
    init.truncated_normal(model, std=0.01)  # as googlenet-bn
    _open_gates(model, gate_bias)
    return model


def _open_gates(model: nn.Module, bias: float) -> None:
    """Sets the bias before each gate's sigmoid. Raises UserError where the blocks have none."""
    for block in model.modules():
        if isinstance(block, SqueezeExcite) and bias != 0:
            block.open(bias)


_PAPER = "Salunkhe 2024, after Szegedy et al. 2015 and Hu, Shen, Sun 2018"

NETWORKS = {
    "se-googlenet-paths": Entry(se_googlenet_paths, _PAPER, 2024),
    "se-googlenet-bn-paths": Entry(se_googlenet_bn_paths, f"{_PAPER}, on torchvision's form", 2024),
}
