"""The training of "Densely Connected Convolutional Networks" (Huang et al., CVPR 2017) on ImageNet."""

from __future__ import annotations

from striate.recipe import Recipe, change


def densenet_2016() -> Recipe:
    """DenseNet-121 as its paper trains it (section 4.2): SGD 256, rate 0.1 to a tenth at epochs 30 and 60, 90 epochs.

    Nesterov momentum 0.9 without dampening, weight decay 1e-4, He's weights, no dropout. Images are augmented as in the ResNet
    training that the paper names, fb.resnet.torch: random area and aspect ratio, mirror image, brightness, contrast and
    saturation by up to 0.4, colours shifted along their axes by 0.1.
    Published: 25.02 % top-1 and 7.71 % top-5 error with one crop, 23.61 % and 6.66 % with ten (table 3).
    `striate train ILSVRC --recipe densenet-2016`. As published, not run here at full length.
    """
    return change(
        Recipe(),
        {
            "model.name": "densenet121",
            "data.size_px": 224,
            "data.normalise": "imagenet",
            "augment.crop": "random-resized",
            "augment.scale": (0.08, 1.0),
            "augment.ratio": (3 / 4, 4 / 3),
            "augment.flip": 0.5,
            "augment.brightness": 0.4,
            "augment.contrast": 0.4,
            "augment.saturation": 0.4,
            "augment.lighting": 0.1,
            "optim.name": "sgd",
            "optim.lr": 0.1,
            "optim.batch_size": 256,
            "optim.momentum": 0.9,
            "optim.nesterov": True,
            "optim.weight_decay": 1e-4,
            "optim.schedule": "step",
            "optim.drop_epochs": (30.0, 60.0),
            "optim.drop_factor": 0.1,
            "budget.epochs": 90.0,
        },
    )
