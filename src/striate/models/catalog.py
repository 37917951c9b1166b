"""From the name of a network to the network: ours, torchvision's, timm's, or a function of yours."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torchvision.models
from torch import nn

from striate.errors import UserError, missing_package, nearest
from striate.models import (
    alexnet,
    all_cnn,
    bn_inception,
    densenet,
    googlenet,
    inception_v3,
    init,
    kth,
    lenet,
    resnet,
    resnet_cifar,
    resnext,
    se_googlenet,
    senet,
    vgg,
    xception,
    zfnet,
)
from striate.models.entry import Builder, Entry

NETWORKS: dict[str, Entry] = {
    **lenet.NETWORKS,
    **alexnet.NETWORKS,
    **zfnet.NETWORKS,
    **all_cnn.NETWORKS,
    **vgg.NETWORKS,
    **googlenet.NETWORKS,
    **bn_inception.NETWORKS,
    **inception_v3.NETWORKS,
    **resnet.NETWORKS,
    **resnet_cifar.NETWORKS,
    **xception.NETWORKS,
    **resnext.NETWORKS,
    **densenet.NETWORKS,
    **senet.NETWORKS,
    **se_googlenet.NETWORKS,
    **kth.NETWORKS,
}

_NO_WEIGHTS = "networks start untrained here; trained weights are given with --weights"
# Options of a library's builders that striate sets itself, and why they cannot be given.
_REFUSED = {
    "num_classes": "the data decides how many classes there are",
    "weights": _NO_WEIGHTS,
    "weights_backbone": _NO_WEIGHTS,
    "pretrained": _NO_WEIGHTS,
    "checkpoint_path": _NO_WEIGHTS,
}


def build(name: str, num_classes: int, options: Mapping[str, object]) -> nn.Module:
    """The network `name` with `num_classes` outputs, untrained.

    options: values of the builder's parameters; text (from the command line) is converted by the parameter's annotation.
    Raises UserError for an unknown name or option (the message lists the nearest), a value that does not fit, fewer than
    one class, and a foreign function that fails or does not return a network.
    """
    if num_classes < 1:
        raise UserError(f"{name}: expected 1 class or more, found {num_classes}.")
    with _current_folder_importable() if ":" in name else contextlib.nullcontext():
        builder, fixed = _find(name)
        values = _checked(name, builder, options)
        start = None if "init" in _parameters(builder)[0] else values.pop("init", "paper")
        try:
            model = builder(num_classes=num_classes, **fixed, **values)
        except UserError:
            raise
        except Exception as error:
            given = ", ".join(f"{option}={value!r}" for option, value in {"num_classes": num_classes, **values}.items())
            raise UserError(f"{name}: the builder failed with {given} ({type(error).__name__}: {error}).") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{name}: expected a function that returns a torch.nn.Module, it returned {type(model).__name__}.")
    if start is not None:
        init.apply(model, str(start))
    return model


def option_names(name: str) -> tuple[str, ...]:
    """The options that the builder of `name` names in its signature, as `size_px` for the kth networks."""
    with _current_folder_importable() if ":" in name else contextlib.nullcontext():
        return tuple(_options(_find(name)[0])[0])


# ---------------------------------------------------------------- names


def _find(name: str) -> tuple[Builder, dict[str, object]]:
    """The builder of a name, and the values that striate gives it besides the number of classes."""
    if name in NETWORKS:
        return NETWORKS[name].builder, {}
    if ":" in name:
        return _from_your_module(name), {}
    library, slash, network = name.partition("/")
    if slash and library == "torchvision":
        return _from_torchvision(network)
    if slash and library == "timm":
        return _from_timm(network)
    raise UserError(
        f"'{name}' is no network.{nearest(name, NETWORKS)} `striate measure` lists our {len(NETWORKS)}; "
        f"torchvision/NAME, timm/NAME, and package.module:function for one of yours."
    )


def _from_torchvision(network: str) -> tuple[Builder, dict[str, object]]:
    known = torchvision.models.list_models(module=torchvision.models)
    if network not in known:
        raise UserError(f"torchvision has no classification network '{network}'.{nearest(network, known)}")
    # Left unsaid, these two warn that their initialisation will change.
    fixed: dict[str, object] = {"init_weights": True} if network in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model_builder(network), {"weights": None, **fixed}


def _from_timm(network: str) -> tuple[Builder, dict[str, object]]:
    try:
        import timm
    except ImportError as error:
        raise missing_package("timm", "timm") from error
    if not timm.is_model(network):
        raise UserError(f"timm has no network '{network}'.{nearest(network, timm.list_models())}")
    return timm.create_model, {"model_name": network}


def _from_your_module(name: str) -> Builder:
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(
            f"{name}: the module '{module_name}' cannot be imported ({type(error).__name__}: {error}). "
            f"Looked in the current folder and on Python's path."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{name}: '{module_name}' has no function '{function_name}'.{nearest(function_name, functions)}")
    named, takes_more = _parameters(function)
    if "num_classes" not in named and not takes_more:
        raise UserError(f"{name}: the function must take `num_classes`, the number of outputs.")
    builder: Builder = function
    return builder


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    """Within the block, modules of the current folder can be imported, as with `python -m`."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


# ---------------------------------------------------------------- options


def _parameters(builder: Builder) -> tuple[dict[str, inspect.Parameter], bool]:
    """Parameters that can be given by name, and whether the builder takes others besides."""
    try:
        signature = inspect.signature(builder, eval_str=True)
    except NameError:  # an annotation that only a type checker can resolve
        signature = inspect.signature(builder)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {name: parameter for name, parameter in signature.parameters.items() if parameter.kind in by_name}
    return named, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values())


def _options(builder: Builder) -> tuple[dict[str, inspect.Parameter], bool]:
    """The parameters of a builder that are the user's; every network has `init` besides, see `init.apply`."""
    named, takes_more = _parameters(builder)
    own = {name: parameter for name, parameter in named.items() if name not in _REFUSED and name != "model_name"}
    start = inspect.Parameter("init", inspect.Parameter.KEYWORD_ONLY, default="paper", annotation=init.Name)
    return {**own, "init": own.get("init", start)}, takes_more


def _checked(name: str, builder: Builder, options: Mapping[str, object]) -> dict[str, object]:
    named, takes_more = _options(builder)
    values: dict[str, object] = {}
    for option, value in options.items():
        if option in _REFUSED:
            raise UserError(f"{name}: the option '{option}' cannot be given: {_REFUSED[option]}.")
        if option not in named and not takes_more:
            raise UserError(
                f"{name} has no option '{option}'.{nearest(option, named)} It has {', '.join(named) if named else 'none'}."
            )
        annotation = named[option].annotation if option in named else inspect.Parameter.empty
        values[option] = _converted(f"{name}: option '{option}'", value, annotation)
    return values


def _converted(where: str, value: object, annotation: Any) -> object:
    """`value` as the annotation wants it; text is read, other values must fit already."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            with contextlib.suppress(UserError):
                return _converted(where, value, part)
    elif typing.get_origin(annotation) is Literal:
        for choice in typing.get_args(annotation):
            if value == choice or value == str(choice):
                return choice
    elif annotation is None or annotation is type(None):
        if value is None or value == "none" or value == "None":
            return None
    elif annotation in (bool, int, float, str):
        fitting = _read(value, annotation) if isinstance(value, str) else value
        if annotation is float and type(fitting) is int:
            fitting = float(fitting)
        if type(fitting) is annotation:
            return fitting
    else:
        return _guessed(value) if isinstance(value, str) else value
    raise UserError(f"{where}: expected {_kind(annotation)}, found {value!r}.")


def _read(text: str, kind: type) -> object:
    if kind is bool:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower())
    try:
        return kind(text)
    except ValueError:
        return None


def _guessed(text: str) -> object:
    """Text for a parameter that says no type: a whole number, a number, true, false or none, else the text itself."""
    for kind in (int, float):
        number = _read(text, kind)
        if number is not None:
            return number
    words: dict[str, object] = {"true": True, "false": False, "none": None}
    return words.get(text.lower(), text)


def _kind(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(annotation))
    if annotation is inspect.Parameter.empty:
        return "a value"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(annotation, str(annotation))
