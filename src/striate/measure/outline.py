"""A network as its drawing needs it: blocks, branches, shortcuts and repetitions, found by following one forward pass.

The pass runs on shapes alone, in training mode where that can be, because auxiliary heads run only there. It notes which
layer makes and which layer takes each tensor, so branches and shortcuts are found in any network, whatever its modules are
called. Then what a reader would not draw is folded: normalisation and activation go into the box of the layer that they
follow, modules that only chain others are dissolved, and neighbours that look alike become one with a count.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from striate.models import sizes
from striate.taps import taps

Kind = Literal["convolution", "linear", "pool", "gate", "join", "small", "other"]


@dataclass(frozen=True)
class Layer:
    """One box of the drawing.

    names: of the modules in it, in the order they run; empty for a plain operation. called: those of them that gave it its words,
    one for each of `count` neighbours that look the same. words: what it does, as "3×3 conv, 64, /2".
    before, after: small things that run with it, as "BN" and "ReLU". shape: of one image's output, without the batch.
    last: number of its last step, by which heads find where they begin.
    """

    names: tuple[str, ...]
    called: tuple[str, ...]
    kind: Kind
    words: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    shape: tuple[int, ...]
    last: int
    count: int = 1


@dataclass(frozen=True)
class Fork:
    """Branches that begin at one place and end in the item behind the fork; `shortcut`: that place is handed on as it is, too.

    is_tangled: the one branch has further connections, which are neither a chain nor branches.
    """

    branches: tuple[tuple[Item, ...], ...]
    shortcut: bool
    is_tangled: bool = False


@dataclass(frozen=True)
class Block:
    """A module with an inner structure; of several that look the same the first, their names and their count."""

    names: tuple[str, ...]
    kind: str
    items: tuple[Item, ...]
    shape: tuple[int, ...]
    last: int

    @property
    def count(self) -> int:
        """How many neighbours look the same."""
        return len(self.names)


Item = Layer | Fork | Block


@dataclass(frozen=True)
class Head:
    """An output beside the main one, which training needs; begins behind the trunk's item `behind`."""

    behind: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Outline:
    """The trunk from the images to the logits, and the heads at its side. input: shape of one image, without the batch."""

    input: tuple[int, ...]
    items: tuple[Item, ...]
    heads: tuple[Head, ...]


def outline(model: nn.Module, name: str, size_px: int, channels: int = 3) -> Outline:
    """What a network looks like from the outside in, for square images of `size_px`.

    Raises UserError when the network cannot take the input (see `sizes.check_input`); `name` is for the message.
    """
    training = sizes.takes(model, size_px, channels, training=True)
    if not training:
        sizes.check_input(model, name, size_px, channels)
    images = sizes.blank(model, size_px, channels, 2)  # batch norm in training wants two numbers
    trace = _Trace(images)
    layers = dict(model.named_modules())
    before = {place: functools.partial(trace.enter, place) for place in layers}
    with taps(model, {place: trace.leave for place in layers}, before):
        output = sizes.outline(model, images, training=training, look=trace)
    outputs = _outputs(output)
    known = [end for end in map(trace.maker, outputs) if end is not None]
    alive = trace.leading_to(known[:1])
    trunk = _built(trace.root.children, alive, trace)
    if trunk and isinstance(trunk[-1], Layer):  # what is only looked at in another shape on the way out is not drawn
        trunk = (*trunk[:-1], replace(trunk[-1], shape=tuple(outputs[0].shape[1:])))
    heads = sorted(_heads(known[1:], alive, trunk, trace), key=lambda head: head.behind)
    return Outline((channels, size_px, size_px), trunk, tuple(heads))


def boxes(items: Iterable[Item]) -> Iterator[Layer | Block]:
    """Every layer and block among items and inside them, in order; a block comes before what it holds."""
    for item in items:
        if isinstance(item, Fork):
            for branch in item.branches:
                yield from boxes(branch)
        else:
            yield item
            if isinstance(item, Block):
                yield from boxes(item.items)


def _outputs(output: Any) -> list[torch.Tensor]:
    """The tensors that a network returns, the main head's logits first."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, dict):
        main = [output["logits"]] if "logits" in output else []
        return _outputs([*main, *(value for key, value in output.items() if key != "logits")])
    if hasattr(output, "_fields") and "logits" in output._fields:
        return _outputs([output.logits, *(getattr(output, name) for name in output._fields if name != "logits")])
    if isinstance(output, (tuple, list)):
        return [tensor for value in output for tensor in _outputs(value)]
    return []


# ---------------------------------------------------------------- following the forward pass


@dataclass(eq=False)
class _Step:
    """One layer without layers of its own, or one operation between layers, that made new numbers."""

    number: int
    names: tuple[str, ...]
    kind: Kind
    words: str
    notes: tuple[str, ...]
    shape: tuple[int, ...]
    takes: set[int]
    calls: tuple[_Call, ...]  # the modules that it runs in, the network first


@dataclass(eq=False)
class _Call:
    """One run of a module that holds others."""

    name: str
    layer: nn.Module
    children: list[_Call | _Step] = field(default_factory=list)


@dataclass(eq=False)
class _Leaf:
    """A layer without layers of its own, while it runs."""

    name: str
    layer: nn.Module
    takes: set[int] = field(default_factory=set)
    made: list[torch.Tensor] = field(default_factory=list)
    operations: list[tuple[str, tuple[Any, ...], torch.Tensor]] = field(default_factory=list)
    is_pointwise: bool = True


class _Trace:
    """Told of every module that begins and ends and of every operation; knows which step made which numbers.

    Numbers are known by their storage: views and in-place changes share it with what they come from.
    """

    def __init__(self, images: torch.Tensor) -> None:
        self.root = _Call("", nn.Identity())
        self.stack: list[_Call] = []
        self.leaf: _Leaf | None = None
        self.depth_in_leaf = 0
        self.steps: list[_Step] = []
        self.makers: dict[int, int] = {}  # of a storage: number of a step, -1 for the images
        self.kept: list[torch.Tensor] = []  # so that the number of a storage stays its own; meta tensors take no memory
        self._make(images, -1)

    def maker(self, tensor: torch.Tensor) -> int | None:
        """Number of the step that made these numbers; None where they do not come from the images."""
        return self.makers.get(tensor.untyped_storage()._cdata)

    def _make(self, tensor: torch.Tensor, number: int) -> None:
        self.kept.append(tensor)
        self.makers[tensor.untyped_storage()._cdata] = number

    def leading_to(self, ends: Iterable[int]) -> set[int]:
        """The steps that these steps depend on, and they themselves."""
        found: set[int] = set()
        waiting = list(ends)
        while waiting:
            number = waiting.pop()
            if number >= 0 and number not in found:
                found.add(number)
                waiting += self.steps[number].takes
        return found

    # ---- modules

    def enter(self, name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.leaf is not None:
            self.depth_in_leaf += 1
        elif name and _is_leaf(layer):
            self.leaf = _Leaf(name, layer)
        else:
            call = _Call(name, layer)
            (self.stack[-1].children.append(call) if self.stack else None)
            self.stack.append(call)
            self.root = self.stack[0]

    def leave(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        leaf = self.leaf
        if leaf is None:
            if len(self.stack) > 1:
                self.stack.pop()
        elif self.depth_in_leaf:
            self.depth_in_leaf -= 1
        else:
            self.leaf = None
            self._end(leaf, next(sizes.tensors(output), None))

    def _end(self, leaf: _Leaf, output: torch.Tensor | None) -> None:
        """A leaf has run: one step, or nothing where it only handed on what it got."""
        if leaf.made:
            shape = tuple((leaf.made[-1] if output is None else output).shape[1:])
            kind, words, notes = _described(leaf, shape)
            self._step((leaf.name,), kind, words, notes, shape, leaf.takes)

    def _step(
        self, names: tuple[str, ...], kind: Kind, words: str, notes: tuple[str, ...], shape: tuple[int, ...], takes: set[int]
    ) -> None:
        step = _Step(len(self.steps), names, kind, words, notes, shape, takes, tuple(self.stack))
        self.steps.append(step)
        self.stack[-1].children.append(step)

    # ---- operations

    def __call__(self, operation: Any, args: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        given = list(sizes.tensors((args, named)))
        takes = {number for tensor in given if (number := self.maker(tensor)) is not None}
        made = list(sizes.tensors(result))
        if not takes or not made:
            return
        before = {tensor.untyped_storage()._cdata for tensor in given}
        is_view = all(tensor.untyped_storage()._cdata in before for tensor in made) and not operation._schema.is_mutable
        if is_view:
            return
        name = operation.overloadpacket.__name__
        leaf = self.leaf
        if leaf is not None:
            leaf.takes |= takes - {len(self.steps)}
            leaf.made += made
            leaf.operations.append((name, args, made[0]))
            leaf.is_pointwise &= torch.Tag.pointwise in operation.tags
            for tensor in made:
                self._make(tensor, len(self.steps))  # the step that the leaf will be
            return
        found = _operation(name, args, made[0], len(takes))
        if found is not None and self.stack:
            kind, words = found
            self._step((), kind, words, (), tuple(made[0].shape[1:]), takes)
            takes = {len(self.steps) - 1}
        for tensor in made:
            self._make(tensor, max(takes))


def _is_leaf(layer: nn.Module) -> bool:
    """A layer that is drawn as one box: without layers of its own, or one of torch's that is more than a container."""
    home = type(layer).__module__
    return not any(True for _ in layer.children()) or (
        home.startswith("torch.nn.modules.") and home != "torch.nn.modules.container"
    )


# ---------------------------------------------------------------- words

_SMALL = {
    "native_batch_norm": "BN",
    "_native_batch_norm_legit": "BN",
    "cudnn_batch_norm": "BN",
    "native_layer_norm": "LN",
    "native_group_norm": "GN",
    "native_dropout": "dropout",
    "relu": "ReLU",
    "relu_": "ReLU",
    "hardtanh": "ReLU6",
    "hardtanh_": "ReLU6",
    "gelu": "GELU",
    "silu": "SiLU",
    "silu_": "SiLU",
    "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid",
    "tanh": "tanh",
    "leaky_relu": "leaky ReLU",
    "leaky_relu_": "leaky ReLU",
    "elu": "ELU",
    "hardswish": "hard swish",
    "hardswish_": "hard swish",
    "hardsigmoid": "hard sigmoid",
    "hardsigmoid_": "hard sigmoid",
    "_softmax": "softmax",
}
_JOINS = {"add": "+", "add_": "+", "mul": "×", "mul_": "×", "cat": "concat", "stack": "concat"}
_NORMS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.modules.batchnorm._BatchNorm, "BN"),
    (nn.LayerNorm, "LN"),
    (nn.GroupNorm, "GN"),
    (nn.LocalResponseNorm, "LRN"),
)


def _operation(name: str, args: tuple[Any, ...], result: torch.Tensor, inputs: int) -> tuple[Kind, str] | None:
    """Kind and words of an operation; None for one that a reader would not draw. inputs: how many tensors meet in it."""
    if name.startswith("_scaled_dot_product"):
        return "other", "attention"
    if inputs > 1 or name == "cat":  # also of one: the first of a dense block's layers is like its others
        return "join", _JOINS.get(name, name.strip("_"))
    if name in _SMALL:
        return "small", _SMALL[name]
    if name == "max_pool2d_with_indices":
        return "pool", _window("max pool", args[1], args[2] if len(args) > 2 and args[2] else args[1])
    if name == "avg_pool2d":
        return "pool", _window("mean pool", args[1], args[2] if len(args) > 2 and args[2] else args[1])
    if name in {"_adaptive_avg_pool2d", "adaptive_max_pool2d"}:
        return "pool", ("mean" if "avg" in name else "maximum") + f" to {result.shape[-2]}×{result.shape[-1]}"
    if name in {"mean", "amax"} and isinstance(args[0], torch.Tensor) and args[0].dim() == 4 and len(args) > 1:
        over = {axis % 4 for axis in args[1]}
        return ("pool", "global " + ("mean" if name == "mean" else "maximum")) if len(over) == 2 else None
    if name == "convolution" and args[1].dim() == 4:
        return "convolution", _convolution(args[1].shape[2:], args[1].shape[0], args[3])
    if name in {"addmm", "mm"}:
        return "linear", f"linear, {result.shape[-1]:,}"
    return None


def _described(leaf: _Leaf, shape: tuple[int, ...]) -> tuple[Kind, str, tuple[str, ...]]:
    """Kind and words of a layer, and what is to be noted beside them."""
    layer = leaf.layer
    kind = type(layer).__name__
    if isinstance(layer, nn.Conv2d):
        groups = layer.groups
        is_depthwise = groups == layer.in_channels and groups > 1
        notes = ("depthwise",) if is_depthwise else (f"{groups} groups",) if groups > 1 else ()
        return "convolution", _convolution(layer.kernel_size, layer.out_channels, layer.stride), notes
    if isinstance(layer, nn.Linear):
        return "linear", f"linear, {layer.out_features:,}", ()
    for norm, short in _NORMS:
        if isinstance(layer, norm):
            return "small", short, ()
    if isinstance(layer, nn.modules.dropout._DropoutNd):
        return "small", f"dropout {layer.p:g}", ()
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return "pool", "global mean" if shape[-2:] == (1, 1) else f"mean to {shape[-2]}×{shape[-1]}", ()
    said = [found for name, args, made in leaf.operations if (found := _operation(name, args, made, 1)) is not None]
    if kind.startswith(("LayerNorm", "BatchNorm", "GroupNorm")):
        return "small", {"L": "LN", "B": "BN", "G": "GN"}[kind[0]], ()
    if len(said) == 1:
        return said[0][0], said[0][1], ()
    return ("small" if leaf.is_pointwise else "other"), kind, ()


def _convolution(sides: Sequence[int], channels: int, stride: int | Sequence[int]) -> str:
    return _window(f"{_sides(sides)} conv, {channels:,}", (), stride)


def _window(words: str, sides: int | Sequence[int], stride: int | Sequence[int]) -> str:
    """A window in words, with its stride where it moves by more than one."""
    steps = [stride] if isinstance(stride, int) else list(stride)
    shown = " " + _sides(sides) if sides else ""
    moved = "" if set(steps) == {1} else f", /{steps[0]}" if len(set(steps)) == 1 else f", /{_sides(steps)}"
    return words + shown + moved


def _sides(sides: int | Sequence[int]) -> str:
    pair = [sides] if isinstance(sides, int) else list(sides)
    return "×".join(map(str, pair * 2 if len(pair) == 1 else pair))


# ---------------------------------------------------------------- from steps to boxes

_Unit = _Call | _Step


def _built(units: Sequence[_Unit], members: set[int], trace: _Trace) -> tuple[Item, ...]:
    """The items of some modules and operations that run one after another, those steps of them that are `members`."""
    inside = [(unit, [step.number for step in _steps(unit) if step.number in members]) for unit in units]
    inside = [(unit, numbers) for unit, numbers in inside if numbers]
    place_of = {number: place for place, (_, numbers) in enumerate(inside) for number in numbers}
    count = len(inside)
    edges = {
        (place_of.get(source, -1), place)
        for number, place in place_of.items()
        for source in trace.steps[number].takes
        if place_of.get(source, -1) != place
    }
    taken = {source for step in trace.steps if step.number in members and step.number not in place_of for source in step.takes}
    used_inside = {source for number in place_of for source in trace.steps[number].takes}
    edges |= {(place, count) for number, place in place_of.items() if number in taken or number not in used_inside}
    pieces = [_piece(unit, members, trace) for unit, _ in inside]
    return _arranged(*_with_repeats(inside, pieces, edges))


def _steps(unit: _Unit) -> Iterator[_Step]:
    if isinstance(unit, _Step):
        yield unit
    else:
        for child in unit.children:
            yield from _steps(child)


def _piece(unit: _Unit, members: set[int], trace: _Trace) -> tuple[Item, ...]:
    if isinstance(unit, _Step):
        return (Layer(unit.names, unit.names, unit.kind, unit.words, (), unit.notes, unit.shape, unit.number),)
    items = _built(unit.children, members, trace)
    if not any(isinstance(item, Fork) for item in items) or sum(isinstance(item, Block) for item in items) > 1:
        return items  # a chain, or a whole network in a wrapper: nothing that a frame would say
    return (_framed(unit, items),)


def _framed(unit: _Call, items: tuple[Item, ...]) -> Block:
    last = max(boxes(items), key=lambda box: box.last)
    return Block((unit.name,), type(unit.layer).__name__, _with_gates(items), last.shape, last.last)


def _with_gates(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Gates within a block as one box each; a global mean and two layers are a squeeze-and-excitation, which says its r."""
    found: list[Item] = []
    for item in items:
        if isinstance(item, Fork):
            item = replace(item, branches=tuple(map(_with_gates, item.branches)))
        elif isinstance(item, Block) and item.count == 1 and len(item.items) == 2:
            fork, join = item.items
            is_gate = isinstance(fork, Fork) and fork.shortcut and isinstance(join, Layer) and join.words == "×"
            inside = [box for box in boxes(item.items) if isinstance(box, Layer)]
            inner = [box.shape[0] for box in inside if box.kind in {"convolution", "linear"}]
            if is_gate and inner:
                names = tuple(name for box in inside for name in box.names)
                is_squeezed = len(inner) == 2 and inside[0].words == "global mean" and item.shape[0] % inner[0] == 0
                words = f"SE, r {item.shape[0] // inner[0]}" if is_squeezed else item.kind
                item = Layer(names, item.names, "gate", words, (), (), item.shape, item.last)
        found.append(item)
    return tuple(found)


def _with_repeats(
    inside: list[tuple[_Unit, list[int]]], pieces: list[tuple[Item, ...]], edges: set[tuple[int, int]]
) -> tuple[list[tuple[Item, ...]], set[tuple[int, int]]]:
    """Neighbours that look the same, each taking what the one before it made, become one framed piece; edges follow."""
    merged: list[tuple[Item, ...]] = []
    place_of = {-1: -1, len(pieces): -2}
    place = 0
    while place < len(pieces):
        end = place + 1
        look = _look(pieces[place])
        is_module = isinstance(inside[place][0], _Call) and len(list(boxes(pieces[place]))) > 1
        while is_module and end < len(pieces) and _look(pieces[end]) == look and (end - 1, end) in edges:
            end += 1
        for other in range(place, end):
            place_of[other] = len(merged)
        merged.append(
            pieces[place] if end == place + 1 else (_repeated([inside[i][0] for i in range(place, end)], pieces[place:end]),)
        )
        place = end
    place_of[len(pieces)] = len(merged)
    moved = {(place_of[source], place_of[target]) for source, target in edges}
    return merged, {(source, target) for source, target in moved if source != target}


def _repeated(units: Sequence[_Unit], pieces: Sequence[tuple[Item, ...]]) -> Block:
    """One block for several: what the first looks like, the output of the last."""
    # Only modules are repeated (`is_module` above), so each unit that gets a frame is a call.
    blocks = [
        piece[0] if len(piece) == 1 and isinstance(piece[0], Block) else _framed(unit, piece)  # type: ignore[arg-type]
        for unit, piece in zip(units, pieces, strict=True)
    ]
    return replace(blocks[-1], names=tuple(name for block in blocks for name in block.names), items=blocks[0].items)


def _look(items: Sequence[Item]) -> tuple[Any, ...]:
    """What can be seen of items: all but their names."""
    seen: list[Any] = []
    for item in items:
        if isinstance(item, Layer):
            shape = item.shape if item.kind in {"convolution", "linear", "pool", "other"} else ()
            seen.append((item.kind, item.words, item.before, item.after, shape, item.count))
        elif isinstance(item, Block):
            seen.append((item.kind, item.count, _look(item.items)))
        else:
            seen.append((item.shortcut, item.is_tangled, *map(_look, item.branches)))
    return tuple(seen)


# ---------------------------------------------------------------- series and branches


def _arranged(pieces: Sequence[tuple[Item, ...]], edges: set[tuple[int, int]]) -> tuple[Item, ...]:
    """Pieces that run in order, with the connections between them, as a series with forks in it.

    edges: (from, to) places, -1 the beginning and len(pieces) the end. A piece that no connection passes by is a place where
    everything meets; between two such places lie branches, if anything does.
    """
    count = len(pieces)
    meets = [place for place in range(count) if not any(source < place < target for source, target in edges)]
    items: list[Item] = []
    for low, high in itertools.pairwise([-1, *meets, count]):
        between = list(range(low + 1, high))
        if between:
            items.append(_fork(between, pieces, edges, low, high))
        if high < count:
            items += pieces[high]
    return _tidied(items)


def _fork(between: list[int], pieces: Sequence[tuple[Item, ...]], edges: set[tuple[int, int]], low: int, high: int) -> Fork:
    """What lies between two places where everything meets."""
    groups: list[list[int]] = []
    for place in between:
        linked = [group for group in groups if any((other, place) in edges for other in group)]
        groups = [group for group in groups if group not in linked]
        groups.append(sorted([place, *itertools.chain(*linked)]))
    groups.sort()
    shortcut = (low, high) in edges
    if len(groups) == 1 and not shortcut:
        return Fork((_tidied(list(itertools.chain(*(pieces[place] for place in between)))),), False, is_tangled=True)
    branches = []
    for group in groups:
        new = {low: -1, high: len(group), **{place: i for i, place in enumerate(group)}}
        inner = {(new[s], new[t]) for s, t in edges if s in new and t in new and (s, t) != (low, high)}
        branches.append(_arranged([pieces[place] for place in group], inner))
    return Fork(tuple(branches), shortcut)


def _tidied(items: Sequence[Item]) -> tuple[Item, ...]:
    """Small layers go into the box that they follow, or else into the next; boxes that look the same become one."""
    found: list[Item] = []
    waiting: list[Layer] = []
    for item in items:
        last = found[-1] if found else None
        if isinstance(item, Layer) and item.kind == "small":
            if isinstance(last, Layer) and not waiting:
                found[-1] = replace(
                    last,
                    names=last.names + item.names,
                    after=(*last.after, item.words, *item.after),
                    shape=item.shape,
                    last=item.last,
                )
            else:
                waiting.append(item)
            continue
        if waiting and isinstance(item, Layer) and item.kind != "join":
            item = replace(
                item,
                names=tuple(itertools.chain(*(small.names for small in waiting), item.names)),
                before=(*_words(waiting), *item.before),
            )
        elif waiting:
            found.append(_together(waiting))
        waiting = []
        found.append(item)
    if waiting:
        found.append(_together(waiting))
    return tuple(_folded(list(_counted(found))))


def _words(small: Sequence[Layer]) -> tuple[str, ...]:
    return tuple(itertools.chain(*((layer.words, *layer.after) for layer in small)))


def _together(small: Sequence[Layer]) -> Layer:
    """Small layers with nothing to go into: a box of their own."""
    return replace(
        small[0],
        names=tuple(itertools.chain(*(layer.names for layer in small))),
        called=small[0].called,
        after=_words(small)[1:],
        shape=small[-1].shape,
        last=small[-1].last,
    )


def _counted(items: Iterable[Item]) -> Iterator[Item]:
    """Neighbouring boxes that look the same as one."""
    held: Item | None = None
    for item in items:
        if (
            isinstance(item, Layer)
            and isinstance(held, Layer)
            and item.kind != "join"
            and _look([replace(item, count=1)]) == _look([replace(held, count=1)])
        ):
            held = replace(item, names=held.names + item.names, called=held.called + item.called, count=held.count + item.count)
            continue
        if held is not None:
            yield held
        held = item
    if held is not None:
        yield held


def _folded(items: Sequence[Item]) -> Iterator[Item]:
    """Forks with their joins that follow each other and look the same (dense layers) as one block."""
    place = 0
    while place < len(items):
        pair, names = _look(items[place : place + 2]), []
        end = place
        while end + 1 < len(items) and _is_joined(items[end], items[end + 1]) and _look(items[end : end + 2]) == pair:
            names.append(_prefix(items[end]))
            end += 2
        if len(names) > 1 and all(names):
            last = items[end - 1]
            assert isinstance(last, Layer)
            yield Block(tuple(names), "", tuple(items[place : place + 2]), last.shape, last.last)
            place = end
        else:
            yield items[place]
            place += 1


def _is_joined(item: Item, after: Item) -> bool:
    return isinstance(item, Fork) and isinstance(after, Layer) and after.kind == "join"


def _prefix(item: Item) -> str:
    """The module that all layers of an item lie in; empty where there is none."""
    names = [name.split(".") for box in boxes([item]) for name in box.names]
    same = itertools.takewhile(lambda words: len(set(words)) == 1, zip(*names, strict=False))
    return ".".join(words[0] for words in same)


def _heads(ends: Sequence[int], alive: set[int], trunk: Sequence[Item], trace: _Trace) -> Iterator[Head]:
    """The outputs beside the main one."""
    for end in set(ends):
        members = trace.leading_to([end]) - alive
        begins = max((source for number in members for source in trace.steps[number].takes if source in alive), default=-1)
        lasts = [max((box.last for box in boxes([item])), default=-1) for item in trunk]
        behind = max((place for place, last in enumerate(lasts) if last <= begins), default=0)
        if members:
            yield Head(behind, _built(trace.root.children, members, trace))


def common_name(names: Sequence[str]) -> str:
    """Names of neighbours as one: "layer1.1–3" for layer1.1, layer1.2 and layer1.3; else the first and the last."""
    if len(names) == 1:
        return names[0]
    first, last = (re.fullmatch(r"(.*?)(\d+)", name) for name in (names[0], names[-1]))
    if first and last and first[1] == last[1]:
        return f"{names[0]}–{last[2]}"
    return ", ".join(names) if len(names) == 2 else f"{names[0]} … {names[-1]}"
