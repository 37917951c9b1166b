"""What is kept beside a run for photos without boxes: each kind by itself, by several commands at once, and nothing damaged."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from striate import files
from striate.errors import CheckpointError, UserError
from striate.evaluate.network import Network
from striate.localize import kept
from striate.localize.boxes import Fitted
from striate.localize.kept import Fit
from striate.view import View

VIEW = View(16, "squash", 16, "bilinear", False, (0.5,) * 3, (0.5,) * 3)
FIT = Fit("grad-cam", "0", "step-7", "raw", 0.35, "largest", "val", 480, 0.75, "val-grad-cam-abcdef")
PLAIN: dict[str, Any] = FIT.to_json()


def network(home: Path) -> Network:
    return Network(nn.Sequential(*[nn.ReLU() for _ in range(8)]), None, VIEW, "raw", "0" * 64, home, "step-7")


def test_a_fit_replaces_its_own_kind_only_and_says_so(tmp_path: Path) -> None:
    kinds = [
        FIT,
        replace(FIT, method="cam"),
        replace(FIT, layer="1"),
        replace(FIT, checkpoint="step-8"),
        replace(FIT, weights="EMA"),
    ]
    for fit in kinds:
        assert "replaces" not in kept.keep(network(tmp_path), fit)[0]
    notes = kept.keep(network(tmp_path), replace(FIT, threshold=0.5, images=24, accuracy=0.25))
    assert notes == [
        "kept for submit: grad-cam of 0, raw weights of step-7, the largest component above 0.50 of the map's range, fitted on "
        "24 images of val (25.0% right there); it replaces a fit on 480 images of val (75.0% right there)"
    ]
    plain = json.loads((tmp_path / kept.NAME).read_text())
    assert plain["format"] == 1 and len(plain["fits"]) == 5
    assert kept.fit_for(network(tmp_path), "grad-cam", "0").threshold == 0.5
    assert kept.fit_for(network(tmp_path), "grad-cam", "1") == kinds[2]
    assert kept.fit_for(network(tmp_path), "cam", None) == kinds[1]  # the one of this method and these weights
    assert kept.fit_for(replace(network(tmp_path), weights="EMA"), "grad-cam", None) == kinds[4]


def test_commands_that_end_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = files.read_json

    def slowly(path: Path) -> Any:
        found = read(path)
        time.sleep(0.02)  # all the others have read by then, if they may
        return found

    monkeypatch.setattr(files, "read_json", slowly)
    kept.keep(network(tmp_path), FIT)
    threads = [threading.Thread(target=kept.keep, args=(network(tmp_path), replace(FIT, layer=str(n)))) for n in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {fit["layer"] for fit in read(tmp_path / kept.NAME)["fits"]} == {str(n) for n in range(7)}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (PLAIN | {"threshold": "0.35"}, "threshold is '0.35', expected a number"),
        (PLAIN | {"threshold": None}, "threshold is None"),
        (PLAIN | {"threshold": True}, "threshold is True"),
        (PLAIN | {"threshold": 1}, "threshold is 1,"),
        (PLAIN | {"threshold": -0.1}, "threshold is -0.1"),
        (PLAIN | {"threshold": [0.3]}, r"threshold is \[0.3\]"),
        (PLAIN | {"which": "some"}, "which is 'some', expected largest or all"),
        (PLAIN | {"method": "head"}, "method is 'head', expected one of cam, grad-cam, grad-cam"),
        (PLAIN | {"method": ["cam"]}, "method is "),
        (PLAIN | {"layer": 0}, "layer is 0, expected a text"),
        (PLAIN | {"layer": "layer4"}, "'layer4' is no layer of the network"),
        (PLAIN | {"layer": ""}, "layer is ''"),
        (PLAIN | {"checkpoint": None}, "checkpoint is None"),
        (PLAIN | {"fitted_on": {"split": "val", "images": 48.0, "accuracy": 0.5}}, "images is 48.0"),
        (PLAIN | {"fitted_on": {"split": "val", "images": 48, "accuracy": 50}}, "accuracy is 50"),
        (PLAIN | {"fitted_on": {"split": 1, "images": 48, "accuracy": 0.5}}, "split is 1"),
        (PLAIN | {"fitted_on": None}, "a table fitted_on"),
        ([PLAIN], "expected a table"),
        ({}, "expected a table"),
    ],
)
def test_what_is_damaged_is_named_with_the_way_out_and_mended(tmp_path: Path, entry: Any, said: str) -> None:
    path = tmp_path / kept.NAME
    good = PLAIN | {"method": "cam"}
    path.write_text(json.dumps({"format": 1, "fits": [good, entry]}))
    with pytest.raises(CheckpointError, match=rf"localization\.json: damaged: .*{said}.*Run striate localize .* again"):
        kept.fit_for(network(tmp_path), "grad-cam", None)
    notes = kept.keep(network(tmp_path), FIT)
    assert notes[0].startswith("localization.json was damaged (fit 2: ")
    assert kept.fit_for(network(tmp_path), "grad-cam", None) == FIT
    assert kept.fit_for(network(tmp_path), "cam", None) == replace(FIT, method="cam")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("\xff", "not valid JSON"),
        ('{"format": 1, "fits": [{"threshold": NaN}]}', "NaN is no number"),
        ("[]", 'expected {"format": 1'),
        ('{"format": true, "fits": []}', 'expected {"format": 1'),
        ('{"format": 1, "fits": {}}', 'expected {"format": 1'),
        (json.dumps(PLAIN), 'expected {"format": 1'),
        (json.dumps({"format": 1, "fits": [PLAIN, PLAIN]}), "fit 2: there is another one"),
    ],
)
def test_a_file_that_is_none_is_damage(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / kept.NAME
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError) as error:
        kept.fit_for(network(tmp_path), "grad-cam", None)
    assert str(error.value).startswith(f"{path}: damaged: ") and said in str(error.value)
    kept.keep(network(tmp_path), FIT)
    assert kept.fit_for(network(tmp_path), "grad-cam", None) == FIT


def test_whole_numbers_are_thresholds_too(tmp_path: Path) -> None:
    (tmp_path / kept.NAME).write_text(json.dumps({"format": 1, "fits": [PLAIN | {"threshold": 0}]}))
    assert kept.fit_for(network(tmp_path), "grad-cam", None).threshold == 0


def test_a_file_of_a_later_format_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / kept.NAME
    path.write_text('{"format": 2}')
    with pytest.raises(CheckpointError, match=r"of format 2, this striate reads up to 1\. Install a newer striate"):
        kept.fit_for(network(tmp_path), "grad-cam", None)
    assert kept.keep(network(tmp_path), FIT)[0].startswith("not kept for submit: ")
    assert path.read_text() == '{"format": 2}'


def test_what_speaks_against_keeping() -> None:
    def fitted(images: int, accuracy: float) -> Fitted:
        return Fitted(0.2, "largest", accuracy, images, np.array([0.2]), np.zeros((2, 1)))

    assert kept.reason_against(fitted(20, 0.1), 0, 25) is None
    assert "fitted on 19 images with a box, expected 20 or more" in str(kept.reason_against(fitted(19, 0.1), 0, 25))
    assert kept.reason_against(fitted(20, 0.0), 0, 25) == "no threshold gave a single right box"
    assert "trained on these images" in str(kept.reason_against(fitted(20, 0.1), 25, 25))
    assert "trained on 3 of these 25 images" in str(kept.reason_against(fitted(20, 0.1), 3, 25))


def test_nothing_kept_lists_a_few_of_what_is(tmp_path: Path) -> None:
    for step in range(8):
        kept.keep(network(tmp_path), replace(FIT, checkpoint=f"step-1{step}"))
    with pytest.raises(UserError, match=r"step-14; and 3 more\)"):
        kept.fit_for(network(tmp_path), "grad-cam", None)
