"""The training of "Striving for Simplicity: The All Convolutional Net" (Springenberg et al., ICLR 2015 workshop) on CIFAR-10."""

from __future__ import annotations

from striate.recipe import Recipe, change


def all_cnn_2014() -> Recipe:
    """All-CNN-C on images of 32 px as in the paper (section 3.1): SGD, 350 epochs, rate times 0.1 at 200, 250 and 300.

    Momentum 0.9, weight decay 0.001, mirror images and shifts of up to 5 px; dropout of 0.2 on the image and of 0.5 in
    place of the pools is the network's (`all-cnn-c`). The paper took the best of the rates 0.25, 0.1, 0.05 and 0.01 for each
    network; here it is 0.05.
    Not stated in the paper: the batch size (128 here) and the initial weights.
    Not the paper's: it normalises the contrast of each image and whitens the pixels (ZCA) first; here they lose the set's mean
    and are divided by its deviation, channel by channel.
    Published on CIFAR-10: 7.25 % error; 9.08 % without shifts and mirror images. `striate train CIFAR --recipe all-cnn-2014`.
    As published, not run here at full length.
    """
    return change(
        Recipe(),
        {
            "model.name": "all-cnn-c",
            "model.options.form": "all",
            "data.size_px": 32,
            "data.crop_share": 1.0,
            "data.normalise": "dataset",
            "augment.crop": "shift",
            "augment.shift_px": 5,
            "augment.flip": 0.5,
            "optim.name": "sgd",
            "optim.lr": 0.05,
            "optim.batch_size": 128,
            "optim.momentum": 0.9,
            "optim.weight_decay": 1e-3,
            "optim.schedule": "step",
            "optim.drop_epochs": (200.0, 250.0, 300.0),
            "optim.drop_factor": 0.1,
            "budget.epochs": 350.0,
        },
    )
