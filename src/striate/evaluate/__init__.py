"""How good a network is: scores of every image, and the numbers that follow from them.

`predict` turns a model and batches into Predictions, `metrics` turns scores into numbers, `score` turns Predictions
into a summary and the files of an evaluation, `rows` into the table of the `predict` verb. `network` opens what is scored,
`route` sends grey images to a network of their own, `open` is what the verbs call. Every image counts once, classes are
joined by id, and no number appears without its protocol.

What does not belong here: which examples look wrong (`doctor`), cost and speed (`measure`), pictures (`report`).
Start reading at `predict.predict`, then `metrics.hits`.
"""
