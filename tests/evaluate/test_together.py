"""Several evaluations at once: compared with the first, and answering together; the folders they come from are left alone."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, log_loss

from striate import predictions
from striate.classes import Classes
from striate.errors import CheckpointError, DataError, UserError
from striate.evaluate import combine
from striate.evaluate.held_out import held_out
from striate.evaluate.saved import Saved, open_saved
from striate.evaluate.together import How, combined, compared, names_of
from striate.files import read_json
from striate.predictions import Predictions
from tests.evaluate.test_saved import K, classes_of, contents, said, written

IMAGES = 120


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Evaluations of three runs on the same images, of different quality, each looked at otherwise; one image none could read."""
    numbers = {"brightness": np.linspace(0, 1, IMAGES)}
    looks = (("center", "1 view"), ("10crop", "10 crops at shorter side 36"), ("dense", "dense at shorter side 36, mirrored too"))
    return [
        written(
            tmp_path / name,
            said(seed, IMAGES, right=1 + seed / 2),
            [("val/bad.jpg", "cut")],
            numbers,
            views=views,
            looking=looking,
        )
        for seed, (name, (views, looking)) in enumerate(zip(("one", "two", "three"), looks, strict=True))
    ]


@pytest.fixture
def members(folders: list[Path]) -> list[Saved]:
    return [open_saved(folder) for folder in folders]


# ---------------------------------------------------------------- compared


def test_every_further_one_is_compared_with_the_first(members: list[Saved]) -> None:
    found = compared(members)
    assert [(one.names, one.measure) for one in found] == [
        (("one", other), measure) for other in ("two", "three") for measure in ("top-1", "top-5", "loss")
    ]
    first, second = (member.predictions for member in members[:2])
    is_right = [one.scores.argmax(1) == first.labels for one in (first, second)]
    only_first, only_second = int((is_right[0] & ~is_right[1]).sum()), int((~is_right[0] & is_right[1]).sum())
    top1, _, loss = found[:3]
    assert (top1.first, top1.second) == (is_right[0].mean(), is_right[1].mean())
    assert (top1.only_first, top1.only_second, top1.images) == (only_first, only_second, IMAGES)
    assert top1.chance == pytest.approx(binomtest(only_first, only_first + only_second).pvalue)
    assert loss.first == pytest.approx(log_loss(first.labels, softmax(first.scores, 1), labels=range(K)), rel=1e-5)


def test_two_views_of_one_run_are_compared_by_the_names_of_their_evaluations(tmp_path: Path) -> None:
    found = [
        open_saved(written(tmp_path / "run", said(seed, IMAGES), views=views, looking=views))
        for seed, views in enumerate(("center", "10crop"))
    ]
    names = names_of(found)
    assert all(name.startswith(f"run/val-{views}-") for name, views in zip(names, ("center", "10crop"), strict=True))


def test_files_of_predictions_are_called_by_their_own_names(tmp_path: Path) -> None:
    paths = [tmp_path / "here" / f"{name}.parquet" for name in ("resnet", "vgg")]
    paths[0].parent.mkdir()
    for seed, path in enumerate(paths):
        said(seed).write(path)
    assert names_of([open_saved(path) for path in paths]) == ["resnet", "vgg"]
    assert len(set(names_of([open_saved(paths[0])] * 2))) == 2


def test_classes_in_another_order_are_matched_by_id(members: list[Saved]) -> None:
    plain = compared(members[:2])[0]
    second = members[1].predictions
    order = np.random.default_rng(0).permutation(K)
    place = np.argsort(order)
    turned = Predictions(
        second.keys,
        place[second.labels],
        second.scores[:, order],
        "logits",
        Classes(tuple(second.classes.ids[i] for i in order), ("",) * K),
    )
    other = compared([members[0], replace(members[1], predictions=turned)])[0]
    assert (other.second, other.difference, other.chance) == (plain.second, plain.difference, plain.chance)


def test_one_alone_is_neither_compared_nor_combined(members: list[Saved]) -> None:
    with pytest.raises(UserError, match="--compare: give two or more runs or evaluations"):
        compared(members[:1])
    with pytest.raises(UserError, match="--combine: give two or more runs or evaluations"):
        combined(members[:1], "arithmetic")
    with pytest.raises(UserError, match="--combine median: expected one of arithmetic, geometric, weighted, stacking, greedy"):
        combined(members, "median")  # type: ignore[arg-type]


def test_the_same_predictions_twice_are_refused(members: list[Saved], folders: list[Path]) -> None:
    twice = [members[0], replace(members[0], path=folders[1])]
    with pytest.raises(UserError, match="one and two: the same predictions twice; there is nothing to compare"):
        compared(twice)
    before = contents(folders[0].parent)
    with pytest.raises(UserError, match="one and two are the same predictions twice"):
        combined(twice, "arithmetic")
    assert contents(folders[0].parent) == before


def test_other_classes_and_other_images_are_refused(members: list[Saved]) -> None:
    second = members[1].predictions
    strangers = replace(members[1], predictions=replace(second, classes=classes_of(K, first=2)))
    elsewhere = replace(members[1], predictions=replace(second, keys=[f"test/{key}" for key in second.keys]))
    fewer = replace(members[1], predictions=second.select(np.arange(IMAGES - 5)))
    with pytest.raises(UserError, match=r"n006|n007"):
        compared([members[0], strangers])
    with pytest.raises(UserError, match="two does not have the classes of one"):
        combined([members[0], strangers], "arithmetic")
    with pytest.raises(DataError, match="Nothing to compare: no labelled image is in both"):
        compared([members[0], elsewhere])
    with pytest.raises(UserError, match="The members have no image in common"):
        combined([members[0], elsewhere], "arithmetic")
    with pytest.raises(UserError, match=r"two: 5 images are missing that other members have.*\(common\)"):
        combined([members[0], fewer], "arithmetic")
    assert compared([members[0], fewer])[0].left_out == 5


def test_other_labels_of_the_same_images_are_refused(members: list[Saved]) -> None:
    second = members[1].predictions
    wrong = replace(members[1], predictions=replace(second, labels=(second.labels + 1) % K))
    with pytest.raises(DataError, match="disagree about the labels"):
        compared([members[0], wrong])
    with pytest.raises(UserError, match="two: 120 of 120 labels differ"):
        combined([members[0], wrong], "arithmetic")


def test_nan_does_not_come_in(folders: list[Path], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folders[0] / "predictions.parquet"
    table = pq.read_table(path)
    scores = said(0, IMAGES).scores.copy()
    scores[7, 2] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(scores.reshape(-1)), K)
    pq.write_table(table.set_column(table.column_names.index("scores"), "scores", column), path)
    with pytest.raises(CheckpointError, match=r"the scores of 'val/007\.jpg' are NaN or infinite"):
        open_saved(folders[0])


# ---------------------------------------------------------------- means


def test_the_mean_of_probabilities_is_that_of_scipy(members: list[Saved], folders: list[Path]) -> None:
    found = combined(members, "arithmetic")
    labels = members[0].predictions.labels
    chances = np.mean([softmax(one.predictions.scores.astype(np.float64), 1) for one in members], axis=0)
    assert found.summary["top1"] == accuracy_score(labels, chances.argmax(1))
    assert found.summary["loss"] == pytest.approx(log_loss(labels, chances, labels=range(K)), rel=1e-5)
    kept = predictions.read(found.folder / "predictions.parquet")
    assert np.allclose(np.exp(kept.scores), chances, atol=1e-6)
    assert kept.scale == "log-probabilities"
    assert found.words == ""
    assert [name for name, _ in found.of_members] == ["one", "two", "three"]
    assert [top1 for _, top1 in found.of_members] == [(one.predictions.scores.argmax(1) == labels).mean() for one in members]


def test_the_mean_of_logits_is_that_of_scipy(members: list[Saved]) -> None:
    found = combined(members, "geometric")
    means = np.mean([log_softmax(one.predictions.scores.astype(np.float64), 1) for one in members], axis=0)
    kept = predictions.read(found.folder / "predictions.parquet")
    assert np.allclose(kept.scores, log_softmax(means, 1), atol=1e-5)
    assert found.summary["protocol"].endswith(found.summary["answered_by"])
    assert found.summary["answered_by"].startswith(
        "mean of logits of 3 members: one (1 view, raw weights of step-9), two (10 crops"
    )


def test_it_is_an_evaluation_beside_the_first_with_all_its_files(members: list[Saved], folders: list[Path]) -> None:
    before = [contents(folder) for folder in folders]
    found = combined(members, "arithmetic")
    assert [contents(folder) for folder in folders] == before
    assert found.folder.parent == folders[0].parent and found.folder.name.startswith("val-arithmetic-")
    assert set(contents(found.folder)) == {*before[0], "members.csv", "gains.csv"}
    assert read_json(found.folder / "summary.json")["protocol"] == found.summary["protocol"]
    assert (found.summary["expected"], found.summary["used"], found.summary["bad"]) == (IMAGES + 1, IMAGES, 1)
    again = combined([open_saved(folder) for folder in folders], "arithmetic")
    assert again.folder == found.folder
    other = combined(members[:2], "arithmetic")
    assert other.folder != found.folder
    assert len({found.folder, combined(members, "geometric").folder}) == 2
    assert open_saved(found.folder).numbers["brightness"].tolist() == pytest.approx(np.linspace(0, 1, IMAGES), abs=1e-6)


def test_images_that_not_all_have_are_said(members: list[Saved]) -> None:
    second = members[1].predictions
    fewer = replace(members[1], predictions=second.select(np.arange(IMAGES) % 10 != 3))
    found = combined([members[0], fewer], "arithmetic", common=True)
    assert found.summary["used"] == IMAGES - 12
    assert "12 images left out that not all have" in found.summary["protocol"]


def test_members_in_another_order_of_images_are_joined_by_key(members: list[Saved]) -> None:
    plain = combined(members[:2], "arithmetic")
    order = np.random.default_rng(3).permutation(IMAGES)
    turned = replace(members[1], predictions=members[1].predictions.select(order))
    other = combined([members[0], turned], "arithmetic")
    kept = [predictions.read(one.folder / "predictions.parquet") for one in (plain, other)]
    assert list(kept[0].keys) == list(kept[1].keys)
    assert np.array_equal(kept[0].scores, kept[1].scores)


def test_labels_it_was_scored_by_are_not_claimed_for_the_answer_together(members: list[Saved]) -> None:
    """The saved predictions keep the data set's own labels, and these are what several are scored by."""
    judged = [replace(one, summary={**(one.summary or {}), "labels": "ReaL (real.json)"}) for one in members]
    found = combined(judged, "arithmetic")
    assert found.summary["labels"] == "original"
    assert "original labels" in found.summary["protocol"]


def test_a_file_of_predictions_alone_may_be_a_member(members: list[Saved], tmp_path: Path) -> None:
    lone = tmp_path / "kept" / "lone.parquet"
    lone.parent.mkdir()
    said(7, IMAGES).write(lone)
    found = combined([open_saved(lone), members[0]], "arithmetic")
    assert found.folder.parent == lone.parent
    assert "lone (predictions alone)" in found.summary["protocol"]
    assert combined([members[0], open_saved(lone)], "arithmetic", out=tmp_path / "out").folder.parent == tmp_path / "out"


# ---------------------------------------------------------------- chosen on one half, scored on the other


@pytest.mark.parametrize("how", ["weighted", "stacking", "greedy"])
def test_only_images_that_chose_nothing_are_scored(members: list[Saved], folders: list[Path], how: How) -> None:
    before = [contents(folder) for folder in folders]
    found = combined(members, how)
    first = members[0].predictions
    for_fit = held_out(first.keys, first.labels)
    kept = predictions.read(found.folder / "predictions.parquet")
    assert list(kept.keys) == [key for key, fits in zip(first.keys, for_fit, strict=True) if not fits]
    assert found.summary["used"] == found.summary["expected"] == int((~for_fit).sum()) == IMAGES // 2
    assert f"chosen on {int(for_fit.sum())} images, scored on the other {IMAGES // 2}" in found.summary["protocol"]
    assert found.summary["top1"] == accuracy_score(first.labels[~for_fit], kept.scores.argmax(1))
    assert dict(found.of_members)["one"] == (first.scores.argmax(1) == first.labels)[~for_fit].mean()
    assert [contents(folder) for folder in folders] == before


@pytest.mark.parametrize("how", ["weighted", "stacking", "greedy"])
def test_what_is_said_of_the_judged_half_chooses_nothing(members: list[Saved], how: How) -> None:
    """Other scores for some of the images that are judged change their answers, and neither the weights nor the other answers."""
    plain = combined(members, how)
    first = members[0].predictions
    changed = np.flatnonzero(~held_out(first.keys, first.labels))[::2]
    others = []
    for one in members:
        scores = one.predictions.scores.copy()
        scores[changed] = scores[changed, ::-1]
        others.append(replace(one, predictions=replace(one.predictions, scores=scores)))
    turned = combined(others, how)
    assert turned.words == plain.words
    kept = [predictions.read(one.folder / "predictions.parquet") for one in (plain, turned)]
    is_changed = np.isin(kept[0].keys, [first.keys[row] for row in changed])
    assert np.array_equal(kept[0].scores[~is_changed], kept[1].scores[~is_changed])
    assert not np.array_equal(kept[0].scores[is_changed], kept[1].scores[is_changed])


def test_a_useless_member_gets_little_weight(members: list[Saved], tmp_path: Path) -> None:
    numbers = np.random.default_rng(5)
    good = members[2].predictions
    useless = replace(good, scores=numbers.normal(scale=3, size=good.scores.shape).astype(np.float32))
    found = combined([open_saved(written(tmp_path / "useless", useless)), members[2]], "weighted")
    weights = found.words.removeprefix("weights ").split(", ")[:2]
    assert weights[0].startswith("useless ") and float(weights[0].split()[1]) < 0.1
    assert weights[1].startswith("three ") and float(weights[1].split()[1]) > 0.9


# ---------------------------------------------------------------- words


def test_lines_tell_the_gain_and_how_alike_the_errors_are(members: list[Saved]) -> None:
    found = combined(members, "greedy")
    lines = found.lines()
    assert lines[0] == f"  one: top-1 {found.of_members[0][1]:.2%}"
    joined = combine.aligned([one.predictions for one in members], ("one", "two", "three"))
    curve = found.gains
    assert lines[3] == "  mean top-1 by number of members: " + ", ".join(f"{gain.members}: {gain.mean:.2%}" for gain in curve)
    pairs = found.correlation[np.triu_indices(3, 1)]
    assert lines[4].startswith(f"  correlation of errors between members: {pairs.mean():.2f} on average")
    assert lines[5].startswith("  weights one ")
    whole = combined(members, "arithmetic")
    wrong = [one.predictions.scores.argmax(1) != joined.labels for one in members]
    assert np.allclose(whole.correlation, np.corrcoef(wrong))


def test_members_that_are_never_wrong_have_no_correlation(tmp_path: Path) -> None:
    found = combined([open_saved(written(tmp_path / str(seed), said(seed, IMAGES, right=50))) for seed in (1, 2)], "arithmetic")
    assert np.isnan(found.correlation).all()
    assert not any("correlation" in line for line in found.lines())
    assert found.summary["top1"] == 1


def test_two_classes_have_a_top_5_of_two(tmp_path: Path) -> None:
    found = [open_saved(written(tmp_path / str(seed), said(seed, 40, classes=2))) for seed in (1, 2)]
    assert compared(found)[1].first == compared(found)[1].second == 1
    joint = combined(found, "weighted")
    assert (joint.summary["top5_k"], joint.summary["top5"]) == (2, 1)


def test_too_few_labels_to_choose_by_are_told(tmp_path: Path) -> None:
    found = []
    for seed in (1, 2):
        one = said(seed, 12)
        labels = np.where(np.arange(12) == 0, one.labels, predictions.UNLABELLED)
        written(tmp_path / str(seed), one)
        one = replace(one, labels=labels)
        path = tmp_path / f"{seed}.parquet"
        one.write(path)
        found.append(open_saved(path))
    with pytest.raises(DataError, match="expected two labelled images or more, found 1"):
        combined(found, "weighted")


def test_images_without_a_label_count_as_such(tmp_path: Path) -> None:
    found = []
    for seed in (1, 2):
        one = said(seed, IMAGES)
        labels = np.where(np.arange(IMAGES) < 6, predictions.UNLABELLED, one.labels)
        found.append(open_saved(written(tmp_path / str(seed), replace(one, labels=labels))))
    summary = combined(found, "arithmetic").summary
    assert (summary["used"], summary["unlabelled"], summary["expected"]) == (IMAGES - 6, 6, IMAGES)
    chosen = combined(found, "weighted").summary
    assert chosen["used"] == chosen["expected"] == (IMAGES - 6) // 2


def test_how_packing_changed_the_images_is_kept(tmp_path: Path) -> None:
    found = [open_saved(written(tmp_path / str(seed), said(seed), stored="shorter side 64")) for seed in (1, 2)]
    assert "images packed as shorter side 64" in combined(found, "arithmetic").summary["protocol"]


def test_members_that_were_several_themselves_say_so(members: list[Saved], tmp_path: Path) -> None:
    pair = combined(members[:2], "arithmetic")
    routing = "5 grey images by grey, the other 115 by four"
    routed = open_saved(written(tmp_path / "four", said(4, IMAGES), routing=routing))
    protocol = combined([open_saved(pair.folder), routed], "arithmetic").summary["protocol"]
    assert f"({pair.summary['answered_by']})" in protocol
    assert f"four (1 view, raw weights of step-9, {routing})" in protocol


def test_the_tables_of_members_and_gains(members: list[Saved]) -> None:
    found = combined(members, "arithmetic")
    with open(found.folder / "members.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["member", "top1", "errors with one", "errors with two", "errors with three"]
    told = np.array([[float(cell) for cell in row[2:]] for row in rows[1:]])
    np.testing.assert_allclose(told, found.correlation, atol=1e-6)
    assert [float(row[1]) for row in rows[1:]] == pytest.approx([top1 for _, top1 in found.of_members], abs=1e-6)
    with open(found.folder / "gains.csv", encoding="utf-8", newline="") as file:
        gains = list(csv.DictReader(file))
    assert [int(row["choices"]) for row in gains] == [3, 3, 1]
    assert float(gains[-1]["mean"]) == pytest.approx(found.summary["top1"], abs=1e-6)
