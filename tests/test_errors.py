"""Errors: exit codes, hints for names, shapes against the words of a docstring."""

import numpy as np
import pytest

from striate import errors
from striate.errors import UserError, expect, missing_package, nearest


def test_exit_codes_are_those_of_the_help_text():
    kinds = (errors.UserError, errors.DataError, errors.CheckpointError, errors.NonFiniteError, errors.ResourceError)
    assert [kind.exit_code for kind in kinds] == [2, 3, 4, 5, 6]
    assert (errors.DONE, errors.TO_BE_CONTINUED, errors.StriateError.exit_code) == (0, 75, 1)
    assert all(issubclass(kind, errors.StriateError) for kind in kinds)


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("resnet81", " Did you mean 'resnet18'?"),
        ("RESNET18", " Did you mean 'resnet18'?"),
        ("kth-g", " Did you mean 'kth-a' or 'kth-b'?"),
        ("", ""),
        ("zebra", ""),
    ],
)
def test_nearest_names_only_what_is_near(typed, hint):
    found = nearest(typed, ["resnet18", "kth-a", "kth-b"])
    assert sorted(found) == sorted(hint) if "or" in hint else found == hint


def test_nearest_gives_back_the_name_in_its_own_case():
    assert nearest("optim.LR", ["optim.lr"]) == " Did you mean 'optim.lr'?"


def test_expect_returns_sizes_by_letter_and_says_what_was_found():
    assert expect(np.zeros((2, 3, 5, 5)), "B 3 H H") == {"B": 2, "H": 5}
    for shape, pattern in (((2, 1, 5, 5), "B 3 H H"), ((2, 3, 5, 4), "B 3 H H"), ((3, 5, 5), "B 3 H H")):
        with pytest.raises(UserError) as caught:
            expect(np.zeros(shape), pattern, "images")
        assert str(caught.value) == f"images: expected shape [B, 3, H, H], found {list(shape)}."


def test_a_missing_package_comes_with_its_install_line():
    assert "pip install 'striate[timm]'" in str(missing_package("timm", "timm"))
