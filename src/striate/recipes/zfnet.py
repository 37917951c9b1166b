"""The training of "Visualizing and Understanding Convolutional Networks" (Zeiler and Fergus, ECCV 2014) on ImageNet."""

from __future__ import annotations

from striate.recipe import Recipe, change


def zfnet_2013() -> Recipe:
    """ZFNet as its paper trains it (section 3.1): SGD 128, rate 0.01 lowered at plateaus, 70 epochs, filters kept in bounds.

    Mirror images and 224 crops of photos whose shorter side is 256, pixels of 0..255 minus their mean, dropout 0.5, and
    convolution filters scaled back to a root mean square of 0.1 where they exceed it. Initial weights are the network's.
    Not stated in the paper: weight decay, taken from AlexNet, whose training it follows; and how far and when the rate was
    lowered by hand: here by 10 after 10 evaluations (one each epoch) without a better top-1.
    Not the paper's: it trains on ten fixed crops of the central 256 x 256, corners and centre and their mirror images, where
    the crop here is random; and its mean is an image, here one colour.
    Published: 38.4 % top-1 and 16.5 % top-5 error with ten crops (table 2, one network).
    `striate train ILSVRC --recipe zfnet-2013`.
    As published, not run here at full length.
    """
    return change(
        Recipe(),
        {
            "model.name": "zfnet",
            "data.size_px": 224,
            "data.normalise": "dataset-mean",
            "augment.crop": "random",
            "augment.shorter_px": (256, 256),
            "augment.flip": 0.5,
            "optim.name": "sgd",
            "optim.lr": 0.01,
            "optim.batch_size": 128,
            "optim.momentum": 0.9,
            "optim.weight_decay": 5e-4,
            "optim.schedule": "plateau",
            "optim.drop_factor": 0.1,
            "optim.plateau": 10,
            "optim.filter_rms": 0.1,
            "budget.epochs": 70.0,
        },
    )
