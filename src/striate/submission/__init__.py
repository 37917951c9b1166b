"""Files for a challenge's server, and the same judgement here: written, checked, scored.

`write.submit` looks at test images and writes Kaggle's form of the ILSVRC challenge or Tiny ImageNet's; `check.check` says what
is wrong in such a file, line by line; `score.score` compares one with a solution that is at hand. `kaggle` and `tiny` know the
two forms, `lines` what both have in common, `labels` which number stands for which class, `images` the photos and their sides,
`places` the boxes of `--task localization`.

What does not belong here: predicting itself and its metrics (`evaluate`), where things are in a photo (`localize`).
Start reading at `write.submit`, then `kaggle.read`.
"""
