"""What trackers are told: which numbers under which names, and which words."""

from __future__ import annotations

import math

from striate.track.entry import entry

STEP = {
    "epoch": 0.5,
    "loss": 2.0,
    "losses": {"main": 1.5, "aux1": 0.5},
    "lr": 0.1,
    "top1": 0.25,
    "images_per_s": 90,
    "wait_share": 0.125,
    "gradient_norm": math.inf,
    "loss_scale": None,
    "skipped": 0,
    "memory_bytes": 1024,
    "norms": {"layer1": {"weight": 3.0, "gradient": 0.5, "update": 0.25}},
    "dead_share": {"layer1.0.relu": 0.0},
    "total_steps": 100,
}


def test_a_step_tells_all_it_measured_and_nothing_that_is_not_finite():
    told = entry("step", 7, 12.5, STEP)
    assert (told.step, told.time_s, told.note, told.exit_code) == (7, 12.5, "", None)
    assert told.numbers == {
        "train/epoch": 0.5,
        "train/loss": 2.0,
        "train/losses/main": 1.5,
        "train/losses/aux1": 0.5,
        "train/lr": 0.1,
        "train/top1": 0.25,
        "train/skipped": 0.0,
        "train/memory_bytes": 1024.0,
        "speed/images_per_s": 90.0,
        "speed/wait_share": 0.125,
        "norms/layer1/weight": 3.0,
        "norms/layer1/gradient": 0.5,
        "norms/layer1/update": 0.25,
        "dead_share/layer1.0.relu": 0.0,
    }


def test_raw_and_averaged_weights_have_names_of_their_own():
    scores = {"split": "val", "top1": 0.5, "top1_interval": [0.4, 0.6], "top5": 0.9, "top5_k": 5, "loss": 1.0, "bad": 2}
    raw, ema = (entry("evaluation", 9, 0.0, scores | {"weights": name}).numbers for name in ("raw", "EMA"))
    assert raw == {
        "val/raw/top1": 0.5,
        "val/raw/top1_low": 0.4,
        "val/raw/top1_high": 0.6,
        "val/raw/top5": 0.9,
        "val/raw/loss": 1.0,
        "val/raw/bad": 2.0,
    }
    assert not raw.keys() & ema.keys()


def test_top5_of_few_classes_is_named_as_what_it_is():
    scores = {"split": "val", "weights": "raw", "top1": 0.5, "top5": 1.0, "top5_k": 3}
    assert entry("evaluation", 9, 0.0, scores).numbers["val/raw/top3"] == 1.0


def test_words():
    assert entry("note", 3, 0.0, {"text": "train: 60 images: grey"}).note == "train: 60 images: grey"
    assert entry("resume", 1200, 0.0, {"images": 5}).note == "Went on at step 1,200."
    assert entry("skip", 3, 0.0, {"reason": "gradient is NaN"}).note == "Step 3 skipped: gradient is NaN."
    assert entry("bad", 3, 0.0, {"key": "a.jpg", "reason": "empty"}).note == "Bad image: a.jpg: empty."
    end = entry("end", 3, 0.0, {"reason": "SIGTERM", "exit_code": 75})
    assert (end.note, end.exit_code) == ("Ended at step 3: SIGTERM.", 75)
    assert entry("checkpoint", 3, 0.0, {"name": "step-3"}) == entry("plan", 3, 0.0, {"total_steps": 9})
