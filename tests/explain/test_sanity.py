"""Trust in maps: curves of a network whose answer is known, ranks against scipy and by hand, copies whose weights say nothing.

Of each photo the numbers are its own, whatever stands beside it.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from striate.errors import UserError
from striate.explain import maps, sanity
from striate.explain.sanity import Deletion, Sanity
from striate.view import View
from tests.explain.makers import hooks, itself, noise

VIEW = View(16, "crop", 16, "nearest", False, (0.5, 0.4, 0.3), (0.25, 0.2, 0.2))


class Evidence(nn.Module):
    """Two classes: logits 0, and the sum of w x over the pixels of the first channel."""

    def __init__(self, weight_SS: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_SS)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        sums_B = (self.weight * images[:, 0]).sum((1, 2))
        return torch.stack([torch.zeros_like(sums_B), sums_B], 1)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_curve_by_hand():
    """Four pixels with evidence 4, 2, 1 and 0; the map names them in this order."""
    model = Evidence(torch.tensor([[1.0, 4.0], [0.0, 2.0]]))
    images = torch.ones(2, 1, 2, 2)
    maps_Bhw = torch.stack([model.weight.detach(), -model.weight.detach()])
    right, turned = sanity.deletion(model, images, torch.tensor([1, 1]), maps_Bhw, itself, steps=4)
    assert right.shares == (0, 0.25, 0.5, 0.75, 1)
    curve = [sigmoid(logit) for logit in (7, 3, 1, 0, 0)]
    assert right.probabilities == pytest.approx(curve, abs=1e-6)
    assert right.area == pytest.approx(sum(curve[1:4]) / 4 + (curve[0] + curve[4]) / 8, abs=1e-6)
    assert turned.probabilities == pytest.approx([sigmoid(logit) for logit in (7, 7, 6, 4, 0)], abs=1e-6)
    assert right.area < right.shuffled_area < turned.area
    assert (right.marked, right.has_order, turned.marked) == (0.75, True, 0)


def test_the_first_class_gains_what_the_second_loses():
    model = Evidence(torch.tensor([[1.0, 4.0], [0.0, 2.0]]))
    (found,) = sanity.deletion(
        model,
        torch.ones(1, 1, 2, 2),
        torch.tensor([0]),
        model.weight.detach()[None],
        itself,
        steps=2,
        baseline=torch.tensor([-1.0]),
    )
    assert found.probabilities == pytest.approx([1 - sigmoid(logit) for logit in (7, -5, -7)], abs=1e-6)


def test_a_map_on_a_grid_is_enlarged_and_the_order_at_random_has_its_grain():
    """Evidence in the upper left quarter alone: the map of 2 x 2 finds it; shuffled it finds it one time in four."""
    weight_SS = torch.zeros(8, 8)
    weight_SS[:4, :4] = 0.5
    model, images = Evidence(weight_SS), torch.ones(1, 1, 8, 8)
    (found,) = sanity.deletion(
        model, images, torch.tensor([1]), torch.tensor([[[3.0, 1.0], [1.0, 0.0]]]), itself, steps=4, shuffles=24
    )
    assert found.probabilities[0] == found.shuffled[0] == pytest.approx(sigmoid(8), abs=1e-6)
    assert found.probabilities[1] < 0.8 < found.shuffled[1]
    assert found.probabilities[-1] == found.shuffled[-1] == pytest.approx(0.5, abs=1e-6)


def test_equal_pixels_go_in_an_order_at_random_and_no_pixel_twice():
    """In a map of one value the rows must not go from the top: after half of the pixels half of each half is left."""
    seen = []

    class Watched(Evidence):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images[0, 0].clone())
            return super().forward(images)

    model = Watched(torch.ones(32, 32))
    sanity.deletion(model, torch.ones(1, 1, 32, 32), torch.tensor([1]), torch.zeros(1, 32, 32), itself, steps=4, shuffles=1)
    left = [int(one.sum()) for one in seen[:5]]
    assert left == [1024, 768, 512, 256, 0]
    assert 200 < int(seen[2][:16].sum()) < 312
    assert all((after <= before).all() for before, after in itertools.pairwise(seen[:5]))


def test_the_curve_at_random_has_most_orders_where_the_sentence_looks():
    """Evidence in one of 64 pixels: gone is it after one step of five with 1 in 5 orders, after four with 4 in 5."""
    weight_SS = torch.zeros(8, 8)
    weight_SS[2, 5] = 20.0
    model, passed = Evidence(weight_SS), []
    model.register_forward_hook(lambda layer, inputs, output: passed.append(len(inputs[0])))
    images, labels_B = torch.ones(4, 1, 8, 8), torch.ones(4, dtype=torch.int64)
    found = sanity.deletion(model, images, labels_B, weight_SS.expand(4, 8, 8), itself, steps=5, shuffles=200)
    assert len(passed) == 6 + 200 + 3  # the whole curve, many orders at one step, one at each of the others, none at the ends
    assert found[0].probabilities[1] == pytest.approx(0.5) and found[0].probabilities[0] == pytest.approx(1)
    assert found[0].shuffled[1] == pytest.approx(0.8 * 1 + 0.2 * 0.5, abs=0.06)  # 3 standard deviations
    assert {round(share, 6) for one in found for share in one.shuffled[2:5]} <= {0.5, 1.0}
    seeds = [sanity.deletion(model, images[:1], labels_B[:1], weight_SS[None], itself, 5, 1, seed=seed)[0] for seed in range(20)]
    assert len({one.shuffled for one in seeds}) > 3  # each step has an order of its own
    assert any(later > earlier for one in seeds for earlier, later in itertools.pairwise(one.shuffled))


@pytest.fixture(name="copies")
def _copies(small: nn.Module) -> tuple[nn.Module, ...]:
    return sanity.random_copies(small, sanity.reference(VIEW), 3)


def test_a_curve_is_the_same_in_any_batch_and_everything_is_as_before(small, copies, unchanged):
    images, labels_B = noise(3, 3, 16, 16), torch.tensor([0, 3, 1])
    maps_Bhw, layer = maps.maps(small, images, labels_B, "grad-cam", None, itself)
    small.train()
    with unchanged(small, images):
        found = sanity.check(small, images, labels_B, maps_Bhw, "grad-cam", layer, itself, copies, steps=4)
    alone = sanity.deletion(small, images[1:2], labels_B[1:2], maps_Bhw[1:2], itself, steps=4)
    assert found[1].deletion.probabilities == pytest.approx(alone[0].probabilities, abs=1e-6)
    assert found[1].deletion.shuffled == pytest.approx(alone[0].shuffled, abs=1e-6)
    with torch.no_grad():
        whole = small.eval()(images).softmax(1)
    assert [one.deletion.probabilities[0] for one in found] == pytest.approx(whole[[0, 1, 2], [0, 3, 1]].tolist(), abs=1e-6)
    assert len(found) == 3 and {len(one.correlations) for one in found} == {3}
    told = json.loads(json.dumps(found[0].to_json()))
    assert told["deletion"]["shares"] == [0, 0.25, 0.5, 0.75, 1]
    assert told["correlations"] == list(found[0].correlations) and told["correlation"] == found[0].correlation


@pytest.mark.parametrize("method", ["gradient", "cam"])
def test_a_photo_has_the_same_numbers_whatever_stands_beside_it(small, copies, method):
    photo, labels_B = noise(1, 3, 16, 16), torch.tensor([2, 0, 1, 3])

    def beside(others: torch.Tensor) -> Sanity:
        images = torch.cat([photo, others])
        some_B = labels_B[: len(images)]
        maps_Bhw, layer = maps.maps(small, images, some_B, method, None, itself)
        return sanity.check(small, images, some_B, maps_Bhw, method, layer, itself, copies, steps=2)[0]

    alone = beside(photo[:0])
    assert len({round(one, 6) for one in alone.correlations}) == 3
    for others in (5 * noise(3, 3, 16, 16, seed=8) + 3, torch.zeros(1, 3, 16, 16)):
        assert beside(others).correlations == pytest.approx(alone.correlations, abs=1e-6)


@pytest.mark.parametrize(
    ("method", "layer"), [("gradient", None), ("grad-cam", None), ("grad-cam", "2"), ("cam", None), ("occlusion", None)]
)
def test_both_checks_go_by_the_method_and_layer_that_made_the_map(small, copies, method, layer):
    images, labels_B = noise(2, 3, 16, 16), torch.tensor([0, 3])
    found_Bhw, layer = maps.maps(small, images, labels_B, method, layer, itself)
    others = [maps.maps(one, images, labels_B, method, layer or None, itself)[0].numpy() for one in copies]
    found = sanity.check(small, images, labels_B, found_Bhw, method, layer, itself, copies, steps=2, shuffles=1)
    for place, one in enumerate(found):
        expected = [sanity.rank_correlation(found_Bhw[place], other[place]) for other in others]
        assert list(one.correlations) == expected
        numbers = [value for value in expected if value is not None]
        assert one.correlation == pytest.approx(np.mean(numbers) if numbers else None)
        assert one.grid == ((16, 16) if layer in {"", "2"} else (8, 8))
    assert len({value for one in found for value in one.correlations}) > 3


def test_maps_of_few_cells_are_not_compared(small, copies):
    images, labels_B = noise(2, 3, 16, 16), torch.tensor([0, 3])
    for side, is_compared in ((3, False), (4, True)):
        maps_Bhw = noise(2, side, side)
        if not is_compared:
            (one, _) = sanity.check(small, images, labels_B, maps_Bhw, "grad-cam", "5", itself, ())
            assert one.correlations == () and one.correlation is None
            assert one.sentence().endswith("; its 3 x 3 cells are too few to compare it with a map of random weights.")
            continue
        with pytest.raises(UserError, match="one copy with random weights or more, found none"):
            sanity.check(small, images, labels_B, maps_Bhw, "grad-cam", "5", itself, ())
    assert not sanity.is_comparable((3, 5)) and sanity.is_comparable((4, 4))


def test_a_map_of_one_value_has_nothing_to_compare(small, copies):
    """Also when rounding tells its values apart."""
    images, labels_B = noise(3, 3, 16, 16), torch.tensor([0, 3, 1])
    maps_Bhw = torch.stack([torch.zeros(16, 16), 0.3 + 1e-8 * noise(16, 16), noise(16, 16)])
    zero, even, other = sanity.check(small, images, labels_B, maps_Bhw, "gradient", None, itself, copies, steps=5)
    assert [one.deletion.has_order for one in (zero, even, other)] == [False, False, True]
    assert zero.correlations == even.correlations == (None, None, None)
    assert zero.sentence() == "The map is nowhere above zero and the same everywhere: no place speaks for the class."
    assert even.sentence() == "The map has one value everywhere: no place stands out."
    assert None not in other.correlations
    (alone,) = sanity.check(small, images[:1], labels_B[:1], maps_Bhw[:1], "gradient", None, itself, copies, steps=5)
    assert alone.correlations == zero.correlations


# ---------------------------------------------------------------- random weights


def test_the_copy_holds_the_same_numbers_in_other_places(small):
    images = noise(4, 3, 16, 16)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    other, again, third = (sanity.randomised(small, images, seed) for seed in (0, 0, 1))
    assert all(torch.equal(before[name], value) for name, value in small.state_dict().items())
    for name, weight in small.named_parameters():
        shuffled = other.get_parameter(name)
        assert torch.equal(weight.flatten().sort().values, shuffled.flatten().sort().values)
        assert torch.equal(shuffled, again.get_parameter(name))
    assert not torch.equal(small[0].weight, other[0].weight) and not torch.equal(other[0].weight, third[0].weight)
    assert not other.training and hooks(other) == 0


def test_batch_norms_of_the_copy_fit_its_weights(small):
    """All of them, though the second looks at what the first leaves."""
    model = nn.Sequential(*[*small][:5], nn.BatchNorm2d(8), *[*small][5:])
    images = noise(4, 3, 16, 16)
    other = sanity.randomised(model, images)
    for place in (1, 5):
        with torch.no_grad():
            entered = other[:place](images)
            normal = nn.functional.batch_norm(entered, other[place].running_mean, other[place].running_var, eps=0.0)
        assert torch.allclose(normal.mean((0, 2, 3)), torch.zeros(entered.shape[1]), atol=1e-4)
        assert torch.allclose(normal.var((0, 2, 3), correction=0), torch.ones(entered.shape[1]), atol=1e-3)


def test_copies_are_several_draws_and_the_same_ones_again(small):
    images = sanity.reference(VIEW)
    first, again = sanity.random_copies(small, images, 3), sanity.random_copies(small, images, 2)
    assert len({one[0].weight.detach().numpy().tobytes() for one in (small, *first)}) == 4
    for one, other in zip(first[:2], again, strict=True):
        assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_methods_whose_copies_agree_have_one():
    assert {method: sanity.copies_for(method) for method in maps.METHODS} == {
        "cam": 3, "grad-cam": 3, "grad-cam++": 3, "gradient": 3, "smoothgrad": 1, "integrated-gradients": 1, "occlusion": 3
    }  # fmt: skip


def test_reference_images_are_as_the_view_has_photos():
    images = sanity.reference(VIEW)
    assert images.shape == (16, 3, 16, 16) and images.dtype == torch.float32
    assert torch.equal(images, sanity.reference(VIEW)) and not torch.equal(images, sanity.reference(VIEW, seed=1))
    level = images * torch.tensor(VIEW.std).view(3, 1, 1) + torch.tensor(VIEW.mean).view(3, 1, 1)
    assert level.min() >= -1e-6 and level.max() <= 1 + 1e-6
    assert float(level.mean()) == pytest.approx(0.45, abs=0.1) and float(level.std()) == pytest.approx(0.25, abs=0.05)
    grey = sanity.reference(View(16, "crop", 16, "nearest", False, (0.5,), (0.25,), "grey"))
    assert grey.shape == (16, 1, 16, 16)


def test_reference_images_have_every_scale_and_colours_that_go_together():
    """Neighbours are alike, and less so with distance; white noise has neither, and one blot has no grain."""
    images = sanity.reference(View(64, "crop", 64, "nearest", False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 32)

    def alike(left: torch.Tensor, right: torch.Tensor) -> float:
        return float(np.corrcoef(left.flatten(), right.flatten())[0, 1])

    near, middle, far = (alike(images[..., :-step], images[..., step:]) for step in (1, 8, 40))
    assert 0.95 > near > middle + 0.1 > far + 0.2
    assert 0.75 < alike(images[:, 0], images[:, 1]) < 0.97


class Energy(nn.Module):
    """Logits w_k x half the sum of squares: the gradient's magnitude is that of the image, whatever the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, 1.0, 2.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.square().sum((1, 2, 3))[:, None] / 2 * self.weight / images[0].numel()


def test_a_map_that_shows_the_photo_alone_is_found_out_and_others_are_not(small):
    images, labels_B = noise(2, 3, 16, 16), torch.tensor([0, 2])

    def found(model: nn.Module) -> list[Sanity]:
        maps_Bhw, layer = maps.maps(model, images, labels_B, "gradient", None, itself)
        copies = sanity.random_copies(model, sanity.reference(VIEW), 3)
        return list(sanity.check(model, images, labels_B, maps_Bhw, "gradient", layer, itself, copies, steps=1, shuffles=1))

    for one in found(Energy()):
        assert one.correlations == pytest.approx([1, 1, 1], abs=1e-3)
        assert "so it shows little of what was learnt" in one.sentence()
    for one in found(small):
        assert abs(one.correlation) < 0.5 and "what was learnt" not in one.sentence()


# ---------------------------------------------------------------- ranks


def test_ranks_by_hand():
    """Ranks 1, 2.5, 2.5, 4 and 2, 1, 3, 4: the differences from 2.5 multiply to 0.75 + 0 + 0 + 2.25."""
    left, right = [1.0, 5.0, 5.0, 9.0], [20.0, 10.0, 30.0, 40.0]
    assert sanity.rank_correlation(left, right) == pytest.approx(3.0 / math.sqrt(4.5 * 5.0))
    assert sanity.rank_correlation(left, left) == pytest.approx(1)
    assert sanity.rank_correlation([1, 2, 3], [30, 20, 10]) == pytest.approx(-1)
    assert sanity.rank_correlation([1, 2, 3], [4, 4, 4]) is None
    with pytest.raises(UserError, match="found 3 and 2 values"):
        sanity.rank_correlation([1, 2, 3], [1, 2])


def test_ranks_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    numbers = np.random.default_rng(0)
    left, right = numbers.integers(0, 9, (7, 7)), numbers.normal(size=(7, 7))
    expected = stats.spearmanr(left.ravel(), right.ravel()).statistic
    assert sanity.rank_correlation(left, right) == pytest.approx(expected, abs=1e-12)


# ---------------------------------------------------------------- words


FALLEN = Deletion((0, 0.1, 0.2, 1), (0.93, 0.5, 0.11, 0.01), (0.93, 0.8, 0.62, 0.01), 0.2, 0.5, 0.6, True)
REMOVED = "Removing the brightest 20 % of the pixels moves the probability from 93 % to 11 % (places at random: to 62 %); "
LITTLE = "so it shows little of what was learnt."


@pytest.mark.parametrize(
    ("correlations", "words"),
    [
        ((0.1, -0.2, 0.34), "random weights the map is another one (rank correlation 0.08, from -0.20 to 0.34 over 3 copies)."),
        ((0.9, 0.7, 0.8), f"the map is much the same (rank correlation 0.80, from 0.70 to 0.90 over 3 copies), {LITTLE}"),
        ((0.4, 0.5, 0.6), "the map is partly the same (rank correlation 0.50, from 0.40 to 0.60 over 3 copies)."),
        ((-0.4, -0.5, -0.6), "the map is partly turned over (rank correlation -0.50, from -0.60 to -0.40 over 3 copies)."),
        ((-0.9, -0.9), "the map is turned over (rank correlation -0.90, from -0.90 to -0.90 over 2 copies): its dark places are "
         "the bright ones."),
        ((0.9, -0.8, 0.8), "the map is now much the same, now turned over (rank correlation 0.30, from -0.80 to 0.90 over 3 "
         "copies), so learning shows at most in which end is bright."),
        ((0.95,), f"the map is much the same (rank correlation 0.95, one copy), {LITTLE}"),
        ((None, 0.8, 0.9), f"(rank correlation 0.85, from 0.80 to 0.90 over 2 of 3 copies; the rest mark no place), {LITTLE}"),
        ((None, 0.2, None), "the map is another one (rank correlation 0.20, one of 3 copies; the rest mark no place)."),
        ((-0.001, 0.001), "the map is another one (rank correlation 0.00, from 0.00 to 0.00 over 2 copies)."),
        ((None, 0.9, None), "the map is partly the same (rank correlation 0.90, one of 3 copies; the rest mark no place)."),
        ((None, None, None), "with random weights the map marks no place (3 copies)."),
    ],
)  # fmt: skip
def test_the_sentence_says_both(correlations, words):
    said = Sanity(FALLEN, correlations, (7, 7)).sentence()
    assert said.startswith(REMOVED) and said.endswith(words)


def test_what_one_copy_of_few_cells_gives_may_be_chance():
    """Rank correlations of independent maps of 16 cells have the standard deviation 1 / sqrt(15), so 0.26."""
    said = [Sanity(FALLEN, (0.45,) * count, (side, side)).sentence() for count, side in ((1, 4), (3, 4), (1, 32))]
    assert ["another one" in one for one in said] == [True, False, False]
    assert ["partly the same" in one for one in said] == [False, True, True]
    assert "another one" in Sanity(FALLEN, (0.39,), (32, 32)).sentence()


@pytest.mark.parametrize(
    ("marked", "words"),
    [
        (0.6, "Removing the brightest 20 % of the pixels moves the probability"),
        (0.07, "Removing the brightest 20 % of the pixels (only 7 % are above zero) moves the probability"),
        (0.001, "Removing the brightest 20 % of the pixels (only under 1 % are above zero) moves"),
        (0.0, "The map is nowhere above zero: no place speaks for the class. Removing the 20 % of the pixels that speak least "
         "against it moves the probability from 93 % to 11 %"),
    ],
)  # fmt: skip
def test_the_sentence_says_how_much_is_marked(marked, words):
    assert replace(FALLEN, marked=marked).sentence().startswith(words)


def test_percentages_are_not_rounded_to_certainty():
    sure = replace(FALLEN, probabilities=(0.9991, 0.5, 0.0004, 0.0), shuffled=(0.9991, 0.9, 1.0, 0.0)).sentence()
    assert sure.endswith("from over 99 % to under 1 % (places at random: to 100 %)")


@pytest.mark.parametrize(
    ("maps_Bhw", "steps", "words"),
    [
        (torch.zeros(1, 4, 4), 5, "maps: expected one for each of 2 images, found 1"),
        (torch.zeros(2, 3, 4, 4), 5, "maps: expected shape"),
        (torch.zeros(2, 4, 4), 0, "one step and one shuffle or more"),
    ],
)
def test_what_does_not_fit_is_refused(small, maps_Bhw, steps, words):
    with pytest.raises(UserError, match=words):
        sanity.deletion(small, noise(2, 3, 16, 16), torch.tensor([0, 3]), maps_Bhw, itself, steps=steps)
