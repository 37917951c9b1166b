"""A network slid over a whole photo: the same weights, with a score for every place where its window fits.

A network for S x S pixels ends in a grid of features, which it averages or flattens, and layers that make classes of it. Slid
over a larger photo the grid is larger; here every window of the grid that is as large as the one of S x S pixels is averaged
or goes through the first linear layer, which so becomes a convolution, and the layers behind see each window by itself.

Nothing is read from the source of a network: where its grid ends is found by running it once on noise, and what was found is
proved on other noise, where the slid network must give the network's own logits. So it works for networks by anybody, or says
why it does not.

Source: Simonyan and Zisserman 2015, section 3.2; Sermanet et al. 2014 (OverFeat), section 3.5.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from striate.errors import NonFiniteError, UserError, expect
from striate.taps import taps

_INSTEAD = "Use crops instead: --views 10crop or 144crop."
# Largest difference from the network's own logits on noise, over the largest logit; float32 sums in another order.
_TOLERANCE = 1e-4


Join = Literal["mean", "flat"]


class _Reached(Exception):
    """The grid is there: the rest of the forward pass is not needed."""


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a layer. number: which of its calls, from 0. entered, left: copies of its first input and its output."""

    name: str
    layer: nn.Module
    number: int
    entered: torch.Tensor
    left: torch.Tensor

    @property
    def is_leaf(self) -> bool:
        return next(self.layer.children(), None) is None


class Dense(nn.Module):
    """A network as a function from photos of any size to a map of logits. Made by `slide`; shares the network's weights.

    grid: the call that gives the grid of features. joins: whether a window of the grid is averaged, or flattened, which makes a
    convolution of the first linear layer. is_rectified: whether a ReLU that is no layer stands behind the grid. rest: the layers
    behind the window. has_grid: whether the first of them takes [B, C, 1, 1].
    """

    def __init__(
        self,
        network: nn.Module,
        grid: _Call,
        joins: Join,
        is_rectified: bool,
        rest: tuple[nn.Module, ...],
        has_grid: bool,
    ) -> None:
        super().__init__()
        self.network = network  # its rest is a tuple, so that each layer keeps the one name that it has
        high, wide = grid.left.shape[2:]
        self.window = (high, wide)
        self.joins = joins
        self._name, self._number, self._is_rectified = grid.name, grid.number, is_rectified
        self._rest, self._has_grid = rest, has_grid

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised, H and W of S or more. Returns logits [B, K, h, w], a place for each window."""
        grid_BChw = self.grid(images)
        if self._is_rectified:
            grid_BChw = functional.relu(grid_BChw)
        rest = self._rest
        if self.joins == "mean":
            places_BChw = functional.avg_pool2d(grid_BChw, self.window, stride=1)
        else:
            # The layer itself on every window, and no `conv2d` with its weights: a GPU may round the factors of a convolution to
            # TF32 where it does not those of a linear layer, and the logits would not be the network's own.
            high, wide = self.window
            windows_BhwChw = grid_BChw.unfold(2, high, 1).unfold(3, wide, 1).permute(0, 2, 3, 1, 4, 5)
            places_BChw, rest = rest[0](windows_BhwChw.flatten(3)).permute(0, 3, 1, 2), rest[1:]
        count, channels, high, wide = places_BChw.shape
        x = places_BChw.permute(0, 2, 3, 1).reshape(-1, channels)
        x = x[:, :, None, None] if self._has_grid and rest else x
        for layer in rest:
            x = layer(x)
        return x.reshape(count, high, wide, -1).permute(0, 3, 1, 2)

    def grid(self, images: torch.Tensor) -> torch.Tensor:
        """The network's features at the end of its grid; its own layers behind it do not run."""
        calls = 0
        found: list[torch.Tensor] = []

        def look(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            nonlocal calls
            if calls == self._number:
                found.append(output)
                raise _Reached
            calls += 1

        with contextlib.suppress(_Reached), taps(self.network, {self._name: look}):
            self.network(images)
        return found[0]


def slide(network: nn.Module, size_px: int, channels: int, logits_of: Callable[[Any], torch.Tensor]) -> Dense:
    """The network for photos larger than its S = `size_px`; `network` must be in evaluation mode and is left as it is.

    channels: C of its input. logits_of: the main logits [B, K] of whatever it returns.
    Raises UserError, which says why, when the network cannot be slid: no grid of features, something between the grid and the
    classes that is neither an average nor a flattening and a linear layer (attention, an adaptive maximum, several grids), or
    photos of one size only. Raises NonFiniteError where its logits are NaN or infinite on noise.
    """
    kind = type(network).__name__
    weight = next((one for one in network.parameters()), torch.empty(0))
    noise_BCSS = _noise((2, channels, size_px, size_px), 0).to(weight.device)
    with torch.no_grad():
        calls, wanted_BK = _watched(network, noise_BCSS, logits_of)
        if not wanted_BK.isfinite().all():
            raise NonFiniteError(
                f"dense views: {kind} gives logits that are NaN or infinite for noise: its weights have diverged or are damaged. "
                "Take an earlier checkpoint."
            )
        if not any(call.left.ndim == 4 for call in calls):
            raise UserError(f"dense views: {kind} has no layer that gives a grid of features [B, C, h, w]. {_INSTEAD}")
        dense = _found(network, calls, wanted_BK, noise_BCSS)
        if dense is None:
            raise UserError(
                f"dense views: between its last grid of features and its classes {kind} does something else than average the "
                f"grid, or flatten it into a linear layer, so it cannot be made convolutional. {_INSTEAD}"
            )
        proof_BCSS = _noise((2, channels, size_px, size_px), 1).to(weight.device)
        own_BK, slid_BK11 = logits_of(network(proof_BCSS)), dense(proof_BCSS)
    expect(slid_BK11, "B K 1 1", "slid logits")
    apart = float((slid_BK11[:, :, 0, 0] - own_BK).abs().max())
    if not apart <= _TOLERANCE * max(1.0, float(own_BK.abs().max())):
        raise UserError(
            f"dense views: made convolutional, {kind} gives logits that differ by {apart:.2g} from its own on the same pixels, "
            f"so it is not the same network. {_INSTEAD}"
        )
    return dense


def _noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _watched(
    network: nn.Module, images: torch.Tensor, logits_of: Callable[[Any], torch.Tensor]
) -> tuple[list[_Call], torch.Tensor]:
    """Every call of a layer in the order in which it ended, with copies: in-place layers behind it write into its output."""
    calls: list[_Call] = []
    numbers: Counter[str] = Counter()
    entering: dict[str, list[torch.Tensor | None]] = defaultdict(list)

    def before(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def look(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            entered = next((one for one in inputs if isinstance(one, torch.Tensor)), None)
            entering[name].append(None if entered is None else entered.clone())

        return look

    def after(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def look(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            entered = entering[name].pop()
            if isinstance(output, torch.Tensor) and entered is not None:
                calls.append(_Call(name, layer, numbers[name], entered, output.clone()))
            numbers[name] += 1

        return look

    names = [name for name, _ in network.named_modules() if name]
    with taps(network, {name: after(name) for name in names}, {name: before(name) for name in names}):
        logits = logits_of(network(images))
    return calls, logits


def _found(network: nn.Module, calls: list[_Call], wanted_BK: torch.Tensor, images: torch.Tensor) -> Dense | None:
    """The first way to read the end of the network that explains its logits; later layers are tried first.

    Grids of one cell, as small photos leave, come last: behind a pool of fixed size they would do, and give fewer places.
    """
    grids = sorted((call for call in reversed(calls) if call.left.ndim == 4), key=lambda call: not _is_grid(call.left))
    leaves = [call for call in calls if call.is_leaf]
    ends: list[tuple[torch.Tensor, bool, tuple[nn.Module, ...]]] = [(wanted_BK, False, ())]  # no linear layer at all
    for first, start in enumerate(leaves):
        rest = None if _is_grid(start.left) else _chain(leaves[first:], wanted_BK)
        if rest is not None:
            ends.append((start.entered.flatten(1), start.entered.ndim == 4, rest))
    for grid in grids:
        for is_rectified, (entered_BF, has_grid, rest) in itertools.product((False, True), ends):
            joins = _joins(functional.relu(grid.left) if is_rectified else grid.left, entered_BF, rest)
            if joins is not None:
                dense = Dense(network, grid, joins, is_rectified, rest, has_grid).eval()
                if _grows(dense, images):
                    return dense
                break  # however it is read, it stays as large as it is
    return None


def _joins(grid_BChw: torch.Tensor, entered_BF: torch.Tensor, rest: tuple[nn.Module, ...]) -> Join | None:
    """How the grid became what the first layer behind it takes, if it did."""
    if grid_BChw.shape[1] == entered_BF.shape[1] and _equal(grid_BChw.mean((2, 3)), entered_BF):
        return "mean"
    if rest and isinstance(rest[0], nn.Linear) and _equal(grid_BChw.flatten(1), entered_BF):
        return "flat"
    return None


def _grows(dense: Dense, images: torch.Tensor) -> bool:
    """Whether a photo twice as large gives more places; behind an adaptive pool it does not.

    Raises UserError with the network's own words where it does not take such a photo.
    """
    larger = images[:1].repeat(1, 1, 2, 2)
    try:
        return dense.grid(larger).shape[-1] > dense.window[1]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise UserError(
            f"dense views: {type(dense.network).__name__} takes photos of {images.shape[-1]} px and fails with "
            f"{larger.shape[-1]} px ({type(error).__name__}: {error}). {_INSTEAD}"
        ) from error


def _is_grid(x: torch.Tensor) -> bool:
    return x.ndim == 4 and min(x.shape[2:]) > 1


def _chain(calls: list[_Call], wanted_BK: torch.Tensor) -> tuple[nn.Module, ...] | None:
    """The layers of the calls, where each takes what the one before gave (or its ReLU) and the last gives the logits."""
    layers: list[nn.Module] = []
    x = calls[0].entered
    for call in calls:
        if call.left.ndim not in (2, 4) or _is_grid(call.left):
            return None
        if not _equal(x.flatten(1), call.entered.flatten(1)):
            if not _equal(functional.relu(x).flatten(1), call.entered.flatten(1)):
                return None
            layers.append(nn.ReLU())
        if x.ndim == 4 and call.entered.ndim == 2:
            layers.append(nn.Flatten())
        elif x.ndim == 2 and call.entered.ndim == 4:
            layers.append(nn.Unflatten(1, call.entered.shape[1:]))
        if not isinstance(call.layer, nn.Flatten) or call.entered.ndim == 4:
            layers.append(call.layer)
        x = call.left
        if x.ndim == 2 and _equal(x, wanted_BK):
            break
    else:
        if not _equal(x.flatten(1), wanted_BK):
            return None
        layers.append(nn.Flatten())
    is_nothing = (nn.Dropout, nn.Identity)
    while layers and isinstance(layers[0], is_nothing):
        layers.pop(0)
    return tuple(layers) or None


def _equal(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max() + 1e-12))
