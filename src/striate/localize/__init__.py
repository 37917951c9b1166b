"""Where the object is: boxes from heatmaps or from a trained head, and the measures that score them.

Here: from a network and photos with boxes to scored boxes. Not here: the head itself (`models.heads`) and its training (`train`),
challenge files (`submission`), pages (`report`). Start reading at `boxes`, then `metrics`.
"""
