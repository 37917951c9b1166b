"""The network has another number of outputs than the data has classes.

Looks at the shape of the main head's logits, the classes of the data where somebody knows them, and the labels of a batch.
More outputs than classes cost nothing but are a sign that something was left as in the example (1,000 of ImageNet); fewer, and
labels lie outside, which a GPU reports as an assertion without a name.
"""

from __future__ import annotations

from striate.doctor.finding import Cause, Finding, Remedy
from striate.doctor.patient import Patient

SOURCE = "torch.nn.functional.cross_entropy (labels in 0..K-1); torchvision's and timm's builders make 1,000 outputs by default"
# Without a list of classes: outputs that no label of so many images asks for are taken for too many.
SURE_IMAGES, SURE_SHARE = 256, 0.5


def check(patient: Patient) -> Finding | None:
    """The finding, or None where outputs and classes agree as far as one can see."""
    outputs, classes = patient.outputs, patient.classes
    labels = patient.seen_labels
    smallest, largest = int(labels.min()), int(labels.max())
    if outputs == 0:
        return None
    is_outside = largest >= outputs or smallest < 0
    if is_outside and smallest >= 1 and largest == outputs:
        cause = Cause("labels-off-by-one", 0.9, f"labels go from {smallest} to {largest}, and there are {outputs} outputs")
        advice = "Subtract 1 from the labels: they count from 0."
    elif is_outside:
        cause = Cause("head-size", 0.9, f"labels go from {smallest} to {largest}, outputs from 0 to {outputs - 1}")
        advice = f"Give the network {max(largest + 1, classes or 0)} outputs, or map the labels to 0..{outputs - 1}."
    elif classes is not None and classes != outputs:
        cause = Cause("head-size", 0.9, f"{outputs} outputs, {classes} classes")
        advice = f"Give the network {classes} outputs."
    elif classes is None and len(labels) >= SURE_IMAGES and outputs > 2 and largest + 1 <= SURE_SHARE * outputs:
        cause = Cause("head-size", 0.7, f"{outputs} outputs, and no label of {len(labels)} images is above {largest}")
        advice = f"Give the network {largest + 1} outputs if there are no more classes."
    else:
        return None
    known = f"{classes} classes" if classes is not None else f"labels from {smallest} to {largest}"
    return Finding(
        "head-size",
        "error" if is_outside else "warning",
        f"The network has {outputs} outputs, the data {known}.",
        {"outputs": outputs, "classes": classes, "smallest label": smallest, "largest label": largest},
        (cause,),
        (Remedy(advice),),
        SOURCE,
    )
