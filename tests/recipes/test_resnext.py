"""`resnext-2016` says what its paper says."""

import torch

from striate.models import catalog as networks
from striate.recipes import catalog


def test_resnext_2016_is_the_papers_training():
    """Xie et al. 2017, section 4, implementation details."""
    recipe = catalog.find("resnext-2016")
    assert (recipe.data.size_px, recipe.data.crop_share, recipe.data.fit) == (224, 0.875, "crop")
    assert (recipe.augment.crop, recipe.augment.scale, recipe.augment.ratio) == ("random-resized", (0.08, 1), (3 / 4, 4 / 3))
    assert (recipe.augment.flip, recipe.augment.lighting, recipe.augment.brightness) == (0.5, 0, 0)
    assert (recipe.optim.name, recipe.optim.batch_size, recipe.optim.lr, recipe.optim.lr_scaling) == ("sgd", 256, 0.1, "none")
    assert (recipe.optim.momentum, recipe.optim.nesterov, recipe.optim.weight_decay) == (0.9, False, 1e-4)
    assert (recipe.optim.schedule, recipe.optim.drop_epochs, recipe.optim.drop_factor) == ("step", (30, 60, 90), 0.1)
    assert (recipe.budget.epochs, recipe.loss.smoothing, recipe.optim.ema) == (100, 0, 0)
    with torch.device("meta"):
        network = networks.build(recipe.model.name, 1000, recipe.model.options)
    assert sum(parameter.numel() for parameter in network.parameters()) == 25_028_904
