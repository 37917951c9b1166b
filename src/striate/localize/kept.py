"""What `localize` keeps beside a run for photos without boxes: how maps are best cut, of each method, layer and weights.

localization.json is {"format": 1, "fits": [...]}; each fit is what all images of one localisation together chose. A new one takes
the place of its own kind only, so that trying another layer or an early checkpoint loses nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from striate import files
from striate.data.index import Index
from striate.errors import CheckpointError, UserError
from striate.evaluate.network import Network
from striate.localize.boxes import WAYS, Fitted, Which
from striate.localize.find import METHODS
from striate.run.folder import Run

NAME: Final = "localization.json"
LEAST_IMAGES: Final = 20
"""With fewer, one image moves the accuracy of a threshold by more than 5 percent of all."""

_FORMAT: Final = 1
_TOLD: Final = 5  # fits that a message lists
_OF_FIT: Final = ("method", "layer", "checkpoint", "weights", "threshold", "which")
_FITTED_ON: Final = ("split", "images", "accuracy")
_OF_MAPS: Final = tuple(method for method in METHODS if method != "head")


@dataclass(frozen=True)
class Fit:
    """How the maps of a method at a layer are cut, for these weights of this checkpoint.

    threshold, which: see `localize.boxes`. split, images, accuracy: what chose them, and the share of right boxes there, 0..1.
    localization: the folder of that localisation, in the run's.
    """

    method: str
    layer: str
    checkpoint: str
    weights: str
    threshold: float
    which: Which
    split: str
    images: int
    accuracy: float
    localization: str

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """Of which there is one fit at most."""
        return self.method, self.layer, self.checkpoint, self.weights

    def describe(self) -> str:
        """What it is of, for people."""
        return f"{self.method} of {self.layer}, {self.weights} weights of {self.checkpoint}"

    def origin(self) -> str:
        """What it was fitted on, for people."""
        return f"{self.images:,} images of {self.split} ({self.accuracy:.1%} right there)"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        fitted_on = {name: getattr(self, name) for name in _FITTED_ON}
        return {**{name: getattr(self, name) for name in _OF_FIT}, "fitted_on": fitted_on, "localization": self.localization}


# ---------------------------------------------------------------- keeping


def reason_against(fitted: Fitted, trained: int, images: int) -> str | None:
    """Why a fit is not kept for other photos, in words; None where nothing speaks against it.

    trained: of the `images` that were looked at, how many the network was trained on, see `trained_on`.
    """
    if trained:
        which = "these images" if trained == images else f"{trained:,} of these {images:,} images"
        return (
            f"the network was trained on {which}, where its maps are better than anywhere else. Fit a threshold on the "
            "validation images, or on another set with boxes"
        )
    if fitted.images < LEAST_IMAGES:
        return f"fitted on {fitted.images} images with a box, expected {LEAST_IMAGES} or more"
    if fitted.accuracy == 0:
        return "no threshold gave a single right box"
    return None


def trained_on(run: Run, index: Index) -> int:
    """How many images of an index are among those that the run was trained on.

    All, where keys are those of the run's training images: so a copy or a pack of them is recognised. Else those that are the
    same files. Raises CheckpointError where the run's list of training images is damaged.
    """
    train = run.index("train")
    if train is None:
        return 0
    if train.fingerprint == index.fingerprint or set(train.keys.raws()) == set(index.keys.raws()):
        return len(index)
    theirs, ours = (os.path.realpath(os.fsencode(one.root)) for one in (train, index))
    of_index = {os.path.join(ours, key) for key in index.keys.raws()}
    return sum(os.path.join(theirs, key) in of_index for key in train.keys.raws())


def keep(network: Network, new: Fit) -> list[str]:
    """Puts a fit into localization.json beside the network's weights, in the place of its own kind. Returns notes for people.

    Commands that end at once wait for each other, and each reads what the others left. What is damaged in the file is dropped,
    with a note. Raises as `files.write_whole`.
    """
    path, notes = network.home / NAME, []
    try:
        with _locked(network.home):
            try:
                fits, faults = _read(path, network)
            except CheckpointError as error:  # of a later striate: not ours to replace
                return [f"not kept for submit: {error}"]
            if faults:
                notes.append(f"{NAME} was damaged ({faults[0]}); what could be read of it is kept")
            old = next((one for one in fits if one.kind == new.kind), None)
            others = [one for one in fits if one.kind != new.kind]
            plain = [one.to_json() for one in sorted([*others, new], key=lambda one: one.kind)]
            files.write_json(path, {"format": _FORMAT, "fits": plain})
    except OSError as error:
        return [f"not kept for submit: {path} cannot be locked ({error.strerror})"]
    part = "the largest component above" if new.which == "largest" else "all above"
    replaced = f"; it replaces a fit on {old.origin()}" if old is not None else ""
    return [
        *notes,
        f"kept for submit: {new.describe()}, {part} {new.threshold:.2f} of the map's range, fitted on {new.origin()}{replaced}",
    ]


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One command at a time reads and writes the fits; the others wait, which takes no longer than a file."""
    (home / "localization").mkdir(exist_ok=True)
    with open(home / "localization" / ".lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go of when the file closes, however the process ends
        yield


# ---------------------------------------------------------------- taking


def fit_for(network: Network, method: str, layer: str | None, checkpoint: str = "best", raw: bool = False) -> Fit:
    """The fit that `localize` kept for this method and these weights.

    layer: None where there is but one. checkpoint, raw: as they were asked for, to be told in the command that makes a fit.
    Raises UserError where nothing that fits is kept, with what there is, or where several layers are; CheckpointError for a
    damaged file.
    """
    path = network.home / NAME
    fits, faults = _read(path, network)
    if faults:
        raise CheckpointError(
            f"{path}: damaged: {faults[0]}. Run striate localize {network.home} again, which mends it, or remove the file."
        )
    of_these = [one for one in fits if (one.method, one.checkpoint, one.weights) == (method, network.checkpoint, network.weights)]
    found = [one for one in of_these if layer in (None, one.layer)]
    if len(found) == 1:
        return found[0]
    if found:
        known = ", ".join(f"--layer {one.layer} ({one.accuracy:.1%} of {one.images:,} right)" for one in found)
        raise UserError(f"{path}: holds thresholds of several layers for {method} and these weights. Say which: {known}.")
    told = "; ".join(one.describe() for one in fits[:_TOLD]) + (f"; and {len(fits) - _TOLD:,} more" if len(fits) > _TOLD else "")
    asked = "".join(
        (
            f" --layer {layer}" if layer is not None else "",
            f" --checkpoint {checkpoint}" if checkpoint != "best" else "",
            " --raw" if raw else "",
        )
    )
    has = f"{NAME} has {told or 'none'}" if path.exists() else f"there is no {NAME}"
    raise UserError(
        f"{network.home}: nobody has fitted a threshold for {method} of {layer or 'any layer'}, {network.weights} weights of "
        f"{network.checkpoint} ({has}). Fit one on images with boxes: "
        f"striate localize {network.home} --method {method}{asked}; or give one: --threshold 0.2."
    )


# ---------------------------------------------------------------- the file


def _read(path: Path, network: Network) -> tuple[list[Fit], list[str]]:
    """The fits of a file that can be of this network, and what is wrong with the others. Raises CheckpointError for a file of a
    later format."""
    if not path.exists():
        return [], []
    try:
        plain = files.read_json(path)
    except UserError as error:
        return [], [str(error).removeprefix(f"{path}: ").removesuffix(".")]
    of_format = plain.get("format") if isinstance(plain, dict) else None
    if type(of_format) is int and of_format > _FORMAT:
        raise CheckpointError(f"{path}: of format {of_format}, this striate reads up to {_FORMAT}. Install a newer striate.")
    entries = plain.get("fits") if isinstance(plain, dict) else None
    if type(of_format) is not int or of_format != _FORMAT or not isinstance(entries, list):
        return [], [f'expected {{"format": {_FORMAT}, "fits": [...]}}']
    layers = {name for name, _ in network.model.named_modules()}
    fits: dict[tuple[str, str, str, str], Fit] = {}
    faults = []
    for number, entry in enumerate(entries, 1):
        try:
            fit = _fit(entry)
        except ValueError as error:
            faults.append(f"fit {number}: {error}")
            continue
        if fit.layer not in layers:
            faults.append(f"fit {number}: '{fit.layer}' is no layer of the network")
            continue
        if fit.kind in fits:
            faults.append(f"fit {number}: there is another one for {fit.describe()}")
        fits[fit.kind] = fit
    return list(fits.values()), faults


def _fit(plain: Any) -> Fit:
    """Raises ValueError, in words, for what is no fit."""
    if not isinstance(plain, dict) or not isinstance(plain.get("fitted_on"), dict):
        raise ValueError("expected a table, and in it a table fitted_on")
    values: dict[str, Any] = {name: plain.get(name) for name in (*_OF_FIT, "localization")} | {
        name: plain["fitted_on"].get(name) for name in _FITTED_ON
    }

    def expected(names: tuple[str, ...], is_good: Callable[[Any], bool], wanted: str) -> None:
        for name in names:
            if not is_good(values[name]):
                raise ValueError(f"{name} is {values[name]!r:.60}, expected {wanted}")

    expected(("method",), lambda value: value in _OF_MAPS, f"one of {', '.join(_OF_MAPS)}")
    expected(
        ("layer", "checkpoint", "weights", "split", "localization"),
        lambda value: isinstance(value, str) and bool(value),
        "a text",
    )
    expected(("threshold",), lambda value: _is_number(value) and 0 <= value < 1, "a number, 0 or more and less than 1")
    expected(("which",), lambda value: value in WAYS, " or ".join(WAYS))
    expected(("images",), lambda value: type(value) is int and value > 0, "a whole number, 1 or more")
    expected(("accuracy",), lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1")
    return Fit(**values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
