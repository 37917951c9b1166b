"""Effective receptive fields of networks for which they can be worked out."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from striate.errors import DataError, UserError
from striate.measure import listing
from striate.measure.effective import HELD, effective, on_photos


def constant(*kernels: int) -> nn.Sequential:
    """Convolutions one behind the other, all weights 1."""
    layers = [nn.Conv2d(1, 1, kernel, padding=kernel // 2, bias=False) for kernel in kernels]
    for layer in layers:
        nn.init.ones_(layer.weight)
    return nn.Sequential(*layers)


def test_a_single_convolution_looks_at_its_window_evenly():
    found = effective(constant(5), torch.rand(2, 1, 21, 21))
    assert (found.layer, found.unit, found.images) == ("0", (10, 10), 2)
    expected = np.zeros((21, 21))
    expected[8:13, 8:13] = 1 / 25
    np.testing.assert_allclose(found.map_SS, expected, atol=1e-7)
    assert found.std_px == pytest.approx((2**0.5, 2**0.5), abs=1e-6)  # variance (5 x 5 - 1) / 12
    assert found.side_px == 5 == found.theoretical.size_px
    assert found.middle_px == (10, 10)


def test_stacked_convolutions_approach_a_gaussian_whose_variance_adds_up():
    """Luo et al. 2016, section 2: n kernels of side k have the variance n (k x k - 1) / 12, so the field grows with the root."""
    found = effective(constant(*[3] * 12), torch.rand(1, 1, 41, 41))
    variance = 12 * (9 - 1) / 12
    assert found.std_px == pytest.approx((variance**0.5,) * 2, rel=1e-5)
    row_S = found.map_SS.sum(0)
    gaussian_S = np.exp(-((np.arange(41) - 20) ** 2) / (2 * variance))
    np.testing.assert_allclose(row_S, gaussian_S / gaussian_S.sum(), atol=0.003)
    assert found.theoretical.size_px == 25
    assert found.side_px < found.theoretical.size_px
    held = found.map_SS[20 - found.side_px // 2 : 21 + found.side_px // 2, 20 - found.side_px // 2 : 21 + found.side_px // 2]
    assert held.sum() >= HELD > held[1:-1, 1:-1].sum()


def test_the_first_of_two_layers_by_name_though_an_activation_overwrites_it():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3))
    nn.init.constant_(model[0].bias, -100)  # the activation lets nothing through
    assert effective(model, torch.rand(1, 3, 16, 16), "0").side_px == 3
    with pytest.raises(UserError, match="no finite gradient reaches the image"):
        effective(model, torch.rand(1, 3, 16, 16), "2")


def test_the_network_is_as_before_and_wrong_layers_are_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))
    effective(model, torch.rand(1, 3, 16, 16))
    assert model.training and all(weight.grad is None for weight in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())
    with pytest.raises(UserError, match="'4' is no layer"):
        effective(model, torch.rand(1, 3, 16, 16), "4")
    with pytest.raises(UserError, match="expected a layer with a grid"):
        effective(model, torch.rand(1, 3, 16, 16), "3")
    with pytest.raises(UserError, match="Sequential: it has no convolution that sees a part of the image only; name a layer"):
        effective(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 2)), torch.rand(1, 3, 4, 4))


def test_photos_of_a_folder_and_a_bad_one(tmp_path):
    rng = np.random.default_rng(0)
    for place in range(3):
        Image.fromarray(rng.integers(0, 255, (70, 90, 3), np.uint8)).save(tmp_path / f"{place}.png")
    subject = listing.subject("resnet18", 64, 10, {"width": "8"})
    looked = on_photos(subject, [tmp_path, tmp_path / "1.png"], layer="layer2.1.conv2")
    assert looked.field.images == 4
    assert looked.photo_SS3.shape == (64, 64, 3)
    assert "untrained" in looked.notes[0]
    assert looked.field.side_px < looked.field.theoretical.size_px == 99
    assert "layer2.1.conv2: the unit at (4, 4) can see 99 px" in looked.field.describe()
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        on_photos(subject, [tmp_path / "bad.jpg"])


def test_real_photos(real_data):
    """Untrained, the field in effect is far smaller than the one that is possible. Source: Luo et al. 2016, figure 1."""
    photos = sorted((real_data / "imagenet-samples").glob("*.JPEG"))[:4]
    torch.manual_seed(0)
    found = on_photos(listing.subject("resnet18", 224, 10, {"width": "16"}), photos, layer="layer3.1.conv2").field
    assert found.theoretical.size_px == 211
    assert found.side_px < 150
