"""LeNet-5: LeCun, Bottou, Bengio, Haffner 1998."""

from __future__ import annotations

from striate.models.entry import Entry

NETWORKS: dict[str, Entry] = {}
