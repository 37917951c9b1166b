"""ZFNet: Zeiler and Fergus 2014."""

from __future__ import annotations

from striate.models.entry import Entry

NETWORKS: dict[str, Entry] = {}
