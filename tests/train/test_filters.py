"""Filters that grow beyond a bound are scaled back to it, as ZFNet's paper does."""

from __future__ import annotations

import torch
from torch import nn

from striate.train import filters


def _rms(layer: nn.Conv2d) -> torch.Tensor:
    return layer.weight.detach().square().mean((1, 2, 3)).sqrt()


def test_a_filter_by_hand() -> None:
    """3 and 4 have a root mean square of sqrt(12.5); halved to sqrt(12.5) / 2 they are 1.5 and 2."""
    model = nn.Sequential(nn.Conv2d(1, 3, (1, 2)))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 4.0], [0.1, 0.3], [0.0, 0.0]]).view(3, 1, 1, 2))
    filters.limit_rms(model, 12.5**0.5 / 2)
    torch.testing.assert_close(model[0].weight.view(3, 2), torch.tensor([[1.5, 2.0], [0.1, 0.3], [0.0, 0.0]]))


def test_small_filters_keep_their_bits_and_large_ones_come_down_to_the_bound() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3, groups=2), nn.ReLU(), nn.Conv2d(16, 4, 1), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.mul_(torch.logspace(-1.5, 1.5, len(layer.weight)).view(-1, 1, 1, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for memory in (torch.contiguous_format, torch.channels_last):
        model.load_state_dict(before)
        model.to(memory_format=memory)
        filters.limit_rms(model, 0.1)
        for name in ("0", "2"):
            old, new = before[f"{name}.weight"], model.get_submodule(name).weight.detach()
            small = old.square().mean((1, 2, 3)).sqrt() <= 0.1
            assert 0 < small.sum() < len(small)
            assert torch.equal(new[small], old[small])
            torch.testing.assert_close(_rms(model.get_submodule(name))[~small], torch.full((int((~small).sum()),), 0.1))
            ratio = new[~small] / old[~small]  # one factor for all of a filter
            torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio))
    for name in ("0.bias", "2.bias", "4.weight", "4.bias"):
        assert torch.equal(model.state_dict()[name], before[name])


def test_layers_that_are_not_trained_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    filters.limit_rms(model, 0.01)
    assert torch.equal(model[0].weight, before)
    assert float(_rms(model[1]).max()) < 0.0101
