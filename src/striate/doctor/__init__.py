"""The doctor: why a network does not learn, in words, with the evidence and the way out.

Here: findings, what they are judged from, and one file for each rule. Not here: training (the doctor reads records, saved
predictions, a network with a batch, and indexes), and showing (`report`, `cli`).
Start with `finding`, then `catalog`, then any file of `rules`.
"""
