"""Trackers: the records of a training shown by TensorBoard, Weights & Biases or MLflow while it runs.

Here: which trackers there are and how they are kept from hurting the training (`trackers`), what they are told
(`entry`), and one file for each. A tracker is one function, `opened(story)`, a context manager that yields another,
`write(entry)`. The log stays the truth: whenever a sitting begins, the tracked run is brought in line with it.
Not here: the log itself (`run.log`), the terminal (`progress`), the offline page (`report`).
Start with `trackers.Trackers`.
"""
