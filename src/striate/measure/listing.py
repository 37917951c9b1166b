"""Networks side by side: what each costs beside what was published of it; what `striate measure` does."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from striate.errors import UserError
from striate.measure.accuracies import PUBLISHED, Published
from striate.measure.cost import Cost, Totals, cost, totals
from striate.measure.summary import Summary, summary
from striate.models import catalog, sizes
from striate.run.folder import build_model, open_run
from striate.view import View

# Networks of the libraries, and yours, are measured at this size and with this many classes unless told otherwise.
_SIZE_PX, _CLASSES = 224, 1000
# Options by which builders are told the channels of the input.
_CHANNELS = ("in_channels", "in_chans")


@dataclass(frozen=True)
class Subject:
    """A network to measure, not built yet.

    name: as it was asked for; network, options: as `catalog.build` takes them. folder, view: of a run. year: None where nobody
    knows; published: None also where an option, another input or another number of classes makes it another network.
    build: makes it, on torch's current device.
    """

    name: str
    year: int | None
    published: Published | None
    size_px: int
    channels: int
    classes: int
    network: str
    options: Mapping[str, object]
    build: Callable[[], nn.Module]
    folder: Path | None = None
    view: View | None = None

    def outlined(self) -> nn.Module:
        """The network without numbers where its builder can do so, else with them."""
        with torch.random.fork_rng(devices=[]):
            try:
                with sizes.without_numbers():
                    return self.build()
            except UserError:  # a builder that computes with its tensors; a mistake of the user's fails again
                return self.build()


@dataclass(frozen=True)
class Measured:
    """What is said of a network. cost: in a table the counts alone. summary: None where it cannot be trained at that size."""

    subject: Subject
    cost: Cost | Totals
    summary: Summary | None = None

    def to_json(self, layers: bool = False) -> dict[str, Any]:
        """Plain values; scripts rely on the first eight keys. layers: with a table of each layer."""
        subject, published = self.subject, self.subject.published or Published(None, None, "", "")
        plain: dict[str, Any] = {
            "name": subject.name,
            "year": subject.year,
            "parameters": self.cost.parameters,
            "parameters_without_aux": self.cost.parameters_without_aux,
            "macs": self.cost.macs,
            "input": subject.size_px,
            "published_top1": published.top1,
            "published_top5": published.top5,
            "published_protocol": published.protocol or None,
            "published_source": published.source or None,
            "channels": subject.channels,
            "classes": subject.classes,
        }
        if isinstance(self.cost, Cost):
            last = self.cost.last_conv
            plain |= {
                "macs_with_aux": self.cost.macs_with_aux,
                "weight_bytes": self.cost.weight_bytes,
                "forward_bytes": self.cost.forward_bytes,
                "training_bytes": self.cost.training_bytes,
                "receptive_field_px": last.field.size_px if last is not None and last.field is not None else None,
                "receptive_field_layer": last.name if last is not None else None,
                "torchsummary": self.summary and dataclasses.asdict(self.summary) | {"total_mib": self.summary.total_mib},
            }
            if layers:
                plain["layers"] = [dataclasses.asdict(line) for line in self.cost.layers]
        return plain


def measure(
    *networks: str | Path,
    size_px: int | None = None,
    classes: int | None = None,
    options: Mapping[str, object] | None = None,
) -> list[Measured]:
    """What each network costs and what was published of it; without a name, all of striate's own, counts alone.

    networks: names as `--model` takes them, or run folders. size_px, classes: None takes those the network was published for
    (224 pixels and 1,000 classes where nobody knows; a run has its own). options: for the builder of each of them.
    Nothing is computed and nothing is kept: weights are not read, and a network of any size takes a second or two.
    Raises UserError for an unknown name or option and for an input that is too small; the message names the smallest.
    """
    if not networks:
        return [_counted(subject(name, size_px, classes, options)) for name in catalog.NETWORKS]
    return [_measured(subject(name, size_px, classes, options)) for name in networks]


def _counted(one: Subject) -> Measured:
    return Measured(one, totals(one.outlined(), one.size_px, one.channels, name=one.name))


def _measured(one: Subject) -> Measured:
    model = one.outlined()
    found = cost(model, one.size_px, one.channels, name=one.name)
    return Measured(one, found, None if found.training_bytes is None else summary(model, one.size_px, one.channels))


# ---------------------------------------------------------------- names


def subject(
    name: str | Path, size_px: int | None = None, classes: int | None = None, options: Mapping[str, object] | None = None
) -> Subject:
    """The network of a name or of a run folder. Arguments and errors as of `measure`."""
    for value, word in ((size_px, "--img-size"), (classes, "--classes")):
        if value is not None and value < 1:
            raise UserError(f"{word} {value}: expected 1 or more.")
    given = dict(options or {})
    text = str(name)
    if isinstance(name, Path) or (text not in catalog.NETWORKS and (Path(text) / "recipe.json").is_file()):
        return _of_run(Path(name), size_px, classes, given)
    known = catalog.option_names(text)
    entry = catalog.NETWORKS.get(text)
    published_px, channels = (entry.size_px, entry.channels) if entry is not None else _input_of(text)
    side, count = size_px or published_px, classes or (entry.classes if entry is not None else _CLASSES)
    if "size_px" in known:
        given.setdefault("size_px", side)  # networks with a flattened grid need the input's side
    is_as_published = not options and (entry is None or count == entry.classes) and side == published_px
    return Subject(
        name=text,
        year=entry.year if entry is not None else None,
        published=PUBLISHED.get(text) if is_as_published else None,
        size_px=side,
        channels=next((int(str(given[word])) for word in _CHANNELS if str(given.get(word, "")).isdigit()), channels),
        classes=count,
        network=text,
        options=given,
        build=lambda: catalog.build(text, count, given),
    )


def _of_run(folder: Path, size_px: int | None, classes: int | None, options: Mapping[str, object]) -> Subject:
    """The network that a run trains, untrained: its recipe's options, classes and channels."""
    run = open_run(folder)
    if classes is not None or options:
        raise UserError(f"{folder}: a run has its own classes and options; measure the network by name to change them.")
    recipe, count, view = run.recipe, len(run.classes.ids), run.view
    entry = catalog.NETWORKS.get(recipe.model.name)
    return Subject(
        name=str(folder),
        year=entry.year if entry is not None else None,
        published=None,
        size_px=size_px or view.size_px,
        channels=view.channels,
        classes=count,
        network=recipe.model.name,
        options=recipe.model.options,
        build=lambda: build_model(recipe, count),
        folder=folder,
        view=view,
    )


def _input_of(name: str) -> tuple[int, int]:
    """Side and channels of the input that a network of a library is made for, as far as the library says."""
    library, _, network = name.partition("/")
    if library == "timm":
        import timm  # the catalogue has found it there

        made_for = timm.get_pretrained_cfg(network)
        if made_for is not None:
            channels, height, width = made_for.input_size
            return max(height, width), channels
    return _SIZE_PX, 3


# ---------------------------------------------------------------- files


def to_csv(found: Sequence[Measured]) -> str:
    """A line for each network, with the keys of `Measured.to_json` that hold one value."""
    rows = [{key: value for key, value in one.to_json().items() if not isinstance(value, dict)} for one in found]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
