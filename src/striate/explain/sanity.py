"""How far to trust a map: does the network need what it marks, and does it say anything of what was learnt?

Two checks of each image, both as numbers and as one sentence. *Deletion*: pixels are removed in the order of the map, the
brightest first; if the network used them, the probability of the class falls faster than without the map's knowledge. *Random
weights*: the same method on copies whose weights say nothing; a map that stays the same shows what the photo, the borders and
the architecture make of it, and not what was learnt. A map that becomes another one has passed a check, and is no better for it.

The copies are made once, from the network and from images of noise (`reference`), and serve any number of photos: what is found
of a photo is a function of it alone, whatever is looked at beside it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional

from striate import machine
from striate.errors import UserError, expect
from striate.explain import maps, passes
from striate.explain.passes import LogitsOf
from striate.taps import layer_names, taps
from striate.view import View

FEW_CELLS: Final = 16  # of a map: of fewer, one in twenty pairs of independent orders has a rank correlation beyond 0.5
_TOLD: Final = 0.2  # share of the pixels that the sentence speaks of
# Half of the variance of the ranks is common to both maps (0.7 squared), and chance does not get here: see `Sanity`.
_ALIKE: Final = 0.7
_UNLIKE: Final = 0.4  # up to here it may be chance, with finer maps too
_ROUNDING: Final = 1e-5  # of the largest value: a map that varies less has one value everywhere
_ONE_COPY: Final = frozenset({"smoothgrad", "integrated-gradients"})  # dozens of passes, and copies that agree within 0.03
_COPIES: Final = 3
_NORMS = (nn.modules.batchnorm._BatchNorm,)
# Of the reference images: the mean and deviation of photos in 0..1, and how much of a level all colours share.
_LEVEL, _CONTRAST, _GREY = 0.45, 0.25, 0.9


@dataclass(frozen=True)
class Deletion:
    """What the class of one image keeps as pixels are removed.

    shares: of the pixels removed, from 0 to 1. probabilities: of the class then, in the order of the map. shuffled: the same for
    the map with its cells shuffled: places at random, of the same grain. area, shuffled_area: under each curve, 0..1; a small
    area beside a large one is a map that the network agrees with. marked: the share of the pixels where the map is above zero.
    has_order: whether the map has more than one value; without, all pixels go at random and the curves say nothing of it.
    """

    shares: tuple[float, ...]
    probabilities: tuple[float, ...]
    shuffled: tuple[float, ...]
    area: float
    shuffled_area: float
    marked: float
    has_order: bool

    def sentence(self) -> str:
        """What removing the brightest fifth does, without a full stop."""
        place = _told(self.shares)
        share = _percent(self.shares[place])
        moved = (
            f"moves the probability from {_percent(self.probabilities[0])} to {_percent(self.probabilities[place])} "
            f"(places at random: to {_percent(self.shuffled[place])})"
        )
        if not self.has_order:
            return (
                "The map has one value everywhere: no place stands out"
                if self.marked
                else "The map is nowhere above zero and the same everywhere: no place speaks for the class"
            )
        if not self.marked:
            return (
                f"The map is nowhere above zero: no place speaks for the class. Removing the {share} of the pixels that speak "
                f"least against it {moved}"
            )
        if self.marked < self.shares[place]:
            share += f" of the pixels (only {_percent(self.marked)} are above zero)"
            return f"Removing the brightest {share} {moved}"
        return f"Removing the brightest {share} of the pixels {moved}"


@dataclass(frozen=True)
class Sanity:
    """Both checks of one image, whose map has `grid` cells, (h, w).

    correlations: rank correlation (-1..1) of the map with that of each copy with random weights; None where one of the two has
    one value everywhere, and so no order. Empty where the map has fewer than `FEW_CELLS` cells, and nothing was compared.

    One copy is one draw. For a ResNet-18 of 112 px trained to 96 % on the built-in set, the numbers of one photo had over eight
    copies a standard deviation of 0.25 (Grad-CAM, 4 x 4 cells), 0.13 to 0.15 (7 x 7, 14 x 14), 0.19 (occlusion), 0.07
    (gradient) and 0.03 or less (smoothgrad, integrated gradients), hence the mean of three copies for all but the last two.

    What the sentence calls alike goes by what such maps share by chance: the number of a map and a copy's map of *another* photo
    (48 photos of that set, four others for each). Of these means 95 % lie within 0.4 of zero for cam, Grad-CAM and gradient on
    all these grids, and none beyond 0.65: up to 0.4 the map is another one, from 0.7 on, where half of the variance of the ranks
    is common, it is much the same. Where copies mark no place, fewer are left, and of few cells more may be chance: there the
    first limit is twice the deviation that independent orders of so many cells have, if that is larger. Grad-CAM++ is apart: with
    another photo 5 % of its means are beyond 0.5 (7 x 7) or 0.8 (4 x 4, most of them negative), so much do borders look alike in
    all its maps. That was not learnt either, and the sentence does not tell it from the photo's part.
    Source: Adebayo et al. 2018, sections 3 and 4: a map that stays the same when weights are random does not show what was
    learnt. The limits are ours.
    """

    deletion: Deletion
    correlations: tuple[float | None, ...]
    grid: tuple[int, int]

    @property
    def known(self) -> tuple[float, ...]:
        """The correlations that are numbers."""
        return tuple(one for one in self.correlations if one is not None)

    @property
    def correlation(self) -> float | None:
        """Their mean; None where there is none."""
        return sum(self.known) / len(self.known) if self.known else None

    def sentence(self) -> str:
        """Both checks in words."""
        told = self.deletion.sentence()
        return f"{told}; {self._comparison()}." if self.deletion.has_order else f"{told}."

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain JSON values, and the sentence."""
        return {
            "deletion": asdict(self.deletion),
            "correlation": self.correlation,
            "correlations": list(self.correlations),
            "sentence": self.sentence(),
        }

    def _comparison(self) -> str:
        high, wide = self.grid
        if not is_comparable(self.grid):
            return f"its {high} x {wide} cells are too few to compare it with a map of random weights"
        if self.correlation is None:
            return f"with random weights the map marks no place ({_copies(len(self.correlations))})"
        low, mean, most = min(self.known), self.correlation, max(self.known)
        # A single number, where two copies of three mark no place, is one draw, and says less.
        alike = math.inf if len(self.known) < min(2, len(self.correlations)) else _ALIKE
        if mean >= alike:
            told = "the map is much the same {}, so it shows little of what was learnt"
        elif mean <= -alike:
            told = "the map is turned over {}: its dark places are the bright ones"
        elif min(map(abs, self.known)) >= alike:  # of both signs, or the mean would be as large
            told = "the map is now much the same, now turned over {}, so learning shows at most in which end is bright"
        elif abs(mean) > self._by_chance():
            told = "the map is {} {}".format("partly the same" if mean > 0 else "partly turned over", "{}")
        else:
            told = "the map is another one {}"
        return "with random weights " + told.format(f"(rank correlation {self._numbers(low, mean, most)})")

    def _numbers(self, low: float, mean: float, most: float) -> str:
        """The mean, the range, and of how many copies."""
        if len(self.correlations) == 1:
            return f"{_two(mean)}, one copy"
        if len(self.known) == 1:
            of = f"{_two(mean)}, one of {_copies(len(self.correlations))}"
        else:
            count = f"{len(self.known)} of " if len(self.known) < len(self.correlations) else ""
            of = f"{_two(mean)}, from {_two(low)} to {_two(most)} over {count}{_copies(len(self.correlations))}"
        return of if len(self.known) == len(self.correlations) else f"{of}; the rest mark no place"

    def _by_chance(self) -> float:
        """The mean rank correlation that chance alone reaches one time in twenty."""
        cells = self.grid[0] * self.grid[1]
        return max(_UNLIKE, 2 / math.sqrt((cells - 1) * len(self.known)))


def check(
    model: nn.Module,
    images: torch.Tensor,
    labels_B: torch.Tensor,
    maps_Bhw: torch.Tensor,
    method: str,
    layer: str | None,
    logits_of: LogitsOf,
    copies: Sequence[nn.Module],
    steps: int = 10,
    shuffles: int = 4,
    seed: int = 0,
) -> tuple[Sanity, ...]:
    """Both checks for each of the images whose maps are given. Arguments and errors as `deletion` and `maps.maps`.

    layer: as it came back with the maps; "" and None both leave it out. copies: with random weights, from `random_copies`, one or
    more; none are needed for maps of fewer than `FEW_CELLS` cells. Takes 23 passes with each image, and one more map for each
    copy.
    """
    grid = (int(maps_Bhw.shape[1]), int(maps_Bhw.shape[2]))
    if is_comparable(grid) and not copies:
        raise UserError("sanity: expected one copy with random weights or more, found none. Make them with random_copies.")
    fallen = deletion(model, images, labels_B, maps_Bhw, logits_of, steps, shuffles, seed=seed)
    compared = copies if is_comparable(grid) else ()
    if any(one.has_order for one in fallen):
        others = [_array(maps.maps(one, images, labels_B, method, layer or None, logits_of)[0]) for one in compared]
    else:
        others = [np.zeros(maps_Bhw.shape) for _ in compared]  # with nothing to compare they need not be made
    return tuple(
        Sanity(one, tuple(_correlation(own_hw, other[place]) for other in others), grid)
        for place, (one, own_hw) in enumerate(zip(fallen, _array(maps_Bhw), strict=True))
    )


def deletion(
    model: nn.Module,
    images: torch.Tensor,
    labels_B: torch.Tensor,
    maps_Bhw: torch.Tensor,
    logits_of: LogitsOf,
    steps: int = 10,
    shuffles: int = 4,
    baseline: float | torch.Tensor = 0.0,
    seed: int = 0,
) -> tuple[Deletion, ...]:
    """The deletion curves of each image: the probability of its class as the brightest pixels of its map are removed first.

    images: [B, C, S, S] float32, normalised. labels_B: [B] int64 in 0..K-1. maps_Bhw: larger is more evidence; on a grid or on
    the pixels. steps: equal steps from no pixel to all. shuffles: how many orders at random the mean at the told share is of;
    at every other share there is one, another one each time: that is a third of the passes of three whole curves, and the area
    is as exact (measured as for `Sanity`: a standard deviation of 0.06, of three curves 0.07; of one whole curve 0.13, for
    its errors go together). The map's cells are shuffled, so that both curves remove regions of the same size. baseline: what
    takes a pixel's place, a number or one for each channel [C], normalised; 0 is the mean colour. Equal pixels go in an order at
    random. Orders are a function of the seed.
    Raises UserError for shapes that do not fit, and as `maps.maps`.
    Source: Petsiuk et al. 2018, section 3.3; the curve at random is ours.
    """
    passes.check(images, labels_B[:, None])
    expect(maps_Bhw, "B h w", "maps")
    count, _, _, side = images.shape
    if len(maps_Bhw) != count:
        raise UserError(f"maps: expected one for each of {count} images, found {len(maps_Bhw)}.")
    if steps < 1 or shuffles < 1:
        raise UserError(f"deletion: expected one step and one shuffle or more, found {steps} and {shuffles}.")
    cover = torch.as_tensor(baseline, dtype=images.dtype, device=images.device).reshape(-1, 1, 1)
    pixels, cells = side * side, maps_Bhw[0].numel()
    removed = [round(step * pixels / steps) for step in range(steps + 1)]
    shares = tuple(number / pixels for number in removed)
    draws = [shuffles if step == _told(shares) else 1 for step in range(steps + 1)]

    def order(name: str, step: int, size: int) -> torch.Tensor:
        return torch.from_numpy(machine.permutation(seed, f"deletion {name}", step, size)).to(images.device)

    def enlarged(some_Bhw: torch.Tensor) -> torch.Tensor:
        found_B1SS = functional.interpolate(some_Bhw[:, None].float(), (side, side), mode="bilinear", align_corners=False)
        return found_B1SS.flatten(1)

    def ranks(value_BP: torch.Tensor, tie: torch.Tensor) -> torch.Tensor:
        """[B, 1, S, S], from 0 for the first to go. A stable sort of pixels in an order at random breaks ties by that order."""
        place_BP = tie[value_BP[:, tie].argsort(dim=1, descending=True, stable=True)]
        rank_BP = torch.empty_like(place_BP).scatter_(1, place_BP, torch.arange(pixels, device=images.device).expand(count, -1))
        return rank_BP.reshape(count, 1, side, side)

    def without(rank_B1SS: torch.Tensor, number: int) -> NDArray[np.float64]:
        kept = torch.where(rank_B1SS < number, cover, images)
        return _array(passes.scores(model, kept, labels_B, logits_of, True))

    def shuffled(step: int, draw: int) -> NDArray[np.float64]:
        value_BP = enlarged(maps_Bhw.flatten(1)[:, order(f"cells {draw}", step, cells)].reshape(maps_Bhw.shape))
        return without(ranks(value_BP, order(f"ties {draw}", step, pixels)), removed[step])

    with passes.still(model, images), torch.no_grad():
        maps_Bhw = maps_Bhw.to(images.device)
        value_BP = enlarged(maps_Bhw)
        marked_B = (value_BP > 0).double().mean(1).tolist()
        rank_B1SS = ranks(value_BP, order("ties", 0, pixels))
        own_BT = np.stack([without(rank_B1SS, number) for number in removed], axis=1)
        others_BT = own_BT.copy()  # with nothing removed, or all, no order matters
        for step in range(1, steps):
            others_BT[:, step] = np.mean([shuffled(step, draw) for draw in range(draws[step])], axis=0)
    return tuple(
        Deletion(
            shares,
            tuple(own_T.tolist()),
            tuple(other_T.tolist()),
            float(np.trapezoid(own_T, shares)),
            float(np.trapezoid(other_T, shares)),
            marked,
            _has_order(map_hw),
        )
        for own_T, other_T, marked, map_hw in zip(own_BT, others_BT, marked_B, _array(maps_Bhw), strict=True)
    )


# ---------------------------------------------------------------- random weights


def reference(view: View, count: int = 16, seed: int = 0) -> torch.Tensor:
    """Images that show nothing, as the view normalises them: what batch norms of random weights are measured on.

    Returns [count, C, S, S] float32, a function of the view and the seed. Noise of every scale from the whole image to the pixel,
    the same amount of each, in levels and colours that photos have. White noise would not do: its fine grain averages out from
    layer to layer, and photos lie far beside its statistics (measured as for `Sanity`: means that are wrong by 0.5 to
    1.0 standard deviations in all layers, against 0.2 to 0.5).
    """
    numbers = torch.Generator().manual_seed(machine.stream_seed(seed, "reference images"))
    side, size_px = 1, view.size_px
    noise = torch.zeros(count, 3, size_px, size_px)
    while side <= size_px:
        grey, colour = (torch.randn((count, channels, side, side), generator=numbers) for channels in (1, 3))
        level = math.sqrt(_GREY) * grey + math.sqrt(1 - _GREY) * colour
        noise += functional.interpolate(level, (size_px, size_px), mode="bilinear", align_corners=False)
        side *= 2
    pixels = (255 * (_LEVEL + _CONTRAST * noise / noise.std())).round().clamp(0, 255).to(torch.uint8)
    return view.normalise(pixels, torch.float32)


def is_comparable(grid: tuple[int, int]) -> bool:
    """Whether a map of so many cells, (h, w), has enough of them for a rank correlation to say something."""
    return grid[0] * grid[1] >= FEW_CELLS


def copies_for(method: str) -> int:
    """How many copies make the comparison of this method's maps steady: see `Sanity`."""
    return 1 if method in _ONE_COPY else _COPIES


def random_copies(model: nn.Module, images: torch.Tensor, count: int = _COPIES, seed: int = 0) -> tuple[nn.Module, ...]:
    """Copies as `randomised` makes them, each with a seed of its own: make them once, for all photos of a network.

    Each takes as much memory as the model.
    """
    return tuple(randomised(model, images, machine.stream_seed(seed, "random copies", number)) for number in range(count))


def randomised(model: nn.Module, images: torch.Tensor, seed: int = 0) -> nn.Module:
    """A copy of the model, in evaluation mode, whose weights say nothing: the entries of each tensor are shuffled.

    So each tensor keeps its mean and deviation, whatever the layer, and no initialisation has to be guessed. Batch norms get the
    statistics of `images` under these weights, from the first layer to the last: with those of the training the values of a deep
    network would vanish or overflow.
    images: [N, C, S, S] on the model's device, the same for all photos (`reference`): were they the photos that are looked at,
    a map of the copy would hang on what stands beside its photo.
    Source: Adebayo et al. 2018, section 3.1 (all layers), who draw the weights anew.
    """
    other = copy.deepcopy(model).eval()
    numbers = torch.Generator().manual_seed(machine.stream_seed(seed, "random weights"))
    with torch.inference_mode(False), torch.no_grad():
        for weight in other.parameters():
            order = torch.randperm(weight.numel(), generator=numbers).to(weight.device)
            weight.copy_(weight.flatten()[order].reshape(weight.shape))

        def measure(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            assert isinstance(layer, _NORMS)
            if layer.running_mean is not None and layer.running_var is not None:
                var, mean = torch.var_mean(inputs[0], [0, *range(2, inputs[0].ndim)], correction=0)
                layer.running_mean.copy_(mean)
                layer.running_var.copy_(var)

        with taps(other, {}, before={name: measure for name in layer_names(other, _NORMS)}):
            other(images.clone())
    return other


def rank_correlation(left: ArrayLike, right: ArrayLike) -> float | None:
    """Spearman's rank correlation of two arrays of one shape, -1..1; equal values share their mean rank.

    None where one of the arrays holds one value only, for then it has no order.
    """
    ranks = [_ranks(np.asarray(one, np.float64).ravel()) for one in (left, right)]
    if len(ranks[0]) != len(ranks[1]):
        raise UserError(f"rank correlation: expected two arrays of one size, found {len(ranks[0])} and {len(ranks[1])} values.")
    apart = [one - one.mean() for one in ranks]
    size = float(np.sqrt((apart[0] ** 2).sum() * (apart[1] ** 2).sum()))
    return float((apart[0] * apart[1]).sum() / size) if size else None


def _correlation(left_hw: NDArray[np.float64], right_hw: NDArray[np.float64]) -> float | None:
    """`rank_correlation`, and None for differences that are rounding."""
    return rank_correlation(left_hw, right_hw) if _has_order(left_hw) and _has_order(right_hw) else None


def _has_order(map_hw: NDArray[np.float64]) -> bool:
    """Whether a map has more than one value, beyond rounding."""
    return bool(np.ptp(map_hw) > _ROUNDING * np.abs(map_hw).max())


def _ranks(values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0; equal values get the mean of their ranks."""
    _, group_N, count_G = np.unique(values_N, return_inverse=True, return_counts=True)
    ranks_N: NDArray[np.float64] = (np.cumsum(count_G) - (count_G + 1) / 2)[group_N]
    return ranks_N


def _array(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()


def _told(shares: Sequence[float]) -> int:
    """The step that the sentence speaks of."""
    return int(np.argmin(np.abs(np.array(shares) - _TOLD)))


def _copies(count: int) -> str:
    return f"{count} copies" if count > 1 else "one copy"


def _two(correlation: float) -> str:
    """With two digits, and no sign before 0.00."""
    return f"{round(correlation, 2) + 0.0:.2f}"


def _percent(share: float) -> str:
    if 0 < share < 0.005:
        return "under 1 %"
    return "over 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"
