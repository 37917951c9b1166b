"""The training of "Squeeze-and-Excitation Networks" (Hu, Shen, Sun, CVPR 2018) on ImageNet."""

from __future__ import annotations

from striate.recipe import Recipe, change


def senet_2017() -> Recipe:
    """SE-ResNet-50 as its paper trains it (section 5.1): SGD 1024, rate 0.6 to a tenth every 30 epochs, momentum 0.9, 100 epochs.

    Crops of random area and aspect ratio, mirror image, the mean colour subtracted; He's weights, r 16. Weight decay is not
    stated: ResNet's 1e-4. The released weights come from another training: 256, rate 0.1, more epochs (not stated), turns of up
    to 10 degrees and shifted pixel values. SENet-154 has label smoothing, and batch norms frozen in its last epochs, besides.
    One step of 1024 images may not fit into memory: `--optim.accumulate 8` computes it in parts.
    Published: 23.29 % top-1 and 6.62 % top-5 error, 224 centre crop of 256 (table 2).
    `striate train ILSVRC --recipe senet-2017`. As published, not run here at full length.
    """
    return change(
        Recipe(),
        {
            "model.name": "se-resnet50",
            "data.size_px": 224,
            "data.normalise": "dataset-mean",
            "augment.crop": "random-resized",
            "augment.scale": (0.08, 1.0),
            "augment.ratio": (3 / 4, 4 / 3),
            "augment.flip": 0.5,
            "optim.name": "sgd",
            "optim.lr": 0.6,
            "optim.batch_size": 1024,
            "optim.momentum": 0.9,
            "optim.weight_decay": 1e-4,
            "optim.schedule": "step",
            "optim.drop_epochs": (30.0, 60.0, 90.0),
            "optim.drop_factor": 0.1,
            "budget.epochs": 100.0,
        },
    )
