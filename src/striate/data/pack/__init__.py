"""Data repacked once, so that training reads few bytes in few files: Arrow shards with images, labels, keys and boxes.

Here: the format, writing (parallel, interrupted and gone on with), reading, and the decoding of a part of an image only.
Not here: how a pack is recognised as DATA (`layouts`), and what its images are used for.
Start reading in `format`, then `write`.
"""
