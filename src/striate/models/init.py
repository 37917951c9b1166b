"""Initial weights as the papers and their frameworks draw them.

Each function draws the weights of every convolution and linear layer of a network again, and sets their biases. Batch norms
stay as they are, unless a function says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import nn

from striate.errors import UserError
from striate.models.blocks import SqueezeExcite

# What `init` of a network can be; paper: what its builder does. rui and uniform are the same.
Name = Literal["paper", "gaussian", "alexnet", "vgg", "glorot", "he", "uniform", "rui", "truncated-normal", "zero-gamma", "torch"]

# Standard deviation of a unit normal distribution cut at two standard deviations.
_TRUNCATED_STD = 0.87962566103423978
# What a residual block calls the way around it: torchvision's ResNets, timm's Xception, others.
_SHORTCUTS = ("downsample", "skip", "shortcut")


def gaussian(model: nn.Module, std: float = 0.01) -> None:
    """Normal with one standard deviation for all layers; biases 0.

    Source of 0.01: Zeiler and Fergus 2014, section 3.1; Caffe's replicas.
    """
    for layer in _weighted(model):
        nn.init.normal_(layer.weight, std=std)
        _set_bias(layer, 0.0)


def alexnet(model: nn.Module) -> None:
    """Normal with deviation 0.01; biases 1 in convolutions 2, 4, 5 and the hidden linear layers, so that their ReLUs see
    positive inputs from the start, and 0 elsewhere.

    Raises UserError unless the network has AlexNet's layers: five convolutions, then three linear ones.
    Source: Krizhevsky et al. 2012, section 5.
    """
    layers = list(_weighted(model))
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in layers)
    if len(layers) != 8 or convolutions != 5 or not all(isinstance(layer, nn.Conv2d) for layer in layers[:5]):
        raise UserError(
            f"init alexnet: needs AlexNet's five convolutions and then three linear layers, for its biases go by their place; "
            f"found {convolutions} convolutions and {len(layers) - convolutions} linear layers. "
            f"Take gaussian, the same with biases 0."
        )
    gaussian(model, std=0.01)
    for place in (1, 3, 4, 5, 6):
        _set_bias(layers[place], 1.0)


def vgg(model: nn.Module) -> None:
    """Normal with variance 0.01, so deviation 0.1; biases 0.

    The paper writes "the zero mean and 1e-2 variance"; AlexNet's 0.01 is a deviation, ten times less.
    Source: Simonyan and Zisserman 2015, section 3.1.
    """
    gaussian(model, std=0.1)


def glorot_uniform(model: nn.Module) -> None:
    """Uniform with variance 2 / (inputs + outputs); biases 0. Keras' default.

    Source: Glorot and Bengio 2010, section 4.2.1, equation 16.
    """
    for layer in _weighted(model):
        nn.init.xavier_uniform_(layer.weight)
        _set_bias(layer, 0.0)


def he_normal(model: nn.Module) -> None:
    """Normal with variance 2 / inputs; biases 0. Source: He et al. 2015 (rectifiers), section 2.2, equation 10."""
    for layer in _weighted(model):
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        _set_bias(layer, 0.0)


def he_normal_fan_out(model: nn.Module) -> None:
    """Convolutions normal with variance 2 / (kernel area x output channels), biases 0; batch norms the identity.

    Linear layers keep torch's own start (uniform, +-1/sqrt(inputs)), as in torchvision's ResNet.
    Source: He et al. 2015 (rectifiers), section 2.2, equation 14; torchvision models/resnet.py.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            _set_bias(layer, 0.0)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def he_normal_truncated(model: nn.Module) -> None:
    """Normal with variance 2 / inputs, cut at two standard deviations; biases 0.

    What Keras calls he_normal. The cut lowers the deviation, so the uncut one is widened to end at sqrt(2 / inputs);
    Keras before 2.2.3 did not widen and gave 0.88 of it.
    Source: He et al. 2015 (rectifiers), section 2.2, equation 10; Keras initializers, VarianceScaling.
    """
    for layer in _weighted(model):
        std = math.sqrt(2 / layer.weight[0].numel()) / _TRUNCATED_STD
        nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
        _set_bias(layer, 0.0)


def uniform(model: nn.Module, bound: float = 0.05) -> None:
    """Uniform in -bound..bound, whatever the layer's size; biases 0. Source of 0.05: Keras' random_uniform."""
    for layer in _weighted(model):
        nn.init.uniform_(layer.weight, -bound, bound)
        _set_bias(layer, 0.0)


def truncated_normal(model: nn.Module, std: float = 0.1) -> None:
    """Normal with deviation `std`, or the layer's own where it has an attribute `stddev`; nothing beyond -2..2; biases 0.

    The cut is torchvision's, of the value, so that it hardly ever acts; TensorFlow cuts at two deviations.
    Source: torchvision models/inception_v3.py (0.1) and models/googlenet.py (0.01).
    """
    for layer in _weighted(model):
        nn.init.trunc_normal_(layer.weight, std=float(getattr(layer, "stddev", std)), a=-2.0, b=2.0)
        _set_bias(layer, 0.0)


def zero_gamma(model: nn.Module) -> None:
    """The last batch norm of every residual block starts at scale 0, so that the block starts as its shortcut.

    Channels that the block's shortcut fills with zeros (shortcuts A) keep scale 1: were they zero in the branch as well, the ReLU
    behind would get zeros alone, let no gradient back, and they would never learn.
    All other weights stay as they were drawn. Raises UserError for a network without residual blocks.
    Source: Goyal et al. 2017 (one hour), section 5.1.
    """
    found = [(last, block) for block in model.modules() if (last := _last_norm(block)) is not None]
    if not found:
        raise UserError(
            f"init zero-gamma: {type(model).__name__} has no residual block with batch normalisation, whose last scale "
            f"could start at 0. Take another init, or a residual network such as resnet50."
        )
    for norm, block in found:
        missing = getattr(getattr(block, "downsample", None), "missing", 0)
        with torch.no_grad():
            norm.weight[: len(norm.weight) - missing] = 0.0


def torch_default(model: nn.Module) -> None:
    """Every layer as torch makes it: weights and biases uniform in +-1/sqrt(inputs), batch norms the identity."""
    for layer in model.modules():
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset):
            reset()


def _weighted(model: nn.Module) -> Iterator[nn.Conv2d | nn.Linear]:
    """Convolutions and linear layers, in the order in which the network has them."""
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            yield layer


def _set_bias(layer: nn.Conv2d | nn.Linear, value: float) -> None:
    bias: torch.Tensor | None = layer.bias
    if bias is not None:
        nn.init.constant_(bias, value)


def _last_norm(block: nn.Module) -> nn.BatchNorm2d | None:
    """Of a residual block, which is a module with a shortcut of its own (None: the identity), the last norm that is not on it."""
    if not any(isinstance(getattr(block, name, 0), (nn.Module, type(None))) for name in _SHORTCUTS):
        return None
    norms = [
        layer for name, layer in block.named_modules() if isinstance(layer, nn.BatchNorm2d) and not name.startswith(_SHORTCUTS)
    ]
    return norms[-1] if norms else None


_DRAWS: dict[str, Callable[[nn.Module], None]] = {
    "gaussian": gaussian,
    "alexnet": alexnet,
    "vgg": vgg,
    "glorot": glorot_uniform,
    "he": he_normal,
    "uniform": uniform,
    "rui": uniform,
    "truncated-normal": truncated_normal,
    "zero-gamma": zero_gamma,
    "torch": torch_default,
}


def apply(model: nn.Module, name: str) -> None:
    """Draws a network's weights again in the way called `name`; "paper" leaves them as the network's builder drew them.
    A gate's bias that was asked for (`gate_bias`) is kept.

    Raises UserError where the way does not suit the network; the message names another.
    """
    if name == "paper":
        return
    _DRAWS[name](model)
    for block in model.modules():
        if isinstance(block, SqueezeExcite) and block.gate_bias != 0:
            block.open(block.gate_bias)
