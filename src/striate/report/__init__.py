"""The offline report: one HTML file that shows what a run did, made from the files of its folder alone.

Here: reading those files (`gather`, `history`), ranking classes and mistakes (`ranking`, `confusable`), what confidence is
worth (`confidence`), all evaluations side by side (`evaluations`), drawing (`charts`, `pictures`, and the templates in
`pages/`), and putting the page together (`write`).
Not here: computing scores (`evaluate`) or judging a run (`doctor`); the report shows what they left behind.
Start with `write.write_report`.
"""
