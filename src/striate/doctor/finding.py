"""Finding: what is wrong, the evidence in numbers, the likely causes by weight, and the remedy.

Rules make findings, `ranked` puts them in order, and everything that shows them (terminal, JSON, report, notebook) reads them
from here. A finding's `code` is the rule's name, a cause's name is one of `CAUSES`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from striate.errors import CheckpointError

Severity = Literal["error", "warning", "note"]
# error: it cannot learn, or the numbers are wrong. warning: it learns worse than it could. note: worth knowing.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

# What can be the matter, by name. The same words in findings, in `--json`, in docs/doctor.md and in the benchmark.
CAUSES: dict[str, str] = {
    # the network as it starts
    "initialisation": "initial weights too small or too large: the signal shrinks or grows layer after layer",
    "gates": "gates in 0..1 that multiply path after path",
    "no-normalisation": "many layers without normalisation",
    "head-size": "the network has another number of outputs than there are classes",
    "head-scale": "the layer of the classes starts with weights too large, so the first loss is far above ln K",
    "heads-forgotten": "a head of the network is not in the loss",
    "head-weights": "the heads are weighed wrongly in the loss",
    "frozen-parameters": "parameters are frozen that should learn",
    "unused-parameters": "parameters take no part in the output, or are not given to the optimiser",
    "batch-norm-single": "batch normalisation over a single value: it puts out its shift whatever it is given",
    "batch-norm-mode": "batch normalisation in evaluation mode during training",
    "dead-units": "ReLUs that are never positive",
    "saturated-units": "sigmoids or tanhs at their limits, where nothing comes back",
    # the images as the network gets them
    "not-normalised": "pixels are not brought to a mean near 0 and a deviation near 1",
    "normalised-twice": "pixels are normalised twice",
    "pixel-range": "pixels in 0..255 where 0..1 is expected, or the other way round",
    "colour-order": "blue and red are exchanged",
    "channels-last": "height, width and channels are in the wrong order",
    "constant-images": "images without content: all pixels of an image, or all images, are the same",
    "image-size": "images are too small or too large for the network",
    "crop-loses-object": "the random crop often misses the object",
    # the labels
    "labels-shuffled": "labels do not belong to their images",
    "labels-off-by-one": "labels are counted from another number",
    "class-order": "the validation set numbers its classes in another order than the training set",
    "one-class": "all images have one label",
    "unequal-classes": "some classes have many times the images of others",
    "train-in-val": "training images are in the validation set",
    "label-noise": "a part of the labels is wrong",
    "confusable-classes": "two classes are mistaken for each other",
    # how it is minimised
    "learning-rate-high": "the learning rate is too high",
    "learning-rate-low": "the learning rate is too low",
    "weight-decay-high": "weight decay is too strong",
    "batch-too-small": "the batch is too small for this rate and network",
    "batch-too-large": "the batch is too large: too few steps",
    "schedule-early": "the learning rate falls too early",
    "schedule-never": "the learning rate never falls",
    "precision": "numbers do not fit into the precision",
    "bad-batch": "a batch holds values that are not finite, or images far outside the others",
    # how much of it
    "overfitting": "the network learns the training images by heart",
    "underfitting": "the network, or its training, is too small for the data",
    "regularisation-strong": "regularisation (dropout, L2, augmentation) is too strong to learn",
    # training against evaluation
    "batch-norm-statistics": "running statistics of batch normalisation are not those of the data",
    "ema-slow": "the averaged weights lag behind",
    "augmentation-mismatch": "training sees images unlike those that are scored",
    "preprocessing-mismatch": "the scored images are prepared otherwise than the training images",
    "evaluation-small": "the validation set is too small for the difference that is claimed",
    # the machine
    "memory": "does not fit into memory",
    "disk": "does not fit on the disk",
    "time": "does not fit into the time",
    "waiting-for-data": "the network waits for images",
    "throughput-falling": "fewer images per second as time goes on",
    "memory-growing": "memory grows as time goes on",
}


@dataclass(frozen=True)
class Cause:
    """A likely cause. name: one of CAUSES. weight: what the evidence gives it, 0..1. because: the evidence for it, in words."""

    name: str
    weight: float
    because: str

    def __post_init__(self) -> None:
        assert self.name in CAUSES, self.name


@dataclass(frozen=True)
class Remedy:
    """What to do. advice: one sentence. changes: the same as recipe overrides, {"optim.lr": 0.01}; empty where none can do it."""

    advice: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def flags(self) -> str:
        """The changes as they are typed: "--optim.lr 0.01"."""
        return " ".join(_flag(name, value) for name, value in self.changes.items())


@dataclass(frozen=True)
class Curve:
    """A small plot. lines: {name: y values}, each as long as x; None where a value is missing. x: numbers, or names of layers.

    is_log: whether y is shown on a logarithmic scale. mark: an x to point at, with its words, or None.
    """

    title: str
    x_label: str
    y_label: str
    x: Sequence[float | str]
    lines: Mapping[str, Sequence[float | None]]
    is_log: bool = False
    is_log_x: bool = False
    mark: tuple[float | str, str] | None = None


@dataclass(frozen=True)
class Finding:
    """What a rule found.

    code: the rule. sentence: what is wrong, in one sentence with its main number. evidence: {what: number or text}.
    causes: by weight, the likeliest first. remedies: the first that helps most; `--fix` tries them in this order.
    source: where the rule comes from. layer: where in the network it is, or None. follows: the code of another finding
    that explains this one. rule: the rule that found it, set by `examination`; its code may be a narrower one.
    """

    code: str
    severity: Severity
    sentence: str
    evidence: Mapping[str, Any]
    causes: tuple[Cause, ...]
    remedies: tuple[Remedy, ...]
    source: str
    layer: str | None = None
    curve: Curve | None = None
    follows: str | None = None
    rule: str | None = None

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity {self.severity!r}")
        object.__setattr__(self, "causes", tuple(sorted(self.causes, key=lambda cause: -cause.weight)))

    @property
    def cause(self) -> str | None:
        """The name of the likeliest cause."""
        return self.causes[0].name if self.causes else None

    def to_json(self) -> dict[str, Any]:
        """Every field as strict JSON values: numbers that are not finite become text."""
        plain = _plain(dataclasses.asdict(self))
        assert isinstance(plain, dict)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], where: str) -> Finding:
        """The finding of `to_json`. Raises CheckpointError naming the file when it is none."""
        try:
            values = dict(plain) | {"evidence": dict(plain["evidence"])}
            values["causes"] = tuple(Cause(**cause) for cause in plain["causes"])
            values["remedies"] = tuple(Remedy(**remedy) for remedy in plain["remedies"])
            if plain["curve"] is not None:
                mark = plain["curve"]["mark"]
                values["curve"] = Curve(**{**plain["curve"], "mark": tuple(mark) if mark else None})
            return cls(**values)
        except (KeyError, TypeError, ValueError, AssertionError, AttributeError) as error:
            raise CheckpointError(f"{where}: not a finding of striate ({error!r}).") from error


class NotJudged(Exception):
    """A rule had too little to judge by; says what was missing. An outcome, not an error."""


_OF_THE_START = (
    "vanishing-gradient",
    "exploding-gradient",
    "dead-units",
    "saturated-units",
    "initial-loss",
    "learning-rate",
    "one-batch",
)
# Findings that follow from others: {what explains: what it explains}. The explained ones are shown below, as notes.
EXPLAINS: dict[str, tuple[str, ...]] = {
    "constant-function": (
        *_OF_THE_START,
        *("weak-signal", "plateau-at-chance", "gradient-flow", "update-ratio", "dying-units", "never-decayed", "rate-too-low"),
    ),
    "signal-size": (*_OF_THE_START, "untrained-parameters"),
    "untrained-parameters": ("one-batch", "learning-rate"),
    "batch-norm-batch": ("one-batch", "learning-rate"),
    "saturated-units": ("vanishing-gradient", "one-batch"),
    "dead-units": ("one-batch", "vanishing-gradient"),
    "vanishing-gradient": ("one-batch", "learning-rate"),
    "weak-signal": ("vanishing-gradient", "one-batch"),
    "initial-loss": ("learning-rate",),
    "learning-rate": ("divergence", "plateau-at-chance", "rate-too-high", "rate-too-low", "update-ratio", "non-finite"),
    "constant-images": ("input-scale", "channel-order", "labels-shuffled", "constant-function", "one-batch", "forward-pass"),
    "channel-order": ("labels-shuffled", "class-order", "plateau-at-chance"),
    "input-scale": ("signal-size", "initial-loss", "learning-rate", "one-batch", "exploding-gradient", "dead-units"),
    "unequal-classes": ("class-order",),
    "one-class": ("unequal-classes", "one-batch"),
    "labels-off-by-one": ("head-size",),
    "labels-shuffled": ("class-order", "plateau-at-chance", "validation-at-chance", "overfitting"),
    "class-order": ("predictions-permuted", "validation-at-chance", "confusable-classes"),
    "predictions-permuted": ("confusable-classes", "label-noise", "validation-at-chance"),
    "labels-against-names": ("label-noise",),
    "non-finite": ("divergence", "spikes"),
    "rate-too-high": ("divergence", "update-ratio", "dying-units", "spikes", "plateau"),
    "divergence": ("update-ratio", "dying-units", "spikes", "gradient-flow"),
    "plateau-at-chance": ("gradient-flow", "update-ratio", "dying-units", "regularisation", "never-decayed"),
    "gradient-flow": ("dying-units", "update-ratio"),
    "decayed-early": ("plateau-at-chance", "plateau", "rate-too-low", "underfitting"),
    "rate-too-low": ("update-ratio", "plateau", "underfitting", "never-decayed"),
    "regularisation": ("plateau", "underfitting", "augmentation-gap"),
    "never-decayed": ("plateau",),
    "underfitting": ("plateau",),
    "slowing": ("waiting",),
    "memory-growth": ("slowing",),
    "crop-loses-object": ("scored-images",),
}


# Findings that make a network worse and never keep it from learning: within a severity they come last.
LAST = ("image-size", "labels-partly-wrong", "confusable-classes", "evaluation-size")


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Findings in the order of their worth to the reader: causes before consequences, errors before warnings before notes.

    Within one severity their order stays, which is the order in which the rules stand in `catalog`, but for `LAST`.
    """
    found = list(findings)
    by_code = {finding.code: finding for finding in found}
    explained: dict[str, str] = {}
    for code, consequences in EXPLAINS.items():
        if code in by_code and by_code[code].severity != "note":
            for consequence in consequences:
                if consequence in by_code and consequence != code and explained.get(code) != consequence:
                    explained.setdefault(consequence, code)
    marked = [
        dataclasses.replace(one, severity="note", follows=explained[one.code]) if one.code in explained else one for one in found
    ]
    return sorted(marked, key=lambda one: (SEVERITIES.index(one.severity), one.code in LAST))


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        group, _, inner = name.rpartition(".")
        return f"--{group}.{'' if value else 'no-'}{inner.replace('_', '-')}"
    return f"--{name if name.startswith('model.options.') else name.replace('_', '-')} {_typed(value)}"


def _typed(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_typed, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """JSON values: tuples become lists, numpy and torch numbers become Python's, NaN and infinities become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else str(number)
