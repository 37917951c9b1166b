"""AlexNet, CaffeNet and AlexNet in one tower: Krizhevsky, Sutskever, Hinton 2012."""

from __future__ import annotations

from striate.models.entry import Entry

NETWORKS: dict[str, Entry] = {}
