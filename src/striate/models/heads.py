"""Where a network's classes come out: the parameters whose shape follows the number of classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from striate.errors import UserError
from striate.models import catalog


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
