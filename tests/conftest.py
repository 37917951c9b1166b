"""What every test shares: a cache folder of its own, real photographs where there are some, one thread under xdist."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_OWN_CACHE = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Points the cache at a temporary folder before xdist starts its workers, which inherit it and share it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        config.stash[_OWN_CACHE] = tempfile.mkdtemp(prefix="striate-tests-")
        os.environ["STRIATE_CACHE"] = config.stash[_OWN_CACHE]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the cache folder, once all workers are done."""
    if _OWN_CACHE in config.stash:
        shutil.rmtree(config.stash[_OWN_CACHE], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests marked gpu where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and there is none"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread_for_each_xdist_worker() -> Iterator[None]:
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of STRIATE_TEST_DATA, holding tiny-imagenet-200/ and imagenet-samples/; not to be written to."""
    named = os.environ.get("STRIATE_TEST_DATA")
    if not named:
        pytest.skip("needs real photographs: STRIATE_TEST_DATA names no folder")
    folder = Path(named)
    absent = [name for name in ("tiny-imagenet-200", "imagenet-samples") if not (folder / name).is_dir()]
    if absent:
        pytest.skip(f"needs real photographs: {folder} has no {' and no '.join(absent)}")
    return folder
