"""The training of "Deep Residual Learning for Image Recognition" (He, Zhang, Ren, Sun, CVPR 2016) on ImageNet."""

from __future__ import annotations

from striate.recipe import Recipe, change


def resnet_2015() -> Recipe:
    """ResNet-50 as its paper trains it (section 3.4): SGD 256, rate 0.1 divided by 10 at each plateau, 60e4 iterations.

    Shorter side drawn from 256 to 480, 224 crop, mirror image, AlexNet's colour shift; no dropout. He's initial weights
    and the stride in the first 1x1 are the network's (`resnet50-v1`).
    Two things are not the paper's: the mean that is subtracted is one colour for all pixels, where the paper has a mean
    image; and a plateau, which it leaves undefined, is 10 evaluations (one each epoch) without a better top-1.
    Published: 22.85 % top-1 and 6.71 % top-5 error with ten crops (table 3). `striate train ILSVRC --recipe resnet-2015`.
    As published, not run here at full length.
    """
    return change(
        Recipe(),
        {
            "model.name": "resnet50-v1",
            "data.size_px": 224,
            "data.normalise": "dataset-mean",
            "augment.crop": "random",
            "augment.shorter_px": (256, 480),
            "augment.flip": 0.5,
            "augment.lighting": 0.1,
            "optim.name": "sgd",
            "optim.lr": 0.1,
            "optim.batch_size": 256,
            "optim.momentum": 0.9,
            "optim.weight_decay": 1e-4,
            "optim.schedule": "plateau",
            "optim.drop_factor": 0.1,
            "optim.plateau": 10,
            "budget.steps": 600_000,
        },
    )
