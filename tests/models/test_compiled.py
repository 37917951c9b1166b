"""Compiled inference against the plain network, and what happens where it cannot be had."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from striate.errors import ResourceError, UserError
from striate.models import compiled
from striate.models.blocks import ConvBNReLU

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")


def network() -> nn.Module:
    """Two convolutions with batch norm of some use, and a linear layer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        ConvBNReLU(3, 16, 3, 2, 1), ConvBNReLU(16, 32, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    )
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return model.to(memory_format=torch.channels_last)


def photos(count: int) -> torch.Tensor:
    images = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))
    return images.contiguous(memory_format=torch.channels_last)


@needs_compiler
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.02)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, while it compiles
def test_logits_are_those_of_the_plain_network(precision, tolerance):
    model = network().eval()
    with torch.no_grad():
        expected = {count: model(photos(count)) for count in (8, 3)}
    fast = compiled.for_inference(model, precision)
    for count in (8, 3):  # a last, short batch
        found = fast(photos(count)).float()
        assert found.shape == (count, 10)
        assert not found.requires_grad
        error = (found - expected[count]).abs().max() / expected[count].abs().max()
        assert error < tolerance
        sure = expected[count].topk(2).values.diff().abs().flatten() > 4 * tolerance * expected[count].abs().max()
        assert sure.any()
        assert torch.equal(found.argmax(1)[sure], expected[count].argmax(1)[sure])


class Recorded(nn.Module):
    """Stands in for the compiled code and notes which sizes it was compiled for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        return self.model(images)


@pytest.fixture(name="without_compiling")
def _without_compiling(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, **options: Recorded(model))
    monkeypatch.setattr(shutil, "which", lambda command: "/usr/bin/" + command)


def test_short_batches_are_filled_up_and_cost_no_second_compilation(without_compiling):
    model = network().eval()
    fast = compiled.for_inference(model, "fp32")
    for count in (8, 5, 8, 1):
        with torch.no_grad():
            expected = model(photos(count))
        torch.testing.assert_close(fast(photos(count)), expected)
    assert set(fast.network.shapes) == {(8, 3, 32, 32)}
    assert fast(photos(9)).shape == (9, 10)


def test_a_network_with_another_output_gets_its_batches_as_they_are(without_compiling):
    class Named(nn.Module):
        def forward(self, images):
            return {"logits": images.mean((2, 3))}

    fast = compiled.for_inference(Named(), "fp32")
    assert [len(fast(photos(count))["logits"]) for count in (8, 3)] == [8, 3]
    assert [shape[0] for shape in fast.network.shapes] == [8, 3]


def test_it_is_in_evaluation_mode_and_refuses_to_train(without_compiling):
    fast = compiled.for_inference(network().train(), "fp32")
    assert not any(layer.training for layer in fast.network.modules() if layer is not fast.network)
    fast.train()
    with pytest.raises(UserError, match="cannot be trained"):
        fast(photos(1))


@pytest.mark.parametrize(("chosen", "named"), [(None, "'g++'"), ("ccache-none -O2", r"'ccache-none' \(which \$CXX names\)")])
def test_no_compiler_is_an_error_with_a_way_out(monkeypatch, chosen, named):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    if chosen:
        monkeypatch.setenv("CXX", chosen)
    with pytest.raises(
        ResourceError, match=f"C\\+\\+ compiler, and {named.replace('g++', 'g[+][+]')} was not found.*apt-get"
    ) as caught:
        compiled.for_inference(network(), "bf16")
    assert "--compile" in str(caught.value)


@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiler_that_fails_is_said(monkeypatch):
    def failing(model, **options):
        def refuse(graph, example_inputs):
            raise OSError("Python.h: no such file")

        return _compile(model, backend=refuse)

    _compile = torch.compile
    monkeypatch.setattr(torch, "compile", failing)
    torch.compiler.reset()
    with pytest.raises(ResourceError, match=r"could not be compiled: .*Leave out --compile"):
        compiled.for_inference(network(), "fp32")(photos(2))
