"""Parameters that will never learn: frozen, outside the network's output, or not given to the optimiser.

Looks at which parameters have requires_grad, which get a gradient in one backward pass, and which the optimiser holds. A
backbone that is frozen on purpose, by the recipe, and a batch norm whose parameters are frozen with the rest are no finding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from striate.doctor import passes
from striate.doctor.finding import Cause, Finding, Remedy, Severity
from striate.doctor.passes import Weight
from striate.doctor.patient import Patient

SOURCE = "torch.nn.Parameter.requires_grad; torch.optim.Optimizer (the optimiser updates what it was given, silently)"
# A smaller share of the parameters may rest without harm, as the unused head of a published network.
SHARE = 0.005
# The least share of numbers outside the network, of all that could learn, that is worth a word.
STRAYS = 0.01
# Names in a sentence.
SHOWN = 4


def check(patient: Patient) -> Finding | None:
    """The finding, or None where all parameters learn or rest on purpose."""
    seen = patient.signals
    count = sum(weight.count for weight in seen.weights)
    if not count:
        return _finding("error", "The network has no parameters: there is nothing to learn.", [], 0, "unused-parameters")
    frozen = [weight for weight in seen.weights if not weight.is_trained]
    # With trained weights; without, what is frozen keeps a random start.
    on_purpose = patient.recipe is not None and patient.recipe.optim.freeze != "none" and patient.recipe.model.weights is not None
    if len(frozen) == len(seen.weights):
        return _finding("error", "Every parameter is frozen: nothing learns.", frozen, count, "frozen-parameters")
    if all(weight.gradient is None for weight in seen.weights):
        words = "Nothing comes back from the loss: no parameter gets a gradient. It is detached, or computed under no_grad."
        return _finding("error", words, list(seen.weights), count, "unused-parameters")
    strays = seen.strays - _held_beside(patient)
    if strays > STRAYS * (count + strays):
        words = (
            f"{strays:,} numbers take part in the output and are no parameters of the network: layers in a plain list or "
            "dict, or tensors that are no nn.Parameter. The optimiser never gets them, and a checkpoint leaves them out."
        )
        return _finding("error", words, [], count, "unused-parameters")
    outside = _outside(patient)
    if len(outside) == len(seen.weights):
        words = "The optimiser holds none of the network's parameters: it was made for another network, or before a copy."
        return _finding("error", words, outside, count, "unused-parameters")
    if _share(outside, count) > SHARE:
        words = f"{_named(outside, count)} are not given to the optimiser, so they keep their start."
        return _finding("warning", words, outside, count, "unused-parameters")
    unreached = [
        weight for weight in seen.weights if weight.is_trained and weight.gradient is None and not _of_head(patient, weight)
    ]
    if _share(unreached, count) > SHARE:
        ran = {layer.name for layer in seen.layers}
        unseen = [weight for weight in unreached if weight.name.rpartition(".")[0] not in ran]
        if not unseen or _matters(patient, max(unseen, key=lambda weight: weight.count)):
            words = f"{_named(unreached, count)} run and get no gradient: no_grad() or detach() stands between them and the loss."
            return _finding("warning", words, unreached, count, "frozen-parameters")
        words = f"{_named(unreached, count)} get no gradient: they take no part in what the loss sees."
        return _finding("warning", words, unreached, count, "unused-parameters")
    silent = [one for one in seen.weights if one.is_trained and one.fan_in and one.gradient == 0.0 and not _of_head(patient, one)]
    if _share(silent, count) > 0.2 and seen.main.weight > 0 and seen.main.spread > 0 and not passes.begins_closed(seen):
        words = f"{_named(silent, count)} get a gradient of exactly zero."
        return _finding("warning", words, silent, count, "dead-units")
    if not on_purpose and _share(frozen, count) > SHARE:
        words = f"{_named(frozen, count)} are frozen (requires_grad is off)."
        if _starts_trained(patient, frozen):
            return _finding("note", f"{words} If that is meant, all is well.", frozen, count, "frozen-parameters")
        return _finding("warning", words, frozen, count, "frozen-parameters")
    return None


def _matters(patient: Patient, weight: Weight) -> bool:
    """Whether the output depends on a parameter: it is another one when the parameter is."""
    parameter = dict(patient.model.named_parameters())[weight.name]
    images = patient.images[: min(4, len(patient.images))]
    with torch.no_grad(), passes.preserved(patient.model), passes.as_trained(patient.model):
        before = next(iter(passes.heads_of(patient.model(images)).values())).clone()
        parameter.mul_(1.5).add_(0.1 * max(weight.scale, 1e-3))
        after = next(iter(passes.heads_of(patient.model(images)).values()))
        return not torch.equal(before, after)


def _held_beside(patient: Patient) -> int:
    """Numbers that a given optimiser holds beside the network's own."""
    if patient.optimizer is None:
        return 0
    own = {id(parameter) for parameter in patient.model.parameters()}
    held = (one for group in patient.optimizer.param_groups for one in group["params"])
    return sum(one.numel() for one in held if id(one) not in own)


def _outside(patient: Patient) -> list[Weight]:
    """Parameters that train and that a given optimiser does not hold."""
    if patient.optimizer is None:
        return []
    held = {id(parameter) for group in patient.optimizer.param_groups for parameter in group["params"]}
    names = {name for name, parameter in patient.model.named_parameters() if id(parameter) not in held}
    return [weight for weight in patient.signals.weights if weight.name in names and weight.is_trained]


def _of_head(patient: Patient, weight: Weight) -> bool:
    """Whether it belongs to a head that the loss leaves out, which is another rule's."""
    forgotten = [name for name, head in patient.signals.heads.items() if abs(head.weight) < 1e-3]
    return bool(forgotten) and "aux" in weight.name.lower()


def _starts_trained(patient: Patient, frozen: Sequence[Weight]) -> bool:
    """Whether what is frozen looks trained: batch norms in it have seen data, so it is a backbone and frozen for a reason."""
    buffers = dict(patient.model.named_buffers())
    seen = [int(buffer) for name, buffer in buffers.items() if name.endswith("num_batches_tracked")]
    return bool(seen) and max(seen) > 100 and bool(frozen)


def _share(weights: Sequence[Weight], count: int) -> float:
    return sum(weight.count for weight in weights) / count


def _named(weights: Sequence[Weight], count: int) -> str:
    names = ", ".join(weight.name for weight in weights[:SHOWN])
    more = f" and {len(weights) - SHOWN} more" if len(weights) > SHOWN else ""
    return f"{_share(weights, count):.1%} of the parameters ({names}{more})"


def _finding(severity: Severity, sentence: str, weights: Sequence[Weight], count: int, cause: str) -> Finding:
    advice = {
        "frozen-parameters": "Set requires_grad_(True) on them, take no_grad() and detach() away, or freeze with --freeze "
        "backbone, which says so in the run.",
        "unused-parameters": "Keep layers in nn.ModuleList or nn.ModuleDict, and tensors in nn.Parameter. "
        "Give model.parameters() to the optimiser after the last change to the network, and look for "
        "detach(), .data or no_grad() between them and the loss; delete layers that nothing uses.",
        "dead-units": "Look for a ReLU that is never positive behind them: lower biases or rates, or another start.",
    }[cause]
    return Finding(
        "untrained-parameters",
        severity,
        sentence,
        {
            "parameters": count,
            "of them without learning": sum(weight.count for weight in weights),
            "names": [weight.name for weight in weights[:20]],
        },
        (Cause(cause, 0.9, f"{len(weights)} of the network's tensors"),),
        (Remedy(advice),),
        SOURCE,
        layer=weights[0].name.rpartition(".")[0] if weights else None,
    )
