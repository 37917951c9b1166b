"""docs/networks.md names every network with its counts, and every option that there is."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest

from striate.measure import listing
from striate.models import catalog, init

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "networks.md").read_text(encoding="utf-8")
ROWS = {
    row[0]: row[1:] for row in re.findall(r"^\| `([^`]+)` \| ([^|]+) \| (\d{4}) \| (\d+) \| ([^|]+) \| ([\d,]+) \|$", PAGE, re.M)
}


def test_every_network_has_its_row_and_paper():
    assert list(ROWS) == list(catalog.NETWORKS)
    for name, entry in catalog.NETWORKS.items():
        assert ROWS[name][:3] == (entry.paper, str(entry.year), str(entry.size_px))


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "resnet50", "se-googlenet-paths", "kth-f", "all-cnn-c"])
def test_counts_are_those_that_measure_prints(name):
    cost = listing.measure(name)[0].cost
    without = f" ({cost.parameters_without_aux:,})" if cost.parameters_without_aux < cost.parameters else ""
    assert ROWS[name][3:] == (f"{cost.parameters:,}{without}", f"{cost.macs:,}")


def test_every_option_and_every_way_to_begin_is_named():
    known = {option for name in catalog.NETWORKS for option in catalog.option_names(name)}
    assert not {option for option in known if f"`{option}`" not in PAGE}
    assert not {way for way in typing.get_args(init.Name) if f"`{way}`" not in PAGE}


def test_pictures_and_links_are_there():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", PAGE):
        assert (DOCS / target).exists(), target
