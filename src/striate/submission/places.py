"""Boxes for a submission: how they are made, and from edges in a photo as it is seen to pixels of the photo as it is stored.

The challenge takes photos as they are stored, and numbers pixels: its boxes end on their last pixel. A network may see photos
turned by their EXIF orientation, and its boxes are edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from striate import machine
from striate.data import boxes as stored_boxes
from striate.data.index import Boxes, Index
from striate.data.loader import Workers
from striate.errors import CheckpointError, NonFiniteError, UserError, expect
from striate.evaluate.network import Network
from striate.evaluate.route import Route, Watch
from striate.localize import boxes, kept
from striate.localize.find import Found, Method, find, method_of, refuse
from striate.localize.kept import Fit
from striate.localize.score import Cut
from striate.submission.images import Box

# What undoes an EXIF orientation: a quarter turn the other one; a half turn and mirrorings themselves.
_BACK: Final = {6: 8, 8: 6}


@dataclass(frozen=True)
class Plan:
    """How boxes will be made. layer: None for the last grid. cut: of maps, None for a box head. fit: that the cut is from, as
    localize kept it; None where it was given."""

    method: Method
    layer: str | None
    cut: Cut | None
    fit: Fit | None

    def describe(self, layer: str) -> str:
        """For the line that says who answered, as "boxes: grad-cam of layer4, …". layer: as it was found."""
        if self.cut is None:
            return "boxes: box head"
        part = "largest component above" if self.cut.which == "largest" else "all above"
        return f"boxes: {self.method} of {layer}, {part} {self.cut.threshold:g} of the map's range"


@dataclass(frozen=True, eq=False)
class Placed:
    """Answers of the N images that could be read, each with its box, in pixels of the photo as stored. turned: by EXIF."""

    found: Found
    boxes: list[list[Box]]
    turned: int


def planned(
    route: Route, method: str, layer: str | None, threshold: float | None, checkpoint: str = "best", raw: bool = False
) -> Plan:
    """How boxes are made by a network, everything refused that cannot be, before a photo is looked at.

    method: as `method_of` takes it. threshold: share of a map's range, above which its largest component is the object; None for
    what `striate localize` kept beside the run. checkpoint, raw: as they were asked for, to be told in a command.
    Raises UserError for two networks, an option of maps with a box head, a method or layer that does not fit the network, a
    threshold out of range or where none is kept; CheckpointError where what is kept is damaged.
    """
    if route.grey is not None:
        raise UserError(
            "--task localization: boxes are made by one network, and here grey photos go to a second one. Give one run alone."
        )
    network = route.colour
    chosen = method_of(network.model, method)
    if chosen == "head":
        if threshold is not None or layer is not None:
            raise UserError(
                "--threshold and --layer are of heatmaps, and this is a box head: add --method grad-cam, or leave them out."
            )
        return Plan(chosen, None, None, None)
    if threshold is not None and not 0 <= threshold < 1:
        raise UserError(f"--threshold {threshold}: expected a share of the map's range, 0 or more and less than 1.")
    refuse(network, chosen, layer)
    if threshold is None and not (network.home / kept.NAME).is_file() and not (network.home / "recipe.json").is_file():
        raise UserError(f"--method {chosen}: no threshold is kept for a network that is no run. Give one: --threshold 0.2.")
    fit = None if threshold is not None else kept.fit_for(network, chosen, layer, checkpoint, raw)
    if fit is not None and layer is None:
        try:
            refuse(network, chosen, fit.layer)
        except UserError as error:
            raise CheckpointError(
                f"{network.home / kept.NAME}: damaged: {error} Run striate localize {network.home} again."
            ) from error
    cut = Cut(threshold or 0.0, "largest") if fit is None else Cut(fit.threshold, fit.which)
    boxes.box_of(np.zeros((1, 1), np.float32), cut.threshold, cut.which)  # OpenCV, if it is not there, is missed now
    return Plan(chosen, layer if fit is None else fit.layer, cut, fit)


def placed(network: Network, plan: Plan, index: Index, device: str, workers: str, watch: Watch) -> Placed:
    """Looks at every image once, and boxes each of its first five answers. Raises as `find`; NonFiniteError for a box of NaN."""
    found = find(network, index, plan.method, plan.layer, machine.choose_device(device), Workers.parse(workers), watch=watch)
    cut = Cut(0.0, "largest") if plan.cut is None else plan.cut  # a box head asks for none
    answers = range(found.answers_NA.shape[1])
    edges_NA4 = np.array([[found.box(i, place, cut.threshold, cut.which) for place in answers] for i in range(len(found))])
    bad = np.flatnonzero(~np.isfinite(edges_NA4).all(axis=(1, 2)))
    if len(bad):
        raise NonFiniteError(f"{found.keys[bad[0]]}: the network gave a box that is NaN or infinite. Take another --checkpoint.")
    sides_N2, orientations_N = found.sides_N2, np.ones(len(found), np.int64)
    if network.view.exif:
        # Headers of the images that were found: each has one box or more.
        facts = stored_boxes.stored(index, Boxes.of_images(len(index), found.rows_N, edges_NA4[:, 0]))
        orientations_N = facts.orientations_N[found.rows_N]
    made = []
    for edges_A4, (width, height), orientation in zip(edges_NA4, sides_N2.tolist(), orientations_N.tolist(), strict=True):
        made.append(pixels(*as_stored(edges_A4, orientation, width, height)))
    return Placed(found, made, int((orientations_N != 1).sum()))


def as_stored(seen_M4: NDArray[np.float64], orientation: int, width: int, height: int) -> tuple[NDArray[np.floating], int, int]:
    """Boxes of a photo that was turned by its EXIF orientation in the photo as stored, and its width and height there.

    seen_M4: [M, 4], edges in pixels of the photo as seen, which is width by height. The inverse of `data.boxes.turned`.
    """
    back = _BACK.get(orientation, orientation)
    return stored_boxes.turned(seen_M4, back, width, height), *stored_boxes.turned_sides(width, height, back)


def pixels(edges_M4: NDArray[np.floating], width: int, height: int) -> list[Box]:
    """Boxes in the challenge's numbers: edges rounded to the nearest (halves up), and of the far ones the pixel before.

    edges_M4: [M, 4] finite, in pixels of a photo of width by height. Every box has a pixel or more and lies in the photo;
    (0, 0, width, height) becomes (0, 0, width - 1, height - 1).
    """
    expect(edges_M4, "M 4", "boxes")
    whole_M4 = np.floor(np.asarray(edges_M4, np.float64) + 0.5).astype(np.int64)
    limit_2 = np.array([width, height])
    low_M2 = np.clip(whole_M4[:, :2], 0, limit_2 - 1)
    high_M2 = np.clip(whole_M4[:, 2:], low_M2 + 1, limit_2) - 1
    return [
        (x_min, y_min, x_max, y_max) for (x_min, y_min), (x_max, y_max) in zip(low_M2.tolist(), high_M2.tolist(), strict=True)
    ]
