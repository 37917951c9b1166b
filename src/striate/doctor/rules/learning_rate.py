"""The learning rate is far from the rates at which this network learns.

Looks at the loss after ten steps from the same start, on the same batches, with the recipe's own optimiser, at the
recipe's rate and at tenths and tens of it. What bursts at the recipe's rate and learns at a tenth is too high; what stands still
at the recipe's rate and learns at a hundred times it is too low. A recipe with a warm-up gets to its peak slowly, so it is
judged at a tenth of it.
"""

from __future__ import annotations

import dataclasses
import math

from striate.doctor import trials
from striate.doctor.finding import Cause, Curve, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.doctor.trials import LEARNS, RateCurve

SOURCE = "Smith 2017, section 3.3 (learning rate range test); Goodfellow, Bengio and Courville 2016, section 11.4.1"
# A rate bursts when its steps leave the loss above the first one by so many times that. Steps at a good rate with momentum
# raise it at first: ResNet-18 with SGD at 0.1 on 16 images of 32 pixels from 2.7 to 7.
BURST = 4.0
# A rate stands still when its steps change the loss by less than this share; what learns, `trials` says.
STANDS = 0.01
# A rate moves the loss, but a far higher one moves it so many times as far: worth knowing.
FAR_BETTER = 6.0
# Of the best rate's fall: so much makes another rate nearly as good.
NEARLY = 0.8


def check(patient: Patient) -> Finding | None:
    """The finding, or None where the recipe's rate is among those that learn, or none of them says anything."""
    if patient.recipe is None and patient.optimizer is None:
        raise NotJudged("no optimiser was given")
    curve = patient.rates
    if not math.isfinite(curve.before) or curve.before <= 0:
        return None
    warmed = patient.recipe is not None and patient.recipe.optim.warmup_epochs > 0
    at_peak = curve.at(1.0)
    is_thrown = trials.moves(patient, curve.rate) > trials.LEAP
    if at_peak is not None and _fall(curve, at_peak) >= LEARNS and not is_thrown:
        return None
    here = curve.at(0.1 if warmed and not is_thrown else 1.0)
    if here is None or len(curve.rates) < 2:
        raise NotJudged("no time for more than one rate")
    if _burst(curve, here) and (lower := _best(curve, below=curve.rate)) is not None:
        return _finding(patient, curve, here, lower, "learning-rate-high")
    if curve.duel is not None and (is_thrown or not warmed):
        if (found := _of_duel(patient, curve, *curve.duel)) is not None:
            return found
    elif is_thrown:  # it may learn even so, but far less than at a rate that leaves the weights some memory
        lower = _best(curve, below=curve.rate)
        if lower is not None and _fall(curve, curve.losses[curve.rates.index(lower)]) > 2 * max(_fall(curve, here), LEARNS):
            return _finding(patient, curve, here, lower, "learning-rate-high")
    higher = _best(curve, above=30 * curve.rate)
    if at_peak is None or higher is None or _burst(curve, at_peak):
        return None
    there = curve.losses[curve.rates.index(higher)]
    if abs(_fall(curve, at_peak)) < STANDS:
        return _finding(patient, curve, at_peak, higher, "learning-rate-low")
    if _fall(curve, at_peak) > 0 and _fall(curve, there) > FAR_BETTER * _fall(curve, at_peak):
        found = _finding(patient, curve, at_peak, higher, "learning-rate-low")
        return dataclasses.replace(found, severity="note")  # a careful rate moves little in ten steps as well
    return None


def _of_duel(patient: Patient, curve: RateCurve, here: float, tenth: float) -> Finding | None:
    """The finding where after more steps a tenth of the rate has learnt far more than the rate itself."""
    if _fall(curve, tenth) < 2 * max(_fall(curve, here), LEARNS):
        return None
    return _finding(patient, curve, here, 0.1 * curve.rate, "learning-rate-high", tenth, trials.DUEL_STEPS)


def _fall(curve: RateCurve, loss: float) -> float:
    return (curve.before - loss) / curve.before


def _burst(curve: RateCurve, loss: float) -> bool:
    return not math.isfinite(loss) or _fall(curve, loss) < -BURST


def _best(curve: RateCurve, below: float = math.inf, above: float = 0.0) -> float | None:
    """Of the rates within the bounds the highest that learns nearly as well as the best one, for it gets further in the end.

    None where none learns; but of lower rates the highest that at least does not burst.
    """
    inside = [(rate, loss) for rate, loss in zip(curve.rates, curve.losses, strict=True) if above < rate < below]
    most = max((_fall(curve, loss) for _, loss in inside), default=0.0)
    if most >= LEARNS:
        return max(rate for rate, loss in inside if _fall(curve, loss) >= NEARLY * most)
    calm = [rate for rate, loss in inside if not _burst(curve, loss)]
    return max(calm) if calm and math.isfinite(below) else None


def _finding(
    patient: Patient,
    curve: RateCurve,
    here: float,
    better: float,
    cause: str,
    there: float | None = None,
    steps: int = trials.RATE_STEPS,
) -> Finding:
    """here, there: the loss at the rate and at the better one, after so many steps."""
    is_high = cause == "learning-rate-high"
    after = f"{here:.3g}" if math.isfinite(here) else "no finite number"
    there = curve.losses[curve.rates.index(better)] if there is None else there
    changes: dict[str, object] = {}
    if patient.recipe is not None:
        o = patient.recipe.optim
        changes = {"optim.lr": float(f"{o.lr * better / curve.rate:.3g}")}
        if is_high and o.warmup_epochs == 0:
            changes["optim.warmup_epochs"] = 1.0
    factor = better / curve.rate
    shown = f"{1 / factor:.3g} times lower" if is_high else f"{factor:.3g} times higher"
    causes = [Cause(cause, 0.9, f"the loss is {after} after {steps} steps at {curve.rate:.3g} and {there:.3g} at {better:.3g}")]
    if is_high and not patient.signals.has_norms:
        causes.append(Cause("no-normalisation", 0.3, "a network without normalisation bears lower rates only"))
    return Finding(
        "learning-rate",
        "error" if is_high or factor >= 1000 else "warning",
        f"The learning rate {curve.rate:.3g} is too {'high' if is_high else 'low'}: after {steps} steps the loss is "
        f"{after}, from {curve.before:.3g}; a rate {shown} gives {there:.3g}.",
        {
            "learning rate": curve.rate,
            "loss before": curve.before,
            "loss by rate": {f"{rate:.3g}": loss for rate, loss in zip(curve.rates, curve.losses, strict=True)},
        },
        tuple(causes),
        (Remedy(f"Take a learning rate of about {better:.2g}" + (" with a warm-up." if is_high else "."), changes),),
        SOURCE,
        curve=Curve(
            f"Loss after {curve.steps} steps, by learning rate",
            "learning rate",
            "cross-entropy",
            list(curve.rates),
            {"loss": [loss if math.isfinite(loss) else None for loss in curve.losses]},
            is_log_x=True,
            mark=(curve.rate, "the recipe's"),
        ),
    )
