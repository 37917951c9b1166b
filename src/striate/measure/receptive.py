"""What part of the image a unit of a layer can see: its theoretical receptive field, maximum over all paths.

Found by following one forward pass on shapes alone, operation by operation: so it holds for any network, whatever its
modules are called. A unit at place i of a grid sees, along one axis, the pixels from first + i * stride to
last + i * stride; a window moves these ends by its reach, and where paths meet, the outermost ends count.

Two conventions. A gate that is computed from the whole image and multiplied in (squeeze-and-excitation) and the
statistics of a normalisation over the grid (group norm) are left out, as everybody does; else every layer behind one
would see everything. Upsampling, attention and whatever mixes places in a way that is not followed here count as
the whole image.

Source: Araujo, Norris, Sim 2019 (computing receptive fields), sections 2 and 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from striate.models import sizes
from striate.taps import taps


@dataclass(frozen=True)
class Field:
    """The receptive field of a layer's units, in pixels of the input; each tuple is (along the height, along the width).

    sizes_px: sides of the window that one unit sees; None where it sees the whole image. strides_px: by how many pixels
    the windows of neighbouring units differ. offsets_px: first pixel of the window of unit (0, 0), negative in the padding.
    """

    sizes_px: tuple[int, int] | None
    strides_px: tuple[int, int] | None
    offsets_px: tuple[int, int] | None

    @property
    def is_whole(self) -> bool:
        """Whether a unit sees the whole image: behind a global mean, a flattened grid, attention."""
        return self.sizes_px is None

    @property
    def size_px(self) -> int | None:
        """The longer side; None for the whole image."""
        return None if self.sizes_px is None else max(self.sizes_px)

    @property
    def stride_px(self) -> int | None:
        """The stride along the longer side (along the height where they are equal)."""
        return None if self.strides_px is None else self.strides_px[self._longer]

    @property
    def offset_px(self) -> int | None:
        """The first pixel along the longer side (along the height where they are equal)."""
        return None if self.offsets_px is None else self.offsets_px[self._longer]

    def window(self, row: int, column: int) -> tuple[int, int, int, int] | None:
        """Pixels that the unit at (row, column) sees: top, left, bottom, right, the last two outside; may leave the image."""
        if self.sizes_px is None or self.strides_px is None or self.offsets_px is None:
            return None
        top, left = self.offsets_px[0] + row * self.strides_px[0], self.offsets_px[1] + column * self.strides_px[1]
        return top, left, top + self.sizes_px[0], left + self.sizes_px[1]

    @property
    def _longer(self) -> int:
        return 0 if self.sizes_px is None or self.sizes_px[0] >= self.sizes_px[1] else 1


def fields(model: nn.Module, size_px: int, channels: int = 3, *, name: str = "") -> dict[str, Field]:
    """The receptive field of every layer that runs in evaluation mode and returns a tensor, in the order of execution.

    A layer that is used more than once has the field of its last use. Auxiliary heads do not run, so they are left out.
    name: of the network, for messages. Raises UserError when it cannot take the input (see `sizes.check_input`).
    """
    images = sizes.blank(model, size_px, channels)
    follow = _Follow(images)
    found: dict[str, Field] = {}

    def look(layer_name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, torch.Tensor):
                found.pop(layer_name, None)  # its place is that of its last use
                found[layer_name] = follow.field_of(output)

        return note

    layers = {layer_name: look(layer_name) for layer_name, _ in model.named_modules() if layer_name}
    with taps(model, layers), sizes.explained(model, name or type(model).__name__, size_px, channels):
        sizes.outline(model, images, look=follow)
    return found


def last_conv(model: nn.Module, found: Mapping[str, Field]) -> str | None:
    """Name of the convolution that sees most without seeing everything; of several with one field the last that runs.

    That is the last one of the trunk: gates, and heads behind the global mean, see the whole image. found: as `fields` gives it.
    None where no convolution sees a part of the image only.
    """
    layers = dict(model.named_modules())
    sides = {
        name: field.size_px
        for name, field in found.items()
        if isinstance(layers[name], nn.modules.conv._ConvNd) and field.size_px is not None
    }
    most = max(sides.values(), default=0)
    return next((name for name in reversed(sides) if sides[name] == most), None)


# ---------------------------------------------------------------- one axis, one tensor


@dataclass(frozen=True)
class _Reach:
    """Along one axis: unit 0 sees the pixels first..last, and the next unit those `stride` further."""

    first: int
    last: int
    stride: int

    def window(self, before: int, behind: int, step: int) -> _Reach:
        """A window from `before` units back to `behind` units on, moved by `step` units each time."""
        return _Reach(self.first - before * self.stride, self.last + behind * self.stride, self.stride * step)

    def joined(self, other: _Reach) -> _Reach | None:
        """What a unit sees that sees both; None where the two do not keep step."""
        if self.stride != other.stride:
            return None
        return _Reach(min(self.first, other.first), max(self.last, other.last), self.stride)


@dataclass(frozen=True)
class _Grid:
    """Where the grid of a tensor lies, and what its units see.

    axes: dimensions that height and width are, counted from the end (-1 the last); the same one twice where the two are
    joined into one. sides: units along height and width.
    """

    axes: tuple[int, int]
    sides: tuple[int, int]
    reach: tuple[_Reach, _Reach]

    def moved(self, axes: Sequence[int] | None) -> _Grid | None:
        """The same units in other dimensions."""
        return None if axes is None else _Grid((axes[0], axes[1]), self.sides, self.reach)


# The whole image, as one value beside a grid. A tensor that is not known at all does not depend on the image.
_WHOLE = "whole"
_Seen = _Grid | str


class _Follow:
    """Follows the operations of a forward pass: called after each one, it knows what each tensor sees."""

    def __init__(self, images: torch.Tensor) -> None:
        pixel = _Reach(0, 0, 1)
        grid = _Grid((-2, -1), (images.shape[-2], images.shape[-1]), (pixel, pixel))
        # Each tensor is kept, so that its number stays its own; without numbers in them they take no memory.
        self.seen: dict[int, tuple[torch.Tensor, _Seen]] = {id(images): (images, grid)}

    def field_of(self, tensor: torch.Tensor) -> Field:
        """What the units of this tensor see."""
        seen = self.of(tensor)
        if not isinstance(seen, _Grid):
            return Field(None, None, None)
        high, wide = seen.reach
        return Field(
            (high.last - high.first + 1, wide.last - wide.first + 1), (high.stride, wide.stride), (high.first, wide.first)
        )

    def of(self, tensor: torch.Tensor) -> _Seen | None:
        """A grid, the whole image, or None for a tensor that does not depend on the image."""
        kept = self.seen.get(id(tensor))
        return None if kept is None else kept[1]

    def __call__(self, operation: Any, args: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        inputs = list(sizes.tensors((args, named)))
        if not any(self.of(tensor) for tensor in inputs):
            return
        outputs = list(sizes.tensors(result))
        for output in outputs:
            self.seen[id(output)] = output, self._result(operation, args, named, inputs, output)

    def _result(
        self, operation: Any, args: tuple[Any, ...], named: dict[str, Any], inputs: list[torch.Tensor], output: torch.Tensor
    ) -> _Seen:
        """What the result of an operation sees. The rules know grids; whatever has none of them sees the whole image."""
        name = operation.overloadpacket.__name__
        if torch.Tag.pointwise in operation.tags or name in _ALONG:
            return self._merged(inputs, output)
        if name in {"cat", "stack"}:
            return self._concatenated(name, args, inputs, output)
        if name in _MATRIX:
            return self._multiplied(inputs)
        grid = self.of(inputs[0])
        rule = _RULES.get(name)
        if rule is None or not isinstance(grid, _Grid):
            return _WHOLE
        return rule(grid, inputs[0], output, _by_name(operation, args, named)) or _WHOLE

    def _merged(self, inputs: list[torch.Tensor], output: torch.Tensor) -> _Seen:
        """Each unit sees what the inputs at its place see. What has one value for all places is a gate, and left out."""
        grids: list[_Grid] = []
        for tensor in inputs:
            seen = self.of(tensor)
            if isinstance(seen, _Grid):
                grids.append(seen)
            elif seen == _WHOLE and tensor.shape == output.shape and math.prod(output.shape[2:]) > 1:
                return _WHOLE
        if not grids:
            return _WHOLE
        # Of a grid of one unit beside a larger one, the larger has the places.
        grids.sort(key=lambda grid: math.prod(grid.sides), reverse=True)
        return _joined([grid for grid in grids if grid.sides == grids[0].sides]) or _WHOLE

    def _concatenated(self, name: str, args: tuple[Any, ...], inputs: list[torch.Tensor], output: torch.Tensor) -> _Seen:
        """Along the channels, or a new dimension; pieces that do not depend on the image (zeros) add nothing."""
        known = [seen for seen in map(self.of, inputs) if seen is not None]
        grids = [seen for seen in known if isinstance(seen, _Grid)]
        axis = (args[1] if len(args) > 1 else 0) % output.dim() - output.dim()
        joined = _joined(grids) if len(grids) == len(known) else None
        if joined is None or (name == "cat" and axis in joined.axes):
            return _WHOLE
        return joined if name == "cat" else _inserted(joined, inputs[0], output, {"dim": axis}) or _WHOLE

    def _multiplied(self, inputs: list[torch.Tensor]) -> _Seen:
        """A linear layer on the channels of each place: rows of a matrix that are places, times one that knows no image."""
        places = inputs[-2]  # addmm has the bias before it
        grid = self.of(places)
        others = [self.of(tensor) for tensor in inputs if tensor is not places]
        if not isinstance(grid, _Grid) or any(others) or -1 in grid.axes:
            return _WHOLE
        return grid


def _joined(grids: list[_Grid]) -> _Grid | None:
    """What a unit sees that sees several grids at its place; None where their layouts differ."""
    first = grids[0]
    high: _Reach | None
    wide: _Reach | None
    high, wide = first.reach
    for other in grids[1:]:
        if other.axes != first.axes or high is None or wide is None:
            return None
        high, wide = high.joined(other.reach[0]), wide.joined(other.reach[1])
    return None if high is None or wide is None else _Grid(first.axes, first.sides, (high, wide))


# ---------------------------------------------------------------- rules: operations that move or widen a grid

_Values = dict[str, Any]
_Rule = Callable[[_Grid, torch.Tensor, torch.Tensor, _Values], _Grid | None]


def _windowed(grid: _Grid, output: torch.Tensor, windows: Iterable[tuple[int, int, int]]) -> _Grid | None:
    """A window slides over the grid. windows: for height and width, how far it goes back and on, and its step."""
    if grid.axes != (-2, -1):
        return None
    high, wide = (reach.window(*window) for reach, window in zip(grid.reach, windows, strict=True))
    return _Grid((-2, -1), (output.shape[-2], output.shape[-1]), (high, wide))


def _convolution(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    if values["transposed"] or tensor.dim() != 4:
        return None
    sides, stride = _pair(values["weight"].shape[2:]), _pair(values["stride"])
    padding, dilation = _pair(values["padding"]), _pair(values["dilation"])
    spans = [dilation[axis] * (sides[axis] - 1) for axis in (0, 1)]
    return _windowed(grid, output, [(padding[axis], spans[axis] - padding[axis], stride[axis]) for axis in (0, 1)])


def _pool(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    sides = _pair(values["kernel_size"])
    stride = _pair(values["stride"] or sides)
    padding, dilation = _pair(values["padding"]), _pair(values.get("dilation", 1))
    spans = [dilation[axis] * (sides[axis] - 1) for axis in (0, 1)]
    return _windowed(grid, output, [(padding[axis], spans[axis] - padding[axis], stride[axis]) for axis in (0, 1)])


def _adaptive_pool(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    """A plain pool where the sides divide; else windows differ in length and step, and the whole image is said."""
    windows = []
    for side, wanted in zip(tensor.shape[-2:], output.shape[-2:], strict=True):
        if side % wanted or (wanted == 1 and side > 1):
            return None
        windows.append((0, side // wanted - 1, side // wanted))
    return _windowed(grid, output, windows)


def _channel_pool(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    """Over channels that lie in a third dimension, as torch writes local response normalisation."""
    return grid if values["kernel_size"][-2:] == [1, 1] and tensor.shape[-2:] == output.shape[-2:] else None


def _padded(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    pad: list[int] = values["pad"]  # before and behind, of the last dimension first
    if grid.axes != (-2, -1):
        return None if any(pad[: -2 * min(grid.axes)]) else grid
    left, top = pad[0], pad[2] if len(pad) > 2 else 0
    return _windowed(grid, output, [(top, -top, 1), (left, -left, 1)])


def _sliced(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    axis = values.get("dim", 0) % tensor.dim() - tensor.dim()
    if axis not in grid.axes:
        return grid
    if grid.axes[0] == grid.axes[1]:
        return None
    start = slice(values.get("start"), None).indices(tensor.shape[axis])[0]
    reach, sides = list(grid.reach), list(grid.sides)
    place = grid.axes.index(axis)
    reach[place] = reach[place].window(-start, start, values.get("step", 1))
    sides[place] = output.shape[axis]
    return _Grid(grid.axes, (sides[0], sides[1]), (reach[0], reach[1]))


def _reduced(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    """A mean, sum or maximum: over channels it changes nothing, over places it sees all of them."""
    asked = values.get("dim")
    asked = range(tensor.dim()) if asked is None or asked == [] else asked if isinstance(asked, Iterable) else [asked]
    gone = {axis % tensor.dim() - tensor.dim() for axis in asked}
    if gone & set(grid.axes):
        return None
    if values.get("keepdim"):
        return grid
    return grid.moved([axis + sum(axis < other for other in gone) for axis in grid.axes])


def _along_other_axes(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    """A softmax or a layer norm: it may mix channels."""
    if "normalized_shape" in values:
        mixed = set(range(-len(values["normalized_shape"]), 0))
    else:
        mixed = {values["dim"] % tensor.dim() - tensor.dim()}
    return None if mixed & set(grid.axes) else grid


def _permuted(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    rank = tensor.dim()
    if "dims" in values:
        order = [axis % rank for axis in values["dims"]]
    else:
        order = list(range(rank))
        one, other = values.get("dim0", 0) % rank, values.get("dim1", 1) % rank
        order[one], order[other] = order[other], order[one]
    return grid.moved([order.index(axis + rank) - rank for axis in grid.axes])


def _inserted(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    new = values["dim"] % output.dim() - output.dim()
    return grid.moved([axis - (axis <= new) for axis in grid.axes])


def _chosen(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    """One entry of a dimension; or all of them, as separate tensors."""
    gone = values.get("dim", 0) % tensor.dim() - tensor.dim()
    return None if gone in grid.axes else grid.moved([axis + (axis < gone) for axis in grid.axes])


def _picked(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    """Entries of one dimension, in any order: channels that a table names."""
    picks = [(axis, pick) for axis, pick in enumerate(values["indices"]) if pick is not None]
    if len(picks) != 1 or picks[0][1].dim() != 1 or picks[0][1].dtype == torch.bool:
        return None
    return None if picks[0][0] - tensor.dim() in grid.axes else grid


def _squeezed(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    if tensor.dim() == output.dim():
        return grid
    asked = values.get("dim")
    axes = [asked] if isinstance(asked, int) else asked or []  # without an axis: all of one unit, perhaps the grid's own
    return _reduced(grid, tensor, output, {"dim": axes}) if len(axes) == 1 else None


def _split(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    return None if values["dim"] % tensor.dim() - tensor.dim() in grid.axes else grid


def _viewed(grid: _Grid, tensor: torch.Tensor, output: torch.Tensor, values: _Values) -> _Grid | None:
    """Another shape for the same numbers: the grid is where as many numbers lie behind it as before."""
    high, wide = grid.axes
    if high != wide and wide != high + 1 and grid.sides != (1, 1):
        return None
    behind = math.prod(tensor.shape[wide:][1:])
    for axis in range(-1, -output.dim() - 1, -1):
        if math.prod(output.shape[axis:][1:]) != behind:
            continue
        if -axis < output.dim() and (output.shape[axis - 1], output.shape[axis]) == grid.sides:
            return grid.moved((axis - 1, axis))
        if output.shape[axis] == math.prod(grid.sides):
            return grid.moved((axis, axis))
    return None


def _pair(values: Any) -> tuple[int, int]:
    """Torch says one number, or a list of one, for the same along both axes."""
    if isinstance(values, int):
        return values, values
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _by_name(operation: Any, args: tuple[Any, ...], named: dict[str, Any]) -> _Values:
    """The arguments of an operation by name, with its own defaults."""
    values: _Values = {}
    for place, argument in enumerate(operation._schema.arguments):
        if place < len(args):
            values[argument.name] = args[place]
        elif argument.name in named:
            values[argument.name] = named[argument.name]
        elif argument.has_default_value():
            values[argument.name] = argument.default_value
    return values


# Operations that torch does not mark as pointwise and that leave each place its own; the statistics of a norm over the
# grid are left out.
_ALONG = {
    "hardswish",
    "hardswish_",
    "mish_",
    "threshold_",
    "_prelu_kernel",
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "native_group_norm",
    "clone",
    "copy_",
    "detach",
    "alias",
    "_to_copy",
    "native_dropout",
    "expand",
}
_MATRIX = {"mm", "addmm"}
_RULES: dict[str, _Rule] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pool,
    "avg_pool2d": _pool,
    "_adaptive_avg_pool2d": _adaptive_pool,
    "adaptive_max_pool2d": _adaptive_pool,
    "avg_pool3d": _channel_pool,
    "constant_pad_nd": _padded,
    "reflection_pad2d": _padded,
    "replication_pad2d": _padded,
    "slice": _sliced,
    "mean": _reduced,
    "sum": _reduced,
    "amax": _reduced,
    "max": _reduced,
    "_softmax": _along_other_axes,
    "native_layer_norm": _along_other_axes,
    "permute": _permuted,
    "transpose": _permuted,
    "t": _permuted,
    "unsqueeze": _inserted,
    "squeeze": _squeezed,
    "index": _picked,
    "select": _chosen,
    "unbind": _chosen,
    "glu": _split,
    "split": _split,
    "split_with_sizes": _split,
    "view": _viewed,
    "_unsafe_view": _viewed,
}
