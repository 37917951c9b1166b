"""ResNet for CIFAR: He et al. 2016, section 4.2."""

from __future__ import annotations

from striate.models.entry import Entry

NETWORKS: dict[str, Entry] = {}
