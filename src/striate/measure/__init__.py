"""What a training or a network costs, measured: `plan` says it before a training begins.

Nothing here knows of recipes or runs: the functions take plain values, tensors and callables. Start with `plan`.
"""
