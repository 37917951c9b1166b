"""SE-ResNet, SE-ResNeXt, SENet-154: Hu et al. 2018."""

from __future__ import annotations

from striate.models.entry import Entry

NETWORKS: dict[str, Entry] = {}
