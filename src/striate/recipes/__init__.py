"""Named trainings, as functions that start from another recipe and change a few fields.

Here: what to run. Not here: how it is run (`train`) or what a recipe is (`recipe`).
Start reading at `small`; `catalog` is the table of names, and chooses for those who name none.
"""
