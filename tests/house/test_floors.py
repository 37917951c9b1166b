"""The floors: a room imports from lower floors or from itself, no two modules import each other in a ring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

# Room: (floor, order within the floor). Rooms of one floor and order do not see each other.
FLOORS = {
    "errors": (0, 0),
    "files": (0, 1),
    "geometry": (0, 1),
    "machine": (0, 1),
    "ranks": (0, 1),
    "taps": (0, 1),
    "view": (0, 2),
    "classes": (0, 2),
    "data": (1, 0),
    "models": (1, 0),
    "recipe": (1, 0),
    "predictions": (1, 0),
    "run": (2, 0),
    "recipes": (2, 0),
    "evaluate": (3, 0),
    "measure": (3, 0),
    "explain": (3, 0),
    "embed": (3, 0),
    "train": (4, 0),
    "localize": (5, 0),
    "doctor": (5, 0),
    "report": (6, 0),
    "submission": (6, 0),
    "progress": (6, 0),
    "track": (6, 0),
    "export": (6, 0),
    "serve": (6, 0),
    "sweep": (6, 0),
    "studies": (6, 0),
    "sitting": (7, 0),
    "consultation": (7, 1),
    "ensemble": (7, 2),
    "explanation": (7, 0),
    "cli": (8, 0),
    "__main__": (9, 0),
}

# Packages of the extras: imported where they are used, so that striate works without them.
OPTIONAL = {
    "cv2",
    "timm",
    "huggingface_hub",
    "alembic",
    "mlflow",
    "sqlalchemy",
    "tensorboard",
    "wandb",
    "faiss",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "fastapi",
    "uvicorn",
    "optuna",
}

# Imports inside functions that have a reason: (module, what it imports).
LATE = {
    ("striate.data.index", "pyarrow"),  # building an index needs no parquet; only writing and reading one does
    ("striate.track.tensorboard", "torch.utils.tensorboard"),  # needs the optional package tensorboard
    ("striate.data.layouts.detect", "striate.data.synthetic"),  # draws pictures: only for the data set `builtin`
    ("striate.data.layouts.detect", "striate.data.layouts.packed"),  # these two need pyarrow, which folders of images do not
    ("striate.data.layouts.detect", "striate.data.layouts.parquet"),
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package's name stands for its __init__."""
    found = {}
    for path in sorted((SOURCE / "striate").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(path: Path) -> Iterator[tuple[str, bool, bool, int]]:
    """Every import: the module it names, whether inside a function, whether for type checkers only, its line."""

    def walk(node: ast.AST, late: bool, for_types: bool) -> Iterator[tuple[str, bool, bool, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield alias.name, late, for_types, child.lineno
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: imports are absolute"
                parent = child.module or ""
                for alias in child.names:
                    inner = f"{parent}.{alias.name}"
                    yield inner if inner in MODULES else parent, late, for_types, child.lineno
            else:
                inside = late or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from walk(child, inside, for_types or is_for_types(child))

    yield from walk(ast.parse(path.read_text(encoding="utf-8"), str(path)), False, False)


def room(module: str) -> str:
    return module.split(".")[1]


INNER = {name: path for name, path in MODULES.items() if name != "striate"}


def test_every_room_stands_on_a_floor():
    assert {room(name) for name in INNER} <= set(FLOORS), "a new room needs its line in FLOORS and in the README's table"


@pytest.mark.parametrize("name", INNER)
def test_imports_go_down(name):
    wrong = []
    for target, _, _, line in imports(INNER[name]):
        if target == "striate":
            wrong.append(f"line {line}: imports the package root; name the module")
        elif target.startswith("striate."):
            assert target in MODULES, f"{name}:{line}: imports {target}, which does not exist"
            here, there = room(name), room(target)
            if here != there and FLOORS[there] >= FLOORS[here]:
                wrong.append(f"line {line}: {here} (floor {FLOORS[here][0]}) imports {target} (floor {FLOORS[there][0]})")
    assert not wrong, f"{name}: {wrong}"


def test_there_is_no_ring_of_imports():
    edges = {
        name: {target for target, _, for_types, _ in imports(path) if target in INNER and target != name and not for_types}
        for name, path in INNER.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "ring: " + " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("name", INNER)
def test_imports_stand_at_the_top(name):
    """Save in the verbs of `cli` (help must not load torch) and for optional packages."""
    if room(name) == "cli":
        return
    late = [
        f"line {line}: {target}"
        for target, inside, _, line in imports(INNER[name])
        if inside
        and target.split(".")[0] not in OPTIONAL
        and not any(name == module and f"{target}.".startswith(f"{allowed}.") for module, allowed in LATE)
    ]
    assert not late, f"{name}: imports inside functions: {late}"


def test_a_rooms_face_is_one_docstring():
    for name, path in INNER.items():
        if path.name == "__init__.py":
            body = ast.parse(path.read_text(encoding="utf-8")).body
            is_docstring = len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
            assert is_docstring, f"{name}: a room's __init__ is one docstring, and nothing else"


def test_names_that_say_nothing_are_not_used():
    banned = {"utils", "util", "common", "helpers", "base", "core", "manager", "engine", "callbacks"}
    assert not [name for name in MODULES if banned & set(name.split("."))]
