"""Training: the loop as a generator of records, and the parts it calls in order.

Here: one step, the loss, the optimiser, schedules, averages of weights, the budget, vital signs.
Not here: opening a sitting, the display, the report (`sitting`), judging a run (`doctor`).
Start reading at `loop`, then `step`.
"""
