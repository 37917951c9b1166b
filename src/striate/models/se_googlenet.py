"""Squeeze-and-excitation in GoogLeNet."""

from __future__ import annotations

from striate.models.entry import Entry

NETWORKS: dict[str, Entry] = {}
