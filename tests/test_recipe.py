"""Recipe: names of fields, types, checks, files, and 2,000 damaged recipe files."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from striate import recipe as recipes
from striate.errors import UserError
from striate.recipe import Recipe
from striate.recipes import catalog

# ---------------------------------------------------------------- names and types


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("lr", "optim.lr"),
        ("--lr", "optim.lr"),
        ("batch-size", "optim.batch_size"),
        ("batch_size", "optim.batch_size"),
        ("optim.batch-size", "optim.batch_size"),
        ("for", "budget.time"),
        ("model.options.width", "model.options.width"),
    ],
)
def test_every_way_to_name_a_field_finds_it(name: str, full: str):
    assert recipes.full_name(name) == full


@pytest.mark.parametrize(
    ("name", "hint"),
    [("optim.lrr", "'optim.lr'"), ("momentun", "'optim.momentum'"), ("epoch", "'epochs'"), ("weightdecay", "'weight_decay'")],
)
def test_g2_an_unknown_field_is_answered_with_the_nearest(name: str, hint: str):
    with pytest.raises(UserError) as caught:
        recipes.change(Recipe(), {name: 1})
    assert f"no field '{name}'" in str(caught.value) and hint in str(caught.value)


def test_short_names_are_all_different_and_lead_to_fields():
    short = recipes.short_names()
    assert set(short.values()) <= set(recipes.field_names())
    assert {"model", "epochs", "batch-size", "lr", "weight-decay", "img-size", "seed", "for"} <= short.keys()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": "1e-3"}, "optim.lr: expected a number, found '1e-3'"),
        ({"lr": True}, "optim.lr: expected a number, found True"),
        ({"batch_size": 6.5}, "optim.batch_size: expected a whole number, found 6.5"),
        ({"batch_size": 10**400}, "optim.batch_size: expected a whole number"),
        ({"lr": 10**400}, "optim.lr: expected a number"),
        ({"deterministic": 1}, "optim.deterministic: expected true or false, found 1"),
        ({"precision": "bf61"}, "optim.precision: expected one of auto, bf16, fp16, fp32, found 'bf61'. Did you mean 'bf16'"),
        ({"model": None}, "model.name: expected a text, found None"),
        ({"optim.betas": [0.9]}, "optim.betas: expected a list of numbers, found [0.9]"),
        ({"optim.betas": [0.9, "b"]}, "optim.betas: expected a list of numbers"),
        ({"epochs": 1, "steps": 5}, "contradict each other: give one of --epochs, --steps and --for"),
    ],
)
def test_g2_a_value_of_the_wrong_type_is_named(changes: dict[str, Any], words: str):
    with pytest.raises(UserError) as caught:
        recipes.change(Recipe(), changes)
    assert words in str(caught.value)


def test_a_budget_replaces_the_recipes_own():
    timed = recipes.change(Recipe(), {"for": "2h"})
    assert (timed.budget.epochs, timed.budget.steps, timed.budget.time) == (None, None, "2h")
    assert recipes.change(timed, {"steps": 5}).budget == recipes.change(Recipe(), {"steps": 5.0}).budget


def test_lists_become_tuples_and_whole_numbers_floats():
    changed = recipes.change(Recipe(), {"optim.drop_epochs": [1, 2], "lr": 1, "loss.l2_layers": ["fc"], "batch_size": 8.0})
    assert changed.optim.drop_epochs == (1.0, 2.0) and changed.loss.l2_layers == ("fc",)
    assert type(changed.optim.lr) is float and type(changed.optim.batch_size) is int


def test_builder_options_are_added_one_by_one():
    changed = recipes.change(recipes.change(Recipe(), {"model.options.stem": "small"}), {"model.options.width": "8"})
    assert changed.model.options == {"stem": "small", "width": "8"}
    assert Recipe().model.options == {}
    assert recipes.differences(Recipe(), changed) == {
        "model.options.stem": (None, "small"),
        "model.options.width": (None, "8"),
    }


# ---------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": float("nan")}, "optim.lr: nan is not a finite number"),
        ({"lr": float("inf")}, "optim.lr: inf is not a finite number"),
        ({"lr": 0}, "optim.lr: found 0.0, but it must be more than 0"),
        ({"lr": -0.1}, "optim.lr: found -0.1"),
        ({"epochs": -3}, "budget.epochs: found -3.0, but it must be more than 0"),
        ({"epochs": 0}, "budget.epochs"),
        ({"steps": 0}, "budget.steps: found 0, but it must be 1 or more"),
        ({"for": "0s"}, "budget.time: found 0s"),
        ({"for": "soon"}, "'soon' is no duration: write it as 90s, 15m, 2h or 1h30m"),
        ({"batch_size": 0}, "optim.batch_size"),
        ({"batch_size": 10, "optim.accumulate": 3}, "a divisor of the batch size 10"),
        ({"optim.momentum": 1}, "optim.momentum"),
        ({"optim.nesterov": True, "optim.momentum": 0}, "optim.nesterov"),
        ({"optim.betas": [0.9, float("nan")]}, "optim.betas: nan is not a finite number"),
        ({"weight_decay": -1e-4}, "optim.weight_decay"),
        ({"ema": 1}, "optim.ema"),
        ({"seed": -1}, "optim.seed"),
        ({"loss.smoothing": 1}, "loss.smoothing"),
        ({"loss.l2": 0.01}, "loss.l2_layers"),
        ({"augment.flip": 1.5}, "augment.flip"),
        ({"augment.scale": [0.9, 0.1]}, "augment.scale"),
        ({"data.crop_share": 0}, "data.crop_share"),
        ({"data.val_share": 1}, "data.val_share"),
        ({"img_size": -1}, "data.size_px"),
        ({"model.options.rate": float("nan")}, "model.options: nan is not a finite number"),
        ({"model.options.rates": [1.0, [float("inf")]]}, "model.options: inf is not a finite number"),
    ],
)
def test_g2_values_that_make_no_sense_are_refused_with_what_is_allowed(changes: dict[str, Any], words: str):
    with pytest.raises(UserError) as caught:
        recipes.check(recipes.change(Recipe(), changes))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("11h30m", 41400), ("1.5h", 5400), ("45", 45)],
)
def test_durations(text: str, expected: float):
    assert recipes.seconds(text) == expected


@pytest.mark.parametrize("text", ["", " ", "h", "-5m", "1d", "5 m", "nan", "inf", "1e3s", "m5"])
def test_what_is_no_duration(text: str):
    with pytest.raises(UserError, match="is no duration"):
        recipes.seconds(text)


def test_every_named_recipe_passes_its_own_check():
    for name in catalog.RECIPES:
        recipes.check(catalog.find(name))


# ---------------------------------------------------------------- files


def test_a_recipe_comes_back_from_its_file(tmp_path: Path):
    for name in catalog.RECIPES:
        recipe = catalog.find(name)
        (tmp_path / "recipe.json").write_text(recipes.to_text(recipe))
        assert recipes.read(tmp_path / "recipe.json") == recipe
        assert catalog.find(str(tmp_path / "recipe.json")).hash == recipe.hash


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ([], r"expected a table of groups \(model, data"),
        ({"optimm": {}}, r"no group 'optimm'\. Did you mean 'optim'\?"),
        ({"optim": {"lrate": 1}}, r"group 'optim' has no field 'lrate'"),
        ({"optim": {"momentun": 1}}, r"has no field 'momentun'\. Did you mean 'momentum'\?"),
        ({"optim": 3}, r"group 'optim' must be a table"),
        ({"optim": {"lr": "1e-3"}}, r"optim\.lr: expected a number, found '1e-3'"),
        ({"budget": {"epochs": -1}}, r"budget\.epochs: found -1"),
    ],
)
def test_g2_a_recipe_file_with_a_mistake_names_it(tmp_path: Path, plain: Any, words: str):
    (tmp_path / "r.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match=words):
        recipes.read(tmp_path / "r.json")


def test_absent_fields_take_their_defaults_and_comments_are_passed_over():
    assert recipes.from_plain({"_why": "a comment", "optim": {"lr": 0.3}}) == recipes.change(Recipe(), {"lr": 0.3})
    assert recipes.from_plain({"budget": {"time": "1h"}}).budget.epochs is None


def test_no_recipe_of_that_name_lists_the_nearest():
    with pytest.raises(UserError, match=r"No recipe 'kth-dd'\. Did you mean 'kth-d'.*Recipes: small, kth-a"):
        catalog.find("kth-dd")
    with pytest.raises(UserError, match=r"nothing\.json: cannot be read"):
        catalog.find("nothing.json")


VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, 10**400, "", "1e-3", "sgd", "nan", "\ud800", "x" * 1000, [], [1], [0.1, 0.9],
    ["fc"], [[]], {}, {"a": 1}, {"a": {"b": [1, None]}}, [None], float("nan"), float("inf"),
]  # fmt: skip


def damaged(text: str, dice: random.Random) -> bytes:
    """A recipe file with one to three mistakes: in its values, its names, or its bytes."""
    plain = json.loads(text)
    for _ in range(dice.randint(1, 3)):
        group = dice.choice(list(plain))
        fields = plain[group] if isinstance(plain[group], dict) and plain[group] else {"none": 0}
        name = dice.choice(list(fields))
        match dice.randrange(6):
            case 0:
                plain[group] = dice.choice(VALUES)
            case 1:
                fields[name + dice.choice("s_-é ")] = fields.pop(name)
            case 2:
                del fields[name]
            case 3:
                plain[dice.choice([group.upper(), group + "s", "_" + group])] = plain.pop(group)
            case _:
                fields[name] = dice.choice(VALUES)
        if not plain:
            break
    data = bytearray(json.dumps(plain).encode())
    if dice.random() < 0.3:
        place = dice.randrange(len(data))
        if dice.random() < 0.5:
            data[place] ^= 1 << dice.randrange(8)
        else:
            del data[place : place + dice.randrange(1, 40)]
    return bytes(data)


def test_f5_2000_damaged_recipes_are_refused_or_come_back_equal(tmp_path: Path):
    dice = random.Random(0)
    texts = [recipes.to_text(recipe()) for recipe in catalog.RECIPES.values()] + [recipes.to_text(Recipe())]
    path, again = tmp_path / "recipe.json", tmp_path / "again.json"
    accepted = 0
    for number in range(2000):
        path.write_bytes(damaged(texts[number % len(texts)], dice))
        try:
            recipe = recipes.read(path)
        except UserError as error:
            assert error.exit_code == 2 and str(error)
            continue
        again.write_bytes(recipes.to_text(recipe).encode())
        assert recipes.read(again) == recipe, path.read_bytes()
        assert recipes.differences(recipe, recipes.read(again)) == {}
        accepted += 1
    assert 50 < accepted < 1500  # both ways are walked
