"""striate: train, score, resume and show ImageNet-style image classifiers.

This is the public face: a table of names, each loaded on first use, so that `import striate` loads no torch.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

_PUBLIC = {
    # What the command's verbs do.
    "create_model": "striate.models.pretrained",
    "train": "striate.sitting",
    "steps": "striate.train.loop",
    "evaluate": "striate.evaluate.open",
    "predict": "striate.evaluate.open",
    "explain": "striate.explanation",
    "localize": "striate.localize.score",
    "measure": "striate.measure.listing",
    "examine": "striate.doctor.examine",
    "open_run": "striate.run.folder",
    "open_data": "striate.data.layouts.detect",
    # Nouns.
    "Index": "striate.data.index",
    "View": "striate.view",
    "Classes": "striate.classes",
    "Recipe": "striate.recipe",
    "Run": "striate.run.folder",
    "Record": "striate.run.log",
    "Predictions": "striate.predictions",
    "Heatmap": "striate.explain.heatmap",
    # Errors, each with its exit code.
    "StriateError": "striate.errors",
    "UserError": "striate.errors",
    "DataError": "striate.errors",
    "CheckpointError": "striate.errors",
    "NonFiniteError": "striate.errors",
    "ResourceError": "striate.errors",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'striate' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


class _Face(types.ModuleType):
    """The package itself. Some rooms have the name of a function (`train`, `evaluate`, `explain` …); the import system would
    put the room in the function's place as soon as anything of it is imported, so that `striate.train(...)` fails.
    The rooms are imported as ever: `from striate.train import loop`."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PUBLIC and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
