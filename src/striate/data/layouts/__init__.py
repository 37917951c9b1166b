"""How image sets lie on disk: each known layout becomes `Splits` of `Index`es.

One file per layout: `folder`, `ilsvrc`, `tiny`, `listing` for images that are files; `webdataset`, `parquet`, `cifar`, `idx`,
`packed` for many in a file, each with its `Store`. `walk` reads folders, `shards` finds files of many images, `labels` brings
their labels into order, `joined` puts indexes together, `splits` is what comes out, and `detect` tells the layouts apart by
their content. Nothing here decodes an image; nothing writes into the data folder. Start reading in `detect`.
"""
