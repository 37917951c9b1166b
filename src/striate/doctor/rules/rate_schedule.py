"""The schedule of the learning rate does not go with the length of the training.

Looks at the rate of every step as the recipe lays it out, before the first one: the share of the training that is left when the
rate has fallen to a hundredth of its peak, its mean, whether any drop comes at all, and how long the warm-up lasts.
Why: epochs of drops are copied from recipes of another length, or written as shares of the training. A rate that has fallen is a
training that has ended; one that never falls leaves the loss jittering; a warm-up that never ends never gets to the rate.
"""

from __future__ import annotations

from striate.doctor.finding import Cause, Curve, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.recipe import OptimGroup
from striate.train import rate

SOURCE = "He et al. 2016, section 3.4 (drops when the error plateaus); Goyal et al. 2017, section 2.2 (five epochs of warm-up)"
# Share of the peak that counts as fallen, and the share of the training by which it may come earliest. Drops by ten at 30 and 60
# of 90 epochs come to a hundredth at two thirds, an exponential to 0.01 at the end.
FALLEN, EARLIEST = 0.011, 0.25
# Mean rate over its peak: half a cosine has 0.5, three drops of ten in 90 epochs 0.37, of 300 epochs 0.11.
LITTLE = 0.07
# Of the training, what a warm-up may take.
LONG_WARMUP = 0.6
# Epochs from which a constant rate is worth a word.
MANY_EPOCHS = 10
# Steps below which a schedule has no shape.
FEWEST = 20
POINTS = 200


def check(patient: Patient) -> Finding | None:
    """The finding, or None where the rate rises, stays and falls in time."""
    recipe, total, per_epoch = patient.recipe, patient.total_steps, patient.steps_per_epoch
    if recipe is None or not total or not per_epoch or total < FEWEST:
        raise NotJudged("no recipe with so many steps is known")
    o = recipe.optim
    steps = sorted({round(total * place / POINTS) for place in range(POINTS)})
    shares = [_share(o, step, total, per_epoch) for step in steps]
    epochs = total / per_epoch
    mean, highest = sum(shares) / len(shares), max(shares)
    lasts = max(step for step, share in zip(steps, shares, strict=True) if share > FALLEN * highest) / total
    warmup = o.warmup_epochs / epochs
    curve = Curve("Learning rate", "epoch", "share of the peak", [step / per_epoch for step in steps], {"rate": shares})
    if warmup > LONG_WARMUP and total > 1:
        words = f"The warm-up of {o.warmup_epochs:g} epochs takes {min(1.0, warmup):.0%} of a training of {epochs:.3g} epochs."
        cause = Cause("learning-rate-low", 0.85, f"the rate gets to {highest:.0%} of its peak")
        way = Remedy("Warm up for a twentieth of the training.", {"optim.warmup_epochs": round(epochs / 20, 2)})
        return _finding("warning", words, cause, way, mean, lasts, epochs, curve)
    is_cut_short = lasts < EARLIEST or mean < LITTLE
    if is_cut_short:
        words = (
            f"The learning rate falls to a hundredth of its peak within {lasts:.1%} of the training, and is {mean:.1%} of it on "
            "average: what comes after hardly learns."
        )
        cause = Cause("schedule-early", 0.9, f"after {lasts * epochs:.3g} of {epochs:.3g} epochs the training is over")
        return _finding("warning", words, cause, _cosine(), mean, lasts, epochs, curve)
    is_flat = min(shares[len(shares) // 2 :]) > 0.9 * highest and o.schedule != "plateau" and not o.swa_from
    if is_flat and epochs >= MANY_EPOCHS:
        misses = o.schedule == "step"
        words = f"The learning rate never falls in {epochs:.3g} epochs" + (
            f": the first drop would come after {min(o.drop_epochs, default=0):g}." if misses else "."
        )
        cause = Cause("schedule-never", 0.85 if misses else 0.5, f"schedule {o.schedule}: {min(shares[-5:]):.0%} at the end")
        return _finding("warning" if misses else "note", words, cause, _cosine(), mean, lasts, epochs, curve)
    return None


def _share(o: OptimGroup, step: int, total: int, per_epoch: int) -> float:
    return rate.share(
        o, step=step, epoch=step / per_epoch, progress=step / total, warmup_steps=round(o.warmup_epochs * per_epoch)
    )


def _cosine() -> Remedy:
    return Remedy("Take a cosine, which ends with the training whatever its length.", {"optim.schedule": "cosine"})


def _finding(
    severity: str, sentence: str, cause: Cause, remedy: Remedy, mean: float, lasts: float, epochs: float, curve: Curve
) -> Finding:
    return Finding(
        "rate-schedule",
        "warning" if severity == "warning" else "note",
        sentence,
        {"epochs": epochs, "mean rate over the peak": mean, "share of the training above a hundredth": lasts},
        (cause,),
        (remedy,),
        SOURCE,
        curve=curve,
    )
