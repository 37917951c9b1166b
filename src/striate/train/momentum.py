"""SGD whose velocity holds the learning rate: AlexNet's formula, and LARS, which is that formula with a rate for each tensor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class Momentum(torch.optim.Optimizer):
    """v <- momentum v - rate (gradient + decay w); w <- w + v.

    torch's SGD multiplies the whole velocity by the rate of the moment. Here each gradient keeps the rate of its own
    step, so that the two differ from the first change of the rate on: what is in motion is not slowed by a drop.

    A group's `trust` is None for one rate (AlexNet), or LARS' coefficient: then the rate of each of its tensors is
    multiplied by trust |w| / (|gradient| + decay |w|), and by 1 where w or the gradient is all zeros, for a bias that
    starts at zero would never move. State of a parameter: "velocity".
    Source: Krizhevsky et al. 2012, section 5; You, Gitman and Ginsburg 2017, section 4, algorithm 1.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, momentum: float) -> None:
        """groups: each with "params", "weight_decay" and "trust"."""
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nothing here evaluates a loss again
        """One step with the gradients that are there; parameters without one stay as they are."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            gradients = [parameter.grad for parameter in parameters]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["velocity"] = torch.zeros_like(parameter)
            velocities = [self.state[parameter]["velocity"] for parameter in parameters]
            lr, decay = group["lr"], group["weight_decay"]
            torch._foreach_mul_(velocities, group["momentum"])
            if group["trust"] is None:
                torch._foreach_add_(velocities, gradients, alpha=-lr)
                torch._foreach_add_(velocities, parameters, alpha=-lr * decay)
            else:
                rates_P = lr * _local_rates(parameters, gradients, group["trust"], decay)
                torch._foreach_addcmul_(velocities, gradients, (-rates_P).unbind())
                torch._foreach_addcmul_(velocities, parameters, (-rates_P * decay).unbind())
            torch._foreach_add_(parameters, velocities)


def _local_rates(parameters: list[torch.Tensor], gradients: list[torch.Tensor], trust: float, decay: float) -> torch.Tensor:
    """LARS' factor of each of P tensors: [P]. Source: You et al. 2017, section 4."""
    weight_P, gradient_P = torch.stack(torch._foreach_norm(parameters)), torch.stack(torch._foreach_norm(gradients))
    rates_P = trust * weight_P / (gradient_P + decay * weight_P)
    return torch.where((weight_P > 0) & (gradient_P > 0), rates_P, 1.0)
