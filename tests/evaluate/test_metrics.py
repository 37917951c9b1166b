"""Metrics against torch, torchmetrics, scikit-learn and cases worked by hand."""

import csv
import math

import numpy as np
import pytest
import torch

from striate.classes import Classes
from striate.errors import NonFiniteError, UserError
from striate.evaluate import metrics
from striate.evaluate.score import per_class_csv
from striate.predictions import Predictions


def drawn(images: int, classes: int, seed: int = 0, right: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that favour the true class by `right`, and the labels; every class has an image if there are enough."""
    numbers = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    scores = numbers.normal(size=(images, classes)).astype(np.float32)
    scores[np.arange(images), labels] += right
    return scores, labels


def seen_as(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels that give exactly this confusion matrix."""
    labels, said = (np.repeat(side.reshape(-1), confusion.reshape(-1)) for side in np.indices(confusion.shape))
    return np.eye(len(confusion), dtype=np.float32)[said], labels


# ---------------------------------------------------------------- hits, ties


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_hits_equal_torch_topk_without_ties(k: int) -> None:
    scores, labels = drawn(300, 12)
    theirs = (torch.from_numpy(scores).topk(k).indices == torch.from_numpy(labels)[:, None]).any(1).numpy()
    assert np.array_equal(metrics.hits(scores, labels, k), theirs)


def test_hits_equal_torchmetrics() -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    scores, labels = drawn(500, 20)
    for k in (1, 5):
        theirs = classification.multiclass_accuracy(
            torch.from_numpy(scores), torch.from_numpy(labels), num_classes=20, top_k=k, average="micro"
        )
        assert metrics.hits(scores, labels, k).mean() == pytest.approx(float(theirs), abs=1e-7)


def test_e6_a_tie_counts_as_the_lower_class_first() -> None:
    scores = np.array([[1, 3, 3, 3, 0]], np.float32)
    assert [metrics.ranks(scores, np.array([label]))[0] for label in range(5)] == [3, 0, 1, 2, 4]
    assert metrics.top_k(scores, 5).tolist() == [[1, 2, 3, 0, 4]]
    assert metrics.tied_first(scores) == 1


def test_e6_a_constant_network_is_right_for_one_class_only() -> None:
    scores, labels = np.zeros((40, 8), np.float32), np.arange(40) % 8
    assert metrics.hits(scores, labels, 1).mean() == 1 / 8
    assert metrics.hits(scores, labels, 5).mean() == 5 / 8


def test_e6_top_5_of_three_classes_is_top_3() -> None:
    scores, labels = drawn(30, 3)
    assert metrics.hits(scores, labels, 5).all()
    assert metrics.top_k(scores, 5).shape == (30, 3)


def test_top_k_and_ranks_agree_also_with_minus_infinity() -> None:
    scores = np.random.default_rng(0).integers(0, 4, (200, 9)).astype(np.float32)
    scores[scores == 0] = -np.inf
    order = metrics.top_k(scores, 9)
    for label in range(9):
        assert np.array_equal(metrics.ranks(scores, np.full(200, label)), (order == label).argmax(1))


def test_e5_a_nan_is_never_a_number() -> None:
    scores, labels = drawn(4, 3)
    scores[2, 1] = np.nan
    with pytest.raises(NonFiniteError):
        metrics.hits(scores, labels, 1)


@pytest.mark.parametrize("labels", [[0, 3], [0, -1], [0]])
def test_labels_that_do_not_fit_are_refused(labels: list[int]) -> None:
    with pytest.raises(UserError):
        metrics.ranks(np.zeros((2, 3), np.float32), np.array(labels))


def test_results_do_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = drawn(100, 7)
    whole = (metrics.ranks(scores, labels), metrics.top_k(scores, 3), metrics.best_probabilities(scores))
    loss = metrics.cross_entropy(scores, labels, "logits")
    monkeypatch.setattr(metrics, "_ROWS", 7)
    parts = (metrics.ranks(scores, labels), metrics.top_k(scores, 3), metrics.best_probabilities(scores))
    assert all(np.array_equal(one, other) for one, other in zip(whole, parts, strict=True))
    assert metrics.cross_entropy(scores, labels, "logits") == pytest.approx(loss, rel=1e-14)


# ---------------------------------------------------------------- loss


def test_e2_cross_entropy_equals_torch_over_all_images_at_once() -> None:
    scores, labels = drawn(10, 6)
    theirs = torch.nn.functional.cross_entropy(torch.from_numpy(scores).double(), torch.from_numpy(labels))
    assert metrics.cross_entropy(scores, labels, "logits") == pytest.approx(float(theirs), rel=1e-12)


def test_cross_entropy_of_huge_logits_and_of_log_probabilities() -> None:
    huge = np.array([[1e30, 0], [0, 1e4]], np.float32)
    assert metrics.cross_entropy(huge, np.array([0, 1]), "logits") == 0.0
    halves = np.log(np.array([[0.5, 0.5], [0.25, 0.75]], np.float32))
    expected = (math.log(2) + math.log(4)) / 2
    assert metrics.cross_entropy(halves, np.array([1, 0]), "log-probabilities") == pytest.approx(expected, rel=1e-6)
    impossible = np.array([[0, -np.inf]], np.float32)
    assert metrics.cross_entropy(impossible, np.array([1]), "log-probabilities") == math.inf
    with pytest.raises(UserError):
        metrics.cross_entropy(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), "logits")


def test_losses_are_those_of_torch_image_by_image() -> None:
    scores, labels = drawn(300, 6)
    theirs = torch.nn.functional.cross_entropy(torch.from_numpy(scores).double(), torch.from_numpy(labels), reduction="none")
    assert np.allclose(metrics.losses(scores, labels, "logits"), theirs, rtol=1e-12)
    log_probabilities = metrics.log_probabilities(scores).astype(np.float32)
    assert np.allclose(metrics.losses(log_probabilities, labels, "log-probabilities"), theirs, atol=1e-6)
    assert metrics.losses(scores[:0], labels[:0], "logits").shape == (0,)


def test_a_resample_draws_every_row_alike() -> None:
    drawn_rows = np.concatenate([metrics.drawn_again(7, 0, "test", resample) for resample in range(4000)])
    assert drawn_rows.min() == 0 and drawn_rows.max() == 6 and len(drawn_rows) == 28_000
    assert np.bincount(drawn_rows) / 4000 == pytest.approx(np.ones(7), abs=0.07)
    assert not np.array_equal(metrics.drawn_again(50, 0, "test", 0), metrics.drawn_again(50, 0, "test", 1))


# ---------------------------------------------------------------- Wilson


def test_wilson_by_hand() -> None:
    # 8 of 10 with z = 1.96: middle (0.8 + 0.192073) / 1.384146, half width 1.959964 * sqrt(0.016 + 0.009604) / 1.384146.
    assert metrics.wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    # 0 of n: the upper end is z² / (n + z²).
    assert metrics.wilson(0, 20) == pytest.approx((0.0, 3.8414588 / 23.8414588), abs=1e-8)
    low, high = metrics.wilson(20, 20)
    assert (low, high) == pytest.approx((20 / 23.8414588, 1.0), abs=1e-8)
    assert metrics.wilson(0, 20)[0] == 0.0
    assert high == 1.0


def test_wilson_covers_as_it_says() -> None:
    numbers = np.random.default_rng(1)
    covered = [
        low <= 0.3 <= high for low, high in (metrics.wilson(int(count), 200) for count in numbers.binomial(200, 0.3, 2000))
    ]
    assert 0.93 < np.mean(covered) < 0.97


@pytest.mark.parametrize(("count", "total"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_share(count: int, total: int) -> None:
    with pytest.raises(UserError):
        metrics.wilson(count, total)


# ---------------------------------------------------------------- by class


def test_confusion_precision_and_recall_equal_scikit_learn() -> None:
    theirs = pytest.importorskip("sklearn.metrics")
    scores, labels = drawn(400, 9, right=0.7)
    said = scores.argmax(1)
    assert np.array_equal(metrics.confusion(scores, labels), theirs.confusion_matrix(labels, said))
    precision, recall, _, support = theirs.precision_recall_fscore_support(labels, said, zero_division=0)
    table = metrics.per_class(scores, labels)
    assert np.allclose(table.precision, precision)
    assert np.allclose(table.top1, recall)
    assert np.array_equal(table.images, support)


def test_each_f1_equals_scikit_learn_also_without_images_or_answers() -> None:
    """Class 2 is never said, class 3 has no image, class 4 has neither."""
    theirs = pytest.importorskip("sklearn.metrics")
    scores, labels = seen_as(np.array([[5, 2, 0, 1, 0], [1, 6, 0, 0, 0], [2, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]))
    table, said = metrics.per_class(scores, labels), scores.argmax(1)
    expected = theirs.f1_score(labels, said, labels=np.arange(5), average=None, zero_division=np.nan)
    assert np.allclose(table.f1, expected, equal_nan=True)
    assert table.f1[2] == table.f1[3] == 0 and math.isnan(table.f1[4])
    present = [0, 1, 2]
    for average, ours in (("macro", metrics.macro_f1(table)), ("weighted", metrics.weighted_f1(table))):
        assert ours == pytest.approx(theirs.f1_score(labels, said, labels=present, average=average, zero_division=0))


def test_the_f1_of_many_classes_equals_scikit_learn() -> None:
    theirs = pytest.importorskip("sklearn.metrics")
    scores, labels = drawn(400, 9, right=0.7)
    table, said = metrics.per_class(scores, labels), scores.argmax(1)
    assert np.allclose(table.f1, theirs.f1_score(labels, said, average=None))
    assert metrics.macro_f1(table) == pytest.approx(theirs.f1_score(labels, said, average="macro"))
    assert metrics.weighted_f1(table) == pytest.approx(theirs.f1_score(labels, said, average="weighted"))
    nothing = metrics.per_class(scores[:0], labels[:0])
    assert math.isnan(metrics.macro_f1(nothing)) and math.isnan(metrics.weighted_f1(nothing))


def test_the_f1_has_its_column_in_the_file() -> None:
    scores, labels = seen_as(np.array([[3, 1, 0], [2, 2, 0], [0, 0, 0]]))
    classes = Classes(("a", "b", "c"), ("",) * 3)
    text = per_class_csv(Predictions([str(i) for i in range(8)], labels, scores, "logits", classes))
    rows = list(csv.DictReader(text.splitlines()))
    # Of a: precision 3/5, recall 3/4. Class c has no image, and nobody said it.
    assert [row["f1"] for row in rows] == ["0.666667", "0.571429", ""]
    assert list(rows[0])[5:8] == ["precision", "f1", "mean_confidence"]


def test_confusion_equals_torchmetrics() -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    scores, labels = drawn(200, 5, right=0.7)
    theirs = classification.multiclass_confusion_matrix(torch.from_numpy(scores), torch.from_numpy(labels), num_classes=5)
    assert np.array_equal(metrics.confusion(scores, labels), theirs.numpy())


def test_per_class_by_hand() -> None:
    confusion = np.array([[3, 1, 0], [2, 2, 0], [0, 0, 0]])
    scores, labels = seen_as(confusion)
    table = metrics.per_class(scores, labels, k=2)
    assert table.images.tolist() == [4, 4, 0]
    assert table.top1[:2].tolist() == [0.75, 0.5]
    assert table.precision[:2].tolist() == [0.6, 2 / 3]
    assert table.mistaken_for.tolist() == [1, 0, -1]
    assert table.mistakes.tolist() == [1, 2, 0]
    # Scores are 1 for the class said, 0 for the other two: its probability is e / (e + 2).
    assert table.confidence[:2] == pytest.approx([math.e / (math.e + 2)] * 2)
    assert all(math.isnan(value) for value in (table.top1[2], table.top5[2], table.precision[2], table.confidence[2]))


# ---------------------------------------------------------------- constant output


def test_a_probability_of_zero_is_no_constant_output() -> None:
    scores, _ = drawn(20, 4)
    log_probabilities = metrics.log_probabilities(scores).astype(np.float32)
    log_probabilities[:, 2] = -np.inf  # a class that is never possible
    log_probabilities[3, 1] = -np.inf
    assert metrics.constant_output(log_probabilities) is None
    assert metrics.constant_output(np.repeat(log_probabilities[:1], 20, axis=0)) is not None


def test_e6_a_constant_network_is_reported() -> None:
    scores = np.tile(np.array([0.1, 0.3, 0.2], np.float32), (50, 1))
    assert "every image the same scores" in (metrics.constant_output(scores) or "")
    # What is left of the image in a network whose signal died: differences of 7e-10 on logits of 0.02.
    dead = 0.02 * scores + 7e-10 * np.random.default_rng(0).normal(size=scores.shape)
    assert "every image the same scores" in (metrics.constant_output(dead.astype(np.float32)) or "")


def test_e6_equal_scores_within_an_image_are_reported() -> None:
    scores, _ = drawn(20, 4)
    scores[3] = 1.5
    assert metrics.constant_rows(scores).sum() == 1
    assert (metrics.constant_output(scores) or "").startswith("1 of 20 images")


def test_an_ordinary_network_is_not_called_constant() -> None:
    for right in (0.0, 0.1, 5.0):
        assert metrics.constant_output(drawn(20, 4, right=right)[0]) is None
    assert metrics.constant_output(np.zeros((0, 4), np.float32)) is None
    assert metrics.constant_output(np.array([[1, 2]], np.float32)) is None
    assert metrics.constant_output(np.array([[1], [2]], np.float32)) is None


# ---------------------------------------------------------------- permuted labels


def counted(classes: int, images: int, top1: float, seed: int) -> np.ndarray:
    """Confusion matrix of a network that is right with probability top1 and else says a random class."""
    numbers = np.random.default_rng(seed)
    labels = np.arange(classes * images) % classes
    said = np.where(numbers.random(labels.size) < top1, labels, numbers.integers(0, classes, labels.size))
    return np.bincount(labels * classes + said, minlength=classes * classes).reshape(classes, classes)


@pytest.mark.parametrize(
    ("classes", "images", "top1"), [(12, 20, 0.9), (12, 20, 0.4), (200, 25, 0.3), (200, 25, 0.1), (1000, 50, 0.7)]
)
def test_e8_permuted_labels_are_found(classes: int, images: int, top1: float) -> None:
    permutation = np.random.default_rng(5).permutation(classes)
    confusion = counted(classes, images, top1, seed=1)[permutation]
    found = metrics.better_permutation(confusion)
    assert found is not None
    assert found.top1 < 0.5 * found.top1_renamed
    assert found.top1_renamed > 0.5 * top1
    if top1 >= 0.7:
        assert np.mean(found.said_for == permutation) > 0.95


def test_e8_two_swapped_labels_and_a_shift_by_one_are_found() -> None:
    confusion = counted(12, 30, 0.9, seed=2)
    swapped = np.arange(12)
    swapped[[3, 7]] = 7, 3
    found = metrics.better_permutation(confusion[swapped])
    assert found is not None
    assert found.moved.tolist() == [3, 7]
    assert metrics.better_permutation(np.roll(confusion, 1, axis=0)) is not None


@pytest.mark.parametrize("top1", [0.0, 0.005, 0.02, 0.1, 0.3, 0.6, 0.95, 1.0])
@pytest.mark.parametrize(("classes", "images"), [(2, 10), (12, 20), (200, 25)])
def test_e8_silent_on_an_ordinary_network_however_weak(classes: int, images: int, top1: float) -> None:
    for seed in range(5):
        assert metrics.better_permutation(counted(classes, images, top1, seed)) is None


def test_e8_silent_on_a_network_that_knows_a_few_favourite_classes() -> None:
    numbers = np.random.default_rng(3)
    for seed in range(10):
        # 40 classes in 8 groups of look-alikes; the network finds the group and names one favourite of it, mostly.
        labels = np.arange(40 * 25) % 40
        favourite = (labels // 5) * 5 + numbers.integers(0, 5, 8)[labels // 5]
        said = np.where(numbers.random(labels.size) < 0.6, favourite, labels)
        confusion = np.bincount(labels * 40 + said, minlength=1600).reshape(40, 40)
        assert metrics.better_permutation(confusion) is None, seed


def test_e8_silent_on_an_untrained_network_that_says_the_same_of_images_that_look_alike() -> None:
    numbers = np.random.default_rng(4)
    labels = np.arange(200 * 25) % 200
    favourite = numbers.integers(0, 200, 200)[labels]  # three in a hundred images of a class get the same other name
    said = np.where(numbers.random(labels.size) < 0.03, favourite, numbers.integers(0, 200, labels.size))
    confusion = np.bincount(labels * 200 + said, minlength=40_000).reshape(200, 200)
    assert metrics.better_permutation(confusion) is None


def test_e8_silent_when_a_rare_class_is_the_favourite() -> None:
    confusion = counted(10, 100, 0.8, seed=0)
    confusion[3], confusion[4] = 0, 0
    confusion[3, 4] = 200  # all of a large class is taken for a rare one,
    confusion[4, 4] = 4  # whose own images are right
    assert metrics.better_permutation(confusion) is None


def test_e8_silent_on_a_constant_network() -> None:
    confusion = np.zeros((10, 10), np.int64)
    confusion[:, 4] = 20
    assert metrics.better_permutation(confusion) is None


# ---------------------------------------------------------------- bootstrap


def test_the_interval_of_a_mean_is_scipys_within_its_noise() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(3)
    losses_N = random.gamma(2.0, 0.7, 400)
    labels_N = random.integers(0, 4, 400)
    said_N = np.where(random.random(400) < 0.7, labels_N, random.integers(0, 4, 400))
    found = metrics.bootstrap(losses_N, labels_N, said_N, 4)
    theirs = stats.bootstrap((losses_N,), np.mean, method="percentile", n_resamples=4000, random_state=1).confidence_interval
    assert found.loss == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_the_interval_of_macro_f1_is_scikit_learns_resampled() -> None:
    f1_score = pytest.importorskip("sklearn.metrics").f1_score
    random = np.random.default_rng(4)
    labels_N = random.integers(0, 5, 300)
    said_N = np.where(random.random(300) < 0.6, labels_N, random.integers(0, 5, 300))
    found = metrics.bootstrap(np.zeros(300), labels_N, said_N, 5, resamples=200)
    rows = [metrics.drawn_again(300, 0, "score", place) for place in range(200)]
    theirs = [f1_score(labels_N[row], said_N[row], average="macro") for row in rows]
    assert found.macro_f1 == pytest.approx(tuple(np.quantile(theirs, [0.025, 0.975], method="nearest")))
    recalls = [np.mean([(said_N[row] == k)[labels_N[row] == k].mean() for k in range(5)]) for row in rows]
    assert found.mean_class_top1 == pytest.approx(tuple(np.quantile(recalls, [0.025, 0.975], method="nearest")))


def test_classes_without_images_in_a_resample_do_not_count() -> None:
    found = metrics.bootstrap(np.zeros(3), np.array([0, 1, 1]), np.array([0, 1, 1]), 7)
    assert found.mean_class_top1 == (1.0, 1.0) and found.macro_f1 == (1.0, 1.0) and found.loss == (0.0, 0.0)
