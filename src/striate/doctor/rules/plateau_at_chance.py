"""The loss stays where an answer that knows nothing has it.

Looks at: the loss of the main head (else the whole loss; where none is told, accuracies alone), accuracies, norms by layer
group, dead units.
Why: a network that gives all classes the same probability has a loss of ln K, with auxiliary heads ln K times the sum of their
weights, and an accuracy of 1/K. Both numbers are known beforehand, so this plateau is told from all others by its height.
The curve alone does not say why; the norms do, as far as they go.
Source: cross-entropy of the uniform distribution; the height 11.05 = 1.6 ln 1000 is that of the report on GoogLeNet with squeeze
and excitation on every path, six epochs long; torchvision's issue 73 (AlexNet at rate 0.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy, Severity
from striate.doctor.history import History, Numbers, curve, fall, finite, level
from striate.recipe import Recipe

SOURCE = "cross-entropy of the uniform distribution is ln K; Szegedy et al. 2015, section 5 (weights of the heads)"

# Rows of steps below which nothing is said, and steps: a network needs some to leave ln K.
_LEAST_ROWS = 8
_LEAST_STEPS = 50
# Epochs of a table: in two whole ones any network that learns has left ln K. By accuracies alone it takes more.
_LEAST_EPOCHS, _LEAST_EPOCHS_ALONE = 2, 4
# How far from ln K the loss may be, as a share of it: a little above, where the logits are not yet small or the batches noisy.
_BELOW, _ABOVE = 0.015, 0.03
# From here on it is no slow start any more: steps after the warm-up and epochs.
_LONG_STEPS, _LONG_EPOCHS = 200, 2
# After so many times that, it is taken for certain whatever the reason.
_NEVER = 3
# A cause with this weight is proved by a number.
_PROVED = 0.7
# Standard errors of an accuracy above 1/K that count as having learnt something.
_DEVIATIONS = 3.0
# Of training images so much of 1/K may be known by heart where validation is guessed, and still nothing is learnt.
_BY_HEART = 0.5
# Images behind an accuracy of which nobody says how many there were.
_GUESSED_IMAGES = 2000
# Numbers of classes that are usual; where accuracies are so low that two decimals of them show little, those of 200 and more.
_USUAL_CLASSES, _MANY_CLASSES = (10, 100, 200, 1000), (200, 365, 1000, 21841)
_NEARLY_NONE = 0.0075
# Sums of weights of heads that are common: one head, Inception v3 with 0.3 or 0.4, GoogLeNet with 0.3 twice.
_HEAD_SUMS = (1.0, 1.3, 1.4, 1.6)
# A function of nothing has exactly ln K in the mean of an epoch; one that only fits badly differs by more than this share.
_EXACTLY = 5e-4
# Gradient over weight of the first layer group, over that of the group that has most of it: 0.3 or more where networks learn at
# once, 0.003 in LeNet-5 with its tanh, which takes a while.
_STARVED = 3e-3
# Updates over weights at the peak of the rate that are below what is usual.
_SLOW = 3e-4
# Dropout beyond this is more than any paper of the zoo has in a layer that all information passes (0.5; 0.7 in side heads).
_DROPOUT = 0.7
# The share of a weight that decay takes away in a step: usual is 1e-5 (0.1 times 1e-4), and with AdamW 1e-4 (0.002 times 0.05).
_DECAY = 2e-3


@dataclass(frozen=True)
class Chance:
    """A loss at ln K: how many classes, by what factor of ln K, and the rows of steps over which it was looked at.

    loss: NaN where accuracies alone are told.
    """

    classes: int
    factor: float
    loss: float
    accuracy: float
    rows: slice

    @property
    def height(self) -> float:
        """The loss of guessing."""
        return self.factor * math.log(self.classes)

    @property
    def arithmetic(self) -> str:
        """The height as it is computed: "1.6 ln 1000 = 11.05"."""
        factor = "" if self.factor == 1.0 else f"{self.factor:g} "
        return f"{factor}ln {self.classes} = {self.height:.4g}"


def check(history: History) -> Finding | None:
    """A finding when the last half of the loss is at ln K and no accuracy is above 1/K; an early one is a note."""
    has_loss = bool(np.isfinite(history.loss).any())
    if not has_loss and history.classes is None:
        raise NotJudged("no training losses")
    if not (has_loss or len(_accuracy(history)[1])):
        raise NotJudged("no losses or accuracies")
    if not _has_enough(history, np.flatnonzero(np.isfinite(history.loss if has_loss else history.steps["step"]))):
        raise NotJudged("too few records")
    chance = at_chance(history) if has_loss else _by_accuracy(history)
    if chance is None:
        return None
    causes = _causes(history, chance)
    is_long = _is_long(history)
    severity: Severity = "warning" if is_long else "note"
    if _is_long(history, by=_NEVER) or causes[0].weight >= _PROVED:
        severity = "error"
    so_far = "" if is_long else f" so far (step {history.last_step:,})"
    accuracy = f", and so is the accuracy of {chance.accuracy:.2%}" if math.isfinite(chance.accuracy) else ""
    sentence = f"The loss stays at {chance.loss:.4g}{so_far}: {chance.arithmetic} is what guessing has{accuracy}."
    if not has_loss:
        sentence = (
            f"The accuracy stays at {chance.accuracy:.2%}{so_far}: guessing among {chance.classes} classes has "
            f"{1 / chance.classes:.2%}."
        )
    return Finding(
        code="plateau-at-chance",
        severity=severity,
        sentence=sentence,
        evidence={
            **({"loss": chance.loss, "loss of guessing": chance.height} if has_loss else {}),
            "accuracy": chance.accuracy,
            "accuracy of guessing": 1 / chance.classes,
            "steps": history.last_step,
            **_facts(history),
        },
        causes=causes,
        remedies=_remedies(history, causes[0].name),
        source=SOURCE,
        curve=history.loss_curve() if has_loss else curve("Accuracy", "step", "top-1", {"accuracy": _accuracy(history)}),
    )


def at_chance(history: History) -> Chance | None:
    """Where the loss stays at ln K, the numbers of it; None where it does not, or where too little is told."""
    loss = history.loss
    told = np.flatnonzero(np.isfinite(loss))
    if not _has_enough(history, told):
        return None
    half = told[len(told) // 2 :] if len(told) > 3 else told
    rows = slice(int(half[0]), int(half[-1]) + 1)
    accuracies = [(accuracy, images) for accuracy, images in _accuracies(history, rows) if math.isfinite(accuracy)]
    height = level(loss[rows])
    least = _BY_HEART if is_validation_guessed(history) else 0.0
    # One head first: 1.3 ln 200 is nearly ln 1000.
    for factor in [1.0] if np.isfinite(history.steps["losses/main"]).any() else _HEAD_SUMS:
        for classes in [history.classes] if history.classes else _guessed_classes(accuracies):
            chance = factor * math.log(classes) if classes > 1 else math.inf
            is_near = -_BELOW <= height / chance - 1 <= _ABOVE
            if is_near and not _is_falling(loss[rows], chance) and not any(_is_above(*one, classes, least) for one in accuracies):
                # With striate's records the main head is looked at alone, but the number that people see is the whole loss.
                seen = level(history.steps["loss"][rows]) if factor == 1.0 and history.head_weight != 1.0 else height
                shown = history.head_weight if factor == 1.0 and math.isfinite(seen) else factor
                accuracy = next((accuracy for accuracy, _ in accuracies), math.nan)
                return Chance(classes, round(shown, 4), seen if math.isfinite(seen) else height, accuracy, rows)
    return None


def _by_accuracy(history: History) -> Chance | None:
    """The same by accuracies alone, where no loss is told: each of the last half at 1/K, and no validation loss below ln K."""
    _, accuracy = _accuracy(history)
    scores = history.scores("val")
    if history.classes is None or history.chance is None:
        return None
    if len(accuracy) < _LEAST_EPOCHS_ALONE:
        raise NotJudged("too few records")
    guessed, half = 1 / history.classes, accuracy[len(accuracy) // 2 :]
    learnt = scores is not None and level(scores["loss"][-2:]) < (1 - _BELOW) * history.chance
    is_above = any(_is_above(float(one), _GUESSED_IMAGES, history.classes) for one in half)
    is_below = level(half) < guessed / 2 and guessed > _NEARLY_NONE  # an order of classes that is never right, not a guess
    if learnt or is_above or is_below:
        return None
    return Chance(history.classes, 1.0, math.nan, level(half), slice(0, len(history.steps)))


def _accuracy(history: History) -> tuple[Numbers, Numbers]:
    """Steps and accuracies of the training, else of validation."""
    step, top1 = finite(history.steps["step"], history.steps["top1"])
    scores = history.scores("val")
    if not len(top1) and scores is not None:
        step, top1 = finite(scores["step"], scores["top1"])
    return step, top1


def _has_enough(history: History, told: NDArray[np.intp]) -> bool:
    if history.is_by_epoch:
        return len(told) >= _LEAST_EPOCHS
    return len(told) >= _LEAST_ROWS and history.last_step >= _LEAST_STEPS + 1.25 * history.warmup_steps


def _accuracies(history: History, rows: slice) -> list[tuple[float, int]]:
    """Accuracies in these rows, each with the images behind it: of the training, and of the last evaluations within them."""
    top1 = history.steps["top1"][rows]
    count = int(np.isfinite(top1).sum())
    images = count * (history.batch_size or _GUESSED_IMAGES // max(1, count)) if not history.is_by_epoch else _GUESSED_IMAGES
    found = [(float(np.nanmean(top1)) if count else math.nan, images)]
    first = history.steps["step"][rows][0]
    for split in ("val", "train-sample"):
        scores = history.scores(split, "raw") or history.scores(split)
        if scores is not None and scores["step"][-1] >= first:
            used = scores["used"][-1]
            found.append((float(scores["top1"][-1]), int(used) if math.isfinite(used) else _GUESSED_IMAGES))
    return found


def _is_above(accuracy: float, images: int, classes: int, least: float = 0.0) -> bool:
    guessed = 1 / classes
    return accuracy > guessed + max(least * guessed, _DEVIATIONS * math.sqrt(guessed * (1 - guessed) / max(1, images)))


def _guessed_classes(accuracies: list[tuple[float, int]]) -> list[int]:
    """How many classes there may be, where nobody says it: as the accuracy has it, else the usual numbers."""
    known = [accuracy for accuracy, _ in accuracies if 0 < accuracy <= 0.5]
    if not accuracies:
        return list(_USUAL_CLASSES)
    if max(accuracy for accuracy, _ in accuracies) < _NEARLY_NONE:
        return [*_MANY_CLASSES, *(round(1 / accuracy) for accuracy in known[-1:])]
    if not known:
        return []
    near = [classes for classes in _USUAL_CLASSES if abs(known[-1] * classes - 1) < 0.25]
    return near or [round(1 / known[-1])]


def is_validation_guessed(history: History) -> bool:
    """Whether the last validation accuracy is that of guessing; False where there is none."""
    scores = history.scores("val", "raw") or history.scores("val")
    if scores is None or history.classes is None or not math.isfinite(scores["top1"][-1]):
        return False
    used = scores["used"][-1]
    images = int(used) if math.isfinite(used) else _GUESSED_IMAGES
    return not _is_above(float(scores["top1"][-1]), images, history.classes)


def _is_falling(loss: Numbers, chance: float) -> bool:
    down, error = fall(loss)
    return math.isfinite(down) and down > 3 * error and down > 0.01 * chance


def _is_long(history: History, by: int = 1) -> bool:
    epochs = level(history.steps["epoch"][-1:])
    if history.is_by_epoch:
        return len(history.steps) >= _LEAST_EPOCHS + by
    past_warmup = history.last_step - history.warmup_steps
    return past_warmup >= by * _LONG_STEPS and (math.isnan(epochs) or epochs >= by * _LONG_EPOCHS)


# ---------------------------------------------------------------- why


def strong_settings(recipe: Recipe) -> dict[str, str]:
    """What the recipe sets stronger than a training from scratch usually bears, {field: words}."""
    a, found = recipe.augment, {}
    dropout = recipe.model.options.get("dropout")
    if isinstance(dropout, (int, float)) and dropout >= _DROPOUT:
        found["model.options.dropout"] = f"dropout of {dropout:.0%}"
    if recipe.loss.smoothing >= 0.3:
        found["loss.smoothing"] = f"label smoothing of {recipe.loss.smoothing:g}"
    if a.mixup >= 1 or (a.mixup > 0 and a.cutmix > 0):
        found["augment.mixup"] = "images mixed in every batch" if a.mix_share == 1 else "images mixed"
    if a.policy == "trivialaugment" or (a.policy == "randaugment" and a.policy_magnitude * a.policy_operations >= 18):
        found["augment.policy"] = f"{a.policy} on top of the crop"
    if a.crop == "random-resized" and a.scale[0] < 0.15 and 0 < recipe.data.size_px <= 64:
        found["augment.scale"] = f"crops down to {a.scale[0]:.0%} of small images"
    if a.erase >= 0.5:
        found["augment.erase"] = f"a rectangle erased from {a.erase:.0%} of the images"
    if recipe.data.size_px and a.cutout_px > 0.5 * recipe.data.size_px:
        found["augment.cutout_px"] = f"a square of {a.cutout_px} px of {recipe.data.size_px} blanked out"
    if decay_of_a_step(recipe) > _DECAY:
        found["optim.weight_decay"] = f"weight decay of {recipe.optim.weight_decay:g} at a rate of {recipe.optim.lr:g}"
    return found


def decay_of_a_step(recipe: Recipe) -> float:
    """The share of a weight that decay takes away in a step, at the peak rate; of Adam with L2 nobody can say."""
    o = recipe.optim
    return o.lr * o.weight_decay if o.name in ("sgd", "sgd-alexnet", "adamw") else 0.0


def _facts(history: History) -> dict[str, float]:
    """What the records say beside the height; only what they have."""
    found = {
        "largest update over weight, first steps": first_update(history),
        "gradient of the first layers over the largest, first steps": flow(history, slice(0, 2)),
        "gradient of the first layers over the largest, now": flow(history, slice(-5, None)),
        "dead units, worst layer": _dead(history),
        "weights, now over at first": _growth(history),
        "update over weight, typical": level(history.typical_update_ratio()[history.is_near_peak(0.5)]),
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def of_size(update: float) -> str:
    """A share of the weights' size in words: "57% of their size", "17 times their size"."""
    return f"{update:.0%} of their size" if update < 2 else f"{update:.3g} times their size"


def first_update(history: History) -> float:
    """The largest update over the weights it changed, of any layer group in the first recorded steps."""
    first = [float(np.nanmax(ratio[:2])) for ratio in history.update_ratios.values() if np.isfinite(ratio[:2]).any()]
    return max(first, default=math.nan)


def flow(history: History, rows: slice) -> float:
    """Gradient over weight of the first layer group, over the largest of any group; groups of normalisation left out."""
    weights = history.norms("weight")
    relative = []
    for name, gradient in history.norms("gradient").items():
        value = level(gradient[rows]) / max(level(weights[name][rows]), 1e-30)
        if math.isfinite(value) and not name.startswith(("bn", "norm")):
            relative.append(value)
    return relative[0] / max(relative) if len(relative) > 1 and max(relative) > 0 else math.nan


def is_starved(history: History) -> bool:
    """Whether the first layers got next to no gradient from the first step on."""
    return flow(history, slice(0, 2)) < _STARVED


def _dead(history: History) -> float:
    return max((level(share[-5:]) for share in history.dead_share.values()), default=math.nan)


def _growth(history: History) -> float:
    """How many times the norm of the weights grew, in the layer group that grew most."""
    norms = [norm[np.isfinite(norm)] for norm in history.norms("weight").values()]
    return max((float(norm[-1] / norm[0]) for norm in norms if len(norm) > 1 and norm[0] > 0), default=math.nan)


def _shrinkage(history: History) -> float:
    norms = [norm[np.isfinite(norm)] for norm in history.norms("weight").values()]
    return min((float(norm[-1] / norm[0]) for norm in norms if len(norm) > 1 and norm[0] > 0), default=math.nan)


def _causes(history: History, chance: Chance) -> tuple[Cause, ...]:
    """The likeliest first. What is proved by a number has a weight of 0.7 or more."""
    causes = [*_of_the_rate(history, chance), *_of_the_network(history, chance)]

    if (shrunk := _shrinkage(history)) < 0.3:
        # Weights that get no gradient shrink too, and then the decay is not to blame.
        causes.append(
            Cause("weight-decay-high", 0.6 if is_starved(history) else 0.85, f"weights shrank to {shrunk:.0%} of what they were")
        )
    strong = strong_settings(history.recipe) if history.recipe is not None else {}
    if "model.options.dropout" in strong:
        causes.append(Cause("regularisation-strong", 0.85, strong["model.options.dropout"]))
    elif len(strong) > 1:
        causes.append(Cause("regularisation-strong", 0.55, ", ".join(strong.values())))
    if not any(cause.weight >= 0.5 for cause in causes):
        causes.append(
            Cause("labels-shuffled", 0.5, "gradients and updates are as they should be, and nothing is learnt from them")
        )
        causes.append(Cause("learning-rate-high", 0.3, "a rate somewhat too high keeps a network at ln K without other signs"))
        causes.append(Cause("not-normalised", 0.2, "pixels in another range than the network expects slow it down"))
    return tuple(sorted(causes, key=lambda cause: -cause.weight))


def _of_the_rate(history: History, chance: Chance) -> list[Cause]:
    causes = []
    update, growth = first_update(history), _growth(history)
    loss = history.loss[np.isfinite(history.loss)]
    if update >= 0.5:
        causes.append(Cause("learning-rate-high", 0.9, f"one of the first steps changed weights by {of_size(update)}"))
    elif growth >= 4:
        causes.append(Cause("learning-rate-high", 0.85, f"weights grew to {growth:.3g} times their size"))
    elif len(loss) and loss.max() > 1.2 * max(float(loss[0]), chance.height):
        causes.append(Cause("learning-rate-high", 0.75, f"the loss first rose to {loss.max():.4g}"))
    typical = level(history.typical_update_ratio()[history.is_near_peak(0.5)])
    if typical < 1e-4:
        # Layers that get no gradient do not move either, and then the rate is not to blame.
        weight = 0.4 if is_starved(history) else 0.85 if typical < 1e-5 else 0.6
        causes.append(Cause("learning-rate-low", weight, f"a step changes weights by {typical:.1e} of their size"))
    elif typical < _SLOW and not is_starved(history):
        causes.append(Cause("learning-rate-low", 0.55, f"a step changes weights by {typical:.1e} of their size, 1e-3 is usual"))
    return causes


def _of_the_network(history: History, chance: Chance) -> list[Cause]:
    causes = []
    dead, at_first = _dead(history), flow(history, slice(0, 2))
    if dead >= 0.95:
        causes.append(Cause("dead-units", 0.7, f"in one layer {dead:.0%} of the units are zero for all images"))
    deviations = np.abs(history.loss[chance.rows] / (chance.factor * math.log(chance.classes)) - 1)
    if is_starved(history):
        because = (
            f"at the first steps, the first layers got {at_first:.0e} of the gradient that others got, relative to the weights"
        )
    elif history.is_by_epoch and np.isfinite(deviations).any() and np.nanmax(deviations) < _EXACTLY:
        because = "the loss is ln K to four digits, epoch after epoch: the output does not depend on the image"
    else:
        return causes
    name = history.recipe.model.name if history.recipe else str(history.start.get("model", ""))
    has_gates = name.startswith(("se-", "se_", "senet")) or "paths" in name
    causes.append(Cause("gates" if has_gates else "initialisation", 0.8, because))
    causes.append(Cause("initialisation" if has_gates else "gates", 0.5, because))
    if history.has_batch_norm is False:
        causes.append(Cause("no-normalisation", 0.45, "the network has no normalisation"))
    return causes


def _remedies(history: History, cause: str) -> tuple[Remedy, ...]:
    lower = Remedy("Take a tenth of the learning rate, with an epoch of warm-up.", history.scaled("optim.lr", 0.1))
    higher = Remedy("Take ten times the learning rate, or more.", history.scaled("optim.lr", 10))
    look = Remedy("Look at the network before training: `striate doctor DATA` with the same options shows what comes through it.")
    labels = Remedy(
        "Look at images with their labels (`striate data show DATA`), and train on one batch alone: it must be learnt."
    )
    decay = Remedy("Take a hundredth of the weight decay.", history.scaled("optim.weight_decay", 0.01))
    first = {
        "learning-rate-low": higher,
        "learning-rate-high": lower,
        "dead-units": lower,
        "gates": look,
        "initialisation": look,
        "weight-decay-high": decay,
    }.get(cause, labels)
    rest = [one for one in (lower, look, labels) if one is not first]
    return (first, *rest)
