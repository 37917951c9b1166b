"""The training of "Xception: Deep Learning with Depthwise Separable Convolutions" (Chollet, CVPR 2017) on ImageNet."""

from __future__ import annotations

from striate.recipe import Recipe, change


def xception_2016() -> Recipe:
    """Xception as its paper trains it (sections 4.2 to 4.4): SGD 0.045, momentum 0.9, rate 6 % lower every 2 epochs.

    Weight decay 1e-5, dropout 0.5 before the last layer, no auxiliary head, averaged weights at the end. The rate falls at each
    step here, not in stairs of 2 epochs. Batch, length, augmentation, scale of the pixels, initial weights and the average's
    decay are not stated; what is filled in is marked in the code. The paper trained on 60 GPUs in step.
    Published: 21.0 % top-1 and 5.5 % top-5 error, one model, one crop (table 1). `striate train ILSVRC --recipe xception-2016`.
    As published, not run here at full length.
    """
    return change(
        Recipe(),
        {
            "model.name": "xception",
            "model.options.dropout": 0.5,
            "data.size_px": 299,
            "data.normalise": "imagenet",  # not stated; Keras scales to -1..1, and the first batch norm undoes either
            "augment.crop": "random-resized",  # not stated: GoogLeNet's crops
            "augment.scale": (0.08, 1.0),
            "augment.ratio": (3 / 4, 4 / 3),
            "augment.flip": 0.5,  # not stated
            "optim.name": "sgd",
            "optim.lr": 0.045,
            "optim.batch_size": 256,  # not stated
            "optim.momentum": 0.9,
            "optim.weight_decay": 1e-5,
            "optim.schedule": "exponential",
            "optim.decay_factor": 0.94,
            "optim.decay_epochs": 2.0,
            "optim.ema": 0.9999,  # Polyak averaging; its decay is not stated: that of TensorFlow's Inception
            "budget.epochs": 100.0,  # not stated: Inception-v3's
        },
    )
