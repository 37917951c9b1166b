"""The machine: named random streams (numpy against torch), threads, devices asked for that are not there."""

import numpy as np
import pytest
import torch

from striate import machine
from striate.errors import ResourceError, UserError

ROWS = np.array([0, 1, 2, 77, 1_281_166, 2**31, 2**40])


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
@pytest.mark.parametrize("first", [0, 1, 10**9])
def test_uniforms_are_the_same_bits_in_numpy_and_torch(seed: int, first: int):
    ours = machine.uniforms(seed, "augment", first, ROWS, 9)
    theirs = machine.uniforms_torch(seed, "augment", first, torch.from_numpy(ROWS), 9)
    assert ours.dtype == np.float64 and theirs.dtype == torch.float64
    assert ours.shape == (len(ROWS), 9)
    assert np.array_equal(ours.view(np.int64), theirs.numpy().view(np.int64))


@pytest.mark.gpu
def test_uniforms_are_the_same_bits_on_the_gpu():
    ours = machine.uniforms(7, "augment", 3, ROWS, 9)
    assert np.array_equal(ours, machine.uniforms_torch(7, "augment", 3, torch.from_numpy(ROWS).cuda(), 9).cpu().numpy())


def test_the_stream_is_splitmix64_over_a_hash_of_its_name():
    # splitmix64 seeded with 0 begins so (Vigna's reference code): mix(golden), mix(2 golden), mix(3 golden).
    golden = 0x9E3779B97F4A7C15
    words = [machine._mix((golden * n) % 2**64) for n in (1, 2, 3)]
    assert words == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert machine._mix_N(np.array([golden], dtype=np.uint64))[0] == words[0]


def test_t13_streams_differ_by_seed_name_epoch_and_index():
    base = machine.uniforms(0, "augment", 0, np.arange(64), 4)
    others = [
        machine.uniforms(1, "augment", 0, np.arange(64), 4),
        machine.uniforms(0, "order", 0, np.arange(64), 4),
        machine.uniforms(0, "augment", 1, np.arange(64), 4),
        machine.uniforms(0, "augment", 0, np.arange(64, 128), 4),
    ]
    everything = np.concatenate([base, *others])
    assert len(np.unique(everything)) == everything.size


def test_t13_a_row_does_not_depend_on_the_rows_beside_it():
    together = machine.uniforms(3, "augment", 5, np.arange(10), 6)
    for row in range(10):
        assert np.array_equal(machine.uniforms(3, "augment", 5, np.array([row]), 6)[0], together[row])
    assert np.array_equal(machine.uniforms(3, "augment", 5, np.arange(10), 2), together[:, :2])


def test_uniforms_look_uniform_and_independent():
    u = machine.uniforms(0, "augment", 0, np.arange(20_000), 8)
    assert u.min() >= 0 and u.max() < 1
    standard_error = (1 / 12 / u.shape[0]) ** 0.5
    assert np.abs(u.mean(0) - 0.5).max() < 5 * standard_error
    assert np.abs(u.var(0) - 1 / 12).max() < 0.002
    assert np.abs(np.corrcoef(u.T) - np.eye(8)).max() < 5 / 20_000**0.5  # between draws
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 5 / 20_000**0.5  # between neighbouring images
    later = machine.uniforms(0, "augment", 1, np.arange(20_000), 8)
    assert abs(np.corrcoef(u[:, 0], later[:, 0])[0, 1]) < 5 / 20_000**0.5  # between epochs
    counts = np.histogram(u, bins=64, range=(0, 1))[0]
    chi_squared = ((counts - u.size / 64) ** 2 / (u.size / 64)).sum()
    assert chi_squared < 110  # 63 degrees of freedom: 99.98 %


@pytest.mark.parametrize("count", [1, 2, 10, 1000])
def test_permutation_holds_every_number_once_and_changes_with_the_epoch(count: int):
    first, second = (machine.permutation(0, "order", epoch, count) for epoch in (0, 1))
    assert first.dtype == np.int64
    assert np.array_equal(np.sort(first), np.arange(count))
    assert np.array_equal(first, machine.permutation(0, "order", 0, count))
    if count >= 10:
        assert not np.array_equal(first, second)


def test_every_place_of_a_permutation_sees_every_image():
    places = np.stack([machine.permutation(0, "order", epoch, 5) for epoch in range(2000)])
    counts = np.stack([np.bincount(column, minlength=5) for column in places.T])
    assert np.abs(counts - 400).max() < 90  # 5 standard deviations


def test_stream_seeds_differ_by_every_counter_and_fit_torch():
    seeds = {machine.stream_seed(0, "torch", step, micro) for step in range(50) for micro in range(4)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_dropout_is_a_pure_function_of_seed_and_step():
    ones = torch.ones(1000)
    machine.reseed_torch(0, 7, 0)
    first = torch.nn.functional.dropout(ones)
    torch.rand(13)
    machine.reseed_torch(0, 7, 0)
    assert torch.equal(torch.nn.functional.dropout(ones), first)
    machine.reseed_torch(0, 8, 0)
    assert not torch.equal(torch.nn.functional.dropout(ones), first)


# ---------------------------------------------------------------- threads, determinism


def test_threads_follow_the_environment_where_it_makes_sense(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.threads_wanted() == 3
    for nonsense in ("", "0", "-1", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
        assert machine.threads_wanted() == machine.cores() >= 1


def test_determinism_gives_the_flags_back():
    before = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark)
    for wanted in (True, False):
        with machine.determinism(wanted):
            assert torch.are_deterministic_algorithms_enabled() is wanted
        assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before


def test_the_description_is_plain_and_names_what_bits_depend_on():
    facts = machine.describe(torch.device("cpu"))
    assert {"torch", "numpy", "pillow", "opencv", "threads", "processor", "device", "striate"} <= facts.keys()
    assert all(isinstance(value, (str, int, float)) for value in facts.values())


def test_a_copy_goes_on_beside_the_work_on_cuda_only(monkeypatch: pytest.MonkeyPatch):
    source, asked = torch.zeros(3), []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, **options: asked.append((device.type, options)) or tensor)
    for name in ("cpu", "mps", "cuda"):
        machine.copied(source, torch.device(name))
    assert asked == [(name, {"non_blocking": name == "cuda"}) for name in ("cpu", "mps", "cuda")]


# ---------------------------------------------------------------- devices


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(machine, "gpu_present", lambda: False)
    return monkeypatch


def test_auto_takes_the_cpu_where_there_is_no_gpu(no_cuda: pytest.MonkeyPatch):
    assert machine.choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cuda", "--device cuda: this machine has no NVIDIA GPU. Use --device cpu"),
        ("cuda:3", "--device cuda:3: this machine has no NVIDIA GPU"),
        ("mps", "--device mps: this machine has no Apple GPU"),
        ("tpu", "--device tpu: not a device name. Use auto, cpu, cuda"),
        ("meta", "--device meta: striate runs on cpu, cuda and mps"),
        ("", "not a device name"),
    ],
)
def test_a_device_that_is_not_there_is_a_usage_error(no_cuda: pytest.MonkeyPatch, name: str, words: str):
    with pytest.raises(UserError) as caught:
        machine.choose_device(name)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["auto", "cuda"])
@pytest.mark.parametrize(("cuda", "remedy"), [(None, "without the +cpu suffix"), ("13.0", "Update the NVIDIA driver")])
def test_a_gpu_that_is_there_and_unusable_is_named_never_replaced_by_the_cpu(no_cuda, name, cuda, remedy):
    no_cuda.setattr(machine, "gpu_present", lambda: True)
    no_cuda.setattr(torch.version, "cuda", cuda)
    with pytest.raises(ResourceError) as caught:
        machine.choose_device(name)
    assert remedy in str(caught.value)
    assert ("--device cpu" in str(caught.value)) is (name == "auto")
    assert machine.choose_device("cpu") == torch.device("cpu")


def test_a_gpu_that_fails_at_its_first_tensor_is_named(no_cuda: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nmore lines")

    no_cuda.setattr(torch.cuda, "is_available", lambda: True)
    no_cuda.setattr(torch.cuda, "device_count", lambda: 1)
    no_cuda.setattr(torch, "zeros", fail)
    with pytest.raises(ResourceError, match="no kernel image is available There is a GPU"):
        machine.choose_device("cuda:0")
    with pytest.raises(UserError, match=r"this machine has 1 GPU\(s\), numbered from 0"):
        machine.choose_device("cuda:1")


@pytest.mark.parametrize(
    ("flags", "expected"), [({"avx2", "amx_bf16"}, "bf16"), ({"avx512_bf16"}, "bf16"), ({"avx2"}, "fp32"), (set(), "fp32")]
)
def test_auto_precision_on_a_cpu_is_what_it_multiplies_fast(monkeypatch, flags, expected):
    monkeypatch.setattr(machine, "cpu_flags", lambda: flags)
    assert machine.choose_precision("auto", torch.device("cpu")) == expected
    assert machine.choose_precision("fp16", torch.device("cpu")) == "fp16"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_precision_on_a_gpu_follows_its_capability(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert machine.choose_precision("auto", torch.device("cuda")) == expected
