"""The display: sentences of records, and a reader who goes away."""

from __future__ import annotations

import io

from striate import progress
from striate.run.log import Record

EVALUATION = {
    "epoch": 2.0,
    "split": "val",
    "weights": "EMA",
    "top1": 0.5,
    "top1_interval": [0.4, 0.6],
    "top5": 1.0,
    "top5_k": 3,
    "loss": 1.25,
    "used": 10,
    "expected": 12,
}


def test_an_evaluation_in_words_names_the_k_it_counted():
    text = progress.sentence(Record("evaluation", 8, EVALUATION))
    assert text == "epoch 2.00  val (EMA)  top-1 50.00% (40.00% to 60.00%)  top-3 100.00%  loss 1.2500  10 of 12 images"


def test_the_line_of_a_step_says_how_long_is_left():
    facts = {"epoch": 0.5, "loss": 2.0, "top1": 0.1, "lr": 0.01, "images_per_s": 100.0, "wait_share": 0.25}
    text = progress.line(facts | {"step": 50, "total_steps": 100, "elapsed_s": 120.0})
    assert text == "epoch 0.50  step 50/100  loss 2.0000  top-1 10.0%  lr 0.01  100 images/s  waiting 25%  left 2 min"


def test_a_reader_that_goes_away_silences_the_display_and_no_more():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    console = progress.Terminal(file=Gone(), force_terminal=False)
    display = progress.Display(console=console)
    display.say("one")
    display.say("two")
    assert console.quiet
