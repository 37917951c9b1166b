"""Labels counted from 1 where the network counts from 0, or with a -1 among them.

Looks at the least and the largest training label beside the number of outputs. One label beyond the outputs is an error, on a GPU
one without a name. With an output to spare nothing breaks: class 0 is never right, and every name in the class list is one off.
"""

from __future__ import annotations

import torch

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient

SOURCE = "torch.nn.functional.cross_entropy (labels in 0..K-1, -100 is left out); MATLAB files and ILSVRC's devkit count from 1"
# What torch's losses leave out by default.
_LEFT_OUT = -100
# Images that a class must have on average before the absence of class 0 means something.
PER_CLASS = 5


def check(patient: Patient) -> Finding | None:
    """The finding, or None where labels lie in 0..K-1 as far as one can see."""
    labels = patient.seen_labels
    # An index marks images without a label by -1, and its classes are numbered by striate.
    labels = labels[labels >= 0] if patient.train_index is not None else labels[labels != _LEFT_OUT]
    outputs = patient.outputs
    if outputs == 0:
        raise NotJudged("no outputs of shape [B, K]")
    if not len(labels):
        raise NotJudged("too few labels")
    least, largest = int(labels.min()), int(labels.max())
    evidence = {"least label": least, "largest label": largest, "outputs": outputs, "images": len(labels)}
    if least >= 1 and largest == outputs:
        because = f"labels go from {least} to {largest}, outputs from 0 to {outputs - 1}"
        sentence = f"Labels count from 1: they go from {least} to {largest}, and the outputs from 0 to {outputs - 1}."
        return _finding("error", sentence, evidence, because, 0.95, "Subtract 1 from all labels.")
    if least == -1 and largest < outputs:
        share = float((labels == -1).float().mean())
        because = f"{share:.1%} of the labels are -1, the largest is {largest}"
        sentence = f"Labels begin at -1: {share:.1%} of them, with {outputs} outputs."
        is_moved = largest == outputs - 2
        advice = (
            "Add 1 to all labels: 1 was subtracted from labels that counted from 0."
            if is_moved
            else "Leave out images that are marked by -1, or give cross_entropy ignore_index=-1."
        )
        return _finding("error", sentence, evidence, because, 0.9 if is_moved else 0.6, advice)
    seen = torch.unique(labels)
    if least >= 1 and len(labels) < PER_CLASS * outputs:
        raise NotJudged("too few labels")
    is_dense = len(seen) == largest and least == 1 and largest == outputs - 1
    if is_dense and outputs > 2:
        because = f"of {len(labels):,} labels none is 0, and all of 1 to {largest} occur"
        sentence = f"No image has the label 0, and all of 1 to {largest} occur: labels may count from 1, with an output to spare."
        return _finding("note", sentence, evidence, because, 0.5, "If class 0 is no background, subtract 1 and drop an output.")
    return None


def _finding(severity: str, sentence: str, evidence: dict[str, int], because: str, weight: float, advice: str) -> Finding:
    return Finding(
        "labels-off-by-one",
        "error" if severity == "error" else "note",
        sentence,
        evidence,
        (Cause("labels-off-by-one", weight, because),),
        (Remedy(advice),),
        SOURCE,
    )
