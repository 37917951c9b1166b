"""The table of named recipes, and a choice for those who name none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from striate import recipe as recipes
from striate.errors import UserError, nearest
from striate.recipe import Recipe
from striate.recipes import (
    alexnet,
    all_cnn,
    bn_inception,
    densenet,
    googlenet,
    kth,
    resnet,
    resnext,
    se_googlenet,
    senet,
    small,
    tiny_imagenet,
    vgg,
    xception,
    zfnet,
)

RECIPES: dict[str, Callable[[], Recipe]] = {
    "small": small.small,
    "kth-a": kth.kth_a,
    "kth-b": kth.kth_b,
    "kth-c": kth.kth_c,
    "kth-d": kth.kth_d,
    "kth-e": kth.kth_e,
    "kth-f": kth.kth_f,
    "tiny-imagenet-resnet18": tiny_imagenet.tiny_imagenet_resnet18,
    "alexnet-2012": alexnet.alexnet_2012,
    "zfnet-2013": zfnet.zfnet_2013,
    "all-cnn-2014": all_cnn.all_cnn_2014,
    "vgg-2014": vgg.vgg_2014,
    "googlenet-2014": googlenet.googlenet_2014,
    "bn-inception-2015": bn_inception.bn_inception_2015,
    "resnet-2015": resnet.resnet_2015,
    "xception-2016": xception.xception_2016,
    "resnext-2016": resnext.resnext_2016,
    "densenet-2016": densenet.densenet_2016,
    "senet-2017": senet.senet_2017,
    "se-googlenet-paths-2024": se_googlenet.se_googlenet_paths_2024,
}


def find(name: str) -> Recipe:
    """The recipe of that name, or of that file (a run's `recipe.json`).

    Raises UserError listing the nearest names when there is neither.
    """
    if name in RECIPES:
        return RECIPES[name]()
    if name.endswith(".json") or Path(name).is_file():
        return recipes.read(Path(name))
    raise UserError(f"No recipe '{name}'.{nearest(name, RECIPES)} Recipes: {', '.join(RECIPES)}; or a recipe.json file.")


def choose(image_count: int, shorter_px: int, has_gpu: bool) -> tuple[Recipe, str]:
    """A recipe for data of this size on this machine, and the reason in words.

    image_count: training images. shorter_px: median shorter side of the images.
    """
    base = small.small()
    where = "a GPU" if has_gpu else "a CPU"
    size = 64 if not has_gpu or shorter_px < 128 else (128 if image_count < 50_000 else 224)
    model = "resnet50" if has_gpu and image_count >= 200_000 else "resnet18"
    epochs = (
        float(min(90, max(5, round(45_000 / image_count)))) if not has_gpu else float(min(200, max(30, 3_000_000 // image_count)))
    )
    batch = 64 if image_count < 10_000 else (128 if not has_gpu else 256)
    batch = min(batch, max(2, image_count // 4))
    changes = {
        "model.name": model,
        "data.size_px": size,
        "data.shrink_px": round(size * 1.25),
        "optim.batch_size": batch,
        "budget.epochs": epochs,
        "budget.evaluate_epochs": max(1.0, epochs // 6),
    }
    reason = (
        f"{image_count:,} training images of about {shorter_px} px on {where}: {model} at {size} px, "
        f"batch {batch}, {epochs:.0f} epochs (AdamW, one cosine). Name a --recipe or a --model to choose yourself."
    )
    return recipes.change(base, changes), reason
