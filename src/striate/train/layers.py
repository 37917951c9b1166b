"""What the layers of a network do in a training: which keep their weights, and the rate of each by its distance from the head.

Order is that of registration, which is how `named_modules` and `named_parameters` list a network; in nearly all networks it
is the order in which an image passes. A layer, for the rates, is a child of the network; where a child is a plain
`nn.Sequential` or `nn.ModuleList` (a stage), each of its own children (the blocks), and so on down. A normalisation layer
belongs to the layer before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from torch import nn

from striate.errors import UserError, nearest

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)
# Groups of layers that a sentence names at most.
_SHOWN = 24


def freeze(model: nn.Module, wanted: str, head: Collection[str]) -> None:
    """Takes layers out of the training: their parameters get no gradient, their batch norms stay in evaluation mode.

    wanted: "none"; "backbone" or "classifier", which is all but the layers that hold the head; or "until:LAYER", that layer and
    all that are registered before it. head: names of the head's parameters, of the auxiliary ones too; for "classifier" those of
    the box head alone.
    Dropout goes on in frozen layers: it is for the sake of those behind it.
    Raises UserError for a layer that does not exist (the nearest are named), and when nothing would be left to train.
    """
    if wanted == "none":
        return
    frozen = _until(model, wanted.removeprefix("until:")) if wanted.startswith("until:") else _backbone(model, head)
    for name, layer in model.named_modules():
        if name in frozen:
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(False)
            if isinstance(layer, nn.modules.batchnorm._NormBase):
                layer.eval()
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"optim.freeze {wanted}: nothing is left to train. Name an earlier layer, or take --freeze backbone.")


def _backbone(model: nn.Module, head: Collection[str]) -> set[str]:
    """Names of all layers but those that hold a parameter of the head themselves."""
    return {name for name, _ in model.named_modules()} - {name.rpartition(".")[0] for name in head}


def _until(model: nn.Module, layer: str) -> set[str]:
    """Names of a layer, of what is in it, and of all before it."""
    names = [name for name, _ in model.named_modules()]
    inside = [place for place, name in enumerate(names) if f"{name}.".startswith(f"{layer}.")]
    if not layer or not inside:
        raise UserError(
            f"optim.freeze until:{layer}: this {type(model).__name__} has no such layer.{nearest(layer, filter(None, names))}"
        )
    return set(names[: inside[-1] + 1])


def rates(model: nn.Module, head: Collection[str], head_rate: float, decay: float) -> dict[str, float]:
    """The factor of the learning rate of each parameter, by its name.

    The head has head_rate. The layer before it has decay, the one before that decay squared, and so on to the first; what
    belongs to the network itself (a class token) goes with the first. What stands beside a head within one layer, as the
    convolution of an auxiliary head does, has decay, and does not count as a layer on the way.
    Source: Howard and Ruder 2018, section 3.2 (rates by depth), with decay = 1 / 2.6.
    """
    layers: list[list[str]] = []
    beside: list[str] = []
    for place, layer in _units(model):
        names = [f"{place}.{name}" for name, _ in layer.named_parameters()]
        if any(name in head for name in names):
            beside += names
        elif isinstance(layer, NORMS) and layers:
            layers[-1] += names
        elif names:
            layers.append(names)
    found = {name: head_rate for name in head} | {name: decay for name in beside if name not in head}
    for distance, names in enumerate(reversed(layers), start=1):
        found |= {name: decay**distance for name in names}
    return {name: found.get(name, decay ** len(layers)) for name, _ in model.named_parameters()}


def _units(module: nn.Module, place: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of a network with their names. A subclass of nn.Sequential is a block of its own, as ConvBNReLU is."""
    for name, child in module.named_children():
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _units(child, f"{place}{name}.")
        else:
            yield f"{place}{name}", child


def rates_in_words(model: nn.Module, factors: Mapping[str, float]) -> str:
    """The rates of what trains over the common one, by group of layers (the first part of their names), least to most."""
    groups: dict[str, list[float]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(name.partition(".")[0], []).append(factors[name])
    words = [
        f"{group} {min(found):.3g}" + (f" to {max(found):.3g}" if max(found) > min(found) else "")
        for group, found in groups.items()
    ]
    return f"Rates over --lr, by group of layers: {_listed(words)}."


def frozen_in_words(model: nn.Module, wanted: str) -> str:
    """How many parameters train, and in which groups of layers."""
    sizes = [parameter.numel() for parameter in model.parameters()]
    trained = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    groups = dict.fromkeys(name.partition(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad)
    return f"--freeze {wanted}: {sum(trained):,} of {sum(sizes):,} parameters train, in {_listed(list(groups))}."


def _listed(words: list[str]) -> str:
    """Words with commas; of very many the first and the last."""
    half = _SHOWN // 2
    return ", ".join(words if len(words) <= _SHOWN else [*words[:half], f"… ({len(words)} in all)", *words[-half:]])
