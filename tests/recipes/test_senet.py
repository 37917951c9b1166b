"""`senet-2017` says what its paper says."""

import torch

from striate.models import catalog as networks
from striate.recipes import catalog


def test_senet_2017_is_the_papers_training():
    """Hu et al. 2018, section 5.1."""
    recipe = catalog.find("senet-2017")
    assert (recipe.data.size_px, recipe.data.crop_share, recipe.data.normalise) == (224, 0.875, "dataset-mean")
    assert (recipe.augment.crop, recipe.augment.scale, recipe.augment.ratio) == ("random-resized", (0.08, 1), (3 / 4, 4 / 3))
    assert (recipe.augment.flip, recipe.augment.rotate) == (0.5, 0)
    assert (recipe.optim.name, recipe.optim.batch_size, recipe.optim.lr, recipe.optim.lr_scaling) == ("sgd", 1024, 0.6, "none")
    assert (recipe.optim.momentum, recipe.optim.nesterov, recipe.optim.weight_decay) == (0.9, False, 1e-4)
    assert (recipe.optim.schedule, recipe.optim.drop_epochs, recipe.optim.drop_factor) == ("step", (30, 60, 90), 0.1)
    assert (recipe.budget.epochs, recipe.loss.smoothing, recipe.optim.ema) == (100, 0, 0)
    with torch.device("meta"):
        network = networks.build(recipe.model.name, 1000, recipe.model.options)
    assert sum(parameter.numel() for parameter in network.parameters()) == 28_088_024
