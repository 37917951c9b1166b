"""Looking inside: heatmaps of evidence by several methods, how far to trust them, kernels and feature maps.

Here: functions of a model and images. Not here: opening runs and drawing pages (`explanation`, `report`), boxes (`localize`).
Start reading at `heatmap`, then `cam`.
"""
