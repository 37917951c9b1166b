"""Timing: networks in turns, what is counted, what is refused. How fast anything is, is not tested."""

import time

import pytest
import torch
from torch import nn

from striate import machine
from striate.errors import ResourceError, UserError
from striate.measure import latency as latencies
from striate.measure.latency import latency


class Slow(nn.Module):
    """Sleeps, and says when it was called and with what."""

    def __init__(self, name: str, calls: list[tuple[str, int, bool]], sleep_s: float) -> None:
        super().__init__()
        self.name, self.calls, self.sleep_s = name, calls, sleep_s

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append((self.name, len(images), torch.is_grad_enabled()))
        time.sleep(self.sleep_s)
        return images.mean((1, 2, 3))


def test_networks_run_in_turns_and_the_median_is_theirs():
    calls: list[tuple[str, int, bool]] = []
    networks = {name: (lambda name=name, wait=wait: Slow(name, calls, wait)) for name, wait in (("a", 0.004), ("b", 0.02))}
    timing = latency(networks, {"a": (3, 8), "b": (1, 16)}, (2, 1), device="cpu", limit_s=0.05)
    assert [(row.name, row.batch, row.size_px) for row in timing.rows] == [("a", 1, 8), ("a", 2, 8), ("b", 1, 16), ("b", 2, 16)]
    for row in timing.rows:
        assert row.least_s <= row.median_s <= row.most_s
        assert row.least_s >= {"a": 0.004, "b": 0.02}[row.name]
        assert row.passes == 5  # the time was up before, and five there are in any case
        assert row.images_per_s == row.batch / row.median_s
    assert "".join(name for name, batch, _ in calls if batch == 1)[-10:] == "ababababab"
    assert not any(has_gradient for _, _, has_gradient in calls)
    assert (timing.precision, timing.compiled, timing.threads) == ("fp32", False, machine.threads_wanted())
    assert len(timing.lines()) == 5 and "b  batch   2:" in timing.lines()[-1]
    assert [row["batch"] for row in timing.to_json("b")["rows"]] == [1, 2]


def test_the_peak_holds_what_a_pass_takes():
    class Hungry(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.new_ones(20_000_000).sum()  # 80 MB

    timing = latency({"hungry": Hungry}, {"hungry": (3, 8)}, (1,), device="cpu", limit_s=0.1)
    assert timing.rows[0].peak_bytes is None or 75e6 < timing.rows[0].peak_bytes < 120e6


def test_precision_and_threads():
    seen = []

    class Look(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            output = self.layer(images)
            seen.append((output.dtype, torch.get_num_threads(), images.is_contiguous(memory_format=torch.channels_last)))
            return output

    before = torch.get_num_threads()
    latency({"look": Look}, {"look": (3, 8)}, (1,), device="cpu", precision="bf16", limit_s=0.01)
    assert set(seen) == {(torch.bfloat16, machine.threads_wanted(), True)}
    assert torch.get_num_threads() == before


def test_what_is_refused():
    with pytest.raises(UserError, match="--batch-size 0: expected 1 or more"):
        latency({}, {}, (1, 0), device="cpu")

    class Full(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("no room")

    with pytest.raises(ResourceError, match="full: a pass of 3 images does not fit into the memory"):
        latency({"full": Full}, {"full": (3, 8)}, (3,), device="cpu")


def test_compiled_networks_come_from_where_evaluation_takes_them(monkeypatch):
    asked = []
    monkeypatch.setattr(latencies.compiling, "for_inference", lambda model, precision: asked.append(precision) or model)
    timing = latency({"a": lambda: nn.Conv2d(3, 2, 1)}, {"a": (3, 8)}, (1,), device="cpu", compiled=True, limit_s=0.01)
    assert asked == ["fp32"] and timing.compiled and "compiled" in timing.lines()[0]


@pytest.mark.gpu
def test_on_a_gpu():
    timing = latency({"a": lambda: nn.Conv2d(3, 64, 3)}, {"a": (3, 224)}, (1, 8), device="cuda", limit_s=1)
    assert timing.rows[1].peak_bytes >= 8 * 64 * 222 * 222 * 4
