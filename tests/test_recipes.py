"""Named recipes: each is sound, builds its network and is documented; a published one says what its paper says."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import pytest
import torch

from striate import recipe as recipes
from striate.errors import UserError
from striate.models import catalog as networks
from striate.models.resnet import ResNet
from striate.recipes import catalog
from striate.train import optim, schedule

DOCS = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", catalog.RECIPES)
def test_every_recipe_is_sound_and_survives_its_file(name: str, tmp_path: Path) -> None:
    found = recipes.check(catalog.find(name))
    (tmp_path / "recipe.json").write_text(recipes.to_text(found), encoding="utf-8")
    assert catalog.find(str(tmp_path / "recipe.json")) == found


@pytest.mark.parametrize("name", catalog.RECIPES)
def test_every_recipe_builds_its_network(name: str) -> None:
    recipe = catalog.find(name)
    with torch.device("meta"):
        network = networks.build(recipe.model.name, 10, recipe.model.options)
    assert sum(parameter.numel() for parameter in network.parameters()) > 0


@pytest.mark.parametrize("name", catalog.RECIPES)
def test_every_recipe_says_what_it_is_and_whether_it_ran(name: str) -> None:
    text = " ".join((inspect.getdoc(catalog.RECIPES[name]) or "").split())
    assert "results/" in text or "as published, not run here at full length" in text.lower()
    (row,) = [line for line in DOCS.splitlines() if line.startswith(f"| `{name}` ")]
    assert ("results/" in row) == ("results/" in text)


def test_the_documentation_has_every_optimiser_and_every_schedule() -> None:
    for name in (*get_args(optim.Name), *get_args(schedule.Shape)):
        assert any(line.startswith("|") and f"`{name}`" in line.split("|")[1] for line in DOCS.splitlines()), name


def test_the_recipe_knows_every_optimiser_and_schedule() -> None:
    for name in get_args(optim.Name):
        assert recipes.change(recipes.Recipe(), {"optimizer": name}).optim.name == name
    for shape in get_args(schedule.Shape):
        assert recipes.change(recipes.Recipe(), {"schedule": shape}).optim.schedule == shape
    for scaling in get_args(schedule.Scaling):
        assert recipes.change(recipes.Recipe(), {"optim.lr_scaling": scaling}).optim.lr_scaling == scaling
    with pytest.raises(UserError, match="Did you mean 'lars' or 'lamb'"):
        recipes.change(recipes.Recipe(), {"optimizer": "larb"})


def test_resnet_2015_is_the_papers_training() -> None:
    """He et al. 2016, section 3.4, sentence by sentence."""
    recipe = catalog.find("resnet-2015")
    assert (recipe.augment.crop, recipe.augment.shorter_px, recipe.data.size_px) == ("random", (256, 480), 224)
    assert recipe.augment.flip == 0.5
    assert recipe.data.normalise == "dataset-mean"
    assert (recipe.augment.lighting, recipe.augment.lighting_from) == (0.1, "imagenet")
    assert (recipe.optim.name, recipe.optim.batch_size, recipe.optim.lr) == ("sgd", 256, 0.1)
    assert (recipe.optim.schedule, recipe.optim.drop_factor) == ("plateau", 0.1)
    assert (recipe.budget.steps, recipe.budget.epochs, recipe.budget.time) == (600_000, None, None)
    assert (recipe.optim.weight_decay, recipe.optim.decay_all, recipe.optim.momentum) == (1e-4, True, 0.9)
    assert not recipe.optim.nesterov
    assert recipe.loss.smoothing == 0
    with torch.device("meta"):
        network = networks.build(recipe.model.name, 1000, recipe.model.options)
    assert isinstance(network, ResNet)
    assert network.variant == "v1"
    assert not any(isinstance(layer, torch.nn.Dropout) for layer in network.modules())
    assert sum(parameter.numel() for parameter in network.parameters()) == 25_557_032
