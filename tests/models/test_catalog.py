"""Names to networks: what is found, what is refused, and what the message says."""

import inspect
import sys
import types
import typing

import pytest
import torch
from torch import nn

from striate.errors import UserError
from striate.models import catalog


def test_a_network_of_every_paper_takes_one_class():
    """tests/papers builds all of them for their own number."""
    for name, entry in {entry.paper: (name, entry) for name, entry in reversed(catalog.NETWORKS.items())}.values():
        with torch.device("meta"):
            model = catalog.build(name, 1, {}).eval()
        assert model(torch.empty(2, entry.channels, entry.size_px, entry.size_px, device="meta")).shape == (2, 1), name


def test_every_builder_says_what_it_is_and_types_its_options():
    kinds = (bool, int, float, str)
    for name, entry in catalog.NETWORKS.items():
        assert inspect.getdoc(entry.builder), name
        for option, parameter in list(inspect.signature(entry.builder, eval_str=True).parameters.items())[1:]:
            hints = typing.get_args(parameter.annotation) or (parameter.annotation,)
            literal = typing.get_origin(parameter.annotation) is typing.Literal
            assert literal or all(hint in (*kinds, types.NoneType) for hint in hints), f"{name}: {option}"
            assert parameter.default is not inspect.Parameter.empty, f"{name}: {option}"


def test_builders_leave_the_initialisation_to_the_catalog():
    """One option `init` for all, whose paper's value is what the builder draws."""
    for name, entry in catalog.NETWORKS.items():
        assert "init" not in inspect.signature(entry.builder).parameters, name
    torch.manual_seed(0)
    plain = catalog.build("resnet18", 3, {"width": "8"})
    torch.manual_seed(0)
    assert torch.equal(catalog.build("resnet18", 3, {"width": "8", "init": "paper"}).conv1.weight, plain.conv1.weight)
    assert catalog.build("resnet18", 3, {"width": "8", "init": "rui"}).conv1.weight.abs().max() <= 0.05
    assert catalog.build("torchvision/squeezenet1_1", 3, {"init": "uniform"}).features[0].weight.abs().max() <= 0.05


def test_text_from_the_command_line_is_converted_by_the_annotation():
    model = catalog.build("resnet18", 10, {"stem": "small", "width": "16", "zero_gamma": "true"})
    assert model.conv1.weight.shape == (16, 3, 3, 3)
    assert model.layer1[0].bn2.weight.count_nonzero() == 0
    for zero in ("0", 0):
        assert catalog.build("kth-d", 10, {"dropout": zero, "size_px": "8"}).get_submodule("fc").out_features == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"steam": "small"},
            r"resnet18 has no option 'steam'\. Did you mean 'stem'\? It has stem, width, zero_gamma, stochastic_depth, init\.",
        ),
        ({"stem": "big"}, r"option 'stem': expected 'imagenet' or 'caffe' or 'small', found 'big'"),
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
        ("resnet51", r"'resnet51' is no network\. Did you mean .*'resnet50'.* `striate measure` lists our \d+; torchvision/NAME"),
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
