"""How good a network is: scores of every image, and the numbers that follow from them.

From images to what was said: `network` opens what is scored, `predict` looks once and `look` many times (`view_sets`), `route`
sends grey images to a network of their own. From what was said to numbers: `metrics`, `calibrate`, `strata`, and `labels` for
other labels; `score` makes the summary and the files of an evaluation, `saved` reads them back. Several of them: `compare`,
`combine`, `stack` (weights chosen on `held_out` images) and `together`. `rows` is the table of the `predict` verb; `open` is what
the verbs call. Every image counts once, classes are joined by id, and no number appears without its protocol.

What does not belong here: which examples look wrong (`doctor`), cost and speed (`measure`), pictures (`report`).
Start reading at `predict.predict`, then `metrics.hits`.
"""
