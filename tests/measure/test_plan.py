"""Facts of a plan against numbers worked out another way: hand sums, a scripted clock, autograd's own saved tensors."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from striate.errors import DataError
from striate.measure import plan


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def paced(clock: Clock, sizes_and_seconds):
    for size, seconds in sizes_and_seconds:
        clock.s += seconds
        yield [0] * size


# ---------------------------------------------------------------- measuring


def test_the_first_batches_are_not_counted():
    clock = Clock()
    slow_start = [(10, 0.5)] * plan.SETTLING + [(10, 0.1)] * 100
    assert plan.drain(paced(clock, slow_start), 2.0, clock) == pytest.approx(100.0)
    assert clock.s == pytest.approx(0.5 * plan.SETTLING + 2.0), "it stops at its limit"


def test_a_loader_that_takes_long_for_a_batch_is_not_waited_for_three_times():
    clock = Clock()
    assert plan.drain(paced(clock, [(10, 5.0)] * 9), 2.0, clock) == pytest.approx(2.0)
    assert clock.s == pytest.approx(10.0), "one batch to settle, one to measure"


def test_a_loader_without_an_image_is_an_error():
    with pytest.raises(DataError, match="can be read"):
        plan.drain(iter([]), 1.0)


def test_a_step_is_repeated_until_its_time_is_up():
    clock, taken = Clock(), []

    def step() -> int:
        taken.append(1)
        clock.s += 0.25
        return 8

    assert plan.repeat(step, 1.0, clock) == pytest.approx(32.0)
    assert len(taken) == plan.SETTLING + 4


def test_a_larger_batch_pays_the_update_less_often():
    """A step of n images takes 0.2 + 0.01 n seconds: 8 of them 0.28 s, 80 of them 1.0 s."""
    assert plan.of_larger(8 / 0.28, 0.2, 8, 80) == pytest.approx(80.0)
    assert plan.of_larger(50.0, 0.0, 8, 80) == pytest.approx(50.0)


def test_what_autograd_holds_is_the_sum_of_the_activations():
    """Linear 4→6, ReLU, Linear 6→3 on 5 images: the input, the ReLU's output, once, and nothing of the weights."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    images = torch.randn(5, 4)
    held = plan.held_bytes(lambda: model(images).sum().backward(), model.parameters())
    assert held == 4 * (5 * 4 + 5 * 6)


def test_micro_batches_do_not_add_up():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    def step(parts: int) -> None:
        for part in torch.ones(8, 4).tensor_split(parts):
            model(part.clone()).sum().backward()

    whole = plan.held_bytes(lambda: step(1), model.parameters())
    assert plan.held_bytes(lambda: step(4), model.parameters()) == whole // 4


def test_gradients_are_those_of_a_step_that_is_not_watched():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 36, 2))
    images = torch.randn(2, 3, 8, 8)
    model(images).sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    plan.held_bytes(lambda: model(images).sum().backward(), model.parameters())
    assert all(torch.equal(parameter.grad, one) for parameter, one in zip(model.parameters(), expected, strict=True))


def test_bytes_of_tensors():
    assert plan.size_bytes([torch.zeros(3, 4), torch.zeros(5, dtype=torch.int64), torch.zeros((), dtype=torch.bfloat16)]) == 90


# ---------------------------------------------------------------- time


def test_hours_are_steps_and_evaluations():
    """Two and a half epochs of 10 steps, scored after each and at the end: three evaluations."""
    duration = plan.needed_s(steps=25, per_epoch=10, step_s=2.0, every=10, evaluation_s=5.0)
    assert (duration.evaluations, duration.epochs, duration.total_s) == (3, 2.5, 65.0)
    assert plan.needed_s(20, 10, 2.0, 10, 5.0).evaluations == 2, "the end of the last epoch is scored once"


def test_what_fits_into_a_time_fills_it_and_is_not_longer():
    duration = plan.fitting(1000.0, 0.1, per_epoch=50, step_s=1.0, every=50, evaluation_s=5.0)
    assert duration.total_s <= 1000.0
    assert duration.total_s > 1000.0 - 1.0 - 5.0
    assert duration.evaluations == duration.steps // 50 + 1
    seldom = plan.fitting(1000.0, 0.1, per_epoch=50, step_s=1.0, every=1, evaluation_s=5.0)
    assert seldom.evaluations * 5.0 <= 100.0 and seldom.total_s <= 1000.0
    assert plan.fitting(3.0, 0.1, 50, 1.0, 50, 5.0).steps == 0, "the last evaluation takes all of it"


# ---------------------------------------------------------------- words


def setting(**changes) -> plan.Setting:
    facts = {
        "model": "resnet50",
        "device": "cpu",
        "precision": "bf16",
        "fast_bf16": True,
        "channels_last": True,
        "compiled": False,
        "threads": 4,
        "workers": 3,
        "cores": 4,
        "source": "files",
        "images": 1_281_167,
        "size_px": 224,
        "batch_size": 256,
        "at_once": 256,
        "measured_batch": 256,
        "resident": False,
        "decoded": int(700e9),
        "shrunk_px": 0,
        "shrunk": 0,
        "may_keep": int(4e9),
    }
    return plan.Setting(**{**facts, **changes})


def forecast(
    speed: plan.Speed, memory_free: int = int(16e9), disk_free: int = int(1e12), seconds=None, **changes
) -> plan.Forecast:
    memory = plan.Memory({"parameters": int(1e8), "activations": int(4e9)}, int(4e8), int(5e9), 256, memory_free)
    disk = plan.Disk(int(2e8), plan.CHECKPOINTS, 1, 0, int(1e5), disk_free)
    return plan.forecast(setting(**changes), speed, memory, disk, seconds or plan.needed_s(1000, 100, 1.0, 100, 2.0))


NETWORK = plan.Speed(loader=3000, loader_again=3010, decoding=4000, network=300, together=295, scoring=900)
LOADER = plan.Speed(loader=120, loader_again=160, decoding=200, network=900, together=118, scoring=120)
CORES = plan.Speed(loader=300, loader_again=300, decoding=400, network=240, together=130, scoring=200)
RESIZING = plan.Speed(loader=120, loader_again=160, decoding=400, network=900, together=118, scoring=120)
PACK = "striate data pack DATA PACK"


@pytest.mark.parametrize(
    ("speed", "where", "words"),
    [
        (NETWORK, "network", "the network: 295 images/s of the 3,000 that the loader can make"),
        (LOADER, "loader", "the loader: 118 images/s of the 900 that the network could take"),
        (CORES, "cores", "the cores that loader and network share: 300 and 240 images/s alone, 130 together"),
    ],
)
def test_the_bottleneck_is_named_with_its_numbers(speed, where, words):
    found = forecast(speed)
    assert found.bottleneck == where
    assert f"bottleneck: {words}" in found.describe()


@pytest.mark.parametrize(
    ("speed", "changes", "flag"),
    [
        (LOADER, {"workers": 1}, "--workers 3"),
        (LOADER, {"device": "cuda", "workers": 3}, "--workers 4"),
        (LOADER, {"decoded": int(3e9)}, "--data.resident yes"),
        (CORES, {"shrunk_px": 256, "shrunk": int(3e9)}, "--data.shrink-px 256 --data.resident yes"),
        (LOADER, {}, PACK),
        (CORES, {}, PACK),
        (NETWORK, {"precision": "fp32"}, "--precision bf16"),
        (NETWORK, {"channels_last": False}, "--optim.channels-last"),
        (NETWORK, {}, "--img-size 160"),
        (NETWORK, {"device": "cuda"}, "--compile"),
        (NETWORK, {"device": "cuda"}, "--batch-size 512"),
        (NETWORK, {"memory_free": int(4e9)}, "--optim.accumulate"),
        (NETWORK, {"disk_free": int(8e8)}, "--out on another disk"),
        (NETWORK, {"seconds": plan.needed_s(1000, 100, 1.0, 100, 50.0)}, "--budget.evaluate-epochs"),
        (NETWORK, {"seconds": plan.fitting(60.0, 0.1, 100, 1.0, 100, 1.0)}, "--for"),
    ],
)
def test_what_to_change_names_the_flag(speed, changes, flag):
    assert any(flag in line for line in forecast(speed, **changes).advice)


@pytest.mark.parametrize(
    ("speed", "changes", "flag"),
    [
        (LOADER, {}, "--workers"),
        (LOADER, {"resident": True, "decoded": int(3e9)}, "--data.resident"),
        (LOADER, {"source": "pack"}, PACK),
        (LOADER, {"source": "memory", "resident": True}, PACK),
        (LOADER, {"decoded": int(3e9)}, PACK),
        (LOADER, {"images": 5_000_000}, PACK),
        (RESIZING, {}, PACK),
        (NETWORK, {}, PACK),
        (LOADER, {"precision": "fp32"}, "--precision"),
        (NETWORK, {"precision": "fp32", "fast_bf16": False}, "--precision"),
        (NETWORK, {"workers": 1}, "--workers"),
        (NETWORK, {"size_px": 64}, "--img-size"),
        (NETWORK, {}, "--compile"),
        (NETWORK, {}, "--optim.accumulate"),
        (NETWORK, {}, "--out"),
        (NETWORK, {}, "--budget.evaluate-epochs"),
    ],
)
def test_what_would_not_help_is_not_advised(speed, changes, flag):
    assert not any(flag in line for line in forecast(speed, **changes).advice)


def test_the_loader_alone_says_how_much_of_it_is_decoding():
    speed = "speed: loader alone 120 images/s (160 from files just read, 80% of that time decoding), network alone 900"
    assert any(line.startswith(speed) for line in forecast(LOADER).describe())
    from_pack = dataclasses.replace(LOADER, decoding=None)
    assert any("(160 from a pack just read), network" in line for line in forecast(from_pack, source="pack").describe())
    in_memory = dataclasses.replace(LOADER, loader_again=None, decoding=None)
    assert any("120 images/s (from memory), network" in line for line in forecast(in_memory, source="memory").describe())


def test_nothing_to_change_is_said():
    assert forecast(NETWORK, size_px=64).describe()[-1] == "to change: nothing that a flag could do"


def test_every_number_has_its_unit_and_the_json_is_strict():
    found = forecast(NETWORK)
    lines = "\n".join(found.describe())
    for words in (
        "4.1 GB (parameters 100 MB, activations 4 GB)",
        "4 checkpoints of 200 MB",
        "17 min for 10 epochs: 1,000 steps of 1 s",
    ):
        assert words in lines
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["total_s"] == 1020.0 and plain["memory_needed"] == int(4.1e9) and plain["disk_needed"] == int(8e8) + int(1e5)
