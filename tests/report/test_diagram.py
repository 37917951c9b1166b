"""Diagrams: everything is in them once, within the slide, and nothing lies over anything else."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from xml.etree import ElementTree

import pytest
from torch import nn

from striate import cli
from striate.errors import UserError
from striate.measure import listing
from striate.measure.outline import Block, Layer, Outline, boxes, outline
from striate.report import diagram
from striate.report.diagram import Part
from striate.report.letters import width

NETWORKS = ("alexnet-one-tower", "vgg16", "googlenet-bn", "resnet50", "densenet121", "se-resnet50")
SVG = "{http://www.w3.org/2000/svg}"


@functools.cache
def outlined(name: str) -> Outline:
    subject = listing.subject(name)
    return outline(subject.outlined(), name, subject.size_px, subject.channels)


def everything(found: Outline) -> list[Layer | Block]:
    return list(boxes([*found.items, *(item for head in found.heads for item in head.items)]))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_is_a_drawing_with_every_block_once(name, tmp_path: Path):
    found = outlined(name)
    path = diagram.write_diagram(tmp_path / "net.svg", found, name, "1,000 parameters")
    root = ElementTree.parse(path).getroot()
    assert root.get("viewBox") == "0 0 1600 900"
    named = [rect.get("data-names") for rect in root.iter(f"{SVG}rect") if rect.get("data-names")]
    assert sorted(named) == sorted(" ".join(box.names) for box in everything(found) if box.names)
    assert len(set(named)) == len(named)
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts[:2] == [name, "1,000 parameters"]
    assert texts.count(diagram._shape(found.input)) == 1
    for layer in everything(found):
        assert not isinstance(layer, Layer) or {layer.words, layer.words.replace(" conv", "")} & set(texts)


def reach(part: Part) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a rectangle or a text."""
    if part.kind == "rect":
        return part.x, part.y, part.x + part.width, part.y + part.height
    wide = width(part.text, round(part.height), "bold" in part.look)
    left = part.x - (wide / 2 if "middle" in part.look else wide if "end" in part.look.split() else 0)
    return left, part.y - part.height, left + wide, part.y


@pytest.mark.parametrize("name", NETWORKS)
def test_all_of_it_is_within_the_slide_and_no_box_lies_over_another(name):
    drawn = diagram.lay_out(outlined(name), name, "1,000 parameters")
    shapes = [(part, reach(part)) for part in drawn.parts if part.kind in ("rect", "text")]
    for _, (left, top, right, bottom) in shapes:
        assert drawn.x + drawn.scale * left >= 0 and drawn.x + drawn.scale * right <= drawn.width
        assert drawn.y + drawn.scale * top >= 80 and drawn.y + drawn.scale * bottom <= drawn.height - 30
    for part in drawn.parts:
        for x, y in part.points:
            assert 0 <= drawn.x + drawn.scale * x <= drawn.width and 80 <= drawn.y + drawn.scale * y <= drawn.height
    solid = [place for part, place in shapes if part.names and "frame" not in part.look]
    for one, other in itertools.combinations(solid, 2):
        assert not (one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3])


@pytest.mark.parametrize(("name", "least"), [("vgg16", 1.3), ("resnet50", 0.9), ("googlenet-bn", 0.7), ("densenet121", 1.0)])
def test_letters_are_legible(name, least):
    assert diagram.lay_out(outlined(name), name, "").scale >= least


def test_a_deep_network_is_no_smaller_than_a_shallow_one_with_the_same_blocks():
    assert diagram.lay_out(outlined("resnet152"), "", "").scale == pytest.approx(
        diagram.lay_out(outlined("resnet50"), "", "").scale, rel=0.05
    )


def test_signs_that_are_in_the_drawing_are_explained_and_no_others():
    assert "shortcut" not in diagram.lay_out(outlined("vgg16"), "", "").key
    key = diagram.lay_out(outlined("googlenet-bn"), "", "").key
    assert "training only" in key and "shortcut" not in key
    assert "shortcut" in diagram.lay_out(outlined("resnet50"), "", "").key


def test_names_from_strangers_are_escaped(tmp_path: Path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model._modules = {"<script>&": model[0], **{name: layer for name, layer in model._modules.items() if name != "0"}}
    path = diagram.write_diagram(tmp_path / "net.svg", outline(model, "odd", 8), "a <b> & c", "")
    root = ElementTree.parse(path).getroot()
    assert root.find(f"{SVG}text").text == "a <b> & c"
    assert any(rect.get("data-names") == "<script>&" for rect in root.iter(f"{SVG}rect"))


def test_another_ending_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"net\.png.*ends in \.svg"):
        diagram.write_diagram(tmp_path / "net.png", outlined("vgg16"), "vgg16", "")
    assert not list(tmp_path.iterdir())


def test_words_that_all_convolutions_would_repeat_are_said_once():
    drawn = diagram.lay_out(outlined("googlenet-bn"), "", "")
    assert "BN, ReLU" in drawn.key
    assert not [part for part in drawn.parts if part.text == "BN, ReLU"]


def test_the_command_draws_a_network(tmp_path: Path, capsys):
    assert cli.run(["measure", "lenet5", "--draw", str(tmp_path / "net.svg")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == str(tmp_path / "net.svg")
    assert "1 × 32 × 32" in (tmp_path / "net.svg").read_text(encoding="utf-8")
    assert cli.run(["measure", "lenet5", "vgg-a", "--draw", str(tmp_path / "two.svg")]) == 2
    assert "one network" in capsys.readouterr().err
