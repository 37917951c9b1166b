"""The network waits for images.

Looks at: the share of each stretch of training that passed waiting for the next batch.
Why: what the loader does not deliver, no faster device makes up for. The share says how much there is to gain: without waiting,
a training that waits 40 % of its time takes 60 % of it.
Source: Mohan et al. 2021, "Analyzing and Mitigating Data Stalls in DNN Training", section 3.
"""

from __future__ import annotations

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, level

SOURCE = "Mohan et al. 2021, section 3"

# A stretch counts as waiting above this share, and the training when most stretches do.
_WAITING, _MOST = 0.25, 0.6
# The first records have the loader's start in them.
_SKIPPED, _LEAST_ROWS = 2, 4


def check(history: History) -> Finding | None:
    """A finding when the network waits for a quarter of the time or more, in most records after the first two."""
    waited = history.steps["wait_share"][_SKIPPED:]
    waited = waited[np.isfinite(waited)]
    if len(waited) < _LEAST_ROWS:
        raise NotJudged("too few records" if np.isfinite(history.steps["wait_share"]).any() else "no speed and memory")
    if (waited > _WAITING).mean() < _MOST:
        return None
    share = min(level(waited), 0.99)
    speed = level(history.steps["images_per_s"][_SKIPPED:])
    possible = speed / (1 - share)
    return Finding(
        code="waiting",
        severity="warning",
        sentence=f"{share:.0%} of the time the network waits for images: {speed:,.0f} per second, {possible:,.0f} without that.",
        evidence={
            "share of waiting": share,
            "records above a quarter": float((waited > _WAITING).mean()),
            "images per second": speed,
            "images per second without waiting": possible,
            "workers": history.start.get("workers"),
            "images in memory": history.start.get("resident"),
        },
        causes=(Cause("waiting-for-data", 0.95, f"measured in {len(waited)} stretches of the training"),),
        remedies=_remedies(history),
        source=SOURCE,
        curve=history.column_curve("Waiting for images", "wait_share", "share of the time"),
    )


def _remedies(history: History) -> tuple[Remedy, ...]:
    remedies = []
    recipe = history.recipe
    if recipe is not None and recipe.data.shrink_px == 0 and recipe.data.size_px:
        size = round(recipe.data.size_px / recipe.data.crop_share)
        remedies.append(Remedy("Keep the decoded images in memory, reduced to what the network needs.", _resident(history, size)))
    remedies.append(
        Remedy("Store the images again, small and in few files: `striate data pack DATA PACK`, then train on the pack.")
    )
    remedies.append(Remedy("Give it more workers, up to the number of cores (--workers), or a cheaper augmentation."))
    return tuple(remedies)


def _resident(history: History, size: int) -> dict[str, object]:
    return {**history.set(data_resident="yes"), "data.shrink_px": size}
