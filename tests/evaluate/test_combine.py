"""Combining saved predictions, against cases worked by hand, numpy, scipy and scikit-learn."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.metrics import matthews_corrcoef

from striate.classes import Classes
from striate.errors import DataError, UserError
from striate.evaluate import combine, metrics
from striate.evaluate.combine import Members, aligned, arithmetic, geometric, routed, weighted
from striate.predictions import Predictions


def classes_of(count: int) -> Classes:
    return Classes(tuple(f"n{number:03}" for number in range(count)), ("",) * count)


def logits(images: int = 40, classes: int = 6, seed: int = 0, right: float = 1.5) -> Predictions:
    """Logits of a network that favours the true class by `right`; the images are those of every other such network."""
    labels = np.arange(images) % classes
    scores = np.random.default_rng(seed).normal(size=(images, classes)).astype(np.float32)
    scores[np.arange(images), labels] += np.float32(right)
    keys = [f"val/{row}.jpg" for row in range(images)]
    return Predictions(keys, labels, scores, "logits", classes_of(classes), f"seed {seed}")


def of_probabilities(probabilities: list[list[float]], labels: list[int], protocol: str = "") -> Predictions:
    with np.errstate(divide="ignore"):
        scores = np.log(np.array(probabilities)).astype(np.float32)
    keys = [f"{row}.jpg" for row in range(len(labels))]
    return Predictions(keys, np.array(labels), scores, "log-probabilities", classes_of(scores.shape[1]), protocol)


def as_log_probabilities(said: Predictions) -> Predictions:
    scores = log_softmax(said.scores.astype(np.float64), axis=1).astype(np.float32)
    return replace(said, scores=scores, scale="log-probabilities")


def with_columns(said: Predictions, order: np.ndarray) -> Predictions:
    """The same predictions, their classes in another order."""
    ids = tuple(said.classes.ids[place] for place in order)
    labels = np.where(said.labels < 0, -1, np.argsort(order)[said.labels])
    return replace(said, labels=labels, scores=said.scores[:, order], classes=Classes(ids, ("",) * len(ids)))


def top1(said: Predictions) -> float:
    return float(metrics.hits(said.scores, said.labels, 1).mean())


def trio(images: int = 200, classes: int = 5) -> Members:
    return aligned([logits(images, classes, seed) for seed in range(3)], ["a", "b", "c"])


# ---------------------------------------------------------------- aligned


def test_rows_are_joined_by_key_and_columns_by_class_id() -> None:
    first, second = logits(seed=0), logits(seed=1)
    numbers = np.random.default_rng(5)
    shuffled = with_columns(second.select(numbers.permutation(40)), numbers.permutation(6))
    members = aligned([first, shuffled])
    assert members.keys == first.keys and members.classes == first.classes
    assert np.array_equal(members.labels, first.labels)
    assert np.allclose(members.scores[1], log_softmax(second.scores.astype(np.float64), axis=1), atol=1e-6)
    assert members.dropped == 0


def test_logits_and_log_probabilities_go_together_and_the_latter_are_not_copied() -> None:
    first, second = as_log_probabilities(logits(seed=0)), logits(seed=1)
    members = aligned([first, second])
    assert members.scores[0] is first.scores
    assert np.allclose(np.exp(members.scores[1]).sum(axis=1), 1, atol=1e-5)
    assert members.scores[1].dtype == np.float32


def test_results_do_not_depend_on_the_size_of_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def everything() -> list[np.ndarray]:
        members = trio(50)
        curve = [gain.mean for gain in combine.gain_curve(members)]
        return [*members.scores, arithmetic(members).scores, geometric(members).scores, np.array(curve)]

    whole = everything()
    monkeypatch.setattr(combine, "_NUMBERS", 37)
    assert all(np.array_equal(one, other) for one, other in zip(whole, everything(), strict=True))


def test_a_label_that_one_member_lacks_is_taken_from_another() -> None:
    first, second = logits(seed=0), logits(seed=1)
    blank = replace(first, labels=np.where(np.arange(40) < 30, -1, first.labels))
    second = replace(second, labels=np.where(np.arange(40) == 3, -1, second.labels))
    wanted = np.where(np.arange(40) == 3, -1, first.labels)
    assert np.array_equal(aligned([blank, second]).labels, wanted)


def test_labels_that_disagree_are_named() -> None:
    second = logits(seed=1)
    labels = second.labels.copy()
    labels[[4, 9]] = 0
    match = r"resnet: 2 of 40 labels differ .*'val/4.jpg' \(n000, others n004\), 'val/9.jpg' \(n000, others n003\)\. Score"
    with pytest.raises(UserError, match=match):
        aligned([logits(), replace(second, labels=labels)], ["vgg", "resnet"])


def test_a_missing_image_is_an_error_that_names_it_or_is_left_out_and_counted() -> None:
    first, second = logits(seed=0), logits(seed=1)
    parts = [first.select(np.arange(1, 40)), second.select(np.arange(38))]
    with pytest.raises(UserError, match=r"member 1: 1 images are missing that other members have: 'val/0.jpg'"):
        aligned(parts)
    with pytest.raises(UserError, match=r"member 2: 2 images .*'val/38.jpg', 'val/39.jpg'\. .* keep the 37 images that all"):
        aligned([parts[0], second.select(np.arange(1, 38))])
    members = aligned(parts, common=True)
    assert (len(members.keys), members.dropped) == (37, 3)
    assert members.keys == first.keys[1:38]
    assert np.allclose(members.scores[1], log_softmax(second.scores[1:38].astype(np.float64), axis=1), atol=1e-6)
    assert "3 images left out that not all have" in arithmetic(members).protocol


def test_no_image_in_common_shows_how_each_spells_its_keys() -> None:
    other = logits(seed=1)
    with pytest.raises(UserError, match=r"no image in common: member 1 has 'val/0.jpg'; member 2 has '0.jpg'"):
        aligned([logits(), replace(other, keys=[key.removeprefix("val/") for key in other.keys])], common=True)
    with pytest.raises(UserError, match=r"no image in common: .*member 2 has none"):
        aligned([logits(), other.select(np.arange(0))])


def test_other_classes_are_named_in_both_directions() -> None:
    with pytest.raises(UserError, match=r"b does not have the classes of a \(expected 6, found 5.*missing 'n005'; unknown none"):
        aligned([logits(), logits(classes=5)], ["a", "b"])
    with pytest.raises(UserError, match=r"missing none; unknown 'n006'"):
        aligned([logits(), logits(classes=7)])


def test_the_same_predictions_twice_are_refused_however_they_are_stored() -> None:
    said = logits()
    for again in (said, as_log_probabilities(said), with_columns(said.select(np.arange(39, -1, -1)), np.arange(5, -1, -1))):
        with pytest.raises(UserError, match="b and c are the same predictions twice"):
            aligned([logits(seed=1), said, again], ["a", "b", "c"])


def test_two_seeds_with_one_protocol_line_are_two_members() -> None:
    """The line says how a score was made, and not of which run."""
    assert len(aligned([replace(logits(seed=seed), protocol="val split") for seed in (0, 1)])) == 2


@pytest.mark.parametrize("members", [[], [logits()]])
def test_fewer_than_two_members_are_no_combination(members: list[Predictions]) -> None:
    with pytest.raises(UserError, match=f"two members or more, found {len(members)}"):
        aligned(members)


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", "b", "c"]])
def test_each_member_has_a_name_of_its_own(names: list[str]) -> None:
    with pytest.raises(UserError, match="takes a name of its own for each"):
        aligned([logits(), logits(seed=1)], names)


def test_a_key_that_stands_twice_is_a_data_error() -> None:
    said = logits(seed=1)
    with pytest.raises(DataError, match=r"b: images that stand there more than once: 'val/0.jpg'"):
        aligned([logits(), replace(said, keys=["val/0.jpg", *said.keys[:1], *said.keys[2:]])], ["a", "b"])


@pytest.mark.parametrize("scale", ["logits", "log-probabilities"])
def test_a_nan_that_came_in_later_is_never_averaged(scale: str) -> None:
    said = logits(seed=1) if scale == "logits" else as_log_probabilities(logits(seed=1))
    said.scores[7, 2] = np.nan  # Predictions refuse it when they are made
    with pytest.raises(DataError, match=rf"b: expected {scale} of .* found the sum nan for 'val/7.jpg'"):
        aligned([logits(), said], ["a", "b"])


def test_logits_that_say_they_are_log_probabilities_are_refused() -> None:
    with pytest.raises(DataError, match=r"member 2: expected log-probabilities of probabilities with sum 1, found the sum"):
        aligned([logits(), replace(logits(seed=1), scale="log-probabilities")])


def test_members_that_do_not_fit_together_are_refused() -> None:
    members = trio(10)
    with pytest.raises(UserError, match="expected two or more of each, found 2 names, 3 scores, 3 protocols"):
        replace(members, names=("a", "b"))
    with pytest.raises(UserError, match=r"scores of a: expected shape \[10, 5\], found \[9, 5\]"):
        replace(members, scores=tuple(one[:9] for one in members.scores))


def test_select_takes_rows_of_everything() -> None:
    members = trio(20)
    is_even = np.arange(20) % 2 == 0
    for part in (members.select(is_even), members.select(np.flatnonzero(is_even))):
        assert part.keys == members.keys[::2]
        assert np.array_equal(part.labels, members.labels[::2])
        assert np.array_equal(part.scores[2], members.scores[2][::2])


# ---------------------------------------------------------------- averages


def test_arithmetic_by_hand() -> None:
    first = of_probabilities([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], [0, 1, 0], "10 crops")
    second = of_probabilities([[0.3, 0.7], [0.4, 0.6], [1.0, 0.0]], [0, 1, 0], "1 view")
    said = arithmetic(aligned([first, second], ["a", "b"]))
    assert np.allclose(np.exp(said.scores), [[0.6, 0.4], [0.3, 0.7], [0.75, 0.25]], atol=1e-6)
    assert said.scale == "log-probabilities" and said.scores.dtype == np.float32
    assert said.protocol == "mean probability of 2 members: a [10 crops], b [1 view]"


def test_a_protocol_that_all_share_is_said_once() -> None:
    members = aligned([replace(logits(seed=seed), protocol="1 view") for seed in (0, 1)], ["a", "b"])
    assert arithmetic(members).protocol == "mean probability of 2 members: a, b, each [1 view]"
    assert geometric(members).protocol == "geometric mean of the probabilities of 2 members: a, b, each [1 view]"


def test_geometric_is_the_softmax_of_the_mean_logits() -> None:
    said = [logits(seed=seed) for seed in range(4)]
    expected = softmax(np.mean([one.scores.astype(np.float64) for one in said], axis=0), axis=1)
    assert np.allclose(np.exp(geometric(aligned(said)).scores), expected, atol=1e-6)


def test_geometric_by_hand_with_a_veto() -> None:
    first = of_probabilities([[0.5, 0.4, 0.1], [0.0, 0.5, 0.5]], [0, 1])
    second = of_probabilities([[0.5, 0.1, 0.4], [0.8, 0.2, 0.0]], [0, 1])
    said = np.exp(geometric(aligned([first, second])).scores)
    assert np.allclose(said, [[0.5 / 0.9, 0.2 / 0.9, 0.2 / 0.9], [0, 1, 0]], atol=1e-6)


def test_geometric_without_a_class_left_names_the_image() -> None:
    first = of_probabilities([[0.5, 0.5], [0.0, 1.0]], [0, 1])
    second = of_probabilities([[0.4, 0.6], [1.0, 0.0]], [0, 1])
    with pytest.raises(DataError, match=r"1.jpg: every class has probability zero .* Take the arithmetic mean"):
        geometric(aligned([first, second]))


def test_probabilities_too_small_for_exp_keep_their_order() -> None:
    """In the mean of 0 and e^-2000 over 2 there is still something to take a log of."""
    first = replace(of_probabilities([[1, 0]], [0]), scores=np.array([[0, -2000]], np.float32))
    second = replace(first, scores=np.array([[0, -np.inf]], np.float32))
    assert np.allclose(arithmetic(aligned([first, second])).scores, [[0, -2000 - np.log(2)]])
    third = replace(first, scores=np.array([[0, -3000]], np.float32))
    assert np.allclose(geometric(aligned([first, third])).scores, [[0, -2500]])


def test_a_class_that_all_members_rule_out_stays_out() -> None:
    first = of_probabilities([[0.6, 0.4, 0.0]], [0])
    second = of_probabilities([[0.2, 0.8, 0.0]], [0])
    assert np.array_equal(np.isneginf(arithmetic(aligned([first, second])).scores), [[False, False, True]])


def test_weighted_with_equal_weights_is_the_mean_and_with_one_weight_that_member() -> None:
    members = trio()
    assert np.allclose(weighted(members, np.full(3, 1 / 3)).scores, arithmetic(members).scores, atol=1e-6)
    assert np.allclose(weighted(members, np.array([0, 1, 0])).scores, members.scores[1], atol=1e-6)
    expected = sum(weight * np.exp(one.astype(np.float64)) for weight, one in zip((0.2, 0.5, 0.3), members.scores, strict=True))
    said = weighted(members, np.array([0.2, 0.5, 0.3]), chosen_on=70)
    assert np.allclose(np.exp(said.scores), expected, atol=1e-6)
    assert said.protocol.startswith("weighted mean probability (0.200 a, 0.500 b, 0.300 c chosen on 70 images): a [seed 0], b")


@pytest.mark.parametrize("weights", [[0.5, 0.5, 0.5], [1.5, -0.5, 0], [np.nan, 1, 0]])
def test_weights_that_are_no_shares_are_refused(weights: list[float]) -> None:
    with pytest.raises(UserError, match="expected numbers of zero or more with sum 1"):
        weighted(trio(), np.array(weights))


def test_weights_for_other_members_are_refused() -> None:
    with pytest.raises(UserError, match=r"weights_M: expected shape \[3\], found \[2\]"):
        weighted(trio(), np.array([0.5, 0.5]))


def test_members_that_all_but_agree_are_as_good_as_one() -> None:
    said = logits(400, 8)
    nearly = [replace(said, scores=said.scores * np.float32(1 + step * 1e-6)) for step in range(3)]
    members = aligned(nearly)
    assert top1(arithmetic(members)) == top1(geometric(members)) == top1(said)


def test_the_mean_of_independent_networks_is_better_than_the_best() -> None:
    members = trio(2000, 10)
    alone = max(top1(combine.combined(members, one, "")) for one in members.scores)
    assert min(top1(arithmetic(members)), top1(geometric(members))) > alone + 0.1


def test_an_average_takes_the_memory_of_its_result_and_of_a_few_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combine, "_NUMBERS", 1 << 15)
    members = trio(20_000, 50)
    tracemalloc.start()
    for average in (arithmetic, geometric):
        tracemalloc.reset_peak()
        size = average(members).scores.nbytes  # 4 MB; a float64 copy of one member alone would be 8 MB
        assert tracemalloc.get_traced_memory()[1] < 2.2 * size
    tracemalloc.stop()


# ---------------------------------------------------------------- routed


def test_grey_images_are_answered_by_their_network() -> None:
    colour, grey = logits(seed=0), as_log_probabilities(logits(seed=1))
    is_grey = np.arange(40) % 5 == 0
    numbers = np.random.default_rng(2)
    for other in (grey, grey.select(is_grey), with_columns(grey.select(numbers.permutation(40)), numbers.permutation(6))):
        said = routed(colour, other, is_grey)
        expected = np.where(is_grey[:, None], grey.scores, log_softmax(colour.scores.astype(np.float64), axis=1))
        assert np.allclose(said.scores, expected, atol=1e-6)
        assert said.keys == colour.keys and np.array_equal(said.labels, colour.labels)
        assert said.protocol == "8 grey images by [seed 1], the 32 others by [seed 0]"


def test_routing_leaves_its_sources_as_they_were() -> None:
    colour = as_log_probabilities(logits(seed=0))
    before = colour.scores.copy()
    routed(colour, logits(seed=1), np.arange(40) < 20)
    assert np.array_equal(colour.scores, before)


def test_without_a_grey_image_nothing_is_asked_of_the_second_network() -> None:
    colour = logits(seed=0)
    said = routed(colour, logits(seed=1).select(np.arange(0)), np.zeros(40, bool))
    assert np.allclose(said.scores, log_softmax(colour.scores.astype(np.float64), axis=1), atol=1e-6)


def test_averages_can_be_routed() -> None:
    colour = arithmetic(aligned([logits(seed=0), logits(seed=1)]))
    grey = geometric(aligned([logits(seed=2), logits(seed=3)]))
    said = routed(colour, grey, np.arange(40) == 6)
    assert np.array_equal(said.scores[6], grey.scores[6]) and np.array_equal(said.scores[7], colour.scores[7])


def test_routing_refuses_what_does_not_fit() -> None:
    colour, grey = logits(seed=0), logits(seed=1)
    is_grey = np.arange(40) < 3
    with pytest.raises(UserError, match=r"has not seen 1 of 3 grey images: 'val/2.jpg'"):
        routed(colour, grey.select(np.arange(2)), is_grey)
    with pytest.raises(UserError, match=r"is_grey_N: expected shape \[40\], found \[39\]"):
        routed(colour, grey, is_grey[:39])
    with pytest.raises(UserError, match="is_grey_N: expected bool, found int64"):
        routed(colour, grey, np.arange(40))
    with pytest.raises(UserError, match="grey does not have the classes of colour"):
        routed(colour, logits(classes=5), is_grey)
    with pytest.raises(UserError, match=r"grey: 1 of 3 labels differ .*'val/1.jpg' \(n004, others n001\)"):
        routed(colour, replace(grey, labels=np.where(np.arange(40) == 1, 4, grey.labels)), is_grey)
    with pytest.raises(DataError, match=r"grey: images that stand there more than once: 'val/0.jpg'"):
        routed(colour, replace(grey, keys=["val/0.jpg", "val/0.jpg", *grey.keys[2:]]), is_grey)


# ---------------------------------------------------------------- how much members differ


def test_error_correlation_is_that_of_numpy_and_the_phi_coefficient() -> None:
    members = trio()
    wrong = members.answers() != members.labels
    found = combine.error_correlation(members)
    assert np.allclose(found, np.corrcoef(wrong), atol=1e-12)
    assert found[0, 1] == pytest.approx(matthews_corrcoef(wrong[0], wrong[1]))


def test_a_member_without_a_mistake_has_no_correlation() -> None:
    perfect = logits(60, 5, seed=9, right=50)
    found = combine.error_correlation(aligned([logits(60, 5), logits(60, 5, 1), perfect]))
    assert np.isnan(found[2]).all() and np.isnan(found[:, 2]).all()
    assert np.isfinite(found[:2, :2]).all() and np.allclose(np.diag(found)[:2], 1)


def three_by_hand() -> Members:
    """Truth 0 0 1 1 2 and an image without a label; the answers stand in the rows."""
    answers = np.array([[0, 0, 1, 2, 0, 1], [0, 1, 1, 2, 1, 1], [2, 0, 1, 1, 2, 0]])
    scores = [np.log(np.eye(3)[said] * 0.7 + 0.1).astype(np.float32) for said in answers]
    labels = np.array([0, 0, 1, 1, 2, -1])
    return Members(("a", "b", "c"), list("uvwxyz"), labels, tuple(scores), classes_of(3), ("", "", ""))


def test_agreement_by_hand() -> None:
    found = combine.agreement(three_by_hand()) * 6
    assert np.allclose(found, [[6, 4, 2], [4, 6, 1], [2, 1, 6]])


def test_disagreements_by_hand() -> None:
    table = combine.disagreements(three_by_hand())
    assert table[0] == combine.Disagreement("a", "b", both_right=2, only_first=1, only_second=0, same_mistake=1, other_mistakes=1)
    assert table[1] == combine.Disagreement("a", "c", both_right=2, only_first=1, only_second=2, same_mistake=0, other_mistakes=0)
    assert table[2] == combine.Disagreement("b", "c", both_right=1, only_first=1, only_second=3, same_mistake=0, other_mistakes=0)


def test_differences_without_labels_or_images() -> None:
    members = trio(10)
    blank = replace(members, labels=np.full(10, -1))
    for question in (combine.error_correlation, combine.disagreements, combine.gain_curve):
        with pytest.raises(DataError, match="None of the 10 images has a label"):
            question(blank)
    assert np.array_equal(combine.agreement(blank), combine.agreement(members))
    with pytest.raises(DataError, match="needs at least one image"):
        combine.agreement(members.select(np.arange(0)))


# ---------------------------------------------------------------- gain curve


def test_the_gain_curve_is_that_of_every_subset() -> None:
    members = aligned([logits(300, 7, seed) for seed in range(5)])
    curve = combine.gain_curve(members)
    assert [(gain.members, gain.subsets) for gain in curve] == [(1, 5), (2, 10), (3, 10), (4, 5), (5, 1)]
    chances = softmax(np.array([logits(300, 7, seed).scores for seed in range(5)], np.float64), axis=2)
    for gain in curve:
        subsets = itertools.combinations(range(5), gain.members)
        found = [float((chances[list(subset)].mean(axis=0).argmax(axis=1) == members.labels).mean()) for subset in subsets]
        assert (gain.mean, gain.lowest, gain.highest) == pytest.approx((np.mean(found), min(found), max(found)))
    right = round(top1(arithmetic(members)) * 300)
    assert curve[-1].interval == metrics.wilson(right, 300)
    assert [gain.interval for gain in curve[:-1]] == [None] * 4


def test_many_subsets_are_sampled_the_same_each_time() -> None:
    members = aligned([logits(60, 4, seed) for seed in range(9)])
    curve = combine.gain_curve(members, most_subsets=12)
    assert [gain.subsets for gain in curve] == [9, 12, 12, 12, 12, 12, 12, 9, 1]
    assert curve == combine.gain_curve(members, most_subsets=12)
    drawn = combine._subsets(9, 4, 12)
    assert len(set(drawn)) == 12 and all(len(set(subset)) == 4 for subset in drawn)
    assert set(itertools.chain.from_iterable(drawn)) == set(range(9))


def test_the_gain_curve_leaves_images_without_a_label_out() -> None:
    members = trio(100)
    blank = replace(members, labels=np.where(np.arange(100) < 40, -1, members.labels))
    assert combine.gain_curve(blank) == combine.gain_curve(members.select(np.arange(40, 100)))


def test_the_gain_curve_wants_a_subset() -> None:
    with pytest.raises(UserError, match="most_subsets: expected 1 or more, found 0"):
        combine.gain_curve(trio(10), most_subsets=0)
