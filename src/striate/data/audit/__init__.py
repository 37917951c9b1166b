"""Is the data set what it seems: every file decoded, hashed and compared, its labels, classes and boxes checked.

Here: facts about each image, what follows from them, duplicates, checksums. Not here: the page that shows it (`report`), and
what training does about a bad image. Nothing is ever written into the data set.
Start reading in `audit`.
"""
