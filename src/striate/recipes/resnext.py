"""The training of "Aggregated Residual Transformations for Deep Neural Networks" (Xie et al., CVPR 2017) on ImageNet."""

from __future__ import annotations

from striate.recipe import Recipe, change


def resnext_2016() -> Recipe:
    """ResNeXt-50 32x4d as its paper trains it (section 4): SGD 256, momentum 0.9, weight decay 1e-4, rate 0.1, He's weights.

    The paper crops and drops the rate three times as fb.resnet.torch does: random area and aspect ratio, mirror image, a tenth
    at epochs 30, 60 and 90. 100 epochs are not stated; they are the default of the authors' code. That code also changes
    brightness, contrast and saturation by up to 0.4 and shifts colours along their axes by 0.1, which the paper does not say:
    not done here.
    Published: 22.2 % top-1 error, 224 centre crop of 256 (table 3). `striate train ILSVRC --recipe resnext-2016`.
    As published, not run here at full length.
    """
    return change(
        Recipe(),
        {
            "model.name": "resnext50",
            "data.size_px": 224,
            "data.normalise": "imagenet",
            "augment.crop": "random-resized",
            "augment.scale": (0.08, 1.0),
            "augment.ratio": (3 / 4, 4 / 3),
            "augment.flip": 0.5,
            "optim.name": "sgd",
            "optim.lr": 0.1,
            "optim.batch_size": 256,
            "optim.momentum": 0.9,
            "optim.weight_decay": 1e-4,
            "optim.schedule": "step",
            "optim.drop_epochs": (30.0, 60.0, 90.0),
            "optim.drop_factor": 0.1,
            "budget.epochs": 100.0,
        },
    )
