"""The training of "Very Deep Convolutional Networks for Large-Scale Image Recognition" (Simonyan and Zisserman, ICLR 2015)."""

from __future__ import annotations

from striate.recipe import Recipe, change


def vgg_2014() -> Recipe:
    """VGG D as its paper trains it at one scale (section 3.1): SGD 256, rate 0.01 divided by 10 at each plateau, 370K iterations.

    Shorter side 256, 224 crop, mirror image, AlexNet's colour shift, dropout 0.5.
    Initial weights are Glorot's, which the paper's authors found to work after they had submitted it. Their own way was to
    train A from normal weights of variance 0.01 and to begin the deeper networks with its first four convolutions and its
    linear layers. Those weights by themselves give logits of 1e6 and more (`models/vgg.py`), and the paper does not say how
    A withstood its first steps.
    Two more things are not the paper's. Pixels are divided by their deviation after the mean colour is subtracted: on its scale
    of 0..255, Glorot's weights and the rate of 0.01 gave a non-finite loss in the sixth step (D, 224 px, four random images
    in each step). A plateau, which the paper leaves undefined, is 5 evaluations (one each epoch) without a better top-1.
    Published: 27.0 % top-1 and 8.8 % top-5 error, dense at one scale (table 3). `striate train ILSVRC --recipe vgg-2014`.
    As published, not run here at full length.
    """
    return change(
        Recipe(),
        {
            "model.name": "vgg16",
            "model.options": {"init": "glorot"},
            "data.size_px": 224,
            "data.normalise": "dataset",
            "augment.crop": "random",
            "augment.shorter_px": (256, 256),
            "augment.flip": 0.5,
            "augment.lighting": 0.1,
            "optim.name": "sgd",
            "optim.lr": 0.01,
            "optim.batch_size": 256,
            "optim.momentum": 0.9,
            "optim.weight_decay": 5e-4,
            "optim.schedule": "plateau",
            "optim.drop_factor": 0.1,
            "optim.plateau": 5,
            "budget.steps": 370_000,
        },
    )
