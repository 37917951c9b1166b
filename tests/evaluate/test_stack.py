"""Weights chosen on held-out images, against scipy, scikit-learn and mixtures whose weights are known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize
from scipy.special import log_softmax, logsumexp
from sklearn.linear_model import LogisticRegression

from striate.classes import Classes
from striate.errors import DataError, UserError
from striate.evaluate import combine, metrics, stack
from striate.evaluate.combine import Members, arithmetic, geometric, weighted
from striate.evaluate.held_out import held_out
from striate.evaluate.stack import greedy, mixture, stacked, stacking


def members_of(scores: list[np.ndarray], labels: np.ndarray) -> Members:
    """Members from scores [N, K] that need not be normalised."""
    said = tuple(log_softmax(one.astype(np.float64), axis=1).astype(np.float32) for one in scores)
    count = said[0].shape[1]
    classes = Classes(tuple(f"n{number:03}" for number in range(count)), ("",) * count)
    names = tuple("abcdefgh"[: len(said)])
    keys = [f"{row}.jpg" for row in range(len(labels))]
    return Members(names, keys, labels, said, classes, tuple(f"protocol of {name}" for name in names))


def networks(images: int, classes: int, rights: list[float], seed: int = 0) -> Members:
    """Independent networks that favour the true class by `rights` (in standard deviations of their noise)."""
    numbers = np.random.default_rng(seed)
    labels = numbers.permutation(np.arange(images) % classes)
    truth = np.eye(classes)[labels]
    return members_of([numbers.normal(size=truth.shape) + right * truth for right in rights], labels)


def of_a_mixture(weights: list[float], images: int = 20_000, classes: int = 6) -> Members:
    """Labels drawn from the members' own probabilities, member m as often as its weight."""
    numbers = np.random.default_rng(1)
    scores = [2 * numbers.normal(size=(images, classes)) for _ in weights]
    author = numbers.choice(len(weights), size=images, p=weights)
    chances = np.exp(log_softmax(np.array(scores), axis=2))[author, np.arange(images)]
    labels = (numbers.random((images, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(0, classes - 1)
    return members_of(scores, labels)


def everything(members: Members) -> np.ndarray:
    return np.ones(len(members.keys), bool)


def loss(members: Members, weights: np.ndarray) -> float:
    said = weighted(members, weights)
    return metrics.cross_entropy(said.scores, said.labels, said.scale)


# ---------------------------------------------------------------- mixture


def test_the_weights_of_a_known_mixture_are_found() -> None:
    truth = [0.55, 0.3, 0.15, 0.0]
    found = mixture(of_a_mixture(truth), everything(of_a_mixture(truth)))
    assert np.allclose(found.weights, truth, atol=0.02)
    assert found.weights.sum() == pytest.approx(1) and found.weights.min() >= 0


@pytest.mark.parametrize("rights", [[2.0, 1.0, 0.5], [1.5, 1.4], [3.0, 0.0, 0.0, 0.0]])
def test_the_weights_are_those_of_a_general_optimizer(rights: list[float]) -> None:
    members = networks(600, 7, rights)
    found = mixture(members, everything(members), tolerance=1e-9)
    true_LM = np.stack([one[np.arange(600), members.labels] for one in members.scores], axis=1).astype(np.float64)
    theirs = optimize.minimize(
        lambda weights: -logsumexp(true_LM, b=np.maximum(weights, 1e-300), axis=1).mean(),
        np.full(len(rights), 1 / len(rights)),
        method="SLSQP",
        bounds=[(0, 1)] * len(rights),
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-12},
    )
    assert found.loss == pytest.approx(theirs.fun, abs=1e-7) and found.loss <= theirs.fun + 1e-8
    assert np.allclose(found.weights, theirs.x, atol=2e-3)


def test_the_loss_never_rises_and_is_that_of_the_mixture() -> None:
    members = networks(500, 5, [2.0, 1.0, 0.3])
    found = mixture(members, everything(members))
    assert len(found.losses) > 5 and (np.diff(found.losses) <= 1e-12).all()
    assert found.loss == found.losses[-1] and found.loss_equal == found.losses[0]
    assert found.loss == pytest.approx(loss(members, found.weights), abs=1e-6)
    assert found.loss_equal == pytest.approx(
        metrics.cross_entropy(arithmetic(members).scores, members.labels, "log-probabilities")
    )


def test_only_the_images_to_fit_on_are_looked_at() -> None:
    members = networks(300, 5, [2.0, 1.0])
    for_fit = held_out(members.keys, members.labels)
    other = replace(members, labels=np.where(for_fit, members.labels, (members.labels + 1) % 5))
    for choose in (
        lambda given: mixture(given, for_fit).weights,
        lambda given: greedy(given, for_fit, 6).weights,
        lambda given: stacking(given, for_fit).weights,
    ):
        assert np.array_equal(choose(members), choose(other))
    assert np.array_equal(
        mixture(members, for_fit).weights, mixture(members.select(for_fit), np.ones(for_fit.sum(), bool)).weights
    )


def test_images_that_no_member_gives_a_chance_are_counted_and_have_no_say() -> None:
    members = networks(200, 4, [2.0, 1.0])
    scores = [one.copy() for one in members.scores]
    for one in scores:
        one[np.arange(5), members.labels[:5]] = -np.inf
    scores[0][5, members.labels[5]] = -np.inf  # the other member can have it
    found = mixture(replace(members, scores=tuple(scores)), everything(members))
    without = mixture(replace(members, scores=tuple(scores)).select(np.arange(5, 200)), np.ones(195, bool))
    assert (found.impossible, found.images) == (5, 200)
    assert np.allclose(found.weights, without.weights) and found.loss == pytest.approx(without.loss)
    hopeless = replace(members, scores=tuple(np.where(np.eye(4, dtype=bool)[members.labels], -np.inf, one) for one in scores))
    with pytest.raises(DataError, match="No member gives the true class of any of 200 images a probability"):
        mixture(hopeless, everything(members))


def test_rounds_end_when_they_are_used_up() -> None:
    members = networks(200, 4, [2.0, 0.5])
    found = mixture(members, everything(members), tolerance=0, most_rounds=3)
    assert len(found.losses) == 4
    assert found.loss == pytest.approx(loss(members, found.weights), abs=1e-6)


def test_unequal_members_are_better_weighted_on_other_images() -> None:
    members = networks(4000, 10, [2.5, 0.5, 0.5, 0.5])
    for_fit = held_out(members.keys, members.labels)
    judged = members.select(~for_fit)
    assert loss(judged, mixture(members, for_fit).weights) < loss(judged, np.full(4, 0.25)) - 0.1


# ---------------------------------------------------------------- greedy selection


def naive_greedy(members: Members, most: int) -> list[tuple[int, float, float]]:
    """The algorithm as told: try every member, keep the best; (member, top-1, loss) after each step."""
    bag: list[int] = []
    steps = []
    for _ in range(most):
        tried = []
        for one in range(len(members)):
            mean = np.mean([np.exp(members.scores[other].astype(np.float64)) for other in [*bag, one]], axis=0)
            right = int((mean.argmax(axis=1) == members.labels).sum())
            tried.append((-right, float(-np.log(mean[np.arange(len(mean)), members.labels]).mean()), one))
        right, found, one = min(tried)
        bag.append(one)
        steps.append((one, -right / len(members.keys), found))
    return steps


def test_greedy_does_what_the_naive_way_does() -> None:
    members = networks(400, 6, [1.6, 1.5, 1.0, 0.2])
    found, steps = greedy(members, everything(members), 7), naive_greedy(members, 7)
    assert list(found.order) == [one for one, _, _ in steps]
    assert list(found.top1) == [share for _, share, _ in steps]
    assert found.loss == pytest.approx([value for _, _, value in steps])


def test_greedy_keeps_the_best_and_shortest_and_its_weights_give_what_it_says() -> None:
    members = networks(400, 6, [1.6, 1.5, 1.0, 0.2])
    found = greedy(members, everything(members), 8)
    best = max(found.top1)
    reached = list(zip(found.top1, found.loss, strict=True))
    assert reached[found.kept - 1] == min(reached, key=lambda step: (-step[0], step[1]))
    assert reached[found.kept - 1] not in reached[: found.kept - 1]
    said = weighted(members, found.weights)
    assert metrics.hits(said.scores, said.labels, 1).mean() == pytest.approx(best)
    assert metrics.cross_entropy(said.scores, said.labels, said.scale) == pytest.approx(found.loss[found.kept - 1], abs=1e-6)
    assert found.weights * found.kept == pytest.approx(np.bincount(found.order[: found.kept], minlength=4))
    assert found.top1[0] == max(float((one.argmax(axis=1) == members.labels).mean()) for one in members.scores)


def test_greedy_among_equals_takes_the_lower_loss_then_the_first() -> None:
    labels = np.arange(30) % 3
    sure, unsure = 4 * np.eye(3)[labels], 2 * np.eye(3)[labels]
    found = greedy(members_of([unsure, sure, sure], labels), np.ones(30, bool), 3)
    assert found.order == (1, 1, 1)
    assert found.kept == 1 and found.weights.tolist() == [0, 1, 0]


def test_greedy_does_not_depend_on_the_size_of_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    members = networks(200, 5, [1.2, 1.1, 0.9])
    whole = greedy(members, everything(members), 5)
    monkeypatch.setattr(combine, "_NUMBERS", 100)
    parts = greedy(members, everything(members), 5)
    assert (parts.order, parts.top1, parts.loss) == (whole.order, whole.top1, whole.loss)


def test_greedy_takes_a_step_or_more() -> None:
    members = networks(20, 2, [1.0, 1.0])
    with pytest.raises(UserError, match="one step or more, found 0"):
        greedy(members, everything(members), 0)


# ---------------------------------------------------------------- linear model


def test_without_freedom_the_stack_is_the_geometric_mean() -> None:
    members = networks(100, 5, [2.0, 1.0, 0.5])
    said = stacked(members, stacking(members, everything(members), spreads=[0]))
    assert np.allclose(said.scores, geometric(members).scores, atol=1e-5)
    assert said.protocol.startswith("linear model on 3 members (fitted on 100 images, spread 0): a [protocol of a], b [protocol")


def test_minus_infinity_is_taken_as_the_smallest_float32() -> None:
    members = networks(60, 3, [1.0, 1.0])
    scores = [one.copy() for one in members.scores]
    scores[0][3, 1] = -np.inf
    members = replace(members, scores=tuple(scores))
    found = stacking(members, everything(members))
    assert np.isfinite(found.weights).all() and np.isfinite(stacked(members, found).scores).all()


@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_the_stack_is_that_of_a_general_optimizer(spread: float) -> None:
    members = networks(150, 3, [1.5, 0.8], seed=4)
    said = np.stack(members.scores).astype(np.float64)

    def cost(flat: np.ndarray) -> float:
        weights, bias = flat[:6].reshape(2, 3), flat[6:]
        log_p = log_softmax((weights[:, None] * said).sum(axis=0) + bias, axis=1)
        away = np.concatenate([(weights - 0.5).ravel(), bias])
        return -log_p[np.arange(150), members.labels].sum() + (away**2).sum() / (2 * spread**2)

    theirs = optimize.minimize(cost, np.concatenate([np.full(6, 0.5), np.zeros(3)]), method="BFGS", options={"gtol": 1e-4})
    found = stacking(members, everything(members), spreads=[spread])
    ours = np.concatenate([found.weights.ravel(), found.bias])
    assert np.allclose(ours, theirs.x, atol=1e-3)
    assert cost(ours) <= cost(theirs.x) + 150 * stack._NEAR


def test_with_two_classes_and_all_freedom_it_is_scikit_learns_logistic_regression() -> None:
    """Then logit 1 - logit 0 is a binary regression on the log-probabilities of both classes."""
    members = networks(3000, 2, [0.8, 0.5])
    features = np.concatenate([np.stack([one[:, 1], -one[:, 0]], axis=1) for one in members.scores], axis=1).astype(np.float64)
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(features, members.labels)
    found = stacking(members, everything(members), spreads=[300.0])
    said = np.exp(stacked(members, found).scores[:, 1])
    assert np.allclose(said, theirs.predict_proba(features)[:, 1], atol=1e-3)
    coefficients = np.array([[found.weights[m, 1], found.weights[m, 0]] for m in range(2)]).ravel()
    assert np.allclose(coefficients, theirs.coef_[0], atol=5e-3)
    assert found.bias[1] - found.bias[0] == pytest.approx(theirs.intercept_[0], abs=5e-3)


def test_loss_and_slope_are_those_of_scipy_and_of_differences() -> None:
    members = networks(300, 4, [1.0, 0.5])
    said = np.stack(members.scores).astype(np.float64)
    place = np.random.default_rng(0).normal(size=(3, 4))

    def at(place: np.ndarray) -> float:
        log_p = log_softmax((place[:-1, None] * said).sum(axis=0) + place[-1], axis=1)
        return -float(log_p[np.arange(300), members.labels].sum())

    loss, slope = stack._loss_and_slope(members, np.arange(300), place[:-1], place[-1])
    assert loss == pytest.approx(at(place), rel=2e-6)
    for spot in itertools.product(range(3), range(4)):
        step = np.zeros((3, 4))
        step[spot] = 1e-5
        assert slope[spot] == pytest.approx((at(place + step) - at(place - step)) / 2e-5, rel=2e-6, abs=1e-4)


def test_with_little_data_the_stack_is_not_worse_than_the_mean() -> None:
    """Alike members, 60 images, 20 classes: there is nothing to learn, and chance must not be learned."""
    worse = []
    for seed in range(6):
        members = networks(2060, 20, [2.0, 2.0, 2.0], seed)
        for_fit = np.arange(2060) < 60
        judged = members.select(~for_fit)
        found = stacked(judged, stacking(members, for_fit))
        losses = [metrics.cross_entropy(one.scores, one.labels, one.scale) for one in (found, geometric(judged))]
        worse.append(losses[0] - losses[1])
    assert max(worse) < 0.02 and np.mean(worse) < 0.005


def test_with_enough_data_the_stack_learns_which_member_knows_which_class() -> None:
    numbers = np.random.default_rng(3)
    labels = numbers.permutation(np.arange(6000) % 6)
    truth = np.eye(6)[labels]
    knows = np.where(np.arange(6) < 3, 3.0, 0.0)  # one member for the first three classes, the other for the rest
    noise = [numbers.normal(size=truth.shape) for _ in range(2)]
    members = members_of([noise[0] + knows * truth, noise[1] + knows[::-1] * truth], labels)
    for_fit = held_out(members.keys, members.labels)
    judged = members.select(~for_fit)
    found = stacking(members, for_fit)
    said = [stacked(judged, found), arithmetic(judged), geometric(judged), weighted(judged, mixture(members, for_fit).weights)]
    losses = [metrics.cross_entropy(one.scores, one.labels, one.scale) for one in said]
    assert found.spread > 0 and losses[0] < min(losses[1:]) - 0.05
    assert found.weights[0, :3].min() > found.weights[0, 3:].max()


def test_the_spread_is_the_smallest_within_one_standard_error() -> None:
    numbers = np.random.default_rng(0)
    base = numbers.random(100)
    noise = numbers.normal(size=100)
    noise -= noise.mean()
    better = {0.0: base + 0.5, 0.1: base + 0.05 + noise, 0.3: base}  # 0.05 is less than noise.std() / 10, 0.5 is not
    assert stack._smallest_as_good(better) == 0.1
    assert stack._smallest_as_good({0.0: base, 0.1: base}) == 0.0


def test_cross_validation_scores_each_image_with_a_model_that_has_not_seen_it() -> None:
    members = networks(90, 3, [1.0, 0.5])
    rows = np.flatnonzero(everything(members))
    part = stack._folds(members, rows)
    assert np.bincount(part).tolist() == [30, 30, 30]
    for label in range(3):
        assert np.bincount(part[members.labels == label]).tolist() == [10, 10, 10]
    losses = stack._cross_validated(members, rows, [0.3])[0.3]
    for fold in range(3):
        own = members.select(part == fold)
        other = stacking(members, part != fold, spreads=[0.3])
        said = stacked(own, other).scores
        assert np.allclose(losses[part == fold], -said[np.arange(30), own.labels], atol=1e-5)
    found = stacking(members, everything(members))
    assert next(iter(found.losses)) == 0.0 and found.spread in found.losses


@pytest.mark.parametrize("spreads", [[], [-1.0], [0.3, 0.1], [0.1, 0.1], [0.1, np.inf], [np.nan]])
def test_spreads_that_are_none_are_refused(spreads: list[float]) -> None:
    members = networks(30, 3, [1.0, 1.0])
    with pytest.raises(UserError, match="expected rising finite numbers of zero or more"):
        stacking(members, everything(members), spreads)


def test_too_few_images_for_a_stack_are_a_data_error() -> None:
    members = networks(30, 3, [1.0, 1.0])
    with pytest.raises(DataError, match=r"takes 12 images to fit on or more, found 11\. Take the mean"):
        stacking(members, np.arange(30) < 11)
    assert stacking(members, np.arange(30) < 12).images == 12


def test_a_stack_is_for_its_members_and_classes_only() -> None:
    members = networks(30, 3, [1.0, 1.0])
    found = stacking(members, everything(members))
    with pytest.raises(UserError, match=r"fitted to the members 'a', 'b', found 'b', 'a': give the same, in this order"):
        stacked(replace(members, names=("b", "a")), found)
    turned = Classes(members.classes.ids[::-1], members.classes.names)
    with pytest.raises(UserError, match="fitted to other classes or another order of them"):
        stacked(replace(members, classes=turned), found)


# ---------------------------------------------------------------- the images to fit on


@pytest.mark.parametrize("choose", [mixture, lambda members, rows: greedy(members, rows, 2), stacking])
def test_images_to_fit_on_are_checked(choose) -> None:
    members = networks(30, 3, [1.0, 1.0])
    with pytest.raises(UserError, match=r"for_fit_N: expected shape \[30\], found \[29\]"):
        choose(members, np.ones(29, bool))
    with pytest.raises(UserError, match="for_fit_N: expected bool, found int64"):
        choose(members, np.arange(30))
    with pytest.raises(UserError, match="names no image"):
        choose(members, np.zeros(30, bool))
    blank = replace(members, labels=np.where(np.arange(30) == 4, -1, members.labels))
    with pytest.raises(UserError, match=r"names 1 images without a label: '4.jpg'"):
        choose(blank, np.ones(30, bool))
