"""What is minimised: cross-entropy of every head, and the L2 term of chosen layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError, nearest


def heads(outputs: object) -> dict[str, torch.Tensor]:
    """A network's outputs as {head: logits [B, K]}, the main head first and named "main".

    Takes a tensor, a named tuple or tuple (first is main), or a dict (the key "logits" or the first is main).
    """
    if isinstance(outputs, torch.Tensor):
        return {"main": outputs}
    if isinstance(outputs, Mapping):
        names = sorted(outputs, key=lambda name: name not in {"logits", "main", "out"})
        return {"main" if place == 0 else str(name): outputs[name] for place, name in enumerate(names)}
    if isinstance(outputs, tuple):
        names = getattr(outputs, "_fields", [f"aux{place}" for place in range(len(outputs))])
        pairs = zip(names, outputs, strict=True)
        return {"main" if place == 0 else name: one for place, (name, one) in enumerate(pairs) if one is not None}
    raise UserError(
        f"The network returned {type(outputs).__name__}; striate trains networks that return logits, or a tuple or dict of them."
    )


def per_head(outputs: dict[str, torch.Tensor], labels: torch.Tensor, smoothing: float) -> dict[str, torch.Tensor]:
    """Mean cross-entropy of each head over the batch, in float32.

    outputs: {head: [B, K] logits}. labels: [B] int64 in 0..K-1. smoothing: weight of the uniform target, 0..1.
    Source: Szegedy et al. 2016, section 7 (smoothing).
    """
    return {name: functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing) for name, logits in outputs.items()}


def total(losses: dict[str, torch.Tensor], aux_weight: float, l2: float, penalised: list[nn.Parameter]) -> torch.Tensor:
    """The main head's loss plus `aux_weight` times each other head's plus `l2` times the squares of `penalised`.

    Source: Szegedy et al. 2015, section 5 (0.3 for each auxiliary head).
    """
    result = torch.zeros((), device=next(iter(losses.values())).device)
    for name, loss in losses.items():
        result = result + (loss if name == "main" else aux_weight * loss)
    if l2 > 0:
        result = result + l2 * torch.stack([weight.float().pow(2).sum() for weight in penalised]).sum()
    return result


def penalised(model: nn.Module, layers: tuple[str, ...]) -> list[nn.Parameter]:
    """The weights of the named layers. Raises UserError naming the nearest layers for one that does not exist."""
    modules = dict(model.named_modules())
    found = []
    for name in layers:
        weight = getattr(modules.get(name), "weight", None)
        if not isinstance(weight, nn.Parameter):
            known = [known for known, module in modules.items() if isinstance(getattr(module, "weight", None), nn.Parameter)]
            raise UserError(f"loss.l2_layers: the network has no layer '{name}' with a weight.{nearest(name, known)}")
        found.append(weight)
    return found
