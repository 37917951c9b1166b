"""Inception-v3: Szegedy et al. 2016."""

from __future__ import annotations

from striate.models.entry import Entry

NETWORKS: dict[str, Entry] = {}
