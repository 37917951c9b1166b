"""One file for each rule: what it looks at, where that comes from, the evidence, the likely causes, the remedy.

A rule is a function from facts (`patient`, `history`, `Predictions`) to a Finding, or to None where all is well.
The table of them is `doctor.catalog`.
"""
