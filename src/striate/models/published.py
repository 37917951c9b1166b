"""Weights that torchvision and timm publish: which set belongs to which network, where its file lies, how it sees photos.

Files are kept where the two libraries keep them, so whoever has one need not fetch it again. They are fetched here and never
opened here: `pretrained` hands them on to the reader of foreign files.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

import torch
import torchvision.models

from striate import classes
from striate.classes import Classes
from striate.errors import CheckpointError, UserError, missing_package, nearest
from striate.models import catalog, keys
from striate.view import View

# Our networks whose layers, names and arithmetic are those of a network of torchvision or timm: see benchmarks/zoo_logits.py.
TORCHVISION = {
    "alexnet-one-tower": "alexnet",
    "vgg-a": "vgg11",
    "vgg-a-bn": "vgg11_bn",
    "vgg-b": "vgg13",
    "vgg-b-bn": "vgg13_bn",
    "vgg16": "vgg16",
    "vgg16-bn": "vgg16_bn",
    "vgg19": "vgg19",
    "vgg19-bn": "vgg19_bn",
    "googlenet-bn": "googlenet",
    "inception-v3": "inception_v3",
    "resnet18": "resnet18",
    "resnet18-v1": "resnet18",
    "resnet34": "resnet34",
    "resnet34-v1": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "resnet152": "resnet152",
    "resnext50": "resnext50_32x4d",
    "resnext101-64x4d": "resnext101_64x4d",
    "densenet121": "densenet121",
    "densenet169": "densenet169",
    "densenet201": "densenet201",
}
TIMM = {
    "resnext101": "resnext101_32x4d",
    "se-resnet50": "legacy_seresnet50",
    "se-resnet101": "legacy_seresnet101",
    "se-resnet152": "legacy_seresnet152",
    "se-resnext50": "legacy_seresnext50_32x4d",
    "se-resnext101": "legacy_seresnext101_32x4d",
    "senet154": "legacy_senet154",
    "xception": "legacy_xception",
}
# Of timm's sets for that network, the one that was trained on ImageNet alone, as the paper's.
_TIMM_DEFAULT = {"resnext101_32x4d": "gluon_in1k"}
# Seconds without an answer after which a connection is given up.
_WAIT_S = 30
# What timm's repositories call their file, safest first.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")

# An address, or ("huggingface", repository, file).
Place = str | tuple[str, str, str]


@dataclass(frozen=True)
class Published:
    """One published set of weights.

    title: library, network and set, for people. network: as --model takes it, "torchvision/resnet50".
    view: how it sees photos; None where a View cannot say it (borders added).
    variant: of the networks with the same names and shapes; None where there is but one.
    places: where its file may come from, best first.
    """

    title: str
    network: str
    view: View | None
    classes: Classes | None
    variant: str | None
    places: tuple[Place, ...]

    @property
    def hash_prefix(self) -> str:
        """The first digits of the file's SHA-256, which its name ends with; empty where the name says none."""
        return next((_hash_prefix(place) for place in self.places if isinstance(place, str)), "")

    def ours(self) -> tuple[str, ...]:
        """Our networks that these weights are for."""
        return tuple(name for name in (*TORCHVISION, *TIMM) if "/".join(_theirs(name)) == self.network)


def find(name: str, wanted: str) -> Published:
    """The published set `wanted` of a network: "default", or what torchvision or timm call it (IMAGENET1K_V1, a1_in1k).

    name: of ours, torchvision/NAME or timm/NAME. Raises UserError naming the sets, or the networks that have some.
    """
    catalog.option_names(name)  # an unknown name is named as such
    library, network = _theirs(name)
    if library == "timm":
        return _of_timm(name, network, wanted)
    sets = {one.name: one for one in torchvision.models.get_model_weights(network)}
    if not sets:
        raise UserError(f"{name}: torchvision publishes no weights for {network}.")
    if wanted == "default":
        return _of_torchvision(torchvision.models.get_model_weights(network).DEFAULT)
    if wanted not in sets:
        raise _no_set(name, wanted, list(sets))
    return _of_torchvision(sets[wanted])


def of_file(digest: str) -> Published | None:
    """The set of torchvision (or one of Cadene's) whose file has this SHA-256, 64 hex digits; None where it is none of them."""
    if digest.startswith("9d633cc0"):  # in torchvision's names, and nothing in it says that it is Caffe's
        view = keys.caffe_view(102.9801, 115.9465, 122.7717)
        return Published("Cadene's cafferesnet101", "resnet101-v1", view, classes.imagenet(), "v1, stem caffe", ())
    return next((_of_torchvision(one) for prefix, one in _by_prefix().items() if digest.startswith(prefix)), None)


def fetch(published: Published) -> Path:
    """The file of a published set: from the library's cache, else from the network into it.

    Raises CheckpointError, with the full path where the file is looked for, when it can be neither found nor fetched.
    """
    for place in published.places:
        found = cached(place)
        if found is not None:
            return found
    complaints: dict[str, None] = {}
    for place in published.places:
        try:
            return _download(place)
        except (OSError, RuntimeError, ValueError) as error:  # also what huggingface_hub raises for a missing file or host
            said = str(error).strip().splitlines()
            complaints[f"{type(error).__name__}: {said[0] if said else 'no reason given'}"] = None
    ways = "\n".join(f"  {_way_out(place)}" for place in published.places if isinstance(place, str) or place[2] == HUB_FILES[0])
    raise CheckpointError(
        f"{published.title}: not in the cache, and cannot be fetched ({'; '.join(complaints)}). Where there is a network:\n"
        f"{ways}\nOr give the file itself with --weights FILE."
    )


def _way_out(place: Place) -> str:
    """Where the file of a place is looked for, and what to put there."""
    if isinstance(place, str):
        return f"{_target(place)} is looked for: put there {place}"
    return f"{_hub_folder(place)} is looked for: put there what `hf download {place[1]} {place[2]}` makes in its cache"


def cached(place: Place) -> Path | None:
    """The file of a place, where the libraries' caches have it already."""
    if isinstance(place, str):
        return _target(place) if _target(place).is_file() else None
    found = _huggingface().try_to_load_from_cache(place[1], place[2])
    return Path(found) if isinstance(found, str) else None


# ---------------------------------------------------------------- names


def _theirs(name: str) -> tuple[str, str]:
    library, slash, network = name.partition("/")
    if slash and library in ("torchvision", "timm"):
        return library, network
    if name in TORCHVISION:
        return "torchvision", TORCHVISION[name]
    if name in TIMM:
        return "timm", TIMM[name]
    raise UserError(
        f"{name}: nobody publishes weights for it that striate knows of; give a file with --weights FILE. "
        f"There are published ones for {', '.join([*TORCHVISION, *TIMM])}, and for networks of torchvision/ and timm/."
    )


def _no_set(name: str, wanted: str, sets: list[str]) -> UserError:
    return UserError(
        f"--weights {wanted}: no such file, and no published set of {name}.{nearest(wanted, [*sets, 'default'])} "
        f"Published: default, {', '.join(sets)}."
    )


# ---------------------------------------------------------------- torchvision


def _of_torchvision(one: Any) -> Published:
    transforms = one.transforms()
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if type(one).__name__ in ("GoogLeNet_Weights", "Inception_V3_Weights"):
        # With these weights torchvision's network renormalises by itself (transform_input): ImageNet's mean and deviation are
        # taken back and 0.5 and 0.5 put in their place. Here the View does all of it, and the network none.
        mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    size_px = transforms.crop_size[0]
    view = View(size_px, "crop", max(size_px, transforms.resize_size[0]), transforms.interpolation.value, False, mean, std)
    known = classes.imagenet() if len(one.meta.get("categories") or ()) == 1000 else None
    network = type(one).__name__.removesuffix("_Weights").lower()
    variant = (
        "v1.5" if re.match(r"(wide_)?res(net|next)(50|101|152)", network) else "basic" if network.startswith("resnet") else None
    )
    return Published(f"torchvision {one!r}", f"torchvision/{network}", view, known, variant, (one.url,))


@functools.cache
def _by_prefix() -> dict[str, Any]:
    networks = torchvision.models.list_models(module=torchvision.models)
    sets = [one for network in networks for one in torchvision.models.get_model_weights(network)]
    return {_hash_prefix(one.url): one for one in sets if len(_hash_prefix(one.url)) >= 8}


# ---------------------------------------------------------------- timm


def _of_timm(name: str, network: str, wanted: str) -> Published:
    try:
        import timm
    except ImportError as error:
        raise missing_package("timm", "timm") from error
    network, _, tag = network.partition(".")
    sets = [full.partition(".")[2] for full in timm.list_pretrained(network) if full.partition(".")[0] == network]
    if not sets:
        raise UserError(f"{name}: timm publishes no weights for {network}.")
    chosen = wanted if wanted != "default" else tag or _TIMM_DEFAULT.get(network, "")
    if chosen and chosen not in sets:
        raise _no_set(name, wanted, sets)
    settings: Any = timm.get_pretrained_cfg(f"{network}.{chosen}" if chosen else network)
    if settings.custom_load:
        raise UserError(f"{name}: the set {settings.tag} comes in a format of its own, which only timm reads.")
    known = classes.imagenet() if settings.num_classes == 1000 else None
    variant = "v1.5" if network in TIMM.values() and network.startswith("resnext") else None
    view = timm_view(settings.to_dict())
    return Published(f"timm {network}.{settings.tag}", f"timm/{network}", view, known, variant, tuple(_timm_places(settings)))


def _timm_places(settings: Any) -> Iterator[Place]:
    if settings.hf_hub_id:
        named = [settings.hf_hub_filename] if settings.hf_hub_filename else []
        for file in (*named, *HUB_FILES):
            yield "huggingface", settings.hf_hub_id, file
    if isinstance(settings.url, str) and settings.url:
        yield settings.url


def timm_view(settings: dict[str, Any]) -> View | None:
    """The View of timm's settings for a set of weights (`pretrained_cfg`); None where a View cannot say it."""
    channels, size_px, width_px = settings.get("input_size", (3, 224, 224))
    share, mode = settings.get("crop_pct", 0.875), settings.get("crop_mode", "center")
    is_squash = mode == "squash" and share == 1
    if channels != 3 or size_px != width_px or (mode != "center" and not is_squash):
        return None
    return View(
        size_px,
        "squash" if is_squash else "crop",
        math.floor(size_px / share),  # rounded down, as timm does
        settings.get("interpolation", "bicubic"),
        False,
        tuple(settings["mean"]),
        tuple(settings["std"]),
    )


# ---------------------------------------------------------------- places


def _hash_prefix(address: str) -> str:
    found = re.search(r"-([0-9a-f]{8,})\.", os.path.basename(urlparse(address).path))
    return found[1] if found else ""


def _target(address: str) -> Path:
    """Where torch.hub keeps the file of an address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlparse(address).path)


def _hub_folder(place: tuple[str, str, str]) -> Path:
    """Where huggingface_hub keeps the files of a repository."""
    return Path(_huggingface().constants.HF_HUB_CACHE) / f"models--{place[1].partition('@')[0].replace('/', '--')}"


def _download(place: Place) -> Path:
    if not isinstance(place, str):
        _reach(_huggingface().constants.ENDPOINT)
        repository, _, revision = place[1].partition("@")
        return Path(_huggingface().hf_hub_download(repository, place[2], revision=revision or None))
    target = _target(place)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _patience(_WAIT_S):
        # A download whose SHA-256 does not begin as its name says is thrown away, with an error.
        torch.hub.download_url_to_file(place, str(target), _hash_prefix(place) or None, progress=True)
    return target


def _reach(address: str) -> None:
    """Raises OSError where nobody answers; huggingface_hub would try for half a minute. Nothing is tried behind a proxy."""
    if not getproxies():
        parts = urlparse(address)
        socket.create_connection((parts.hostname or "", parts.port or 443), _WAIT_S).close()


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Within the block a connection that does not answer for so long is an error; torch's downloader would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _huggingface() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:  # comes with timm
        raise missing_package("huggingface_hub", "timm") from error
    return huggingface_hub
