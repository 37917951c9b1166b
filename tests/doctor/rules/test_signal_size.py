from __future__ import annotations

import pytest
import torch
from torch import nn

from striate.doctor.rules import signal_size
from tests.doctor import makers


def test_vgg_as_printed_explodes():
    found = signal_size.check(makers.patient(makers.network("vgg-a"), batch=8))
    assert found.code == "signal-size" and found.severity == "error" and found.cause == "initialisation"
    assert found.layer.startswith("features.")
    assert "no-normalisation" in {cause.name for cause in found.causes}


def test_a_head_alone_that_is_too_large():
    model = makers.network("resnet18")
    nn.init.normal_(model.fc.weight, std=20.0)
    found = signal_size.check(makers.patient(model))
    assert found.cause == "head-scale"


def test_numbers_that_overflow():
    model = makers.network("alexnet-one-tower", init="he")
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data *= 1e20
    found = signal_size.check(makers.patient(model, 64, batch=8))
    assert found is not None and "not finite" in found.sentence


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "vgg16-bn", "resnet18", "kth-d"])
def test_silent_for_networks_as_their_papers_start_them(name):
    options = {"size_px": 64} if name == "kth-d" else {}
    assert signal_size.check(makers.patient(makers.network(name, **options), 64, batch=8)) is None


@pytest.mark.parametrize(("dtype", "severity"), [(torch.float16, "error"), (torch.bfloat16, "warning")])
def test_weights_that_are_stored_in_16_bits(dtype, severity):
    model = makers.small().to(dtype)
    patient = makers.patient(model)
    patient.images = patient.images.to(dtype)
    found = signal_size.check(patient)
    assert found.cause == "precision" and found.severity == severity and str(dtype).removeprefix("torch.") in found.sentence


def test_a_sum_that_leaves_the_half_precision():
    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.classes = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU()), nn.Linear(32, 12)

        def forward(self, images):
            summed = (self.features(images).flatten(2).sum(2).half() * 100).float()
            return self.classes(summed / summed.square().sum(1, keepdim=True).sqrt().half().float())

    found = signal_size.check(makers.patient(Summed().train()))
    assert found is not None and found.cause == "precision"


def test_a_mask_of_infinities_is_meant():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.classes = nn.Linear(3 * 32 * 32, 12)

        def forward(self, images):
            logits = self.classes(images.flatten(1))
            masked = logits + torch.tensor([0.0] * 6 + [-torch.inf] * 6)
            return logits - masked.logsumexp(1, keepdim=True)

    assert signal_size.check(makers.patient(Masked().train())) is None


def test_norms_taken_out_of_a_deep_network():
    model = makers.network("resnet56")
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    found = signal_size.check(makers.patient(model))
    assert found.cause == "no-normalisation"


def _plain(gain=1.0):
    """Three convolutions with He's weights, times a gain."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 32, 3, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(288, 12),
    )  # fmt: skip
    for layer in model:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            layer.weight.data *= gain
    return model.train()


@pytest.mark.parametrize(("shift", "cause"), [(115.0, "pixel-range"), (0.0, "not-normalised")])
def test_pixels_in_a_range_of_255_that_the_network_hands_on(shift, cause):
    patient = makers.patient(_plain(), recipe=makers.recipe(model__name="resnet20"))
    patient.images = 58 * patient.images.clamp(-1.9, 1.9) + shift
    found = signal_size.check(patient)
    assert found.cause == cause and {"pixel-range", "not-normalised"} < {one.name for one in found.causes}
    assert found.remedies[0].changes == {"data.normalise": "imagenet"}


def test_weights_that_are_too_large_are_another_matter_than_pixels():
    """The same network is well when it is drawn again, so normalisation is not what it lacks first."""
    found = signal_size.check(makers.patient(_plain(gain=6.0)))
    weights = {cause.name: cause.weight for cause in found.causes}
    assert found.cause == "initialisation" and weights["no-normalisation"] == pytest.approx(0.4)
    assert not {"pixel-range", "not-normalised"} & weights.keys()


def test_a_network_that_explodes_however_it_is_drawn_lacks_normalisation():
    """Residual sums double the signal in each of twelve blocks, with the weights that are usual elsewhere."""

    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.classes = nn.Conv2d(3, 16, 3, 2), nn.Linear(16, 12)
            self.blocks = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(12))

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = 2 * x + block(torch.relu(x))
            return self.classes(x.mean((2, 3)))

    model = Doubled().train()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    before = model.stem.weight.clone()
    found = signal_size.check(makers.patient(model, batch=8))
    assert found.cause == "no-normalisation" and "with He's weights it is" in found.causes[0].because
    assert torch.equal(model.stem.weight, before)
