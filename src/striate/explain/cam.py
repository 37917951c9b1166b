"""Evidence maps from a grid of features: CAM, Grad-CAM and Grad-CAM++.

The network runs once for all images. At the layer its output is replaced by a copy that asks for a gradient, so only what lies
behind the layer is differentiated: the front, which is most of the work, costs one pass without a graph, and each class of an
image one pass backwards through the end. Layers behind that work in place write into the copy, and the stored features stay.

Each method has two forms: several classes for each image (`…_of`, labels [B, M]), and one (labels [B]).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError, nearest
from striate.explain import passes
from striate.explain.passes import LogitsOf
from striate.models import grid, heads
from striate.taps import taps

# Largest error of the proof, over the largest change of the logits; and what float32 may lose, over the sum of magnitudes.
_TOLERANCE = 1e-4
_ROUNDING = 1e-6
_FAR = 1e3  # times the size of the features, or 1, of the second grid of noise
# Keeps Grad-CAM++'s quotient finite where the gradient is zero. The paper has none; this is the value of its common code.
_EPSILON = 1e-6

_PIXEL_METHODS = "gradient, smoothgrad, integrated-gradients or occlusion"

Weigh = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class _Cut:
    """One pass, cut at a layer. is_given: whether the user named it. grid_BChw: the features, a leaf.

    number: which of the layer's calls gave them, from 0.
    """

    layer: str
    is_given: bool
    grid_BChw: torch.Tensor
    logits_BK: torch.Tensor
    number: int


def cam(
    model: nn.Module, images: torch.Tensor, labels_B: torch.Tensor, layer: str | None, logits_of: LogitsOf
) -> tuple[torch.Tensor, str]:
    """Class activation map: the features weighted as the logit weighs their means. One class for each image.

    images: [B, C, S, S] float32, normalised. labels_B: [B] int64 in 0..K-1. layer: whose output is the grid; None is the last
    one. logits_of: the main logits [B, K] of whatever the model returns.
    Returns [B, h, w] float32 on the layer's grid, and the layer's name. Not clipped: the mean of a map is its part of the logit,
    and negative values speak against the class. Where the grid holds a map for each class already (All-CNN), the class's own.
    Raises UserError where the logits are not linear in the means of the grid (VGG, AlexNet), where there is no such grid, for a
    label outside of 0..K-1 and for an unknown layer; NonFiniteError for logits that are NaN or infinite.
    Source: Zhou et al. 2016, section 2.
    """
    return _one(cam_of(model, images, labels_B[:, None], layer, logits_of))


def cam_of(
    model: nn.Module, images: torch.Tensor, labels_BM: torch.Tensor, layer: str | None, logits_of: LogitsOf
) -> tuple[torch.Tensor, str]:
    """`cam` for M classes of each image. labels_BM: [B, M] int64. Returns [B, M, h, w] float32, and the layer's name."""
    with passes.still(model, images):
        cut = _opened("cam", model, images, labels_BM, layer, logits_of)
        labels_U = torch.tensor(sorted(set(labels_BM.flatten().tolist())), device=images.device)
        places_BM = torch.searchsorted(labels_U, labels_BM.to(labels_U).contiguous())
        weights_UC, is_rectified = _weights(model, images, cut, labels_U, logits_of)
    grid_BChw = cut.grid_BChw.detach().float()
    if is_rectified:
        grid_BChw = functional.relu(grid_BChw)
    return torch.einsum("bmc,bchw->bmhw", weights_UC[places_BM], grid_BChw), cut.layer


def grad_cam(
    model: nn.Module, images: torch.Tensor, labels_B: torch.Tensor, layer: str | None, logits_of: LogitsOf
) -> tuple[torch.Tensor, str]:
    """Grad-CAM: the features weighted by the means of the logit's gradient, and what speaks against the class left out.

    Arguments and errors as `cam`, for any network with a grid of features. Returns [B, h, w] float32, zero or more, and the
    layer's name.
    Source: Selvaraju et al. 2017, section 3, equations 1 and 2.
    """
    return _one(grad_cam_of(model, images, labels_B[:, None], layer, logits_of))


def grad_cam_of(
    model: nn.Module, images: torch.Tensor, labels_BM: torch.Tensor, layer: str | None, logits_of: LogitsOf
) -> tuple[torch.Tensor, str]:
    """`grad_cam` for M classes of each image, labels_BM: [B, M] int64. Returns [B, M, h, w] float32, and the layer's name."""
    return _by_gradients("grad-cam", model, images, labels_BM, layer, logits_of, _means)


def grad_cam_plus_plus(
    model: nn.Module, images: torch.Tensor, labels_B: torch.Tensor, layer: str | None, logits_of: LogitsOf
) -> tuple[torch.Tensor, str]:
    """Grad-CAM++: as Grad-CAM, each place of a channel with a weight of its own, so that several objects of the class all show.

    Arguments, result and errors as `grad_cam`. The closed form holds for an exponential of the logit, and has its gradient for
    that of the logit, which is what is computed here.
    Source: Chattopadhay et al. 2018, section 3, equations 5, 7 and 19.
    """
    return _one(grad_cam_plus_plus_of(model, images, labels_B[:, None], layer, logits_of))


def grad_cam_plus_plus_of(
    model: nn.Module, images: torch.Tensor, labels_BM: torch.Tensor, layer: str | None, logits_of: LogitsOf
) -> tuple[torch.Tensor, str]:
    """`grad_cam_plus_plus` for M classes of each image. labels_BM: [B, M] int64. Returns [B, M, h, w], and the layer's name."""
    return _by_gradients("grad-cam++", model, images, labels_BM, layer, logits_of, _by_place)


# ---------------------------------------------------------------- the weights of channels


def _means(grid_BChw: torch.Tensor, gradient_BChw: torch.Tensor) -> torch.Tensor:
    return gradient_BChw.mean((2, 3))


def _by_place(grid_BChw: torch.Tensor, gradient_BChw: torch.Tensor) -> torch.Tensor:
    squares_BChw = gradient_BChw.square()
    below_BChw = 2 * squares_BChw + grid_BChw.sum((2, 3), keepdim=True) * squares_BChw * gradient_BChw + _EPSILON
    share_BChw = torch.where(gradient_BChw != 0, squares_BChw / below_BChw, 0)
    return (functional.relu(gradient_BChw) * share_BChw).sum((2, 3))


def _weights(
    model: nn.Module, images: torch.Tensor, cut: _Cut, labels_U: torch.Tensor, logits_of: LogitsOf
) -> tuple[torch.Tensor, bool]:
    """The weights with which the logits of the classes weigh the means of the grid: [U, C]; whether a ReLU stands in between.

    Found by differentiation at a grid that is positive everywhere, and proved on grids of noise and on the images' own, so that
    it holds for networks by anybody. Raises UserError where there are no such weights.
    """
    grid_BChw = cut.grid_BChw.detach()
    noise = torch.Generator().manual_seed(0)
    _, channels, high, wide = grid_BChw.shape
    # Channels differ in their means, or the logits would say little of them. Once as large as the features are, once far larger:
    # near one point a network with several linear layers is linear as well.
    likeness = torch.randn((2, channels, high, wide), generator=noise) + torch.randn((2, channels, 1, 1), generator=noise)
    likeness = likeness.to(grid_BChw) * grid_BChw.std().clamp(min=1e-3)
    likeness[1] *= _FAR / likeness[1].abs().mean().clamp(max=1.0)
    probes = torch.cat([likeness[:1].abs(), torch.zeros_like(likeness[:1]), likeness])
    leaf = probes.requires_grad_()
    with _replaced(model, cut, leaf):
        seen_4K = passes.logits(model, images[:1].expand(4, -1, -1, -1), logits_of)
    at_U = passes.chosen(seen_4K[:1], labels_U[None])[0]
    gradients = [one[0].sum((1, 2)) for one in (_gradient(value, leaf, True) for value in at_U) if one is not None]
    if len(gradients) < len(at_U):
        raise UserError(_no_gradient("cam", model, images, cut, logits_of))
    weights_UC, seen_4U = torch.stack(gradients).float(), seen_4K.detach().float()[:, labels_U]
    own_BU = cut.logits_BK.detach().float()[:, labels_U]
    wanted_PU = torch.cat([seen_4U[2:], own_BU])
    spread_P1 = (wanted_PU - seen_4U[1]).abs().amax(1, keepdim=True)
    for is_rectified in (False, True):
        parts = [functional.relu(part) if is_rectified else part for part in (probes[2:].detach(), grid_BChw)]
        means_PC, sizes_PC = (torch.cat([part.float().mean((2, 3)) for part in some]) for some in (parts, map(torch.abs, parts)))
        apart_PU = (means_PC @ weights_UC.T + seen_4U[1] - wanted_PU).abs()
        if (apart_PU <= _TOLERANCE * spread_P1 + _ROUNDING * (sizes_PC @ weights_UC.abs().T + wanted_PU.abs())).all():
            return weights_UC, is_rectified
    raise UserError(
        f"cam: between '{cut.layer}' and its classes {passes.kind(model)} does something else than average the grid and weigh "
        "the means (more than one linear layer, or one weight for each place), so there is no weight of a channel that the map "
        "could show. Use --method grad-cam, which shows the same, clipped at zero, where both exist."
    )


# ---------------------------------------------------------------- passes


def _one(found: tuple[torch.Tensor, str]) -> tuple[torch.Tensor, str]:
    return found[0][:, 0], found[1]


def _by_gradients(
    method: str,
    model: nn.Module,
    images: torch.Tensor,
    labels_BM: torch.Tensor,
    layer: str | None,
    logits_of: LogitsOf,
    weigh: Weigh,
) -> tuple[torch.Tensor, str]:
    maps = []
    with passes.still(model, images):
        cut = _opened(method, model, images, labels_BM, layer, logits_of)
        grid_BChw = cut.grid_BChw.detach().float()
        # Images do not see each other in evaluation mode: the gradient of the sum is that of each one's own logit.
        sums_M = passes.chosen(cut.logits_BK, labels_BM).sum(0)
        for number in range(len(sums_M)):
            gradient_BChw = _gradient(sums_M[number], cut.grid_BChw, number + 1 < len(sums_M))
            if gradient_BChw is None:
                raise UserError(_no_gradient(method, model, images, cut, logits_of))
            weights_BC = weigh(grid_BChw, gradient_BChw.float())
            maps.append(functional.relu(torch.einsum("bc,bchw->bhw", weights_BC, grid_BChw)))
    return torch.stack(maps, 1), cut.layer


def _gradient(value: torch.Tensor, leaf: torch.Tensor, goes_on: bool) -> torch.Tensor | None:
    """None where autograd knows no way from the value to the features."""
    return torch.autograd.grad(value, leaf, retain_graph=goes_on, allow_unused=True)[0] if value.requires_grad else None


@contextlib.contextmanager
def _replaced(model: nn.Module, cut: _Cut, grid_BChw: torch.Tensor) -> Iterator[None]:
    """Within the block the layer gives copies of this in the call at which the pass was cut."""
    calls = -1

    def replace(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        nonlocal calls
        calls += 1
        return grid_BChw.clone() if calls == cut.number else output

    with taps(heads.classifier_of(model), {}, instead={cut.layer: replace}):
        yield


def _opened(
    method: str, model: nn.Module, images: torch.Tensor, labels_BM: torch.Tensor, layer: str | None, logits_of: LogitsOf
) -> _Cut:
    """A pass that is cut at the layer, of a network that stands still."""
    passes.check(images, labels_BM)
    passes.expect_name("--layer", layer)
    if not labels_BM.shape[1]:
        raise UserError(f"{method}: expected a class for each image, found none.")
    is_given = layer is not None
    if layer is None:
        found = grid.last(model, images.shape[-1], images.shape[1])
        if found is None:
            raise UserError(_no_grid(method, model))
        layer = found.name
    cut = _cut(method, model, images, layer, is_given, logits_of)
    passes.chosen(cut.logits_BK, labels_BM)
    return cut


def _cut(method: str, model: nn.Module, images: torch.Tensor, layer: str, is_given: bool, logits_of: LogitsOf) -> _Cut:
    leaf, number, calls, given = None, 0, 0, "nothing: it does not run in evaluation mode"

    def replace(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        nonlocal leaf, number, calls, given
        calls += 1
        if not is_grid(output):
            given = shape_of(output)
            return output
        leaf, number = output.detach().clone().requires_grad_(), calls - 1
        return leaf.clone()

    with taps(heads.classifier_of(model), {}, instead={layer: replace}):
        logits_BK = passes.logits(model, images, logits_of)
    if leaf is None:
        raise UserError(without_grid(method, model, layer, given, images))
    return _Cut(layer, is_given, leaf, logits_BK, number)


def _no_gradient(method: str, model: nn.Module, images: torch.Tensor, cut: _Cut, logits_of: LogitsOf) -> str:
    """The message for features that the classes have no gradient by; whether they depend on them nevertheless is tried out."""
    kind = passes.kind(model)
    unseen = (
        "but not through autograd: the layer or a part behind it runs under torch.no_grad, or its output is detached. Take "
        "a layer behind that part with --layer, or --method occlusion, which needs no gradient."
    )
    if not cut.is_given:
        last = f"{method}: '{cut.layer}' gives the last grid of features of this {kind}. Its classes"
        if _is_heard(model, images, cut, logits_of):
            return f"{last} depend on it, {unseen}"
        return f"{last} do not depend on it. Name another layer with --layer, or use --method {_PIXEL_METHODS}."
    named = f"--layer {cut.layer}: the classes of this {kind}"
    if _is_heard(model, images, cut, logits_of):
        return f"{named} depend on what this layer gives last, {unseen}"
    return f"{named} do not depend on what this layer gives last. Choose another layer, or leave --layer out."


def _is_heard(model: nn.Module, images: torch.Tensor, cut: _Cut, logits_of: LogitsOf) -> bool:
    """Whether the logits change with the features."""
    noise_BChw = torch.randn(cut.grid_BChw.shape, generator=torch.Generator().manual_seed(0)).to(cut.grid_BChw)
    size = cut.grid_BChw.detach().abs().mean().clamp(min=1.0)
    changed = []
    for times in (1.0, _FAR):  # near the features, and so large that no bias behind them outweighs it
        with torch.no_grad(), _replaced(model, cut, noise_BChw * size * times):
            other_BK = logits_of(model(images.clone()))
        changed.append(not torch.allclose(other_BK, cut.logits_BK.detach(), rtol=1e-5, atol=1e-6, equal_nan=True))
    return any(changed)


# ---------------------------------------------------------------- what is a grid, and what to say where there is none


def is_grid(output: Any) -> bool:
    """Whether a layer's output is a grid [B, C, h, w] with h = w above 1, as a square photo leaves it."""
    return isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1


def shape_of(output: Any) -> str:
    """What a layer gave, in words."""
    return str(list(output.shape)) if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"


def without_grid(method: str, model: nn.Module, layer: str, given: str, images: torch.Tensor) -> str:
    """The message for a layer that gives no grid: those that do and stand near it, by order of definition."""
    names = [name for name, _ in model.named_modules()]
    known = [one.name for one in grid.grids(model, images.shape[-1], images.shape[1])]
    if not known:
        return _no_grid(method, model)
    near = sorted(known, key=lambda name: abs(names.index(name) - names.index(layer)))[:3]
    return (
        f"{method}: layer '{layer}' gives {given}, which is no grid of features [B, C, h, w] with h = w above 1. "
        f"Layers near it that give one: {', '.join(near)}." + nearest(layer, known)
    )


def _no_grid(method: str, model: nn.Module) -> str:
    return (
        f"{method}: {passes.kind(model)} has no grid of features [B, C, h, w] that its classes are made of (it goes on with "
        f"vectors or tokens). Use --method {_PIXEL_METHODS}, which need none."
    )
