"""Looking at layers while a network runs: hooks that exist only inside `with taps(...)`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from striate.errors import UserError, nearest

Tap = Callable[[nn.Module, tuple[Any, ...], Any], None]
TapBefore = Callable[[nn.Module, tuple[Any, ...]], None]
Instead = Callable[[nn.Module, tuple[Any, ...], Any], Any]


@contextlib.contextmanager
def taps(
    model: nn.Module,
    forward: Mapping[str, Tap],
    before: Mapping[str, TapBefore] | None = None,
    instead: Mapping[str, Instead] | None = None,
) -> Iterator[None]:
    """Within the block, each named layer calls its function after each of its forward passes.

    forward: layer name, as `model.named_modules()` gives it ("" is the whole network), to a function of
    (layer, inputs, output). The function looks and returns None: it must not change the output in place.
    before: the same for functions of (layer, inputs) that are called as a forward pass begins.
    instead: the same for functions whose result goes on through the network in place of the output.
    Every hook is gone after the block, also when it ends by an exception. Layers with in-place successors (a batch norm
    before an in-place ReLU) show what the successor left unless the function reads the output at once.
    Raises UserError when a name is no layer of the model; the message lists the nearest names.
    """
    layers = dict(model.named_modules())
    for name in (*forward, *(before or ()), *(instead or ())):
        if name not in layers:
            raise UserError(f"'{name}' is no layer of this {type(model).__name__}.{nearest(name, filter(None, layers))}")
    with contextlib.ExitStack() as stack:
        for name, look in forward.items():
            stack.callback(layers[name].register_forward_hook(_only_looking(look)).remove)
        for name, look_before in (before or {}).items():
            stack.callback(layers[name].register_forward_pre_hook(_only_looking_before(look_before)).remove)
        for name, replace in (instead or {}).items():
            stack.callback(layers[name].register_forward_hook(replace).remove)
        yield


def _only_looking(look: Tap) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        look(layer, inputs, output)  # what it returns is dropped: torch would take it for a new output

    return hook


def _only_looking_before(look: TapBefore) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        look(layer, inputs)

    return hook


def layer_names(model: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> tuple[str, ...]:
    """Names of the layers of these kinds, in the order of definition; a layer used in two places once."""
    return tuple(name for name, layer in model.named_modules() if isinstance(layer, kinds))
