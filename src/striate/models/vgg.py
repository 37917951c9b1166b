"""VGG: Simonyan and Zisserman 2015."""

from __future__ import annotations

from striate.models.entry import Entry

NETWORKS: dict[str, Entry] = {}
