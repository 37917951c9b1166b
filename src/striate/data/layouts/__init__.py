"""How image sets lie on disk: each known layout becomes `Splits` of `Index`es.

One file per layout (`folder`, `ilsvrc`, `tiny`, `listing`), `walk` for reading folders, `splits` for what comes
out, and `detect` for telling the layouts apart by their content. Nothing here opens an image; nothing writes
into the data folder. Start reading in `detect`.
"""
