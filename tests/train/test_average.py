from __future__ import annotations

import pytest
import torch
from torch import nn

from striate.train.average import Average, measure_statistics


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


def test_swa_by_hand_is_the_plain_mean() -> None:
    layer = _layer(7.0)
    mean = Average(layer, None)
    for value in (1.0, 2.0, 6.0):
        nn.init.constant_(layer.weight, value)
        mean.update(layer)
    assert mean.model.weight.item() == pytest.approx(3.0)
    assert mean.updates == 3


def test_until_its_first_update_it_follows() -> None:
    model = nn.BatchNorm1d(2)
    mean = Average(model, None)
    model(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    nn.init.constant_(model.weight, 4.0)
    mean.follow(model)
    assert all(torch.equal(mean.model.state_dict()[name], value) for name, value in model.state_dict().items())
    assert mean.updates == 0


def test_statistics_are_those_of_the_images() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)).eval()
    batches = [torch.randn(5, 3, 8, 8) + number for number in range(3)]
    weights = {name: value.clone() for name, value in model.state_dict().items() if "running" not in name and "num" not in name}
    measure_statistics(model, batches)
    with torch.no_grad():
        first = [model[0](batch) for batch in batches]
    torch.testing.assert_close(model[1].running_mean, torch.stack([one.mean((0, 2, 3)) for one in first]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack([one.var((0, 2, 3)) for one in first]).mean(0))
    assert int(model[1].num_batches_tracked) == 3 and model[1].momentum == 0.1
    assert not any(layer.training for layer in model.modules())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())


def test_statistics_are_those_of_torchs_update_bn() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)).eval()
    theirs = torch.optim.swa_utils.AveragedModel(model)
    batches = [torch.randn(4, 3, 6, 6) for _ in range(4)]
    torch.optim.swa_utils.update_bn(batches, theirs)
    measure_statistics(model, batches)
    for place in (1, 4):
        torch.testing.assert_close(model[place].running_mean, theirs.module[place].running_mean)
        torch.testing.assert_close(model[place].running_var, theirs.module[place].running_var)
