"""From a source of weights to a network: files, runs, published sets out of a prepared cache, and what is said about each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision.models
from torch import nn

from striate import classes, files
from striate.errors import CheckpointError, UserError
from striate.models import catalog, foreign, heads, pretrained, published
from striate.view import IMAGENET_MEAN, IMAGENET_STD, View

SMALL = {"stem": "small", "width": 8}


def small(num_classes: int = 5, name: str = "resnet18") -> nn.Module:
    return catalog.build(name, num_classes, SMALL)


def saved(path: Path, model: nn.Module, **metadata: str) -> Path:
    safetensors.torch.save_file(model.state_dict(), path, metadata)
    return path


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@pytest.fixture
def without_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickles of these tests' own are opened here: a process for each takes seconds, and `test_foreign` has that."""
    monkeypatch.setattr(foreign, "read", lambda path: (torch.load(path, weights_only=True), None))


# ---------------------------------------------------------------- files


def test_a_file_or_a_checkpoint_folder_goes_in_whole(tmp_path: Path) -> None:
    source = small()
    saved(tmp_path / "model.safetensors", source, variant="basic")
    for weights in (tmp_path, str(tmp_path / "model.safetensors")):
        assert same(pretrained.create_model("resnet18", 5, weights=weights, **SMALL), source)
    model = small()
    loaded = pretrained.load_into(model, "resnet18", tmp_path, fresh_head=False, options=SMALL)
    assert same(model, source)
    assert loaded.digest == files.sha256_file(tmp_path / "model.safetensors")
    assert (loaded.where, loaded.view, loaded.classes, loaded.notes) == (str(tmp_path / "model.safetensors"), None, None, ())


def test_a_pickle_goes_through_the_child(tmp_path: Path) -> None:
    """The one test here that starts it."""
    source = small()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in source.state_dict().items()}}, tmp_path / "w.pth")
    model = small()
    loaded = pretrained.load_into(model, "resnet18", str(tmp_path / "w.pth"), fresh_head=False, options=SMALL)
    assert same(model, source)
    assert loaded.notes == ("The tensors are those of 'state_dict' in the file.",)


def test_a_checkpoint_folder_gives_its_raw_weights_and_the_averaged_ones_by_name(tmp_path: Path) -> None:
    raw, averaged = small(), small()
    saved(tmp_path / "model.safetensors", raw)
    saved(tmp_path / "ema.safetensors", averaged)
    for weights, source in ((tmp_path, raw), (tmp_path / "ema.safetensors", averaged)):
        assert same(pretrained.create_model("resnet18", 5, weights=weights, **SMALL), source)


def a_run(folder: Path, view: View) -> tuple[nn.Module, nn.Module]:
    """What of a run's folder is read: two checkpoints, the best one with averaged weights."""
    raw, averaged = small(3), small(3)
    for step in ("step-1", "step-2"):
        (folder / "checkpoints" / step).mkdir(parents=True)
        saved(folder / "checkpoints" / step / "model.safetensors", raw, variant="basic")
    saved(folder / "checkpoints" / "step-1" / "ema.safetensors", averaged, variant="basic")
    files.write_json(folder / "recipe.json", {})
    files.write_json(folder / "view.json", view.to_json())
    classes.Classes(("a", "b", "c"), ("", "", "")).write(folder / "classes.json")
    return raw, averaged


def test_a_run_gives_its_best_weights_its_view_and_its_classes(tmp_path: Path) -> None:
    view = View(32, "squash", 32, "bicubic", True, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    raw, averaged = a_run(tmp_path, view)
    with pytest.raises(UserError, match=r"nothing was evaluated yet, so no checkpoint is the best. Name one of .*checkpoints"):
        pretrained.view_of("resnet18", tmp_path)
    files.write_json(tmp_path / "best.json", {"checkpoint": "step-1", "weights": "EMA", "step": 1})
    for source, expected in ((tmp_path, averaged), (tmp_path / "checkpoints" / "step-2", raw)):
        model = small(3)
        loaded = pretrained.load_into(model, "resnet18", source, fresh_head=False, options=SMALL)
        assert same(model, expected)
        assert loaded.view == pretrained.view_of("resnet18", source) == view
        assert loaded.classes == pretrained.classes_of("resnet18", source) == classes.Classes(("a", "b", "c"), ("", "", ""))


def test_a_fresh_head_keeps_its_start_and_is_announced(tmp_path: Path) -> None:
    path, model = saved(tmp_path / "w.safetensors", source := small(5)), small(9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loaded = pretrained.load_into(model, "resnet18", path, fresh_head=True, options=SMALL)
    assert loaded.notes == ("The head is new and starts untrained: fc.weight, fc.bias.",)
    assert torch.equal(model.get_parameter("fc.weight"), before["fc.weight"])
    assert torch.equal(model.get_parameter("conv1.weight"), source.get_parameter("conv1.weight"))
    with pytest.raises(CheckpointError, match=r"fc\.weight \[5, 64\] for \[9, 64\]"):
        pretrained.load_into(model, "resnet18", path, fresh_head=False, options=SMALL)
    fresh = pretrained.create_model("resnet18", 9, weights=path, **SMALL)
    assert torch.equal(fresh.get_parameter("conv1.weight"), source.get_parameter("conv1.weight"))
    assert pretrained.outputs_of(pretrained.read("resnet18", path), "resnet18", SMALL) == 5


def test_c13_missing_extra_and_misshapen_keys_are_listed(tmp_path: Path) -> None:
    names = dict(small().state_dict())
    names["extra"] = names.pop("conv1.weight").clone()
    names["bn1.weight"] = torch.zeros(3)
    safetensors.torch.save_file(names, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing: conv1\.weight; 1 unknown: extra; 1 of .* bn1\.weight \[3\]") as caught:
        pretrained.load_into(small(), "resnet18", tmp_path / "w.safetensors", fresh_head=False, options=SMALL)
    assert caught.value.exit_code == 4


def test_weights_without_batch_norms_step_counters_load(tmp_path: Path) -> None:
    source = small()
    old = {key: value for key, value in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    safetensors.torch.save_file(old, tmp_path / "old.safetensors")
    pretrained.create_model("resnet18", 5, weights=tmp_path / "old.safetensors", **SMALL)


def test_weights_that_are_not_finite_are_refused_by_layer_unless_they_are_left_out(tmp_path: Path) -> None:
    source = small()
    with torch.no_grad():
        source.get_parameter("fc.bias")[0] = torch.nan
    path, model = saved(tmp_path / "w.safetensors", source), small()
    with pytest.raises(CheckpointError, match=r"1 of \d+ tensors hold NaN or infinity: fc\.bias.*IMAGENET1K_FEATURES"):
        pretrained.load_into(model, "resnet18", path, fresh_head=False, options=SMALL)
    pretrained.load_into(model, "resnet18", path, fresh_head=True, options=SMALL)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_variants_are_refused_where_the_file_tells_and_warned_of_where_it_does_not(tmp_path: Path) -> None:
    first = small(name="resnet50-v1")
    told, untold = saved(tmp_path / "v1.safetensors", first, variant="v1"), saved(tmp_path / "w.safetensors", first)
    assert pretrained.load_into(small(name="resnet50-v1"), "resnet50-v1", told, fresh_head=False).notes == ()
    with pytest.raises(CheckpointError, match=r"of variant 'v1', the network is 'v1\.5'"):
        pretrained.load_into(small(name="resnet50"), "resnet50", told, fresh_head=False)
    notes = pretrained.load_into(small(name="resnet50"), "resnet50", untold, fresh_head=False).notes
    assert len(notes) == 1 and "does not say which variant it is of; the network is 'v1.5'" in notes[0]


def test_msras_names_say_that_they_are_v1_with_caffes_stem_and_see_caffes_pixels(tmp_path: Path) -> None:
    held = {"res2a_branch2a.weight": torch.zeros(2), "fc1000.bias": torch.zeros(2)}
    safetensors.torch.save_file(held, tmp_path / "w.safetensors")
    opened = pretrained.read("resnet50", tmp_path / "w.safetensors")
    assert opened.variant == "v1, stem caffe" and opened.view is not None and opened.view.colour == "bgr"
    for name, variant in (("resnet50", "v1.5"), ("resnet50-v1", "v1")):
        with pytest.raises(CheckpointError, match=f"of variant 'v1, stem caffe', the network is '{variant}'"):
            pretrained.put_into(small(name=name), name, opened, fresh_head=False)


def test_weight_files_that_are_none(tmp_path: Path) -> None:
    for name, error, message in (
        ("none.safetensors", UserError, "no such weight file"),
        ("old.onnx", UserError, r"expected a file with one of \.safetensors, \.pth"),
        ("cut.safetensors", CheckpointError, "cannot be read as safetensors"),
    ):
        if name != "none.safetensors":
            (tmp_path / name).write_bytes(b"\x10\x00\x00")
        with pytest.raises(error, match=message):
            pretrained.create_model("resnet18", 5, weights=tmp_path / name)
    with pytest.raises(UserError, match="no such weight file"):
        pretrained.read("resnet18", "nowhere/w")
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match=r"pipe\.pth: a pipe or a device, not a file"):
        pretrained.read("resnet18", tmp_path / "pipe.pth")


def test_colour_weights_for_a_grey_network_are_added_up(tmp_path: Path) -> None:
    from striate.models.grey import one_channel

    path, grey = saved(tmp_path / "w.safetensors", source := small()), one_channel(small(), "resnet18")
    loaded = pretrained.load_into(grey, "resnet18", path, fresh_head=False, options=SMALL)
    assert "its kernels for three colours were added up" in loaded.notes[0]
    images = torch.randn(2, 1, 32, 32)
    assert torch.allclose(grey.eval()(images), source.eval()(images.expand(-1, 3, -1, -1)), atol=1e-5)


# ---------------------------------------------------------------- published sets, from a prepared cache


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder of checkpoints, empty, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("TORCH_HUB", raising=False)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)

    def nobody(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(torch.hub, "download_url_to_file", nobody)
    return folder


def prepared(hub: Path, monkeypatch: pytest.MonkeyPatch, one: Any, model: nn.Module) -> Path:
    """A set's file in the cache, with the digits of its own SHA-256 in its name, and the set's address changed to that."""
    torch.save(model.state_dict(), hub / "w.pth")
    digest = files.sha256_file(hub / "w.pth")
    monkeypatch.setattr(one.value, "url", f"https://download.pytorch.org/models/w-{digest[:8]}.pth")
    return (hub / "w.pth").rename(hub / f"w-{digest[:8]}.pth")


@pytest.mark.usefixtures("without_child")
def test_the_default_set_of_a_network_of_torchvisions(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, sets = torchvision.models.squeezenet1_1(), torchvision.models.SqueezeNet1_1_Weights
    path = prepared(hub, monkeypatch, sets.IMAGENET1K_V1, theirs)
    for wanted in ("default", "IMAGENET1K_V1"):
        model = catalog.build("torchvision/squeezenet1_1", 1000, {})
        loaded = pretrained.load_into(model, "torchvision/squeezenet1_1", wanted, fresh_head=False)
        assert same(model, theirs)
        assert loaded.where == "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1"
        assert loaded.digest == files.sha256_file(path) and loaded.notes == ()
        assert loaded.classes == classes.imagenet()
        assert loaded.view == View(224, "crop", 256, "bilinear", False, IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.usefixtures("without_child")
def test_a_file_in_the_cache_that_is_not_the_published_one_is_named_as_such(hub: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), path := hub / "resnet18-f37072fd.pth")
    loaded = pretrained.load_into(catalog.build("resnet18", 1000, {}), "resnet18", "default", fresh_head=False)
    assert loaded.where == f"{path}, in the place of torchvision ResNet18_Weights.IMAGENET1K_V1"
    assert len(loaded.notes) == 1 and "is not the published file: its SHA-256 begins with" in loaded.notes[0]


def test_without_network_the_place_is_named_where_the_file_is_looked_for(hub: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        pretrained.create_model("resnet18", weights="default")
    assert caught.value.exit_code == 4
    for words in (
        str(hub / "resnet18-f37072fd.pth"),
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "no network in this test",
        "--weights FILE",
    ):
        assert words in str(caught.value)


def test_a_download_with_another_hash_is_thrown_away(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.hub's own check, of the digits in the name: nothing is left in the cache."""
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(hub.parents[1]))
    (elsewhere := hub.parents[1] / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"not it")
    monkeypatch.setattr(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.value, "url", elsewhere.as_uri())
    with pytest.raises(CheckpointError, match='invalid hash value \\(expected "b8a52dc0"'):
        pretrained.create_model("torchvision/squeezenet1_1", weights="default")
    assert list(hub.iterdir()) == []


@pytest.mark.usefixtures("without_child")
def test_a_file_is_recognised_by_its_hash_whatever_its_name(hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theirs = torchvision.models.squeezenet1_1()
    path = prepared(hub, monkeypatch, torchvision.models.SqueezeNet1_1_Weights.DEFAULT, theirs).rename(tmp_path / "mine.pth")
    published._by_prefix.cache_clear()
    try:
        opened = pretrained.read("torchvision/squeezenet1_1", path)
        assert opened.view is not None and opened.classes == classes.imagenet()
        assert opened.where == "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1"
        with pytest.raises(CheckpointError, match=r"SqueezeNet1_1_Weights.IMAGENET1K_V1, which are not of resnet50-v1"):
            pretrained.read("resnet50-v1", path)
    finally:
        published._by_prefix.cache_clear()


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("resnet18", "IMAGENET1K_V9", r"--weights IMAGENET1K_V9: no such file, and no published set of resnet18\. Did you mean"),
        (
            "zfnet",
            "default",
            r"zfnet: nobody publishes weights for it.*There are published ones for alexnet-one-tower, .*xception",
        ),
        ("resnet51", "default", r"'resnet51' is no network\. Did you mean .*'resnet50'"),
        ("torchvision/resnet51", "default", r"torchvision has no classification network 'resnet51'"),
    ],
)
def test_sets_that_do_not_exist(name: str, wanted: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pretrained.view_of(name, wanted)


def test_every_published_set_of_torchvisions_has_a_view_and_a_hash() -> None:
    for network in torchvision.models.list_models(module=torchvision.models):
        for one in torchvision.models.get_model_weights(network):
            found = published.find(f"torchvision/{network}", one.name)
            assert found.view is not None and len(found.hash_prefix) in (8, 10) and found.network == f"torchvision/{network}"
            transforms = one.transforms()
            assert (found.view.size_px, found.view.resize_px) == (transforms.crop_size[0], transforms.resize_size[0])
    for name, network in published.TORCHVISION.items():
        assert published.find(name, "default").network == f"torchvision/{network}"


@pytest.mark.parametrize(("name", "theirs"), [("googlenet-bn", "googlenet"), ("inception-v3", "inception_v3")])
def test_half_and_half_in_the_view_equals_what_torchvision_does_within_its_network(
    name: str, theirs: str, as_after_training: Callable[[nn.Module], nn.Module]
) -> None:
    """With published weights torchvision's two Inceptions get images normalised as ImageNet's are, and renormalise them."""
    view = pretrained.view_of(name, "default")
    again = pretrained.view_of(name, "default", {"transform_input": "true"})
    preset = torchvision.models.get_model_weights(theirs).DEFAULT.transforms()
    assert view is not None and again is not None
    assert (again.mean, again.std) == (tuple(preset.mean), tuple(preset.std)) == (IMAGENET_MEAN, IMAGENET_STD)
    network = torchvision.models.get_model_builder(theirs)(weights=None, init_weights=False, aux_logits=False)
    as_after_training(network)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    with torch.inference_mode():
        network.transform_input = True
        expected = network(again.normalise(images, torch.float32))
        network.transform_input = False
        found = network(view.normalise(images, torch.float32))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


# ---------------------------------------------------------------- timm


def test_timms_sets_their_views_and_their_cache(hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="the extra [timm] is not installed")
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "huggingface"))
    view = pretrained.view_of("timm/resnet10t", "default")
    assert view == View(176, "crop", 201, "bicubic", False, IMAGENET_MEAN, IMAGENET_STD)
    assert view.resize_px == timm.data.create_transform(176, crop_pct=0.875).transforms[0].size
    legacy = pretrained.view_of("xception", "default")
    assert legacy == View(299, "crop", 333, "bicubic", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    monkeypatch.setattr(published, "_reach", lambda _: (_ for _ in ()).throw(OSError("no network in this test")))
    with pytest.raises(CheckpointError) as caught:
        pretrained.create_model("timm/resnet10t", weights="c3_in1k")
    for words in (str(tmp_path / "huggingface" / "models--timm--resnet10t.c3_in1k"), "hf download", "no network in this test"):
        assert words in str(caught.value)

    theirs = timm.create_model("resnet10t")
    folder = tmp_path / "huggingface" / "models--timm--resnet10t.c3_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123")
    (folder / "snapshots" / "0123").mkdir(parents=True)
    saved(folder / "snapshots" / "0123" / "model.safetensors", theirs)
    model = catalog.build("timm/resnet10t", 1000, {})
    loaded = pretrained.load_into(model, "timm/resnet10t", "default", fresh_head=False)
    assert same(model, theirs) and loaded.where == "timm resnet10t.c3_in1k" and loaded.view == view
    with pytest.raises(UserError, match=r"no published set of timm/resnet10t\. Did you mean 'c3_in1k'"):
        pretrained.view_of("timm/resnet10t", "c3_in22k")


def test_timms_settings_that_a_view_cannot_say() -> None:
    settings: dict[str, Any] = {"input_size": (3, 96, 96), "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    squash = published.timm_view({**settings, "crop_mode": "squash"})
    assert squash is not None and (squash.fit, squash.resize_px) == ("squash", 96)
    assert published.timm_view({**settings, "crop_mode": "border"}) is None
    assert published.timm_view({**settings, "crop_mode": "squash", "crop_pct": 0.9}) is None
    assert published.timm_view({**settings, "input_size": (1, 28, 28)}) is None


def test_timm_that_is_not_installed_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'striate\[timm\]'"):
        pretrained.create_model("xception", weights="default")


# ---------------------------------------------------------------- heads


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("resnet18", {}, ("fc.weight", "fc.bias")),
        ("vgg-a", {}, ("classifier.6.weight", "classifier.6.bias")),
        ("googlenet", {}, ("aux1.fc2.weight", "aux1.fc2.bias", "aux2.fc2.weight", "aux2.fc2.bias", "fc.weight", "fc.bias")),
        ("googlenet", {"aux": False}, ("fc.weight", "fc.bias")),
        ("torchvision/squeezenet1_1", {}, ("classifier.1.weight", "classifier.1.bias")),
    ],
)
def test_heads_are_what_follows_the_number_of_classes(name: str, options: dict[str, object], expected: tuple[str, ...]) -> None:
    before = torch.get_rng_state()
    assert heads.of(name, options) == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_heads_of_timms_and_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm", reason="the extra [timm] is not installed")
    assert heads.of("timm/resnet10t", {}) == ("fc.weight", "fc.bias")
    (tmp_path / "heads_mine.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net(num_classes):\n    torch.randn(3).tolist()\n    return nn.Sequential(nn.Linear(3, num_classes))\n"
        "def none(num_classes):\n    return nn.Linear(3, 3)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert heads.of("heads_mine:net", {}) == ("0.weight", "0.bias")
    with pytest.raises(UserError, match="no layer of it follows the number of classes"):
        heads.of("heads_mine:none", {})
    sys.modules.pop("heads_mine", None)
