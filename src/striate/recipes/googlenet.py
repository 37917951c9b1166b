"""The training of "Going Deeper with Convolutions" (Szegedy et al., CVPR 2015) on ImageNet, as far as the paper tells it."""

from __future__ import annotations

from striate.recipe import Recipe, change


def googlenet_2014() -> Recipe:
    """GoogLeNet (sections 5 and 6): SGD, rate 4 % lower every 8 epochs, averaged weights, crops of 8 to 100 % of the area.

    The paper publishes neither learning rate nor weight decay, batch size, length or the decay of its average; it trained
    asynchronously on many machines. What is filled in is marked in the code, and is Caffe's replica's (bvlc_googlenet)
    where it has it. The rate falls at each step here, not in stairs of 8 epochs.
    Published: 10.07 % top-5 error, one model, one crop (table 3). `striate train ILSVRC --recipe googlenet-2014`.
    As published, not run here at full length.
    """
    return change(
        Recipe(),
        {
            "model.name": "googlenet",
            "data.size_px": 224,
            "data.normalise": "dataset-mean",
            "augment.crop": "random-resized",
            "augment.scale": (0.08, 1.0),
            "augment.ratio": (3 / 4, 4 / 3),
            "augment.flip": 0.5,  # not stated for training; the mirror image is among its test crops
            "augment.brightness": 0.5,  # "photometric distortions" of Howard 2013, whose factors are 0.5 to 1.5
            "augment.contrast": 0.5,  # as brightness
            "augment.saturation": 0.5,  # as brightness, Howard's colour
            "loss.aux_weight": 0.3,
            "optim.name": "sgd",
            "optim.lr": 0.01,  # not published: Caffe's
            "optim.batch_size": 32,  # not published: Caffe's
            "optim.momentum": 0.9,
            "optim.weight_decay": 2e-4,  # not published: Caffe's
            "optim.schedule": "exponential",
            "optim.decay_factor": 0.96,
            "optim.decay_epochs": 8.0,
            "optim.ema": 0.9999,  # Polyak averaging; its decay is not published: that of TensorFlow's Inception
            "budget.steps": 10_000_000,  # not published: Caffe's, 250 epochs
        },
    )
