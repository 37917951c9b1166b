"""The table of rules: what is checked, in which order, and what it needs.

Before a training the rules stand in the order of their worth and run until time is up. The rules over a history or over
predictions take milliseconds, and all of them run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from striate.data.index import Index
from striate.doctor.finding import Finding
from striate.doctor.history import History
from striate.doctor.patient import Patient
from striate.doctor.rules import (
    augmentation_gap,
    batch_norm_mode,
    batch_norm_statistics,
    batch_size,
    channel_order,
    class_order,
    confusable_classes,
    constant_function,
    constant_images,
    crop_loses_object,
    cut_short,
    dead_units,
    decayed_early,
    divergence,
    dropout,
    dying_units,
    ema_lag,
    evaluation_size,
    few_steps,
    fits,
    forward_pass,
    gradient_flow,
    head_size,
    head_weights,
    image_size,
    initial_loss,
    input_scale,
    label_noise,
    label_smoothing,
    labels_against_names,
    labels_off_by_one,
    labels_shuffled,
    learning_rate,
    loader_speed,
    memory_growth,
    never_decayed,
    non_finite,
    one_batch,
    one_class,
    overfitting,
    plan,
    plateau,
    plateau_at_chance,
    predictions_permuted,
    preprocessing_gap,
    rate_schedule,
    rate_too_high,
    rate_too_low,
    regularisation,
    scored_images,
    signal_size,
    slowing,
    spikes,
    train_in_val,
    underfitting,
    unequal_classes,
    untrained_parameters,
    update_ratio,
    validation_at_chance,
    validation_size,
    vanishing_gradient,
    waiting,
    weight_decay,
)
from striate.predictions import Predictions


@dataclass(frozen=True)
class Rule:
    """A rule before a training. checks: what is in order when it finds nothing. needs: data alone; a network that runs; or one
    whose labels fit its outputs, so that it has a loss. passes, seconds: about what it takes, in forward and backward passes and
    beside them."""

    check: Callable[[Patient], Finding | None]
    checks: str
    needs: Literal["data", "network", "loss"]
    passes: float = 0.0
    seconds: float = 0.0


BEFORE: dict[str, Rule] = {
    "forward-pass": Rule(forward_pass.check, "the network runs", "data"),
    "fits": Rule(fits.check, "memory and time, roughly", "network", 0.5),
    "constant-images": Rule(constant_images.check, "images with content and finite numbers", "data"),
    "input-scale": Rule(input_scale.check, "scale of the pixels", "data"),
    "scored-images": Rule(scored_images.check, "training and validation images alike", "data"),
    "one-class": Rule(one_class.check, "more than one class", "data"),
    "head-size": Rule(head_size.check, "outputs and classes", "network"),
    "labels-off-by-one": Rule(labels_off_by_one.check, "labels count from 0", "network"),
    "constant-function": Rule(constant_function.check, "the output depends on the image", "loss", 1),
    "signal-size": Rule(signal_size.check, "size of the signal by depth", "loss"),
    "initial-loss": Rule(initial_loss.check, "the first loss", "loss"),
    "head-weights": Rule(head_weights.check, "heads in the loss", "loss"),
    "untrained-parameters": Rule(untrained_parameters.check, "all parameters learn", "loss"),
    "vanishing-gradient": Rule(vanishing_gradient.check, "gradients by depth", "loss"),
    "batch-norm-mode": Rule(batch_norm_mode.check, "batch normalisation", "network"),
    "dead-units": Rule(dead_units.check, "dead and saturated units", "loss"),
    "dropout": Rule(dropout.check, "strength of dropout", "loss", 1),
    "label-smoothing": Rule(label_smoothing.check, "label smoothing", "loss"),
    "weight-decay": Rule(weight_decay.check, "weight decay", "loss"),
    "batch-size": Rule(batch_size.check, "batch and steps", "data"),
    "rate-schedule": Rule(rate_schedule.check, "the schedule of the rate", "data"),
    "loader-speed": Rule(loader_speed.check, "speed of the loader", "loss", seconds=3.0),
    "channel-order": Rule(channel_order.check, "order of channels", "data"),
    "unequal-classes": Rule(unequal_classes.check, "classes of a size", "data"),
    "learning-rate": Rule(learning_rate.check, "learning rate", "loss", 12),
    "labels-shuffled": Rule(labels_shuffled.check, "labels belong to their images", "data", seconds=2.0),
    "class-order": Rule(class_order.check, "one class order in both splits", "data"),
    "one-batch": Rule(one_batch.check, "one batch is learnt by heart", "loss", 10),
    "validation-size": Rule(validation_size.check, "enough validation images", "data"),
    "train-in-val": Rule(train_in_val.check, "validation images are new", "data", seconds=1.0),
    "labels-against-names": Rule(labels_against_names.check, "labels agree with file names", "data"),
    "image-size": Rule(image_size.check, "size of the images", "network"),
    "crop-loses-object": Rule(crop_loses_object.check, "crops keep the object", "data"),
    "plan": Rule(plan.check, "memory, disk, time, speed of the images", "loss", seconds=30.0),
}


# Over what a training told; in the order of their worth.
DURING: dict[str, tuple[Callable[[History], Finding | None], str]] = {
    "cut-short": (cut_short.check, "not cut short"),
    "non-finite": (non_finite.check, "finite numbers"),
    "divergence": (divergence.check, "no divergence"),
    "plateau-at-chance": (plateau_at_chance.check, "better than chance"),
    "gradient-flow": (gradient_flow.check, "gradients over time"),
    "update-ratio": (update_ratio.check, "size of the steps"),
    "rate-too-high": (rate_too_high.check, "the rate is not too high"),
    "rate-too-low": (rate_too_low.check, "nor too low"),
    "dying-units": (dying_units.check, "units stay alive"),
    "validation-at-chance": (validation_at_chance.check, "validation above chance"),
    "batch-norm-statistics": (batch_norm_statistics.check, "running statistics"),
    "preprocessing-gap": (preprocessing_gap.check, "training and scored images alike"),
    "ema-lag": (ema_lag.check, "averaged weights"),
    "overfitting": (overfitting.check, "no overfitting"),
    "regularisation": (regularisation.check, "strength of regularisation"),
    "few-steps": (few_steps.check, "enough steps"),
    "decayed-early": (decayed_early.check, "the rate falls in time"),
    "never-decayed": (never_decayed.check, "the rate falls at all"),
    "underfitting": (underfitting.check, "no underfitting"),
    "plateau": (plateau.check, "no plateau"),
    "augmentation-gap": (augmentation_gap.check, "augmentation"),
    "spikes": (spikes.check, "no spikes"),
    "waiting": (waiting.check, "images come in time"),
    "slowing": (slowing.check, "speed over time"),
    "memory-growth": (memory_growth.check, "memory over time"),
    "evaluation-size": (evaluation_size.check, "size of the validation set"),
}

# Over what the network said about held-out images, with their index where it is there.
PREDICTED: dict[str, tuple[Callable[[Predictions, Index | None], Finding | None], str]] = {
    "predictions-permuted": (predictions_permuted.check, "classes are not permuted"),
    "label-noise": (label_noise.check, "labels against what the network says"),
    "confusable-classes": (confusable_classes.check, "pairs of classes"),
}
