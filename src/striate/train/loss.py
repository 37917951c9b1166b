"""What is minimised: cross-entropy of every head, and the L2 term of chosen layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from striate.errors import UserError, nearest


def heads(outputs: object) -> dict[str, torch.Tensor]:
    """A network's outputs as {head: logits [B, K]}, the main head first and named "main"; boxes are left out.

    Takes a tensor, a named tuple or tuple (first is main), or a dict (the key "logits" or the first is main).
    """
    if isinstance(outputs, torch.Tensor):
        return {"main": outputs}
    if isinstance(outputs, Mapping):
        names = sorted((name for name in outputs if name != "boxes"), key=lambda name: name not in {"logits", "main", "out"})
        return {"main" if place == 0 else str(name): outputs[name] for place, name in enumerate(names)}
    if isinstance(outputs, tuple):
        names = getattr(outputs, "_fields", [f"aux{place}" for place in range(len(outputs))])
        pairs = zip(names, outputs, strict=True)
        return {"main" if place == 0 else name: one for place, (name, one) in enumerate(pairs) if one is not None}
    raise UserError(
        f"The network returned {type(outputs).__name__}; striate trains networks that return logits, or a tuple or dict of them."
    )


def per_head(
    outputs: dict[str, torch.Tensor],
    labels: torch.Tensor,
    smoothing: float,
    class_weights: torch.Tensor | None = None,
    partner_labels: torch.Tensor | None = None,
    share: torch.Tensor | float | None = None,
) -> dict[str, torch.Tensor]:
    """Mean cross-entropy of each head over the batch, in float32.

    outputs: {head: [B, K] logits}. labels: [B] int64 in 0..K-1. smoothing: weight of the uniform target, 0..1.
    class_weights: [K] float32, with a mean of 1 over the training images as `balanced_weights` and `given_weights` have
    it. The sum over the batch is divided by its images, not by their weights as torch does: so an image counts the same
    in whatever micro-batch or process it is computed.
    partner_labels, share: of a mixed batch, [B] int64 and one number or [B] in 0..1: share of `labels` in the target;
    the rest is the partner's.
    Source: Szegedy et al. 2016, section 7 (smoothing); Zhang et al. 2018, section 2 (two labels).
    """
    result = {}
    for name, logits in outputs.items():
        if partner_labels is None:
            result[name] = _cross_entropy(logits, labels, smoothing, class_weights, "mean")
            continue
        assert share is not None, "partner_labels without share"
        own_B = _cross_entropy(logits, labels, smoothing, class_weights, "none")
        partners_B = _cross_entropy(logits, partner_labels, smoothing, class_weights, "none")
        result[name] = (share * own_B + (1 - share) * partners_B).mean()
    return result


def _cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    smoothing: float,
    class_weights: torch.Tensor | None,
    over: Literal["mean", "none"],
) -> torch.Tensor:
    """Cross-entropy in float32, of each image [B] or their mean: the sum over the number of images."""
    if class_weights is None or over == "none":
        return functional.cross_entropy(logits.float(), labels, class_weights, reduction=over, label_smoothing=smoothing)
    whole = functional.cross_entropy(logits.float(), labels, class_weights, reduction="sum", label_smoothing=smoothing)
    return whole / len(labels)


def balanced_weights(labels_N: NDArray[np.int32], class_count: int) -> torch.Tensor:
    """A weight for each class by which all classes count the same: N / (K images of the class).

    labels_N: [N] of the training images. class_count: K. Returns [K] float32 with a mean of 1 over the images. A class
    without any image has 0 and is not among the K, else that mean would be less.
    Source: King and Zeng 2001 (weighting), in the form of scikit-learn's "balanced".
    """
    counts_K = np.bincount(labels_N, minlength=class_count)
    weights_K = len(labels_N) / (np.count_nonzero(counts_K) * np.maximum(counts_K, 1))
    return torch.from_numpy(np.where(counts_K > 0, weights_K, 0.0).astype(np.float32))


def given_weights(weights: tuple[float, ...], labels_N: NDArray[np.int32], class_count: int) -> torch.Tensor:
    """Weights as the recipe gives them, in the order of classes.json, scaled to a mean of 1 over the training images.

    So only their ratios matter, and the learning rate means what it means without weights. Returns [K] float32.
    Raises UserError when there is not one for each class, or when all images weigh nothing.
    """
    if len(weights) != class_count:
        raise UserError(
            f"loss.class_weights: found {len(weights)} numbers, expected {class_count}: one for each class, "
            "in the order of classes.json."
        )
    weights_K = np.asarray(weights, dtype=np.float64)
    mean = weights_K[labels_N].mean()
    if mean == 0:
        raise UserError("loss.class_weights: every class that has training images has weight 0; give one of them more.")
    return torch.from_numpy((weights_K / mean).astype(np.float32))


def boxes(
    said: torch.Tensor, targets_B4: torch.Tensor, labels: torch.Tensor, size_px: int, kind: Literal["giou", "l2"]
) -> torch.Tensor:
    """Loss of a box head in float32: the sum over the images that have a box, over all images of the micro-batch.

    So an image counts the same in whatever micro-batch it is computed, and a batch without boxes has a loss of 0.
    said: [B, 1 or K, 4] centre x, centre y, width, height over S, in 0..1; of K boxes that of the image's class is judged.
    targets_B4: [B, 4] xyxy in pixels of the view, four NaN where there is none. labels: [B] int64.
    Source: Simonyan and Zisserman 2015, appendix A ("l2", the box of the true class); Rezatofighi et al. 2019, section 3,
    algorithm 1, and Carion et al. 2020, section 3.1, with the weights of appendix A.4 ("giou").
    """
    of_class_B = labels if said.shape[1] > 1 else torch.zeros_like(labels)
    chosen_B4 = said.float()[torch.arange(len(labels), device=said.device), of_class_B]
    has_box_B = targets_B4.isfinite().all(1)
    wanted_B4 = torch.where(has_box_B[:, None], targets_B4.float() / size_px, targets_B4.new_tensor([0.25, 0.25, 0.75, 0.75]))
    centre_B2, sides_B2 = chosen_B4[:, :2], chosen_B4[:, 2:]
    if kind == "l2":
        wanted_centre_B2, wanted_sides_B2 = (wanted_B4[:, :2] + wanted_B4[:, 2:]) / 2, wanted_B4[:, 2:] - wanted_B4[:, :2]
        apart_B = (centre_B2 - wanted_centre_B2).square().sum(1) + (sides_B2 - wanted_sides_B2).square().sum(1)
    else:
        edges_B4 = torch.cat([centre_B2 - sides_B2 / 2, centre_B2 + sides_B2 / 2], 1)
        apart_B = 5 * (edges_B4 - wanted_B4).abs().sum(1) + 2 * (1 - generalised_iou(edges_B4, wanted_B4))
    return (apart_B * has_box_B).sum() / len(labels)


def generalised_iou(a_B4: torch.Tensor, b_B4: torch.Tensor) -> torch.Tensor:
    """IoU of each pair less the share of their common enclosing box that neither covers: [B] in -1..1.

    a_B4, b_B4: [B, 4] xyxy, x_max > x_min and y_max > y_min. Source: Rezatofighi et al. 2019, section 3, algorithm 1.
    """
    shared_B2 = (torch.minimum(a_B4[:, 2:], b_B4[:, 2:]) - torch.maximum(a_B4[:, :2], b_B4[:, :2])).clamp(min=0)
    around_B2 = torch.maximum(a_B4[:, 2:], b_B4[:, 2:]) - torch.minimum(a_B4[:, :2], b_B4[:, :2])
    areas_B = (a_B4[:, 2:] - a_B4[:, :2]).prod(1) + (b_B4[:, 2:] - b_B4[:, :2]).prod(1)
    shared_B, around_B = shared_B2.prod(1), around_B2.prod(1)
    union_B = areas_B - shared_B
    least = torch.finfo(a_B4.dtype).tiny
    return shared_B / union_B.clamp(min=least) - (around_B - union_B) / around_B.clamp(min=least)


def total(
    losses: dict[str, torch.Tensor], aux_weight: float, l2: float, penalised: list[nn.Parameter], box_weight: float = 1.0
) -> torch.Tensor:
    """The main head's loss plus `aux_weight` times each other head's plus `l2` times the squares of `penalised`.

    The loss named "boxes" counts `box_weight` times. Source: Szegedy et al. 2015, section 5 (0.3 for each auxiliary head).
    """
    result = torch.zeros((), device=next(iter(losses.values())).device)
    for name, loss in losses.items():
        result = result + {"main": 1.0, "boxes": box_weight}.get(name, aux_weight) * loss
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
