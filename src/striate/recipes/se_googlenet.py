"""The training of "A Novel Approach to the ILSVRC Classification Competition" (Salunkhe 2024) on ImageNet."""

from __future__ import annotations

from striate.recipe import Recipe, change


def se_googlenet_paths_2024() -> Recipe:
    """GoogLeNet with squeeze-and-excitation on every path, as its paper trains it: SGD 256, constant rate 0.1, 10 epochs.

    Both sides forced to 224 and a mirror image, ImageNet's mean and deviation, torch's initial weights. The paper mirrors
    validation images at random too; here they stay as they are.
    Published: loss 11.06 and 0.11 % top-1 after 6 of the 10 epochs, which is chance: 1.6 ln 1000 is 11.05. The network starts
    as a constant function (`models/se_googlenet.py`) and learns nothing but the biases of its last layers; the first
    evaluation says that it does not look at the image. `--model se-googlenet-bn-paths` is the same idea with batch norm, and
    learns. As published, not run here at full length.
    """
    return change(
        Recipe(),
        {
            "model.name": "se-googlenet-paths",
            "data.size_px": 224,
            "data.fit": "squash",
            "data.normalise": "imagenet",
            "augment.crop": "resize",
            "augment.flip": 0.5,
            "loss.aux_weight": 0.3,
            "optim.name": "sgd",
            "optim.lr": 0.1,
            "optim.batch_size": 256,
            "optim.momentum": 0.9,
            "optim.weight_decay": 1e-4,
            "optim.schedule": "constant",
            "budget.epochs": 10.0,
        },
    )
