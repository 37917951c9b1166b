"""Shapes without numbers: what a network does with an input of a size, and the smallest one that it can take."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from striate.errors import UserError

# Called after each operation of torch with (operation, arguments, named arguments, result).
Look = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]

# Sides that `smallest` tries before it closes in: powers of two, and the inputs that networks are published for.
_LADDER = (1, 2, 4, 8, 16, 32, 64, 128, 224, 256, 299, 331, 384, 448, 512)


class _WithoutNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives every operation meta tensors, which have a shape and no numbers, in the place of those with numbers.

    Operations on tensors that all have numbers are left alone, unless they would change one: so the weights may be
    anywhere, nothing is computed with them, and running statistics stay as they are.
    """

    def __init__(self, look: Look | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.look = look

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        plain, named = args, kwargs or {}
        have_numbers = [not tensor.is_meta for tensor in tensors((args, named))]
        if any(have_numbers) and (not all(have_numbers) or operation._schema.is_mutable):
            plain, named = tree_map_only(torch.Tensor, _shape_of, (args, named))
        carried_out = _batch_norm if operation is torch.ops.aten.native_batch_norm.default else operation
        result = carried_out(*plain, **named)
        if self.look is not None:
            self.look(operation, args, kwargs or {}, result)
        return result


class _Unfilled(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves tensors without numbers as they are where they would be filled at random, over which torch takes long."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in operation.tags and operation._schema.is_mutable and args[0].is_meta:
            return args[0]
        return operation(*args, **(kwargs or {}))


@contextlib.contextmanager
def without_numbers() -> Iterator[None]:
    """What is built within the block has shapes and no numbers."""
    with torch.device("meta"), _Unfilled():  # type: ignore[no-untyped-call]
        yield


def _shape_of(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_meta:
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _batch_norm(images: torch.Tensor, *others: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The shapes that batch norm returns. Torch finds them with a dozen operations, two thirds of a whole pass."""
    statistics = images.shape[1] if others[4] else 0  # in training mode, those of the batch
    return torch.empty_like(images), images.new_empty(statistics), images.new_empty(statistics)


def tensors(values: Any) -> Iterator[torch.Tensor]:
    """Every tensor among values: what an operation takes or gives, what a network returns."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from tensors(value)
    elif isinstance(values, dict):
        yield from tensors(list(values.values()))


@contextlib.contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Within the block the whole network is in training or in evaluation mode; after it each layer is as before."""
    before = [(layer, layer.training) for layer in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for layer, was_training in before:
            layer.training = was_training


def blank(model: nn.Module, size_px: int, channels: int = 3, batch: int = 1) -> torch.Tensor:
    """Images [batch, channels, size_px, size_px] without numbers, in the precision of the network's weights."""
    precision = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)
    return torch.empty(batch, channels, size_px, size_px, dtype=precision, device="meta")


def outline(model: nn.Module, images: torch.Tensor, *, training: bool = False, look: Look | None = None) -> Any:
    """A forward pass on shapes alone; returns the network's output as meta tensors. The network is as before afterwards.

    images: as `blank` makes them. look: is told of each operation that torch carries out. training: in training mode,
    with gradients; else without. What the network raises (an input that is too small, a wrong number of channels) goes
    through.
    """
    with in_mode(model, training), torch.set_grad_enabled(training), _WithoutNumbers(look):
        return model(images)


def smallest(model: nn.Module, channels: int = 3, *, training: bool = False) -> int | None:
    """The shortest side in pixels of a square input that the network can take; None where no size was found that works.

    By trial on shapes alone, in evaluation mode or as a training step of two images. A network made for one size has
    that one as its smallest.
    """
    below = 0
    for side in _LADDER:
        if _failure(model, side, channels, training) is None:
            return _closed_in(model, below, side, channels, training)
        below = side
    return None


def _closed_in(model: nn.Module, failing: int, working: int, channels: int, training: bool) -> int:
    """The end of a bisection between a side that fails and one that works."""
    while working - failing > 1:
        middle = (failing + working) // 2
        if _failure(model, middle, channels, training) is None:
            working = middle
        else:
            failing = middle
    return working


@contextlib.contextmanager
def explained(model: nn.Module, name: str, size_px: int, channels: int = 3) -> Iterator[None]:
    """Whatever a forward pass within the block fails by becomes the error of `check_input`, where the input is the reason."""
    try:
        yield
    except Exception:
        check_input(model, name, size_px, channels)
        raise


def takes(model: nn.Module, size_px: int, channels: int = 3, *, training: bool = False) -> bool:
    """Whether the network can take images of this size, in evaluation mode or as a training step."""
    return _failure(model, size_px, channels, training) is None


def _failure(model: nn.Module, size_px: int, channels: int, training: bool) -> Exception | None:
    """What the network raises for this size; None where it works."""
    try:
        # Batch norm in training wants two numbers.
        outline(model, blank(model, size_px, channels, 1 + training), training=training)
    except Exception as error:  # networks of any origin refuse an input with any error
        return error
    return None


def check_input(model: nn.Module, name: str, size_px: int, channels: int = 3, *, training: bool = False) -> None:
    """Raises UserError when the network cannot take images of this size, naming the smallest; else nothing happens.

    name: of the network, for the message. training: as a training step, in which auxiliary heads run too.
    """
    failure = _failure(model, size_px, channels, training)
    if failure is None:
        return
    least = smallest(model, channels, training=training)
    if least is None and _takes(model, size_px, channels):
        return  # it looks at values, which shapes alone have not, and can be tried with numbers only
    if least is not None and size_px < least:
        raise UserError(
            f"{name}: an input of {size_px}x{size_px} px is too small; the smallest is {least}x{least}. "
            f"Use --img-size {least} or more."
        ) from failure
    works = f" It takes {least}x{least}." if least is not None else ""
    raise UserError(
        f"{name}: it cannot take images of {channels} channels and {size_px}x{size_px} px "
        f"({type(failure).__name__}: {failure}).{works}"
    ) from failure


def _takes(model: nn.Module, size_px: int, channels: int) -> bool:
    """Whether a black image goes through the network in evaluation mode, with numbers."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with in_mode(model, False), torch.no_grad():
        try:
            model(torch.zeros(1, channels, size_px, size_px, device=device))
        except Exception:  # as in `_failure`; the caller says which error came without numbers
            return False
    return True
