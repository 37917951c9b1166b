"""Modern trainings for Tiny ImageNet."""

from __future__ import annotations

from striate.recipe import Recipe, change


def tiny_imagenet_resnet18() -> Recipe:
    """ResNet-18 with its usual stem on Tiny ImageNet at 64 px: random-resized crops, flips, label smoothing, one cosine.

    `striate train DIR --recipe tiny-imagenet-resnet18 --for 40m` on two cores: results/tiny-imagenet.md.
    On a GPU use `--model.options.stem small`, which keeps the resolution and costs 15 times as much.
    """
    return change(
        Recipe(),
        {
            "model.name": "resnet18",
            "data.size_px": 64,
            "data.crop_share": 1.0,
            "data.normalise": "dataset",
            "augment.scale": (0.35, 1.0),
            "loss.smoothing": 0.1,
            "optim.name": "sgd",
            "optim.lr": 0.2,
            "optim.nesterov": True,
            "optim.weight_decay": 5e-4,
            "optim.decay_all": False,
            "optim.batch_size": 128,
            "optim.warmup_epochs": 0.5,
            "budget.epochs": 30.0,
        },
    )
