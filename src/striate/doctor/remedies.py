"""Remedies that several rules give, as overrides where the network and the recipe have a field for them."""

from __future__ import annotations

from striate.doctor.finding import Remedy
from striate.doctor.patient import Patient
from striate.models import catalog

# The same network with batch norm. Kept by hand: names alone do not say which two belong together.
WITH_NORMS = {
    "se-googlenet-paths": "se-googlenet-bn-paths",
    "googlenet": "googlenet-bn",
    "googlenet-separable-stem": "googlenet-bn",
    "vgg-a": "vgg-a-bn",
    "vgg-b": "vgg-b-bn",
    "vgg16": "vgg16-bn",
    "vgg19": "vgg19-bn",
    "kth-a": "kth-b",
    "kth-c": "kth-d",
}
# Opens a sigmoid to 0.98.
OPEN_BIAS = 4.0
# Of the rate for a network without normalisation, and its warm-up in epochs.
SLOWER, WARMUP_EPOCHS = 0.1, 1.0


def _has_option(patient: Patient, option: str) -> bool:
    return patient.recipe is not None and option in catalog.option_names(patient.recipe.model.name)


def initialised(patient: Patient) -> Remedy:
    """He's initial weights."""
    advice = "Start with He's initial weights, which keep the signal's size through ReLUs (He et al. 2015, section 2.2)."
    has_it = _has_option(patient, "init") and patient.recipe is not None
    if has_it and patient.recipe is not None and patient.recipe.model.options.get("init") != "he":
        return Remedy(advice, {"model.options.init": "he"})
    return Remedy(f"{advice} In torch: nn.init.kaiming_normal_ for the weights, zeros for the biases.")


def in_training_mode(patient: Patient) -> Remedy:
    """Batch norms that take the batch's statistics while the network trains."""
    return Remedy("Call model.train() before each epoch, and no eval() within forward(): batch norms must see the batch.")


def with_open_gates(patient: Patient) -> Remedy:
    """Gates that start open."""
    advice = f"Let the gates start open: a bias of {OPEN_BIAS:g} before each sigmoid makes its factor 0.98 instead of 0.5."
    if _has_option(patient, "gate_bias"):
        return Remedy(advice, {"model.options.gate_bias": OPEN_BIAS})
    return Remedy(advice)


def normalised(patient: Patient) -> Remedy:
    """The same network with batch norm."""
    advice = "Normalise: batch norm behind each convolution keeps the signal's size at every depth (Ioffe and Szegedy 2015)."
    if patient.recipe is not None and (other := WITH_NORMS.get(patient.recipe.model.name)):
        # Options of a start without normalisation are left behind: the other network starts as its own paper says.
        return Remedy(f"{advice} Here: {other}.", {"model.name": other})
    return Remedy(advice)


def with_slow_start(patient: Patient) -> Remedy:
    """A lower rate with a warm-up, for a network that is not normalised."""
    if patient.recipe is None:
        return Remedy("Begin with a tenth of the learning rate, and let it rise over the first epoch.")
    o = patient.recipe.optim
    changes = {"optim.lr": float(f"{o.lr * SLOWER:.3g}"), "optim.warmup_epochs": max(o.warmup_epochs, WARMUP_EPOCHS)}
    return Remedy("Begin with a tenth of the learning rate, and let it rise over the first epoch.", changes)
