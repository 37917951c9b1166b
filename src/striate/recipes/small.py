"""The demo's recipe: a slim ResNet on small images, minutes on two cores."""

from __future__ import annotations

from striate.recipe import Recipe, change


def small() -> Recipe:
    """A slim ResNet-18 at 64 px for a small set of photos, trained in minutes on two cores.

    `striate train builtin --recipe small` is what `make demo` runs; its result is in results/demo.json.
    """
    return change(
        Recipe(),
        {
            "model.name": "resnet18",
            "data.size_px": 64,
            "data.shrink_px": 80,
            "data.normalise": "dataset",
            "augment.scale": (0.4, 1.0),
            "loss.smoothing": 0.05,
            "optim.name": "adamw",
            "optim.lr": 0.002,
            "optim.weight_decay": 0.05,
            "optim.decay_all": False,
            "optim.batch_size": 64,
            "optim.warmup_epochs": 1.0,
            "optim.ema": 0.99,
            "budget.epochs": 13.0,
            "budget.evaluate_epochs": 3.0,
            "budget.log_every": 10,
        },
    )
