"""Names to networks: what is found, what is refused, and what the message says."""

import sys

import pytest
import safetensors.torch
import torch
from torch import nn

from striate.errors import CheckpointError, UserError
from striate.models import catalog


def test_every_listed_network_builds_and_scores_two_images():
    for name in catalog.NETWORKS:
        options = {"width": "8"} if name.startswith("resnet") else {"size_px": "16"}
        model = catalog.build(name, 7, options).eval()
        assert model(torch.randn(2, 3, 16, 16)).shape == (2, 7), name


def test_text_from_the_command_line_is_converted_by_the_annotation():
    model = catalog.build("resnet18", 10, {"stem": "small", "width": "16", "zero_gamma": "true"})
    assert model.conv1.weight.shape == (16, 3, 3, 3)
    assert model.layer1[0].bn2.weight.count_nonzero() == 0
    assert catalog.build("kth-d", 10, {"dropout": "0"}).get_submodule("fc").out_features == 10
    assert catalog.build("kth-d", 10, {"dropout": 0}).get_submodule("fc").out_features == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"steam": "small"},
            r"resnet18 has no option 'steam'\. Did you mean 'stem'\? It has stem, width, zero_gamma, stochastic_depth\.",
        ),
        ({"stem": "big"}, r"option 'stem': expected 'imagenet' or 'small', found 'big'"),
        ({"width": "6.5"}, r"option 'width': expected a whole number, found '6\.5'"),
        ({"width": True}, r"option 'width': expected a whole number, found True"),
        ({"zero_gamma": "perhaps"}, r"option 'zero_gamma': expected true or false, found 'perhaps'"),
        ({"num_classes": 3}, r"'num_classes' cannot be given: the data decides"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        catalog.build("resnet18", 10, options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet51", r"'resnet51' is no network\. Did you mean 'resnet50'"),
        ("ResNet18", r"Did you mean 'resnet18'"),
        ("torchvision/resnet51", r"torchvision has no classification network 'resnet51'\. Did you mean 'resnet50'"),
        ("timm/resnet51", r"timm has no network 'resnet51'\. Did you mean"),
        ("tensorflow/resnet50", r"'tensorflow/resnet50' is no network"),
        ("no_such_module:net", r"the module 'no_such_module' cannot be imported \(ModuleNotFoundError"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(name, message):
    if name.startswith("timm"):
        pytest.importorskip("timm", reason="the extra [timm] is not installed")
    with pytest.raises(UserError, match=message):
        catalog.build(name, 10, {})


def test_fewer_than_one_class_is_refused():
    with pytest.raises(UserError, match="expected 1 class or more, found 0"):
        catalog.build("resnet18", 0, {})


def test_torchvision_networks_build_untrained_and_refuse_weights():
    model = catalog.build("torchvision/squeezenet1_1", 7, {"dropout": "0.25"})
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.25]
    assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 7)
    with pytest.raises(UserError, match="'weights' cannot be given: networks start untrained here"):
        catalog.build("torchvision/resnet18", 7, {"weights": "DEFAULT"})
    with pytest.raises(UserError, match=r"torchvision/resnet18: the builder failed .* \(TypeError: .*witdh"):
        catalog.build("torchvision/resnet18", 7, {"witdh": "3"})


def test_torchvision_googlenet_builds_without_a_warning():
    assert catalog.build("torchvision/googlenet", 7, {"aux_logits": "false"}).fc.out_features == 7


def test_timm_networks_build_untrained():
    pytest.importorskip("timm", reason="the extra [timm] is not installed")
    model = catalog.build("timm/resnet10t", 7, {"drop_rate": "0.2"})
    assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 7)
    with pytest.raises(UserError, match="'pretrained' cannot be given"):
        catalog.build("timm/resnet10t", 7, {"pretrained": "true"})


def test_timm_that_is_not_installed_names_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'striate\[timm\]'"):
        catalog.build("timm/resnet10t", 7, {})


@pytest.fixture
def your_module(tmp_path, monkeypatch):
    """A module of the user's in the current folder, which is not on Python's path."""
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def tiny(num_classes, width: int = 4):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))\n"
        "def no_network(num_classes): return 3\n"
        "def no_classes(): return nn.Identity()\n"
        "def broken(num_classes): raise KeyError('layers')\n"
    )
    monkeypatch.chdir(tmp_path)
    yield "my_nets"
    sys.modules.pop("my_nets", None)


def test_a_function_of_the_current_folder(your_module):
    before = list(sys.path)
    model = catalog.build(f"{your_module}:tiny", 5, {"width": "6"})
    assert model(torch.randn(1, 3, 8, 8)).shape == (1, 5)
    assert catalog.option_names(f"{your_module}:tiny") == ("width", "init")
    assert sys.path == before


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("tinny", r"has no function 'tinny'\. Did you mean 'tiny'"),
        ("no_network", r"expected a function that returns a torch\.nn\.Module, it returned int"),
        ("no_classes", r"must take `num_classes`"),
        ("broken", r"the builder failed with num_classes=5 \(KeyError: 'layers'\)"),
    ],
)
def test_a_function_that_is_no_builder_is_refused(your_module, function, message):
    with pytest.raises(UserError, match=message):
        catalog.build(f"{your_module}:{function}", 5, {})


def test_option_names_are_the_builders():
    assert "size_px" in catalog.option_names("kth-d") and "size_px" not in catalog.option_names("resnet18")


def test_create_model_loads_weights_from_a_file_or_a_checkpoint_folder(tmp_path):
    source = catalog.create_model("resnet18", 5, width=8)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "model.safetensors", {"variant": "basic"})
    for weights in (tmp_path, str(tmp_path / "model.safetensors")):
        loaded = catalog.create_model("resnet18", 5, weights=weights, width=8)
        assert all(torch.equal(value, source.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_a_checkpoint_folder_gives_its_raw_weights_and_the_averaged_ones_by_name(tmp_path):
    raw, averaged = catalog.create_model("resnet18", 5, width=8), catalog.create_model("resnet18", 5, width=8)
    safetensors.torch.save_file(raw.state_dict(), tmp_path / "model.safetensors")
    safetensors.torch.save_file(averaged.state_dict(), tmp_path / "ema.safetensors")
    for weights, source in ((tmp_path, raw), (tmp_path / "ema.safetensors", averaged)):
        loaded = catalog.create_model("resnet18", 5, weights=weights, width=8)
        assert torch.equal(loaded.get_parameter("fc.weight"), source.get_parameter("fc.weight"))


def test_c13_prefixes_are_dropped_and_other_weights_refused_by_name(tmp_path):
    source = catalog.create_model("resnet18", 5, width=8)
    wrapped = {f"module._orig_mod.{key}": value for key, value in source.state_dict().items()}
    path = tmp_path / "wrapped.safetensors"
    safetensors.torch.save_file(wrapped, path)
    loaded = catalog.create_model("resnet18", 5, weights=path, width=8)
    assert torch.equal(loaded.get_parameter("fc.weight"), source.get_parameter("fc.weight"))

    names = dict(source.state_dict())
    names["extra"] = names.pop("conv1.weight").clone()
    safetensors.torch.save_file(names, path)
    with pytest.raises(CheckpointError, match=r"1 missing: conv1\.weight; 1 unknown: extra"):
        catalog.create_model("resnet18", 5, weights=path, width=8)
    with pytest.raises(CheckpointError, match=r"fc\.weight \[5, 64\] for \[9, 64\]"):
        safetensors.torch.save_file(source.state_dict(), path)
        catalog.create_model("resnet18", 9, weights=path, width=8)


def test_weights_without_batch_norms_step_counters_load(tmp_path):
    source = catalog.create_model("resnet18", 5, width=8)
    old = {key: value for key, value in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    safetensors.torch.save_file(old, tmp_path / "old.safetensors")
    catalog.create_model("resnet18", 5, weights=tmp_path / "old.safetensors", width=8)


def test_weights_of_the_other_variant_are_refused(tmp_path):
    path = tmp_path / "v1.safetensors"
    source = catalog.create_model("resnet50-v1", 5, width=8)
    safetensors.torch.save_file(source.state_dict(), path, {"variant": source.variant})
    catalog.create_model("resnet50-v1", 5, weights=path, width=8)
    with pytest.raises(CheckpointError, match=r"of variant 'v1', the network is 'v1\.5'"):
        catalog.create_model("resnet50", 5, weights=path, width=8)


def test_weight_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="no such weight file"):
        catalog.create_model("resnet18", 5, weights=tmp_path / "none.safetensors")
    (tmp_path / "old.pth").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"only \.safetensors files are read"):
        catalog.create_model("resnet18", 5, weights=tmp_path / "old.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        catalog.create_model("resnet18", 5, weights=tmp_path / "cut.safetensors")
