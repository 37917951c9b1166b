"""Trained weights for a network: a file, a run's checkpoint, or a set that torchvision or timm publishes.

`read` opens a source and knows what goes with it: its classes, and its View, because preprocessing belongs to weights.
`load_into` puts it into a network and says what it had to do for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from striate import files
from striate.classes import Classes
from striate.errors import CheckpointError, UserError
from striate.models import catalog, foreign, heads, keys, published, weights
from striate.view import IMAGENET_MEAN, IMAGENET_STD, View

DEFAULT = "default"
_SUFFIXES = (".safetensors", *foreign.SUFFIXES)

Options = Mapping[str, object]


@dataclass(frozen=True)
class Loaded:
    """Weights that went into a network.

    where: the file, or library and set, as "torchvision ResNet50_Weights.IMAGENET1K_V2". digest: SHA-256 of the file.
    view: how these weights see photos; classes: what their outputs mean; each None where nobody knows.
    notes: lines to print: head replaced, prefixes taken off, another program's names, a variant that the file does not say.
    """

    where: str
    digest: str
    view: View | None
    classes: Classes | None
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Weights:
    """An opened source: its tensors by the file's own names, and what is known of them. Fields as of `Loaded`.

    variant: which of the networks with the same names and shapes the weights belong to; None where the file does not say.
    is_published: whether the set is known to be of this very network, so that a variant needs no saying.
    """

    where: str
    digest: str
    view: View | None
    classes: Classes | None
    notes: tuple[str, ...]
    variant: str | None
    tensors: Mapping[str, torch.Tensor]
    is_published: bool = False


def create_model(name: str, num_classes: int = 1000, weights: str | Path | None = None, **options: object) -> nn.Module:
    """A network by name, in training mode, on the CPU.

    name: as `--model` takes it: "resnet50", "torchvision/resnet50", "timm/convnext_tiny" or "package.module:function".
    weights: a file, a run or one of its checkpoint folders, "default" (the published set of the network) or the name of a
    published set; None leaves the network untrained. Where they distinguish another number of classes the head starts untrained.
    How they see photos: `pretrained.view_of`.
    options: for the network's builder, checked against its signature.
    Raises UserError for a name or an option that does not exist, CheckpointError for weights of another network.
    """
    model = catalog.build(name, num_classes, options)
    if weights is not None:
        source = read(name, weights)
        put_into(model, name, source, fresh_head=outputs_of(source, name, options) not in (None, num_classes), options=options)
    return model


def load_into(model: nn.Module, name: str, source: str | Path, *, fresh_head: bool, options: Options | None = None) -> Loaded:
    """Puts trained weights into `model`: all of them or, with `fresh_head`, all but the head's.

    name, options: what `model` was built from, by `catalog.build`. source: a file (.safetensors, .pth and its kin), a run's
    folder or one of its checkpoints, "default", or the name of a published set.
    fresh_head: the layers that follow the number of classes keep their start. Without it every tensor must fit.
    Nothing is copied unless everything fits. Raises UserError for a source that does not exist; CheckpointError for weights that
    are damaged, not finite, of another network or of another variant, and for a published set that cannot be fetched.
    """
    return put_into(model, name, read(name, source), fresh_head=fresh_head, options=options)


def put_into(model: nn.Module, name: str, source: Weights, *, fresh_head: bool, options: Options | None = None) -> Loaded:
    """As `load_into`, with a source that is open."""
    own = {weights.plain(key): tensor for key, tensor in model.state_dict().items()}
    fresh = heads.of(name, options or {}) if fresh_head else ()
    classes_only = {key: tensor for key, tensor in source.tensors.items() if not key.startswith(f"{heads.BOX_HEAD}.")}
    fitted = keys.fit(classes_only, {key: tensor.shape for key, tensor in own.items()}, fresh)
    weights.refuse_non_finite(fitted.tensors, source.where)
    stay = {key: own[key] for key in (*fresh, *fitted.kept)}
    weights.put(model, {**fitted.tensors, **stay}, source.where, source.variant)
    notes = [*source.notes, *fitted.notes]
    if len(classes_only) < len(source.tensors):
        notes.append("The box head of the weights is left out; with --boxes a new one is trained.")
    if fresh:
        notes.append(f"The head is new and starts untrained: {', '.join(fresh)}.")
    variant = weights.variant_of(model)
    if variant not in (None, "basic") and source.variant is None and not source.is_published:
        notes.append(
            f"{source.where} does not say which variant it is of; the network is '{variant}'. Weights of another variant load as "
            "well and give wrong results: compare the score with the published one."
        )
    view = _renormalised(source.view) if getattr(model, "transform_input", False) else source.view
    return Loaded(source.where, source.digest, view, source.classes, tuple(notes))


def view_of(name: str, source: str | Path, options: Options | None = None) -> View | None:
    """How the weights see photos; None where nobody knows. Of a published set nothing is fetched or opened for that.

    options: of the network, where it has `transform_input`.
    """
    path = _path(source)
    view = published.find(name, str(source)).view if path is None else read(name, path).view
    wanted = str((options or {}).get("transform_input", False)).lower()
    return _renormalised(view) if wanted in ("true", "yes", "1") else view


def classes_of(name: str, source: str | Path) -> Classes | None:
    """What the weights' outputs mean, in order; None where nobody knows. Reads as little as `view_of`."""
    path = _path(source)
    return published.find(name, str(source)).classes if path is None else read(name, path).classes


def outputs_of(source: Weights, name: str, options: Options) -> int | None:
    """How many classes the weights distinguish; None where they have no head with the network's name for it."""
    fitted = keys.fit(source.tensors, heads.shapes(name, 5, options))
    found = {fitted.tensors[key].shape[0] for key in heads.of(name, options) if key in fitted.tensors}
    return found.pop() if len(found) == 1 else None


def _renormalised(view: View | None) -> View | None:
    """The view for a network that turns ImageNet's mean and deviation into 0.5 and 0.5 by itself."""
    return view if view is None else replace(view, mean=IMAGENET_MEAN, std=IMAGENET_STD)


# ---------------------------------------------------------------- sources


def read(name: str, source: str | Path) -> Weights:
    """Opens a source for the network `name`; see `load_into`."""
    path = _path(source)
    if path is not None:
        return _of_run(path) or _of_file(name, path)
    one = published.find(name, str(source))
    return _of_published(one, published.fetch(one))


def is_published(source: str | Path) -> bool:
    """Whether a source names a published set. Raises UserError for a file that does not exist."""
    return _path(source) is None


def _path(source: str | Path) -> Path | None:
    """The file or folder that is meant; None for a published set. Raises UserError when there is no such file."""
    path = Path(source)
    if isinstance(source, str) and source == DEFAULT:
        return None
    if path.exists():
        return path
    if isinstance(source, Path) or path.suffix in _SUFFIXES or len(path.parts) > 1:
        raise UserError(
            f"{source}: no such weight file. Give a .safetensors or .pth file, a run or one of its checkpoint folders, or "
            "'default'."
        )
    return None


def _of_run(path: Path) -> Weights | None:
    """A run's folder (its best checkpoint), or a file or folder within it; None for a path that is in no run."""
    run = next((folder for folder in (path, *path.absolute().parents) if (folder / "recipe.json").is_file()), None)
    if run is None:
        return None
    if run == path:
        if not (path / "best.json").is_file():
            raise UserError(
                f"{path}: nothing was evaluated yet, so no checkpoint is the best. Name one of {path / 'checkpoints'}."
            )
        best = files.read_json(path / "best.json")
        path = path / "checkpoints" / best["checkpoint"]
        path = path / "ema.safetensors" if best.get("weights") in ("EMA", "SWA") else path
    view = View.from_json(files.read_json(run / "view.json"))
    return _of_safetensors(path, view, Classes.read(run / "classes.json"))


def _of_file(name: str, path: Path) -> Weights:
    if path.is_dir() or path.suffix == ".safetensors":
        opened = _of_safetensors(path, None, None)
        # Without a variant in its metadata it may come from anywhere, so its names are asked.
        return opened if opened.variant else _of_family(opened)
    if path.suffix not in foreign.SUFFIXES:
        raise UserError(f"{path}: expected a file with one of {', '.join(_SUFFIXES)}.")
    if not path.is_file():  # a pipe would be waited for without end
        raise UserError(f"{path}: a pipe or a device, not a file. Write what comes out of it into a file first.")
    digest = files.sha256_file(path)
    one = published.of_file(digest)
    if one is not None:
        if name in catalog.NETWORKS and name not in one.ours() and name != one.network:
            fitting = f"Choose {' or '.join(one.ours())}." if one.ours() else "striate has no network of its own for them."
            raise CheckpointError(f"{path}: these are {one.title}, which are not of {name}. {fitting}")
        return replace(_of_published(one, path), is_published=True)
    tensors, nest = foreign.read(path)
    return _of_family(Weights(str(path), digest, None, None, _nested(nest), None, tensors))


def _of_safetensors(path: Path, view: View | None, classes: Classes | None) -> Weights:
    """A file, or the raw weights in a checkpoint folder (the averaged ones have to be named: ema.safetensors)."""
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path}: no such weight file. Give a file, a run, or a checkpoint folder of a run.")
    tensors, metadata = weights.read(path)
    return Weights(str(path), files.sha256_file(path), view, classes, (), metadata.get("variant"), tensors)


def _of_family(opened: Weights) -> Weights:
    """With the view and the variant that go with the names in the file."""
    family = keys.family_of(opened.tensors)
    return opened if family is None else replace(opened, view=family.view, variant=family.variant)


def _of_published(one: published.Published, path: Path) -> Weights:
    """The file of a published set. One that is not what was published is taken as what it is, a file in its place."""
    digest = files.sha256_file(path)
    if path.suffix == ".safetensors":
        tensors, nest = weights.read(path)[0], None
    else:
        tensors, nest = foreign.read(path)
    if digest.startswith(one.hash_prefix) or path.suffix == ".safetensors":
        return Weights(one.title, digest, one.view, one.classes, _nested(nest), one.variant, tensors, is_published=True)
    note = (
        f"{path} is not the published file: its SHA-256 begins with {digest[:8]}, its name says {one.hash_prefix}. It is taken "
        "as it is; delete it to have the published one fetched."
    )
    where = f"{path}, in the place of {one.title}"
    return Weights(where, digest, one.view, one.classes, (note, *_nested(nest)), one.variant, tensors, is_published=True)


def _nested(nest: str | None) -> tuple[str, ...]:
    return () if nest is None else (f"The tensors are those of '{nest}' in the file.",)
