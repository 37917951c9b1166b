from __future__ import annotations

import pytest
import torch
from torch import nn

from striate.train.average import Average


def _layer(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def test_by_hand_with_the_warmed_up_decay() -> None:
    layer = _layer(1.0)
    average = Average(layer, 0.5)
    expected = 1.0
    for updates, value in enumerate((3.0, 5.0, -1.0, 0.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0), 1):
        nn.init.constant_(layer.weight, value)
        average.update(layer)
        decay = min(0.5, (1 + updates) / (10 + updates))  # 2/11, 3/12, 4/13, … until 0.5
        expected = decay * expected + (1 - decay) * value
        assert average.model.weight.item() == pytest.approx(expected)
        assert average.updates == updates


def test_first_update_by_hand() -> None:
    layer = _layer(1.0)
    average = Average(layer, 0.999)
    nn.init.constant_(layer.weight, 12.0)
    average.update(layer)
    assert average.model.weight.item() == pytest.approx((2 * 1 + 9 * 12) / 11)


def test_buffers_are_averaged_and_counters_copied() -> None:
    model = nn.BatchNorm1d(2)
    average = Average(model, 0.9)
    model(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    average.update(model)
    assert average.model.num_batches_tracked.item() == 1
    torch.testing.assert_close(average.model.running_mean, model.running_mean * 9 / 11)


def test_the_average_is_apart_from_the_model() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    average = Average(model, 0.9)
    assert model.training
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    before = average.model[0].weight.clone()
    nn.init.zeros_(model[0].weight)
    assert torch.equal(average.model[0].weight, before)
