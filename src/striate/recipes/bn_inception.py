"""The training of "Batch Normalization" (Ioffe and Szegedy, ICML 2015) on ImageNet: the network that it calls BN-x30."""

from __future__ import annotations

from striate.recipe import Recipe, change
from striate.recipes.googlenet import googlenet_2014


def bn_inception_2015() -> Recipe:
    """BN-x30 (section 4.2): GoogLeNet's training with 30 times its rate, 0.045, that falls 6 times faster; batch 32.

    Section 4.2.1, change by change: no dropout, a fifth of the L2 term, no local response normalisation, less photometric
    distortion. What that changes is told in `googlenet-2014`, with what GoogLeNet's paper left open; how much less distortion
    is not stated (half of it here), nor is the training's length but for a curve that ends at 6 million steps. BN-Baseline is
    `--lr 0.0015`, BN-x5 `--lr 0.0075`. The paper trained asynchronously on ten machines.
    Published: 25.2 % top-1 and 7.82 % top-5 error, one model, one crop (figures 3 and 4).
    `striate train ILSVRC --recipe bn-inception-2015`. As published, not run here at full length.
    """
    return change(
        googlenet_2014(),
        {
            "model.name": "bn-inception",
            "augment.brightness": 0.25,  # how much less is not stated
            "augment.contrast": 0.25,  # as brightness
            "augment.saturation": 0.25,  # as brightness
            "optim.lr": 0.045,
            "optim.batch_size": 32,
            "optim.weight_decay": 2e-4 / 5,  # of a decay that is not published: Caffe's
            "optim.decay_factor": 0.96,
            "optim.decay_epochs": 8 / 6,
            "budget.steps": 6_000_000,
        },
    )
