"""A stranger's loader makes its images slower than the network takes them.

Looks at the time in which the loader's next batches come, without the first ones, in which workers start, beside the time of a
forward and backward pass of as many images. What a training with striate waits for is measured by the rule `plan`.
"""

from __future__ import annotations

import itertools
import statistics

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient

SOURCE = "Mohan et al. 2021 (Analyzing and Mitigating Data Stalls in DNN Training), section 3"
# The first batches, in which workers start, and how many are timed behind them at least.
SKIPPED, TIMED = 2, 3
# A batch may take so many times what the network takes for it, and below so many seconds nobody waits.
TIMES, SHORT_S = 1.5, 0.05


def check(patient: Patient) -> Finding | None:
    """The finding, or None where batches come in time. Raises NotJudged for striate's own loader and for very short ones."""
    if patient.recipe is not None:
        raise NotJudged("measured with the plan")
    step_s = patient.pass_s * len(patient.images) / max(1, patient.signals.images)
    for _ in itertools.islice(patient.train(), SKIPPED + TIMED):
        pass  # those that no rule asked for yet are loaded now
    taken = patient.loading_s[SKIPPED:]
    if not taken:
        raise NotJudged("too few batches")
    batch_s = statistics.median(taken)
    if batch_s < max(SHORT_S, TIMES * step_s):
        return None
    return Finding(
        "loader-speed",
        "warning",
        f"A batch takes {batch_s:.2g} s to load, and {step_s:.2g} s to train on: the network waits for "
        f"{batch_s / (batch_s + step_s):.0%} of the time, unless workers load beside it.",
        {"seconds to load a batch": batch_s, "seconds of a pass over it": step_s, "images of a batch": len(patient.images)},
        (Cause("waiting-for-data", 0.9, f"loading takes {batch_s / step_s:.2g} times as long as training"),),
        (
            Remedy("Load in other processes: DataLoader(…, num_workers=4, persistent_workers=True)."),
            Remedy("Store the images decoded and small, and do costly work on them once; or train on a pack with striate."),
        ),
        SOURCE,
    )
