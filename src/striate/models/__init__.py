"""Networks: one file per paper, each a plain `nn.Module` with honest layer names.

Belongs here: architectures, their initialisation, the table of names, and weight files going into a network.
Does not: losses (train), preprocessing (view, data), looking inside a network (taps, measure, explain).
Start reading at `resnet`; `catalog` turns the name of the command line into a network.
"""
