"""Training views of a whole batch at once, on a device: the same draws as `augment`, the same pixels bit for bit.

Here: the parameters of a batch as tensors (`plan`), what they do (`apply`), the operations on finished crops (`changes`), and
one file per kind of operation, each the twin of Pillow's arithmetic. Not here: which parameters a sample gets
(`augment.draw`), and the order of a batch (`order`).
Start reading in `apply`.
"""
