"""What training does to one image: random crops and mirror images, warps, colours, erased parts, policies of operations.

Here: which parameters a sample's random numbers lead to (`draw`), and the reference that applies them (`apply`),
one file per kind of change. Not here: two images mixed (`mixing`), the same work in batches on a device, and how an
evaluated image is made (`views`).
Start reading in `apply`, which tells the order of operations, then `draw`.
"""
