"""Where a network looked: opens a run, chooses photos, has their maps made, and writes pictures and a page of them.

The maps themselves are made in `explain`, one batch of photos at a time, and drawn by `report.explained`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from striate import files, machine
from striate.classes import Classes, listed
from striate.data import views
from striate.data.decode import BadImage, Pixels
from striate.data.index import UNLABELLED, Index
from striate.data.layouts import detect, folder, listing
from striate.data.layouts.walk import Tally, look
from striate.data.loader import Streaming, Workers, ordered_photos
from striate.errors import DataError, UserError, nearest, printable
from striate.evaluate import metrics
from striate.evaluate.calibrate import scaled
from striate.evaluate.network import Network
from striate.evaluate.open import photos_index, ready
from striate.evaluate.predict import main_logits
from striate.evaluate.route import Route, Watch, ask
from striate.explain import features, kernels, maps, sanity
from striate.explain.heatmap import Heatmap
from striate.models import heads
from striate.predictions import Predictions
from striate.report import explained
from striate.report.explained import Group, Item, Map, Page, Picture
from striate.run.folder import Run, open_run

_TOGETHER: Final = 16  # photos whose maps are made in one batch; a mistake has two
_FEATURE_PHOTOS: Final = 4  # whose feature maps are drawn
_MAPS: Final = 16  # feature maps of each
_MAP_PX, _KERNEL_PX = 96, 44  # about the side of one
_TOLD: Final = 24  # photos of a group in the lines for people
_NUMBERS: Final = "heatmaps.json"  # its presence says that a folder may be written again

Numbers = Mapping[str, Any]
_Made = TypeVar("_Made")


@dataclass(frozen=True, eq=False)
class Explanation:
    """What was written. groups: the photos as the page has them, each with its heatmaps; bad: (key, reason).

    network: what looked, in words. classes: in the network's order. layer: of the maps; empty for methods of pixels.
    """

    folder: Path
    page: Path
    network: str
    classes: Classes
    method: str
    layer: str
    groups: tuple[Group, ...]
    bad: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """All photos, in the order of the page."""
        return tuple(item for group in self.groups for item in group.items)

    def describe(self) -> list[str]:
        """Lines for people: what was named in each photo, how far its maps are to be trusted, what was not readable, the page."""
        said = []
        for group in self.groups:
            said += [f"{group.title}: {group.intro}"] if len(self.groups) > 1 else []
            for item in group.items[:_TOLD]:
                true = "" if item.true in {UNLABELLED, item.predicted} else f", in truth {self.classes.title(item.true)}"
                said.append(f"  {item.key}: {self.classes.title(item.predicted)} {item.probability:.1%}{true}")
                said += [f"    {self._of(one, item)}{one.sanity}" for one in item.maps if one.sanity]
            said += [f"  and {len(group.items) - _TOLD:,} more"] if len(group.items) > _TOLD else []
        said += [f"Could not be read: {key}: {reason}" for key, reason in self.bad[:_TOLD]]
        said += [f"and {len(self.bad) - _TOLD:,} more that could not be read"] if len(self.bad) > _TOLD else []
        return [_line(one) for one in (*said, *self.notes, str(self.page))]

    def _of(self, one: Map, item: Item) -> str:
        """The class of a map, where it is not the one that was named or there are several."""
        is_plain = len(item.maps) == 1 and one.heatmap.label == item.predicted
        return "" if is_plain else f"{self.classes.title(one.heatmap.label)} {one.probability:.1%}: "

    def to_json(self) -> dict[str, Any]:
        """Plain values; of each map what it is of, where its picture lies and how far it is to be trusted, not its values."""

        def of_map(one: Map) -> dict[str, Any]:
            heatmap = one.heatmap
            return {
                "class": self.classes.ids[heatmap.label],
                "probability": one.probability,
                "method": heatmap.method,
                "layer": heatmap.layer,
                "picture": one.file,
                "sanity": dict(one.numbers),
            }

        def of_item(item: Item, group: Group) -> dict[str, Any]:
            heatmap = item.maps[0].heatmap
            return {
                "key": item.key,
                "group": group.title,
                "width": heatmap.width,
                "height": heatmap.height,
                "predicted": self.classes.ids[item.predicted],
                "probability": item.probability,
                "true": None if item.true == UNLABELLED else self.classes.ids[item.true],
                "maps": [of_map(one) for one in item.maps],
                "notes": list(item.notes),
            }

        return {
            "folder": str(self.folder),
            "page": str(self.page),
            "network": self.network,
            "method": self.method,
            "layer": self.layer,
            "photos": [of_item(item, group) for group in self.groups for item in group.items],
            "bad": [{"key": key, "reason": reason} for key, reason in self.bad],
            "notes": list(self.notes),
        }


def explain(
    network: str | Path | Run | Route,
    places: str | Path | Sequence[str | Path] = (),
    *,
    method: str = "grad-cam",
    layer: str | None = None,
    of_class: str | None = None,
    images: int = 12,
    checked: bool = True,
    with_kernels: bool = False,
    features_of: str | None = None,
    weights: str | None = None,
    size_px: int | None = None,
    checkpoint: str = "best",
    raw: bool = False,
    device: str = "auto",
    workers: str = "auto",
    out: str | Path | None = None,
    watch: Watch = None,
) -> Explanation:
    """Heatmaps of what a network looked at, over whole photos, and a page of them; what `striate explain` does.

    network, weights, size_px, checkpoint, raw: as for `predict`; of a Route, the network that sees colour.
    places: photos, as files and folders; or one labelled set (see `labelled`), of which some right answers and the most confident
    mistakes are chosen; nothing for the run's own validation set.
    of_class: id or name of the class whose evidence is shown in photos; None for the most probable one of each. In a labelled set
    it is the one that the network named, and for a mistake also the true one.
    method, layer: as `explain.maps` has them. images: right answers, and mistakes, of a labelled set; photos are all shown.
    checked: whether it is looked into how far each map is to be trusted: about 23 passes with each, and the time of three maps.
    with_kernels: adds the first layer's kernels. features_of: adds the strongest feature maps of that layer for the first photos.
    out: the folder; RUN/explanations/METHOD-HASH6 if None, or explanations-NETWORK-METHOD-HASH6 for a network by name.
    watch: called with (images done, images) now and then; it may raise to stop.
    Raises UserError (a class that the network does not know, a layer or method that does not exist, a folder that holds something
    else), DataError where no photo can be read, CheckpointError, NonFiniteError.
    """
    # All that can be refused is refused before the first photo is looked at.
    if images < 1:
        raise UserError(f"--images {images}: expected 1 or more.")
    if not isinstance(network, Route):
        route = ready(network, weights=weights, checkpoint=checkpoint, raw=raw, size_px=size_px)
        opened, name = route.colour, str(network)
    else:
        opened, name = network.colour, network.colour.home.name
    classes, view = opened.classes, opened.view
    assert classes is not None
    label = None if of_class is None else class_of(classes, of_class)
    named = [str(place) for place in ([places] if isinstance(places, (str, Path)) else places)]
    index, notes = _images(name, opened, named)
    is_labelled = index.split != "photos"
    if is_labelled and label is not None:
        raise UserError(
            f"--class {of_class}: goes with photos. In a labelled set the maps are of the class that the network named, and "
            "for a mistake of the true one as well."
        )
    where = machine.choose_device(device)
    making = _Making(heads.classifier_of(opened.model.to(where)), name, opened, method, layer, where, checked)
    making.refuse(features_of)
    pictures = [making.drawn_kernels()] if with_kernels else []
    asked = [opened.digest, view.hash, method, layer, label, images if is_labelled else None]
    told = index.fingerprint if is_labelled else [os.path.abspath(key) for key in index.keys]
    home = _folder(out, opened, name, f"{method}-{_hash6([*asked, told])}", named)
    crew = Workers.parse(workers)
    class_map = classes.match(index.classes, subset=True) if is_labelled else None
    source = Streaming(index, view.exif, 0)

    with _writing(home, pictures) as written:
        answers = ask(Route(opened), source, index, where, "fp32", crew, class_map, watch)
        found, bad = answers.found, list(answers.bad)
        if not len(found):
            reasons = listed([f"{key} ({reason})" for key, reason in bad], 3)
            raise DataError(f"None of the {len(index):,} photos could be read: {reasons}.")
        said = _Said(found if opened.temperature == 1 else scaled(found, opened.temperature), label)

        choices = _choices(said, is_labelled, images)
        groups = []
        for choice in choices:
            items: list[Item] = []
            rows_M = answers.rows_N[choice.rows_M]
            said_of = dict(zip(rows_M.tolist(), choice.rows_M.tolist(), strict=True))
            photos = ordered_photos(source, index, rows_M, lambda photo_HW3: (photo_HW3, views.apply(photo_HW3, view)), crew)
            with contextlib.closing(photos):
                for batch in _batches(photos, _TOGETHER):
                    bad += [(index.keys[row], str(one)) for row, one in batch if isinstance(one, BadImage)]
                    seen = [_Seen(index.keys[row], said_of[row], *one) for row, one in batch if not isinstance(one, BadImage)]
                    if not seen:
                        continue
                    if features_of is not None and not written.photos:
                        written.pictures.extend(making.drawn_features(features_of, seen[:_FEATURE_PHOTOS]))
                    items += _items(making, seen, said, written)
                    if watch is not None:
                        watch(len(items), len(choice.rows_M))
            groups.append(Group(choice.title, choice.intro, tuple(items)))
        return _finished(making, written, groups, tuple(bad), (*notes, *opened.notes), said)


def class_of(classes: Classes, text: str) -> int:
    """The number of a class by its id or its name. Raises UserError, with the nearest ones, where the network has none such."""
    if text in classes.index:
        return classes.index[text]
    places = [place for place, name in enumerate(classes.names) if name.casefold() == text.casefold()]
    if len(places) == 1:
        return places[0]
    if places:
        raise UserError(
            f"--class {text!r}: several classes have this name. Give an id: {listed(classes.ids[n] for n in places)}."
        )
    hint = nearest(text, [*classes.ids, *filter(None, classes.names)])
    raise UserError(
        f"--class {text!r}: none of the {len(classes):,} classes that the network knows, neither by id nor by name.{hint}"
    )


def labelled(place: str) -> Index | None:
    """The images of a labelled set, or None where `place` is a photo or photos without labels.

    A labelled set is the word builtin, a list file (.csv, .jsonl), and every folder or file of a layout of `detect` whose images
    have labels; so also a folder of class folders. A folder that holds photos itself is none, whatever folders lie beside them
    (a few layouts of known sets have such folders, and are sets all the same), nor is one of test images.
    """
    path = Path(place)
    if place != detect.BUILTIN and not path.is_dir():
        is_set = path.suffix.lower() in listing.EXTENSIONS or detect.is_stored(place)
        if not (path.is_file() and is_set):
            return None
    try:
        index = detect.open_split(place)
    except DataError:
        if path.is_dir() and _holds_photos(path):
            return None
        raise
    has_splits = any((path / name).is_dir() for name in ("train", "val"))  # a set, with a stray photo beside them
    if index.layout == folder.NAME and not has_splits and look(path, Tally()).images:
        return None
    return index if (index.labels != UNLABELLED).any() else None


# ---------------------------------------------------------------- which photos


def _images(name: str, opened: Network, named: Sequence[str]) -> tuple[Index, tuple[str, ...]]:
    """The images to choose from, and what is to be said of them; those without labels have the split "photos"."""
    assert opened.classes is not None
    if not named:
        if not _is_run(opened):
            raise UserError(f"{name}: say which photos to explain: striate explain {name} PHOTO…, or a labelled set.")
        run = open_run(opened.home)
        index = detect.open_split(run.data["path"], "val", run.recipe.data.val_share)
        return index, index.notes
    found = labelled(named[0]) if len(named) == 1 else None
    if found is None:
        index = photos_index(named, opened.classes)
        return index, index.notes
    try:
        opened.classes.match(found.classes, subset=True)
    except UserError as error:
        raise UserError(
            f"{named[0]}: a labelled set ({found.layout}), but not of the network's classes. {error} To see its photos without "
            "labels, name them, or the folders that they lie in."
        ) from error
    return found, found.notes


def _holds_photos(path: Path) -> bool:
    try:
        return len(detect.open_photos(path)) > 0
    except DataError:
        return False


def _is_run(opened: Network) -> bool:
    return (opened.home / "recipe.json").is_file()


class _Said:
    """What the network said of every photo that could be read.

    predicted_N: [N] int64, the most probable class. probability_NK: [N, K] float64. true_N: [N] int64, -1 where nobody says.
    chosen: the class whose evidence is asked for, None for the predicted one.
    """

    def __init__(self, found: Predictions, chosen: int | None) -> None:
        self.log_NK = found.scores
        self.predicted_N = metrics.top_k(found.scores, 1)[:, 0]
        self.confidence_N = metrics.best_probabilities(found.scores)
        self.true_N = found.labels
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.predicted_N)

    @property
    def labelled(self) -> int:
        """How many photos have a label."""
        return int((self.true_N != UNLABELLED).sum())

    @property
    def right(self) -> int:
        """How many of them are named rightly."""
        return int((self.true_N == self.predicted_N).sum())

    def probability(self, row: int, label: int) -> float:
        """Of a class for a photo, 0..1."""
        return float(np.exp(metrics.log_probabilities(self.log_NK[row : row + 1])[0, label]))

    def shown(self, row: int) -> list[tuple[int, str]]:
        """The classes whose maps are shown of a photo, and the words before each."""
        predicted, true = int(self.predicted_N[row]), int(self.true_N[row])
        if self.chosen is not None:
            return [(self.chosen, "evidence for")]
        if true in {UNLABELLED, predicted}:
            return [(predicted, "evidence for")]
        return [(predicted, "for its answer"), (true, "for the truth")]


@dataclass(frozen=True, eq=False)
class _Choice:
    """Photos under one heading. rows_M: [M] int64, of what was said."""

    title: str
    intro: str
    rows_M: NDArray[np.int64]


def _choices(said: _Said, is_labelled: bool, most: int) -> list[_Choice]:
    if not is_labelled:
        return [_Choice("Photos", "", np.arange(len(said)))]
    has_label_N = said.true_N != UNLABELLED
    is_right_N = said.predicted_N == said.true_N
    right_N, wrong_N = (np.flatnonzero(has_label_N & part_N) for part_N in (is_right_N, ~is_right_N))
    right_N = right_N[np.argsort(-said.confidence_N[right_N], kind="stable")]
    right_M = right_N[np.argsort(_turns(said.true_N[right_N]), kind="stable")][:most]
    wrong_M = wrong_N[np.argsort(-said.confidence_N[wrong_N], kind="stable")][:most]
    total = f"{_plural(said.labelled, 'labelled image')}"
    wrong = f"{len(wrong_N):,} of {total} named wrongly. "
    wrong += (
        f"Shown: the {len(wrong_M):,} most confident. Beside the evidence for the answer, that for the truth."
        if len(wrong_M)
        else ""
    )
    right = f"{len(right_N):,} of {total} named rightly. "
    right += f"Shown: {len(right_M):,}, of each class the most confident before any class has a second." if len(right_M) else ""
    return [_Choice("Mistakes", wrong.rstrip(), wrong_M), _Choice("Right answers", right.rstrip(), right_M)]


def _turns(labels_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many earlier ones have the same label, of each: [M] int64."""
    seen: Counter[int] = Counter()
    turns = []
    for label in labels_M.tolist():
        turns.append(seen[label])
        seen[label] += 1
    return np.asarray(turns, np.int64)


def _line(text: str) -> str:
    """`text` as one line of the screen: a file name may hold line feeds."""
    return printable(text).replace("\n", "\\n")


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' if count != 1 else ''}"


# ---------------------------------------------------------------- their maps


class _Seen(NamedTuple):
    """A photo, its row in what was said, its pixels [H, W, 3], and what the network saw of it, [S, S, 3]; both uint8."""

    key: str
    row: int
    photo_HW3: Pixels
    view_SS3: Pixels


def _batches(photos: Iterator[_Made], size: int) -> Iterator[list[_Made]]:
    while batch := list(itertools.islice(photos, size)):
        yield batch


@dataclass(eq=False)
class _Making:
    """Makes maps with one method. layer_found: the layer that they were made of, once there are any.

    copies: of the model with random weights, to compare maps with; made with the first maps that are checked.
    """

    model: torch.nn.Module
    name: str
    opened: Network
    method: str
    layer: str | None
    device: torch.device
    checked: bool
    layer_found: str = ""
    copies: tuple[torch.nn.Module, ...] = ()

    def refuse(self, layer: str | None) -> None:
        """Raises what `explain` has to say of the method, the layers and the network, by trying them on a grey image.

        layer: of feature maps, if any are wanted.
        """
        trial = self.method if self.layer is not None else maps.find(self.method).trial
        if trial:
            first = torch.zeros(1, dtype=torch.int64, device=self.device)
            maps.maps(self.model, self._grey(), first, trial, self.layer, self._logits)
        if layer is not None:
            features.feature_maps(self.model, self._grey(), layer)

    def evidence(
        self, seen: Sequence[_Seen], labels: Sequence[Sequence[int]]
    ) -> list[list[tuple[NDArray[np.float32], str, Numbers]]]:
        """The maps of each photo for each of its labels: values [h, w], how far to trust them in words, and in numbers."""
        images_B = self._images(seen)
        places = torch.tensor([place for place, some in enumerate(labels) for _ in some], device=self.device)
        images_M, labels_M = images_B[places], torch.tensor([label for some in labels for label in some], device=self.device)
        maps_Mhw, self.layer_found = maps.maps(self.model, images_M, labels_M, self.method, self.layer, self._logits)
        trust = self._trust(images_M, labels_M, maps_Mhw)
        values = iter(zip(maps_Mhw.detach().float().cpu().numpy(), trust, strict=True))
        return [
            [(value_hw, words, numbers) for value_hw, (words, numbers) in itertools.islice(values, len(some))] for some in labels
        ]

    def drawn_features(self, layer: str, seen: Sequence[_Seen]) -> list[Picture]:
        """The strongest feature maps of a layer for each of some photos."""
        found = []
        maps_BChw = features.feature_maps(self.model, self._images(seen), layer)
        for number, (one, maps_Chw) in enumerate(zip(seen, maps_BChw, strict=True), 1):
            pixels_HW3, channels = features.picture(maps_Chw, _MAPS, max(1, _MAP_PX // maps_Chw.shape[-1]))
            words = (
                f"{one.key}: channels {', '.join(map(str, channels))}, row by row, the strongest first. "
                "Each is scaled by itself, its least value black and its largest white."
            )
            name = explained.file_name(f"features-{layer}-{number}.png", "", ())
            found.append(Picture(f"{layer}: {len(channels)} of {_plural(len(maps_Chw), 'channel')}", words, name, pixels_HW3))
        return found

    def drawn_kernels(self) -> Picture:
        """The kernels of the first convolution. Raises UserError where there is none."""
        name, weights = kernels.first_layer(self.model, self._grey())
        groups_C = kernels.groups(self.model, self._grey())
        count, _, high, wide = weights.shape
        pixels_HW3 = kernels.picture(weights, groups_C, True, max(2, _KERNEL_PX // high), self.opened.view.colour)
        known = kernels.facts(weights, groups_C)
        words = "From grey to coloured, among equals from coarse to fine; each is scaled by itself."
        parts = [[one for one in known if one.group == group] for group in sorted({one.group for one in known})]
        for number, part in enumerate(parts, 1):
            which = f"Group {number} of {len(parts)}" if len(parts) > 1 else "All of them"
            colour, frequency = (float(np.mean([getattr(one, what) for one in part])) for what in ("colour", "frequency"))
            words += (
                f" {which}: on average {colour:.0%} of the energy is colour, and waves have {frequency:.2f} cycles per pixel."
            )
        return Picture(f"{name}: {_plural(count, 'kernel')} of {high} x {wide} weights", words, "kernels.png", pixels_HW3)

    def _trust(self, images_M: torch.Tensor, labels_M: torch.Tensor, maps_Mhw: torch.Tensor) -> list[tuple[str, Numbers]]:
        """How far each map is to be trusted, in words and in numbers."""
        if not self.checked:
            return [("", {})] * len(labels_M)
        if not self.copies and sanity.is_comparable((maps_Mhw.shape[1], maps_Mhw.shape[2])):
            noise = sanity.reference(self.opened.view).to(self.device)
            self.copies = sanity.random_copies(self.model, noise, sanity.copies_for(self.method))
        layer = self.layer_found or None
        found = sanity.check(self.model, images_M, labels_M, maps_Mhw, self.method, layer, self._logits, self.copies)
        return [(one.sentence(), one.to_json()) for one in found]

    def _grey(self) -> torch.Tensor:
        """One image of the mean colour, as the network gets it."""
        return torch.zeros(1, self.opened.view.channels, *[self.opened.view.size_px] * 2, device=self.device)

    def _images(self, seen: Sequence[_Seen]) -> torch.Tensor:
        """[B, C, S, S] float32, as the network gets them."""
        pixels_BSS3 = torch.from_numpy(np.stack([one.view_SS3 for one in seen]))
        return self.opened.view.normalise(pixels_BSS3.permute(0, 3, 1, 2).to(self.device), torch.float32)

    def _logits(self, output: Any) -> torch.Tensor:
        """The main head's, as probabilities are told of them."""
        return main_logits(output).float() / self.opened.temperature


# ---------------------------------------------------------------- what is written


@dataclass(eq=False)
class _Written:
    """What lies in the folder. names: of its pictures, and earlier: of those that were there before.

    pictures: of the network's insides, which are written last. photos: how many have been drawn.
    """

    home: Path
    earlier: list[str]
    names: list[str]
    pictures: list[Picture]
    photos: int = 0

    def name(self, key: str, suffix: str) -> str:
        """A new name for the picture of a photo."""
        name = explained.file_name(key, suffix, {one.lower() for one in self.names})
        self.names.append(name)
        return name

    def keep(self) -> None:
        """Notes which pictures are ours before they are written, so that a folder that was not finished can be written again."""
        files.write_json(self.home / _NUMBERS, {"finished": False, "pictures": [*dict.fromkeys([*self.earlier, *self.names])]})


def _earlier(home: Path) -> list[str]:
    """The pictures that an earlier explanation left in the folder; whoever wrote their list, nothing outside of it."""
    told = files.read_json(home / _NUMBERS) if (home / _NUMBERS).is_file() else {}
    names = told.get("pictures", []) if isinstance(told, dict) else []
    return [name for name in names if isinstance(name, str) and Path(name).name == name and name.endswith(".png")]


def _items(making: _Making, seen: Sequence[_Seen], said: _Said, written: _Written) -> list[Item]:
    """The maps of a batch of photos, drawn and written."""
    classes = [said.shown(one.row) for one in seen]
    made = making.evidence(seen, [[label for label, _ in some] for some in classes])
    suffixes = [[""] if len(some) == 1 else ["-answer", "-truth"] for some in classes]
    names = [[written.name(one.key, suffix) for suffix in some] for one, some in zip(seen, suffixes, strict=True)]
    written.keep()
    view = making.opened.view
    items = []
    for one, some, results, called in zip(seen, classes, made, names, strict=True):
        height, width, _ = one.photo_HW3.shape
        is_shown = written.photos < explained.MOST
        written.photos += 1
        drawn = []
        for (label, role), (values_hw, words, numbers), name in zip(some, results, called, strict=True):
            heatmap = Heatmap(values_hw, view, width, height, making.method, making.layer_found, label, one.key)
            explained.write_picture(written.home / name, explained.overlay(one.photo_HW3, heatmap))
            uri = explained.on_page(one.photo_HW3, heatmap) if is_shown else ""
            drawn.append(Map(heatmap, said.probability(one.row, label), role, words, numbers, name, uri))
        row = one.row
        placement = view.placement(width, height)
        notes = (f"enlarged from {width} x {height} px",) if max(placement.scale_x, placement.scale_y) > 1 else ()
        uri = explained.on_page(one.photo_HW3) if is_shown else ""
        facts = int(said.predicted_N[row]), float(said.confidence_N[row]), int(said.true_N[row])
        items.append(Item(one.key, *facts, tuple(drawn), notes, uri))
    return items


def _folder(out: str | Path | None, opened: Network, network: str, name: str, named: Sequence[str]) -> Path:
    """The folder to write to. Raises UserError where it must not be written, before anything is done."""
    plain = network.replace("/", "-").replace(":", "-")
    usual = opened.home / "explanations" / name if _is_run(opened) else Path(f"explanations-{plain}-{name}")
    home = usual if out is None else Path(out)
    places = [Path(place) for place in named]
    if not named and _is_run(opened):
        places = [detect.place_of(open_run(opened.home).data["path"])]
    for place in places:
        if place.is_dir() and home.resolve().is_relative_to(place.resolve()):
            raise UserError(
                f"{home}: lies in {place}, whose photos are read and which is never written to. Name another: --out DIR"
            )
    if home.exists() and not home.is_dir():
        raise UserError(f"--out {home}: is a file; give the name of a folder.")
    if home.is_dir() and any(home.iterdir()) and not (home / _NUMBERS).is_file():
        raise UserError(f"{home}: holds files that are no explanation. Give an empty folder, or a new one: --out DIR")
    return home


@contextlib.contextmanager
def _writing(home: Path, pictures: list[Picture]) -> Iterator[_Written]:
    """Makes the folder. Where the block ends by an exception before a picture is drawn, all is as it was before.

    pictures: of the network's insides. Raises UserError or ResourceError where the folder cannot be made.
    """
    missing = [one for one in (home, *home.parents) if not one.exists()]
    was_ours = (home / _NUMBERS).is_file()
    names: list[str] = []
    try:
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.refuse(error, home, "making it") from error
        yield _Written(home, _earlier(home), names, pictures)
    except BaseException:  # Ctrl-C, too
        if not any((home / name).exists() for name in names):
            if not was_ours:
                (home / _NUMBERS).unlink(missing_ok=True)
            for one in missing:
                with contextlib.suppress(OSError):  # somebody else has put something there
                    one.rmdir()
        raise


def _finished(
    making: _Making,
    written: _Written,
    groups: Sequence[Group],
    bad: tuple[tuple[str, str], ...],
    notes: tuple[str, ...],
    said: _Said,
) -> Explanation:
    """Writes the rest, page last, and removes pictures of an earlier time."""
    opened, home = making.opened, written.home
    assert opened.classes is not None
    for picture in written.pictures:
        explained.write_picture(home / picture.file, picture.pixels_HW3)
    names = [*written.names, *(picture.file for picture in written.pictures)]
    for name in {*written.earlier} - {*names}:
        (home / name).unlink(missing_ok=True)
    values = [one.heatmap.values_hw for group in groups for item in group.items for one in item.maps]
    if values and not sanity.is_comparable(values[0].shape):
        high, wide = values[0].shape
        notes += (
            f"The maps have {high} x {wide} cells only: where they lie is coarse, and they are too few to compare a map with "
            "that of random weights. A layer nearer to the photo has more (--layer).",
        )
    network = f"{opened.weights} weights of {opened.checkpoint}"
    found = Explanation(
        home, home / "index.html", network, opened.classes, making.method, making.layer_found, tuple(groups), bad, notes
    )
    files.write_json(home / _NUMBERS, {"finished": True} | found.to_json() | {"pictures": names})
    facts = [
        ("Photos", f"{written.photos:,}"),
        ("Method", making.method),
        *([("Layer", making.layer_found)] if making.layer_found else []),
        ("Weights", network),
        ("Classes", f"{len(opened.classes):,}"),
        *([("Named rightly", f"{said.right:,} of {said.labelled:,}")] if said.labelled else []),
    ]
    title = f"Where {opened.home.resolve().name if _is_run(opened) else making.name} looked"
    explained.write(
        Page(
            title,
            opened.classes,
            tuple(facts),
            opened.view.describe(),
            making.method,
            tuple(groups),
            tuple(written.pictures),
            notes,
            bad,
        ),
        found.page,
    )
    return found


def _hash6(told: Any) -> str:
    """Six hex digits that differ where anything differs that maps depend on."""
    return files.sha256_bytes(files.to_json(told, indent=None).encode("utf-8", "surrogateescape"))[:6]
