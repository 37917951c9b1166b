"""LAMB: Adam's direction, each tensor's step as long as its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch


class Lamb(torch.optim.Optimizer):
    """r = mean / (sqrt(mean square) + eps) + decay w, the means corrected for their start; w <- w - lr |w| / |r| r.

    A group with `adapted` False takes the same step without |w| / |r|; that factor is 1 as well where w or r is all
    zeros. timm's Lamb first clips the gradient's norm to 1; the paper does not, and neither does this (optim.clip_norm does).
    State of a parameter, under the names of torch's Adam: "step", "exp_avg", "exp_avg_sq".
    Source: You et al. 2020, section 3.2, algorithm 2, with the identity as its phi.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float) -> None:
        """groups: each with "params", "weight_decay" and "adapted"."""
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nothing here evaluates a loss again
        """One step with the gradients that are there; parameters without one stay as they are."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["step"] = torch.zeros(())  # on the CPU, to be read without waiting for a GPU
                    self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
                    self.state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
            states = [self.state[parameter] for parameter in parameters]
            gradients = [parameter.grad for parameter in parameters]
            updates = _adam_directions(states, gradients, group["betas"], group["eps"])
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
            if group["adapted"]:
                torch._foreach_addcmul_(parameters, updates, (-group["lr"] * _trust_ratios(parameters, updates)).unbind())
            else:
                torch._foreach_add_(parameters, updates, alpha=-group["lr"])


def _adam_directions(
    states: list[dict[str, torch.Tensor]], gradients: list[torch.Tensor], betas: tuple[float, float], eps: float
) -> list[torch.Tensor]:
    """Takes the gradients into the running means; returns mean / (sqrt(mean square) + eps), new tensors."""
    means, squares = [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
    steps = [state["step"] for state in states]
    torch._foreach_add_(steps, 1)
    torch._foreach_lerp_(means, gradients, 1 - betas[0])
    torch._foreach_mul_(squares, betas[1])
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - betas[1])
    counts = [float(step) for step in steps]  # each its own: a parameter may have been without gradient at times
    # Both corrections go into the denominator, which saves a pass over all numbers.
    mean_shares = [1 - betas[0] ** count for count in counts]
    root_shares = [math.sqrt(1 - betas[1] ** count) for count in counts]
    denominators = torch._foreach_sqrt(squares)
    torch._foreach_mul_(denominators, [mean / root for mean, root in zip(mean_shares, root_shares, strict=True)])
    torch._foreach_add_(denominators, [eps * mean for mean in mean_shares])
    return list(torch._foreach_div(means, denominators))


def _trust_ratios(parameters: list[torch.Tensor], updates: list[torch.Tensor]) -> torch.Tensor:
    """|w| / |r| of each of P tensors: [P]."""
    weight_P, update_P = torch.stack(torch._foreach_norm(parameters)), torch.stack(torch._foreach_norm(updates))
    return torch.where((weight_P > 0) & (update_P > 0), weight_P / update_P, 1.0)
