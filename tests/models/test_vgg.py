"""VGG against torchvision's: names, features, logits; its two odd configurations, its initial weights, its smallest input."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from striate.errors import CheckpointError, UserError
from striate.models import catalog, init, vgg, weights

THEIRS = {
    "vgg-a": "vgg11",
    "vgg-b": "vgg13",
    "vgg16": "vgg16",
    "vgg19": "vgg19",
    "vgg-a-bn": "vgg11_bn",
    "vgg-b-bn": "vgg13_bn",
    "vgg16-bn": "vgg16_bn",
    "vgg19-bn": "vgg19_bn",
}


def meta(name, num_classes=1000, **options):
    with torch.device("meta"):
        return catalog.build(name, num_classes, options)


def torchvisions(name):
    with torch.device("meta"):
        return torchvision.models.get_model(THEIRS[name], weights=None)


@pytest.fixture(scope="module")
def a():
    """A with random weights that keep the size of what passes; 12 classes."""
    model = meta("vgg-a", 12).to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            bound = (6 / layer.weight[0].numel()) ** 0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -0.1, 0.1, generator=generator)
    return model


@pytest.fixture
def slim(monkeypatch):
    """Networks of an eighth of the channels, so that their initial weights are drawn quickly."""
    monkeypatch.setattr(vgg, "_WIDTHS", (8, 16, 32, 64, 64))


@pytest.mark.parametrize("name", THEIRS)
def test_state_dict_names_and_their_order_are_torchvisions(name):
    ours, theirs = meta(name).state_dict(), torchvisions(name).state_dict()
    assert [(key, value.shape) for key, value in ours.items()] == [(key, value.shape) for key, value in theirs.items()]


@pytest.mark.parametrize("name", ["vgg-b", "vgg19", "vgg-a-bn", "vgg16-bn"])
def test_features_equal_torchvisions_with_its_weights(name, as_after_training, same_logits):
    """The linear layers, nine tenths of the weights, are the same in all eight: see the next test."""
    generator = torch.Generator().manual_seed(0)
    theirs = torchvisions(name).features.to_empty(device="cpu")
    for layer in theirs:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.1, generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
    as_after_training(theirs)
    ours = meta(name).features
    ours.load_state_dict(theirs.state_dict(), assign=True)
    same_logits(ours, theirs, 40, 64)


def test_logits_equal_torchvisions_with_the_same_weights(a, same_logits):
    with torch.device("meta"):
        theirs = torchvision.models.vgg11(weights=None, num_classes=12)
    theirs.load_state_dict(a.state_dict(), assign=True)
    same_logits(a, theirs.eval(), 50, 224)


def test_c_has_a_1x1_convolution_at_the_end_of_each_of_the_last_three_stages():
    found = [layer for layer in meta("vgg-c").features if isinstance(layer, (nn.Conv2d, nn.MaxPool2d))]
    kernels = [layer.kernel_size[0] if isinstance(layer, nn.Conv2d) else "pool" for layer in found]
    assert kernels == [3, 3, "pool", 3, 3, "pool", 3, 3, 1, "pool", 3, 3, 1, "pool", 3, 3, 1, "pool"]
    assert all(layer.stride == layer.kernel_size == 2 for layer in found if isinstance(layer, nn.MaxPool2d))


def test_a_lrn_takes_the_weights_of_a_and_normalises_behind_the_first_relu(a):
    lrn = meta("vgg-a-lrn", 12).eval()
    lrn.load_state_dict(a.state_dict(), assign=True)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        first = a.features[:2](images)
        expected = a.features[2:](functional.local_response_norm(first, 5, alpha=1e-4, beta=0.75, k=2.0))
        torch.testing.assert_close(lrn.features(images), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
        assert (lrn(images) - a(images)).abs().max() > 0.01 * a(images).abs().max()


def test_weights_of_a_that_say_so_are_refused_by_a_lrn():
    with pytest.raises(CheckpointError, match="variant 'basic', the network is 'lrn'"):
        weights.put(meta("vgg-a-lrn", 12), {}, "a.safetensors", variant=meta("vgg-a").variant)


def test_initial_weights_are_normal_with_variance_a_hundredth_and_biases_zero(slim):
    torch.manual_seed(0)
    layers = [layer for layer in vgg.vgg_a(12).modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 11
    for layer in layers:
        few = layer.weight.flatten()[:1_000_000]
        assert few.var().item() == pytest.approx(0.01, rel=6 * (2 / len(few)) ** 0.5)
        assert few.abs().max() > 0.2  # normal, not uniform
        assert not layer.bias.any()


@pytest.mark.parametrize(
    ("start", "last", "grows"), [(init.vgg, 8e3, 4.8), (init.gaussian, 8e-5, 0.48), (init.glorot_uniform, 0.05, 0.7)]
)
def test_what_a_start_does_to_the_activations_of_a(start, last, grows):
    """With the paper's variance, with its number taken as a deviation, and with Glorot's: as said in `VGG`."""
    torch.manual_seed(0)
    features = meta("vgg-a").features.to_empty(device="cpu")
    start(features)
    deviations = []
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for layer in features:
            images = layer(images)
            if isinstance(layer, nn.Conv2d):
                deviations.append(images.std().item())
    assert deviations[-1] == pytest.approx(last, rel=0.5)
    assert deviations[5] / deviations[4] == pytest.approx(grows, rel=0.2)  # 512 channels on 512, no pool between them


def test_batch_norm_forms_start_as_torchvisions(slim):
    torch.manual_seed(0)
    model = vgg.vgg_a_bn(12)
    assert model.features[-4].weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert all(
        layer.weight.std().item() == pytest.approx(0.01, rel=0.02) for layer in model.classifier if hasattr(layer, "weight")
    )
    assert all(not layer.bias.any() for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))


@pytest.mark.parametrize("name", ["vgg-a", "vgg-c", "vgg19-bn"])
def test_smallest_input(name):
    model = meta(name, 7).eval()
    assert model(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 7)
    assert model(torch.empty(1, 3, 33, 300, device="meta")).shape == (1, 7)
    with pytest.raises(UserError, match="VGG: an input of 31x40 px is too small; the smallest is 32x32"):
        model(torch.empty(1, 3, 31, 40, device="meta"))
    with pytest.raises(RuntimeError, match="Output size is too small"):  # it is the true smallest
        model.features(torch.empty(1, 3, 31, 31, device="meta"))


def test_dropout_is_an_option():
    for given, expected in (("0.2", 0.2), (None, 0.5), ("0", 0.0)):
        model = meta("vgg16", 10, **({} if given is None else {"dropout": given}))
        assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [expected, expected]


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_dropout_outside_0_to_1_is_refused(value):
    with pytest.raises(UserError, match="dropout: expected a share from 0 to below 1, found"):
        meta("vgg-a", 10, dropout=value)
