"""Tables of strangers: the formats that are about, odd ones, and what is no table at all."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from striate.doctor import examination, table
from striate.errors import DataError, StriateError, UserError


@pytest.fixture
def written(tmp_path):
    def write(text, name="log.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return write


def test_keras(written):
    history = table.read(
        written("epoch,accuracy,loss,lr,val_accuracy,val_loss\n0,0.1,2.3,0.01,0.12,2.25\n1,0.3,1.9,0.001,0.28,1.95\n"), classes=10
    )
    assert history.steps["epoch"].tolist() == [0, 1]
    assert history.steps["loss"].tolist() == [2.3, 1.9]
    assert history.steps["top1"].tolist() == [0.1, 0.3]
    assert history.steps["lr"].tolist() == [0.01, 0.001]
    assert history.scores("val")["top1"].tolist() == [0.12, 0.28]
    assert history.scores("val")["loss"].tolist() == [2.25, 1.95]
    assert history.is_by_epoch
    assert history.classes == 10


def test_keras_with_its_long_names(written):
    header = "epoch,learning_rate,loss,sparse_categorical_accuracy,sparse_top_k_categorical_accuracy,val_loss,"
    history = table.read(
        written(header + "val_sparse_categorical_accuracy,val_sparse_top_k_categorical_accuracy\n0,.1,2.3,.1,.5,2.2,.12,.6\n")
    )
    assert history.steps["top1"].tolist() == [0.1]
    assert history.scores("val")["top1"].tolist() == [0.12]
    assert history.scores("val")["top5"].tolist() == [0.6]


def test_lightning_has_a_row_for_training_and_one_for_scores(written):
    text = (
        "epoch,step,lr-SGD,train_loss_epoch,train_loss_step,val_acc,val_loss\n"
        "0,49,0.1,,2.3,,\n0,99,0.1,,2.1,,\n0,99,,,,0.2,2.0\n0,99,,2.2,,,\n1,149,0.1,,1.9,,\n1,199,,,,0.3,1.8\n1,199,,2.0,,,\n"
    )
    history = table.read(written(text))
    assert np.isfinite(history.steps["loss"]).sum() == 3
    assert history.scores("val")["step"].tolist() == [99, 199]
    assert history.scores("val")["top1"].tolist() == [0.2, 0.3]
    assert history.scores("val")["epoch"].tolist() == [0, 1]


def test_timm_has_percent(written):
    history = table.read(
        written("epoch,train_loss,eval_loss,eval_top1,eval_top5,lr\n0,6.9,6.8,0.5,2.1,0.05\n1,6.1,5.7,4.2,13.0,0.1\n")
    )
    assert history.scores("val")["top1"].tolist() == pytest.approx([0.005, 0.042])
    assert history.scores("val")["top5"].tolist() == pytest.approx([0.021, 0.13])
    assert history.steps["loss"].tolist() == [6.9, 6.1]


def test_ultralytics_pads_its_header(written):
    text = (
        "                  epoch,             train/loss,  metrics/accuracy_top1,  metrics/accuracy_top5,               val/loss,"
        "                 lr/pg0,                 lr/pg1\n"
        "                      1,                 2.2972,                0.25611,                0.76128,                2.09375,"
        "               0.000237,               0.000237\n"
    )
    history = table.read(written(text))
    assert history.steps["loss"].tolist() == [2.2972]
    assert history.scores("val")["top1"].tolist() == [0.25611]
    assert history.scores("val")["top5"].tolist() == [0.76128]
    assert history.steps["lr"].tolist() == [0.000237]


@pytest.mark.parametrize(
    "header",
    [
        "Epoch,Train Loss,Train Acc@1,Test Loss,Test Acc@1,Test Acc@5",
        "epoch\ttrain_loss\ttrain_acc1\tvalid_loss\tval_prec1\tval_prec5",
    ],
)
def test_like_torchvision(written, header):
    separator = "\t" if "\t" in header else ","
    history = table.read(written(header + "\n" + separator.join(["0", "2.3", "11.5", "2.2", "14.0", "61.0"]) + "\n"))
    assert history.steps["top1"].tolist() == pytest.approx([0.115])
    assert history.scores("val")["top1"].tolist() == pytest.approx([0.14])
    assert history.scores("val")["top5"].tolist() == pytest.approx([0.61])


def test_error_rates_become_accuracies(written):
    history = table.read(written("epoch,loss,val_top1_err\n0,2.3,0.9\n1,2.0,0.7\n"))
    assert history.scores("val")["top1"].tolist() == pytest.approx([0.1, 0.3])


def test_half_a_percent_of_200_classes_is_percent(written):
    history = table.read(written("epoch,loss,acc\n0,5.298,0.5\n1,5.298,0.51\n"))
    assert history.steps["top1"].tolist() == pytest.approx([0.005, 0.0051])
    history = table.read(written("epoch,loss,acc\n0,2.1,0.5\n1,2.0,0.51\n"))
    assert history.steps["top1"].tolist() == pytest.approx([0.5, 0.51])


def test_semicolons_with_decimal_commas_bom_crlf_and_blank_lines(written):
    text = "\ufeffepoch;loss;val_loss\r\n\r\n0;2,3;2,2\r\n1;1,9;\r\n\r\n"
    history = table.read(written(text))
    assert history.steps["loss"].tolist() == [2.3, 1.9]
    assert history.scores("val")["loss"].tolist() == [2.2]


def test_epochs_repeated_after_a_resume_count_once_as_they_came_last(written):
    history = table.read(written("epoch,loss\n0,3\n1,2\n2,1.5\nepoch,loss\n1,2.1\n2,1.6\n3,1.2\n"))
    assert history.steps["epoch"].tolist() == [0, 1, 2, 3]
    assert history.steps["loss"].tolist() == [3, 2.1, 1.6, 1.2]


def test_one_row(written):
    history = table.read(written("epoch,loss\n1,2.3"))
    assert history.steps["loss"].tolist() == [2.3]


def test_short_rows_and_words_for_nothing(written):
    history = table.read(written("epoch,loss,val_loss,val_acc\n0,2.3\n1,2.0,None,n/a\n2,1.9,1.8,55%\n"))
    assert history.steps["loss"].tolist() == [2.3, 2.0, 1.9]
    assert history.scores("val")["top1"].tolist() == pytest.approx([0.55])


def test_printed_tensors(written):
    history = table.read(written('step,loss\n0,"tensor(2.3, grad_fn=<NllLossBackward0>)"\n1,tensor(2.2)\n'))
    assert history.steps["loss"].tolist() == [2.3, 2.2]
    assert not history.is_by_epoch


def test_nan_to_the_end_is_told_and_nan_between_numbers_is_a_gap(written):
    history = table.read(written("epoch,loss,val_loss\n0,2.3,2.2\n1,9.1,nan\n2,nan,nan\n3,nan,nan\n"))
    assert [step for step, _ in history.broken] == [2, 3, 1, 2, 3]
    sparse = table.read(written("epoch,loss,val_loss\n0,2.3,nan\n0,nan,2.2\n1,2.0,nan\n1,nan,2.1\n"))
    assert sparse.broken == []
    assert table.read(written("epoch,loss\n0,nan\n1,nan\n")).broken == [(0, "loss"), (1, "loss")]


def test_of_several_losses_the_plain_one_counts(written):
    history = table.read(written("epoch,box_loss,best_val_loss,aux_loss,train_loss,epoch_time\n0,1,2,3,4,5\n"))
    assert history.steps["loss"].tolist() == [4]
    assert history.scores("val") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("epoch,loss\n", "no row"),
        ("a,b,c\n1,2,3\n", "columns are a, b, c"),
        ("loss,acc\n1,2\n", "name one 'epoch'"),
        ("epoch,lr\n1,2\n", "a loss or an accuracy"),
        ("1,2,3\n4,5,6\n", "Names of the columns"),
        ("epoch,loss\n,\n0,\n", "none of them has a loss"),
        ("epoch,loss\n,2.3\n", "says its epoch"),
        (b"\xff\xfe\x00\x01", "not UTF-8"),
        (b"\x00\x01\x02epoch,loss\n", "not a text file"),
        ("<html><body>no</body></html>", "columns are"),
        ('epoch,loss\n0,"' + "x" * 200_000, "no row of a CSV file"),
    ],
)
def test_no_table_is_refused_with_what_is_needed(written, text, words):
    path = written(text)
    with pytest.raises(UserError, match=words) as caught:
        table.read(path)
    assert str(path) in str(caught.value)


def test_a_value_that_is_no_number_names_its_row(written):
    with pytest.raises(DataError, match=r"line 3, column 'loss': 'two' is no number"):
        table.read(written("epoch,loss\n0,2.3\n1,two\n"))


@pytest.mark.parametrize("value", ["1e6", "-0.5", "101"])
@pytest.mark.parametrize("column", ["acc", "val_acc", "val_top5"])
def test_an_accuracy_that_is_none_names_its_row(written, column, value):
    with pytest.raises(UserError, match=rf"line 3, column '{column}': {value} is no accuracy"):
        table.read(written(f"epoch,loss,{column}\n0,2.3,0.1\n1,2.0,{value}\n"))


def test_rounding_is_no_accuracy_above_one_hundred(written):
    assert table.read(written("epoch,loss,acc\n0,2.3,100.0001\n1,2,-0.0001\n")).steps["top1"].tolist() == [1.0, 0.0]


def test_a_squared_error_is_no_accuracy(written):
    history = table.read(written("epoch,loss,mean_squared_error\n0,2.3,812.5\n"))
    assert np.isnan(history.steps["top1"]).all()


def test_an_underscore_makes_no_number(written):
    with pytest.raises(DataError, match="'1_0' is no number"):
        table.read(written("epoch,loss\n0,1_0\n"))


def test_an_epoch_of_so_many(written):
    history = table.read(written("epoch,step,loss\n0/20,[5/100],2.3\n1/20,[10 / 100],2.0\n"))
    assert history.steps["epoch"].tolist() == [0, 1]
    assert history.steps["step"].tolist() == [5, 10]


def test_numbers_beyond_32_bit_floats_are_infinite(written):
    history = table.read(written("epoch,loss\n0,2.3\n1,1e30\n2,1e39\n3,1.7e308\n"))
    assert [step for step, _ in history.broken] == [2, 3]
    examined = examination.after(history)  # warnings are errors here
    assert not [why for why in examined.unchecked.values() if why.startswith("failed")]


def test_what_is_no_file(tmp_path):
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(UserError, match="is needed"):
            table.read(path)


def test_nothing_makes_it_crash(written):
    draw = random.Random(0)
    pieces = ["epoch", "loss", "val_loss", "acc", "1e400", "-1", "nan", "inf", "0", "7", "x", "%", '"', *",;\t\n\ufeff", "\r\n"]
    for _ in range(1500):
        text = "epoch,loss,val_acc\n" * draw.randrange(2) + "".join(draw.choices(pieces, k=draw.randrange(40)))
        try:
            history = table.read(written(text))
        except StriateError as error:
            assert len(str(error)) < 1000
        else:
            assert len(history.steps) + sum(map(len, history.evaluations.values())) > 0
            assert not any(math.isinf(value) for value in history.steps["loss"])


@pytest.mark.parametrize(
    ("name", "value", "bytes_"),
    [
        ("gpu_mem_gb", 2.5, 2.5e9),
        ("GPU memory (gib)", 2, 2 * 2**30),
        ("mem_mb", 700, 7e8),
        ("ram [mib]", 3, 3 * 2**20),
        ("memory", 3e9, 3e9),
        ("memory", 1500, 1.5e9),
        ("GPU_mem", 2.5, 2.5e9),
        ("rss_bytes", 300, 300),
    ],
)
def test_memory_with_its_unit_or_by_its_size(written, name, value, bytes_):
    history = table.read(written(f"epoch,loss,{name}\n0,2.3,{value}\n1,2.0,{value}\n"))
    assert history.steps["memory_bytes"].tolist() == pytest.approx([bytes_] * 2)
    assert history.steps["loss"].tolist() == [2.3, 2.0]


@pytest.mark.parametrize("name", ["images_per_s", "img/s", "samples/sec", "throughput", "imgs_per_second", "it/s"])
def test_images_per_second(written, name):
    history = table.read(written(f"epoch,loss,{name}\n0,2.3,810\n1,2.0,640\n"))
    assert history.steps["images_per_s"].tolist() == [810, 640]


@pytest.mark.parametrize(
    ("name", "seconds", "clock", "speed"),
    [
        ("elapsed", [10, 20, 30, 40], [10, 20, 30, 40], None),
        ("time", [11, 20, 31, 40], [11, 20, 31, 40], None),
        ("epoch_time", [10, 10, 12.5, 20], None, [0.1, 0.1, 0.08, 0.05]),
        ("seconds", [10, 12, 14, 16], None, [0.1, 1 / 12, 1 / 14, 1 / 16]),
    ],
    ids=["elapsed", "a clock", "lengths", "rising lengths"],
)
def test_seconds_are_a_clock_or_the_length_of_each_epoch(written, name, seconds, clock, speed):
    rows = "".join(f"{epoch},2.{9 - epoch},{one}\n" for epoch, one in enumerate(seconds))
    history = table.read(written(f"epoch,loss,{name}\n{rows}"))
    for column, values in (("elapsed_s", clock), ("epochs_per_s", speed)):
        found = history.steps[column]
        assert np.isnan(found).all() if values is None else found.tolist() == pytest.approx(values), column


def test_waiting_for_data_is_a_share_of_the_time(written):
    history = table.read(written("epoch,loss,epoch_time,data_time\n0,2.3,10,1\n1,2.2,10,4\n2,2.1,8,6\n"))
    assert history.steps["wait_share"].tolist() == pytest.approx([0.1, 0.4, 0.75])


def test_what_a_machine_tells_is_no_loss_and_no_epoch(written):
    header = "epoch,train_loss,time_left,memory_free,total_memory,eta_seconds,images_seen"
    history = table.read(written(f"{header}\n0,2.3,100,5,6,7,8\n1,2.0,50,5,6,7,8\n"))
    assert history.steps["loss"].tolist() == [2.3, 2.0] and history.steps["epoch"].tolist() == [0, 1]
    for column in ("memory_bytes", "images_per_s", "elapsed_s", "epochs_per_s"):
        assert np.isnan(history.steps[column]).all(), column
    with pytest.raises(UserError, match="a loss or an accuracy"):
        table.read(written("epoch,time,memory\n0,1,2\n"))


@pytest.mark.parametrize("order", ["val_loss,val_acc,ema_val_acc", "ema_val_acc,val_loss,val_acc"])
def test_scores_of_averaged_weights_stand_beside_those_of_the_raw_ones(written, order):
    value = {"val_loss": (2.2, 1.9), "val_acc": (14, 22), "ema_val_acc": (9, 16)}
    names = order.split(",")
    rows = "".join(f"{epoch},2.{4 - epoch}," + ",".join(str(value[name][epoch]) for name in names) + "\n" for epoch in (0, 1))
    history = table.read(written(f"epoch,loss,{order}\n{rows}"))
    raw, averaged = history.scores("val", "raw"), history.scores("val", "EMA")
    assert raw["loss"].tolist() == [2.2, 1.9] and raw["top1"].tolist() == pytest.approx([0.14, 0.22])
    assert averaged["top1"].tolist() == pytest.approx([0.09, 0.16])
    assert history.steps["loss"].tolist() == [2.4, 2.3] and np.isnan(history.steps["top1"]).all()


def test_swa_and_a_loss_of_averaged_weights_in_training(written):
    history = table.read(written("epoch,loss,ema_loss,val_acc,val_acc_swa\n0,2.3,9,0.1,0.2\n1,2.0,9,0.2,0.4\n"))
    assert history.steps["loss"].tolist() == [2.3, 2.0]
    assert history.scores("val", "raw")["top1"].tolist() == [0.1, 0.2]
    assert history.scores("val", "EMA")["top1"].tolist() == [0.2, 0.4]
