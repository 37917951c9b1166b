"""What a training or a network costs and sees: facts, with units. `plan` says what a training will take.

Of networks: `cost` (parameters, MACs, memory of each layer), `receptive` and `effective` (what a unit sees), `latency`,
`accuracies` (published ones, with their protocol), `summary` (sizes as papers print them); `listing` brings them together by the
network's name, and `table` puts them into lines. No pictures: those are drawn in `report`. Start with `listing`.
"""
