"""A network that sees one grey channel, made from one that sees three.

The kernels of the first layer are summed over its channels, so on a grey photo (three equal channels, normalised alike) the
new network is the same function as the old one, trained or fresh. So whatever the initial weights were drawn from, the layer's
output keeps the size that it had. For draws by the number of inputs (torch's own, He's and Glorot's) that is also the size
that a draw for one channel gives; for draws by the number of outputs (the ResNets) it is sqrt(3) times that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from striate.errors import UserError
from striate.models.blocks import SqueezeExcite

_WAY_OUT = "Give a network that takes one channel itself (with timm: --model.options.in_chans 1), or leave --data.colour rgb."


def one_channel(model: nn.Module, name: str) -> nn.Module:
    """The same network for images [B, 1, H, W]: its only convolution of three channels is changed in place and it is returned.

    A network whose first convolution takes one channel stays as it is. Names in the state dict do not change.
    Raises UserError, with what was found, when there is no such convolution or more than one. name: for the message.
    """
    takes_three = list(_takes_three(model))
    if len(takes_three) == 1:
        layer = takes_three[0][1]
        with torch.no_grad():
            layer.weight = nn.Parameter(layer.weight.sum(1, keepdim=True), layer.weight.requires_grad)
        layer.in_channels = 1
        return model
    first = next(((place, layer) for place, layer in model.named_modules() if isinstance(layer, nn.Conv2d)), None)
    if first is not None and not takes_three and first[1].in_channels == 1:
        return model
    if takes_three:
        found = f"{len(takes_three)} convolutions take three channels ({', '.join(place for place, _ in takes_three[:5])})"
    elif first is not None:
        found = f"no convolution mixes three channels; the first, '{first[0]}', takes {first[1].in_channels}"
        found += f" in {first[1].groups} groups" if first[1].groups > 1 else ""
    else:
        found = "it has no convolution"
    raise UserError(f"data.colour grey: the first layer of {name} cannot be made grey: {found}. {_WAY_OUT}")


def are_one_channel(shapes: Mapping[str, Sequence[int]], model: nn.Module) -> bool:
    """Whether weights of these names and shapes have one grey channel where `model` takes three."""
    return any(list(shapes.get(f"{place}.weight", ()))[1:2] == [1] for place, _ in _takes_three(model))


def _takes_three(model: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    """The convolutions that take three channels together, by name.

    Not those of a gate: of 48 channels and r 16 its inner layer has three.
    """
    gates = {part for layer in model.modules() if isinstance(layer, SqueezeExcite) for part in layer.children()}
    for place, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and (layer.in_channels, layer.groups) == (3, 1) and layer not in gates:
            yield place, layer
