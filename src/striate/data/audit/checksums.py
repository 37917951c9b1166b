"""Checksums of every file of a data set, and what differs from them later."""
