"""The run folder: everything that a training leaves on disk, and how it is found, locked and read again.

Here: the layout of the folder, the log's schema, checkpoints, the lock, a run's identity. Not here: what
the numbers mean (`evaluate`), how they are shown (`report`), or the training itself (`train`).
Start reading at `folder`, then `checkpoint`.
"""
