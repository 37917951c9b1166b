"""The loss jumps up now and then, and comes back.

Looks at: the training loss against the median of its neighbours, gradient norms, skipped steps.
Why: one step that lands far away costs the steps that lead back. Rare jumps of a large network heal; frequent ones say that the
rate is at its limit, or that some batches hold images unlike all others.
Source: Goodfellow, Bengio and Courville 2016, section 8.2.4 (cliffs, and clipping the gradient).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, Numbers, jitter, level

SOURCE = "Goodfellow, Bengio and Courville 2016, section 8.2.4"

# Rows below which a jump cannot be told from the fall at the start.
_LEAST_ROWS = 20
# A jump: so many times the usual distance of a record from its neighbours, and by this share of them.
_DEVIATIONS, _SHARE = 8.0, 0.4
# Neighbours on either side. The level is the larger of their two medians, so that neither a fall nor a rise is a jump.
_NEIGHBOURS = 5
# So many jumps are a warning where they go on to the end; fewer are a note. More rows than this share are no jumps but noise.
_MANY, _MOST_SHARE = 3, 0.15
# The first rows, as a share of all, where the loss falls from wherever the network started.
_START = 0.1


def check(history: History) -> Finding | None:
    """A finding when the training loss has isolated jumps after its start."""
    has_it = np.isfinite(history.loss)
    loss, step = history.loss[has_it], history.steps["step"][has_it]
    if len(loss) < _LEAST_ROWS:
        raise NotJudged("too few records" if len(loss) else "no training losses")
    jumps = _jumps(loss)
    if not jumps.any() or jumps.mean() > _MOST_SHARE:
        return None
    places = np.flatnonzero(jumps)
    heights = loss[places] / np.maximum(_levels(loss)[places], 1e-12)
    worst = places[int(np.argmax(heights))]
    is_going_on = len(places) >= _MANY and places[-1] > 0.6 * len(loss)
    return Finding(
        code="spikes",
        severity="warning" if is_going_on else "note",
        sentence=(
            f"The training loss jumped {len(places)} time{'s' * (len(places) > 1)}, "
            f"most at step {int(step[worst]):,}: to {loss[worst]:.4g}, {heights.max():.1f} times its neighbours."
        ),
        evidence={
            "jumps": len(places),
            "steps": ", ".join(f"{int(step[place])}" for place in places[:10]),
            "highest": float(loss[worst]),
            "over its neighbours": float(heights.max()),
            "records": len(loss),
            "gradient norm there": float(history.steps["gradient_norm"][has_it][worst]),
            "gradient norm, typical": level(history.steps["gradient_norm"]),
        },
        causes=_causes(history, len(places)),
        remedies=(
            Remedy("Bound the gradients.", history.set(optim_clip_norm=_bound(history))),
            Remedy("Take a third of the learning rate.", history.scaled("optim.lr", 0.3)),
        ),
        source=SOURCE,
        curve=history.column_curve("training loss", "loss", "loss [nats]", is_log=True),
    )


def _levels(loss: Numbers) -> Numbers:
    """Of each row the larger of the medians of its neighbours before and after; the first and the last have one side."""
    padded = np.pad(loss, _NEIGHBOURS, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _NEIGHBOURS)
    before, after = np.full(len(loss), -np.inf), np.full(len(loss), -np.inf)
    before[1:] = np.nanmedian(windows[1 : len(loss)], axis=1)
    after[:-1] = np.nanmedian(windows[_NEIGHBOURS + 1 : -1], axis=1)
    return np.asarray(np.maximum(before, after))


def _jumps(loss: Numbers) -> NDArray[np.bool_]:
    levels = _levels(loss)
    above = loss - levels
    jumps = (above > _DEVIATIONS * jitter(loss)) & (above > _SHARE * levels)
    jumps[: max(2, int(_START * len(loss)))] = False
    jumps[-1] = False  # whether it comes back is not yet known
    return jumps


def _bound(history: History) -> float:
    """A bound that ordinary gradients pass and those of a jump do not: twice the typical norm, at least 1."""
    return float(f"{max(1.0, 2 * np.nan_to_num(level(history.steps['gradient_norm']))):.2g}")


def _causes(history: History, count: int) -> tuple[Cause, ...]:
    causes = [Cause("learning-rate-high", 0.55, f"{count} jumps; a rate at its limit is the usual reason")]
    keys = {key for skip in history.skips for key in skip.keys}
    if history.bad or keys:
        causes.append(Cause("bad-batch", 0.6, f"{len(history.bad) + len(keys)} images are known to be bad"))
    else:
        causes.append(Cause("bad-batch", 0.3, "a batch with images unlike the others makes a jump as well"))
    if history.batch_size is not None and history.batch_size <= 8:
        causes.append(Cause("batch-too-small", 0.6, f"a step sees {history.batch_size} images only"))
    if level(history.steps["loss_scale"]) > 0:
        causes.append(Cause("precision", 0.35, "numbers of 16 bits overflow first where they are largest"))
    return tuple(causes)
