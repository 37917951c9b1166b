"""The training of "ImageNet Classification with Deep Convolutional Neural Networks" (Krizhevsky et al., NIPS 2012)."""

from __future__ import annotations

from striate.recipe import Recipe, change


def alexnet_2012() -> Recipe:
    """AlexNet as its paper trains it (sections 2, 4 and 5): SGD 128, rate 0.01 divided by 10 at each plateau, 90 epochs.

    224 crop and mirror image of a photo whose shorter side is 256, colour shift along the principal axes, dropout 0.5, and
    momentum 0.9 with the weight decay of 5e-4 inside the update. Initial weights and biases are the network's (`alexnet`).
    Four things are not the paper's: the crop is drawn from the whole photo, not from its central 256 x 256; the mean that is
    subtracted is one colour for all pixels, where the paper has a mean image; a plateau, which it leaves undefined, is 10
    evaluations (one each epoch) without a better top-1; and the end comes after 90 epochs ("roughly 90 cycles"), however
    often the rate was divided (three times in the paper).
    Published: 40.7 % top-1 and 18.2 % top-5 error with ten crops on ILSVRC-2012 (section 6, one network).
    `striate train ILSVRC --recipe alexnet-2012`.
    As published, not run here at full length.
    """
    return change(
        Recipe(),
        {
            "model.name": "alexnet",
            "data.size_px": 224,
            "data.normalise": "dataset-mean",
            "augment.crop": "random",
            "augment.shorter_px": (256, 256),
            "augment.flip": 0.5,
            "augment.lighting": 0.1,
            "optim.name": "sgd-alexnet",
            "optim.lr": 0.01,
            "optim.batch_size": 128,
            "optim.momentum": 0.9,
            "optim.weight_decay": 5e-4,
            "optim.schedule": "plateau",
            "optim.drop_factor": 0.1,
            "optim.plateau": 10,
            "budget.epochs": 90.0,
        },
    )
