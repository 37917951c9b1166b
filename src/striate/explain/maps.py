"""The table of methods, and one function for all of them: evidence maps by name.

What a map says is in `Method.says`; larger is more evidence in all of them, as pictures, boxes and deletion curves take it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from striate.errors import UserError, nearest
from striate.explain import cam, passes, perturb, saliency
from striate.explain.passes import LogitsOf

Make = Callable[[nn.Module, torch.Tensor, torch.Tensor, str | None, LogitsOf], tuple[torch.Tensor, str]]


@dataclass(frozen=True)
class Method:
    """One line of the table.

    make: the maps, from (model, images, labels, layer, logits_of). has_layer: whether it looks at a layer's grid, else at pixels.
    says: what a value of the map is. source: the paper. trial: the quickest method that is refused wherever this one is, to ask
    beforehand; empty for one that fits every network.
    """

    make: Make
    has_layer: bool
    says: str
    source: str
    trial: str = ""


def _gradient(
    model: nn.Module, images: torch.Tensor, labels_B: torch.Tensor, layer: str | None, logits_of: LogitsOf
) -> tuple[torch.Tensor, str]:
    return saliency.strongest(saliency.gradient(model, images, labels_B, logits_of)), ""


def _smoothgrad(
    model: nn.Module, images: torch.Tensor, labels_B: torch.Tensor, layer: str | None, logits_of: LogitsOf
) -> tuple[torch.Tensor, str]:
    return saliency.strongest(saliency.smoothgrad(model, images, labels_B, logits_of)), ""


def _integrated_gradients(
    model: nn.Module, images: torch.Tensor, labels_B: torch.Tensor, layer: str | None, logits_of: LogitsOf
) -> tuple[torch.Tensor, str]:
    found = saliency.integrated_gradients(model, images, labels_B, logits_of)
    return saliency.summed(found.attributions_BCSS).abs(), ""


def _occlusion(
    model: nn.Module, images: torch.Tensor, labels_B: torch.Tensor, layer: str | None, logits_of: LogitsOf
) -> tuple[torch.Tensor, str]:
    return perturb.occlusion(model, images, labels_B, logits_of), ""


METHODS: dict[str, Method] = {
    "cam": Method(
        cam.cam,
        True,
        "the place's part of the logit; negative values speak against the class",
        "Zhou et al. 2016, section 2",
        "cam",
    ),
    "grad-cam": Method(
        cam.grad_cam,
        True,
        "features weighted by the mean gradient of the logit, where they speak for the class",
        "Selvaraju et al. 2017, section 3",
        "grad-cam",
    ),
    "grad-cam++": Method(
        cam.grad_cam_plus_plus,
        True,
        "features weighted by the gradient of the logit place by place, where they speak for the class",
        "Chattopadhay et al. 2018, section 3",
        "grad-cam++",
    ),
    "gradient": Method(
        _gradient,
        False,
        "magnitude of the logit's gradient by the pixel, largest of its channels",
        "Simonyan et al. 2014, section 3",
        "gradient",
    ),
    "smoothgrad": Method(
        _smoothgrad,
        False,
        "magnitude of the mean gradient over noisy copies, largest of the pixel's channels",
        "Smilkov et al. 2017, section 2",
        "gradient",
    ),
    "integrated-gradients": Method(
        _integrated_gradients,
        False,
        "magnitude of the pixel's part in the rise of the logit from an image of the mean colour, summed over its channels",
        "Sundararajan et al. 2017, section 3",
        "gradient",
    ),
    "occlusion": Method(
        _occlusion, False, "drop of the logit when a window hides the pixel", "Zeiler and Fergus 2014, section 4.2"
    ),
}


def maps(
    model: nn.Module, images: torch.Tensor, labels_B: torch.Tensor, method: str, layer: str | None, logits_of: LogitsOf
) -> tuple[torch.Tensor, str]:
    """Evidence for one class in each image, by the method of this name.

    model: in any mode; it comes back as it was. images: [B, C, S, S] float32 on its device, normalised. labels_B: [B] int64 in
    0..K-1. layer: whose grid the map is made of; None is the last one (`models.grid.last`), which costs a pass with one image,
    so give the name that came back the next time. logits_of: the main logits [B, K] of whatever the model returns.
    Returns [B, h, w] float32, larger is more evidence, and the layer's name: "" for methods of pixels, where h = w = S.
    Raises UserError for an unknown method or layer (with the nearest names), a layer without a grid, a layer for a method of
    pixels, a network that the method does not fit (with one that does; so where a gradient is wanted and a part runs under
    no_grad), a label outside of 0..K-1; NonFiniteError for logits that are NaN or infinite.
    """
    entry = find(method)
    passes.expect_name("--layer", layer)
    if layer is not None and not entry.has_layer:
        with_layers = ", ".join(name for name, one in METHODS.items() if one.has_layer)
        raise UserError(
            f"--layer {layer}: {method} looks at pixels and has no layer. Leave it out, or use --method {with_layers}."
        )
    found, name = entry.make(model, images, labels_B, layer, logits_of)
    return found.detach().float(), name


def find(method: str) -> Method:
    """The method of this name. Raises UserError with the nearest names."""
    if method not in METHODS:
        raise UserError(f"--method {method}: expected one of {', '.join(METHODS)}.{nearest(method, METHODS)}")
    return METHODS[method]
