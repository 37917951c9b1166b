"""From disk to `Batch`: which images exist, how they are read, changed, ordered and handed to a network.

Here: the index and the layouts it is read from, decoding and the rules for odd images, views and augmentation
of single images, their order, the loader, the resident and cached sets, and the generated set. Not here: what a
class is (`classes`), what a view is (`view`), which images count as bad enough to stop (the training loop), and
anything that knows a network or a recipe.
Start reading in `index`, then `layouts/detect`, then `loader`.
"""
