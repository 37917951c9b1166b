"""The display: sentences of records, and a reader who goes away."""

from __future__ import annotations

import io
import sys
import types

import pytest

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


def test_a_training_that_ended_early_says_why_and_a_whole_one_nothing():
    reason = "no better top-1 in 2 evaluations (--patience)"
    text = progress.sentence(Record("end", 1054, {"reason": reason, "exit_code": 0}))
    assert text == "Ended early at step 1,054: no better top-1 in 2 evaluations (--patience)."
    assert progress.sentence(Record("end", 1054, {"reason": "done", "exit_code": 0})) is None
    assert progress.sentence(Record("end", 1054, {"reason": "loss is NaN", "exit_code": 5})) is None  # the error itself is shown


def test_several_heads_are_shown_each():
    heads = {"main": 1.5, "aux2": 2.0, "aux1": 12345.678}
    assert "  loss 2.0000 (main 1.5000, aux2 2.0000, aux1 1.23e+04)  top-1" in progress.line(STEP | {"step": 5, "losses": heads})
    assert "  loss 2.0000  top-1" in progress.line(STEP | {"step": 5, "losses": {"main": 2.0}})


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (9999.0, "9999.0000"),
        (1e4, "1.00e+04"),
        (1030911492676375028730691584.0, "1.03e+27"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_a_loss_that_diverges_stays_short(loss, words):
    assert f"  loss {words}  " in progress.line(STEP | {"step": 5, "loss": loss})
    assert f"  loss {words}  " in str(progress.sentence(Record("evaluation", 8, EVALUATION | {"loss": loss})))


def test_a_reader_that_goes_away_silences_the_display_and_no_more():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    console = progress.Terminal(file=Gone(), force_terminal=False)
    display = progress.Display(console=console)
    display.say("one")
    display.say("two")
    assert console.quiet


STEP = {"epoch": 0.5, "loss": 2.0, "top1": 0.1, "lr": 0.01, "images_per_s": 100.0, "wait_share": 0.25}


class Kernel:
    """What a notebook's kernel gives: `display`, and the handle that rewrites what was shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.places = 0

    def display(self, content: dict[str, str], raw: bool, display_id: bool) -> Kernel:
        assert raw and display_id
        self.places += 1
        self.update(content, raw)
        return self

    def update(self, content: dict[str, str], raw: bool) -> None:
        assert raw and list(content) == ["text/plain"]
        self.shown.append(content["text/plain"])


def shell(kernel: Kernel | None) -> dict[str, types.ModuleType]:
    """IPython as it is imported in a kernel, or, without one, in IPython's terminal."""
    ipython, inner = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=kernel) if kernel else types.SimpleNamespace()
    inner.display = kernel.display if kernel else print
    return {"IPython": ipython, "IPython.display": inner}


def test_a_notebook_is_told_from_a_terminal(monkeypatch):
    kernel = Kernel()
    for name in ("IPython", "IPython.display"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert progress.notebook() is None
    for name, module in shell(None).items():
        monkeypatch.setitem(sys.modules, name, module)
    assert progress.notebook() is None, "IPython's terminal is a terminal"
    for name, module in shell(kernel).items():
        monkeypatch.setitem(sys.modules, name, module)
    assert progress.notebook() == kernel.display


def test_a_notebook_sees_one_line_that_is_rewritten_and_plain_lines_below(monkeypatch, capsys):
    kernel, clock = Kernel(), [0.0]
    for name, module in shell(kernel).items():
        monkeypatch.setitem(sys.modules, name, module)
    with progress.Display(now=lambda: clock[0]) as display:
        for step in range(1, 9):
            clock[0] += 0.1
            display.show(Record("step", step, STEP))
        display.show(Record("evaluation", 8, EVALUATION))
        display.show(Record("end", 8, {"reason": "SIGINT", "exit_code": 75}))
    assert kernel.places == 1, "one place in the cell"
    assert [text.split("  ")[1] for text in kernel.shown] == ["step 1", "step 4", "step 7", "step 8"], (
        "not more often, and the last"
    )
    out, err = capsys.readouterr()
    assert err == "", "a notebook shows standard error as if something were wrong"
    assert out.splitlines()[0] == progress.sentence(Record("evaluation", 8, EVALUATION))
    assert out.splitlines()[1] == "Saved at step 8 (SIGINT). Run this cell again to go on."


def test_a_quiet_display_shows_a_notebook_nothing(monkeypatch, capsys):
    kernel = Kernel()
    for name, module in shell(kernel).items():
        monkeypatch.setitem(sys.modules, name, module)
    with progress.Display(quiet=True) as display:
        display.decoding(1, 2)
        display.show(Record("step", 1, STEP))
    assert kernel.shown == [] and capsys.readouterr() == ("", "")
