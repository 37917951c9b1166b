"""Names of other programs, written out by hand, and the names here that they must become."""

from __future__ import annotations

import torch

from striate.models import catalog, heads, keys


def translated(*names: str) -> list[str]:
    """What becomes of a file's names, in their order, without a network to fit them to."""
    found = {name: torch.zeros(1) for name in names}
    family = keys.family_of(found)
    assert family is not None
    return list(keys._translated(found, family))


def test_torchvisions_hosted_densenets() -> None:
    assert translated(
        "features.denseblock1.denselayer1.norm.1.weight",
        "features.denseblock4.denselayer16.conv.2.weight",
        "features.denseblock2.denselayer12.norm.2.running_mean",
        "features.transition1.norm.weight",
        "features.norm5.bias",
    ) == [
        "features.denseblock1.denselayer1.norm1.weight",
        "features.denseblock4.denselayer16.conv2.weight",
        "features.denseblock2.denselayer12.norm2.running_mean",
        "features.transition1.norm.weight",
        "features.norm5.bias",
    ]


def test_msra_resnets() -> None:
    assert translated(
        "res2a_branch2a.weight",
        "conv1.weight",
        "bn_conv1.running_mean",
        "scale_conv1.bias",
        "res2a_branch1.weight",
        "bn2a_branch1.running_var",
        "scale2a_branch1.weight",
        "bn2a_branch2b.running_mean",
        "scale2b_branch2c.bias",
        "res3c_branch2c.weight",
        "res4b22_branch2b.weight",
        "res4b1_branch2a.weight",
        "res5a_branch1.weight",
        "fc1000.bias",
    ) == [
        "layer1.0.conv1.weight",
        "conv1.weight",
        "bn1.running_mean",
        "bn1.bias",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.running_var",
        "layer1.0.downsample.1.weight",
        "layer1.0.bn2.running_mean",
        "layer1.1.bn3.bias",
        "layer2.2.conv3.weight",
        "layer3.22.conv2.weight",
        "layer3.1.conv1.weight",
        "layer4.0.downsample.0.weight",
        "fc.bias",
    ]


def test_caffes_senets_with_slashes_and_without() -> None:
    assert translated(
        "conv2_1_1x1_down.weight",
        "conv1/7x7_s2.weight",
        "conv1/7x7_s2/bn.running_mean",
        "conv1/7x7_s2/bn/scale.weight",
        "conv1_2/3x3.weight",
        "conv1_1_3x3_s2_bn_scale.bias",
        "conv3_12_1x1_reduce.weight",
        "conv3_12_1x1_reduce/bn.running_var",
        "conv4_36_3x3/bn/scale.bias",
        "conv5_3_1x1_increase_bn.weight",
        "conv5_1_1x1_proj.weight",
        "conv5_1_1x1_proj/bn/scale.weight",
        "conv2_1_1x1_up.bias",
        "classifier.weight",
    ) == [
        "layer1.0.se_module.fc1.weight",
        "layer0.conv1.weight",
        "layer0.bn1.running_mean",
        "layer0.bn1.weight",
        "layer0.conv2.weight",
        "layer0.bn1.bias",
        "layer2.11.conv1.weight",
        "layer2.11.bn1.running_var",
        "layer3.35.bn2.bias",
        "layer4.2.bn3.weight",
        "layer4.0.downsample.0.weight",
        "layer4.0.downsample.1.weight",
        "layer1.0.se_module.fc2.bias",
        "last_linear.weight",
    ]


def test_caffes_bn_inception() -> None:
    assert translated(
        "inception_3a/double3x3a.weight",
        "conv1/7x7_s2/bn/scale.bias",
        "conv2/3x3_reduce.weight",
        "inception_3c/double3x3_reduce/bn.running_mean",
        "inception_4e/double3x3b/bn/scale.weight",
        "inception_5b/pool_proj.weight",
        "inception_3a_1x1_down.weight",
        "inception_5b_1x1_up.bias",
        "inception_3a/1x1.weight",
        "classifier.bias",
    ) == [
        "inception_3a_double_3x3_1.weight",
        "conv1_7x7_s2_bn.bias",
        "conv2_3x3_reduce.weight",
        "inception_3c_double_3x3_reduce_bn.running_mean",
        "inception_4e_double_3x3_2_bn.weight",
        "inception_5b_pool_proj.weight",
        "inception_3a_se.fc1.weight",
        "inception_5b_se.fc2.bias",
        "inception_3a_1x1.weight",
        "last_linear.bias",
    ]


def test_caffes_googlenet() -> None:
    assert translated(
        "inception_3a/5x5_reduce.weight",
        "conv1/7x7_s2.bias",
        "conv2/3x3_reduce.weight",
        "conv2/3x3.weight",
        "inception_4e/1x1.weight",
        "inception_5b/3x3_reduce.bias",
        "inception_5b/3x3.bias",
        "inception_3b/5x5.weight",
        "inception_4a/pool_proj.weight",
        "loss1/conv.weight",
        "loss2/fc.bias",
        "loss2/classifier.weight",
        "loss3/classifier.weight",
    ) == [
        "inception3a.branch3.0.conv.weight",
        "conv1.conv.bias",
        "conv2.conv.weight",
        "conv3.conv.weight",
        "inception4e.branch1.conv.weight",
        "inception5b.branch2.0.conv.bias",
        "inception5b.branch2.1.conv.bias",
        "inception3b.branch3.1.conv.weight",
        "inception4a.branch4.1.conv.weight",
        "aux1.conv.conv.weight",
        "aux2.fc1.bias",
        "aux2.fc2.weight",
        "fc.weight",
    ]


def test_maciejbalawejders_googlenet() -> None:
    assert translated(
        "Blocks.0.p1.0.weight",
        "Blocks.6.p2.0.weight",
        "Blocks.6.p2.2.bias",
        "Blocks.8.p3.0.weight",
        "Blocks.8.p3.2.weight",
        "Blocks.2.p4.1.weight",
        "Conv7k.weight",
        "Conv1k.bias",
        "Conv3k.weight",
        "AuxClass1.conv1x1.weight",
        "AuxClass2.fc1.weight",
        "AuxClass2.fc2.bias",
        "FC.weight",
    ) == [
        "inception3a.branch1.conv.weight",
        "inception4e.branch2.0.conv.weight",
        "inception4e.branch2.1.conv.bias",
        "inception5b.branch3.0.conv.weight",
        "inception5b.branch3.1.conv.weight",
        "inception4a.branch4.1.conv.weight",
        "conv1.conv.weight",
        "conv2.conv.bias",
        "conv3.conv.weight",
        "aux1.conv.conv.weight",
        "aux2.fc1.weight",
        "aux2.fc2.bias",
        "fc.weight",
    ]


# ---------------------------------------------------------------- whole networks


def test_every_name_of_caffes_googlenet_finds_its_place() -> None:
    theirs = {
        "conv1.conv": "conv1/7x7_s2", "conv2.conv": "conv2/3x3_reduce", "conv3.conv": "conv2/3x3", "fc": "loss3/classifier",
        "branch1.conv": "1x1", "branch2.0.conv": "3x3_reduce", "branch2.1.conv": "3x3", "branch3.0.conv": "5x5_reduce",
        "branch3.1.conv": "5x5", "branch4.1.conv": "pool_proj", "conv.conv": "conv", "fc1": "fc", "fc2": "classifier",
    }  # fmt: skip
    shapes = heads.shapes("googlenet", 3, {"aux_features": 8})
    held = {}
    for key, shape in shapes.items():
        layer, _, what = key.rpartition(".")
        place, _, inner = layer.partition(".")
        if place.startswith("inception"):
            layer = f"inception_{place[-2:]}/{theirs[inner]}"
        else:
            layer = f"loss{place[-1]}/{theirs[inner]}" if place.startswith("aux") else theirs[layer]
        held[f"{layer}.{what}"] = torch.zeros(shape)
    assert keys.fit(held, shapes).tensors.keys() == shapes.keys()
    family = keys.family_of(held)
    assert family is not None and family.view is not None and family.view.colour == "bgr"
    assert [round(255 * mean) for mean in family.view.mean] == [104, 117, 123]


def test_biases_before_a_batch_norm_change_nothing() -> None:
    """MSRA's ResNet-50 has one on its first convolution, Caffe's BN-Inception on all; the networks here have none."""
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    torch.nn.init.normal_(layers[1].running_mean)
    images = torch.randn(2, 3, 8, 8)
    with_bias = layers(images)
    names = {"0": "inception_3a_1x1", "1": "inception_3a_1x1_bn"}
    held = {f"{names[key[0]]}{key[1:]}": tensor.detach() for key, tensor in layers.state_dict().items()}
    fitted = keys.fit(held, {key: tensor.shape for key, tensor in held.items() if key != "inception_3a_1x1.bias"})
    assert "inception_3a_1x1.bias" not in fitted.tensors and "1 biases" in fitted.notes[0]
    layers[0].bias = None
    layers[1].running_mean = fitted.tensors["inception_3a_1x1_bn.running_mean"]
    assert torch.allclose(layers(images), with_bias, atol=1e-6)
    assert keys._norm_behind("layer1.0.conv2") == "layer1.0.bn2.running_mean"
    assert keys._norm_behind("conv1") == "bn1.running_mean"


def test_cadenes_bn_inception_has_biases_everywhere_and_loads_without_an_option() -> None:
    theirs, shapes = heads.shapes("bn-inception", 3, {"bias": True}), heads.shapes("bn-inception", 3, {})
    fitted = keys.fit({key: torch.zeros(shape) for key, shape in theirs.items()}, shapes)
    assert fitted.tensors.keys() == shapes.keys()
    family = keys.family_of(theirs)
    assert family is not None and family.view is not None
    assert family.view.colour == "bgr" and [round(255 * mean) for mean in family.view.mean] == [104, 117, 128]
    assert keys.family_of(shapes) is None


def test_prefixes_go_only_where_every_name_has_them() -> None:
    shapes = {"conv.weight": torch.Size([2]), "fc.weight": torch.Size([2])}
    values = {"conv.weight": torch.zeros(2), "fc.weight": torch.ones(2)}
    for prefix in ("module.", "model.", "model.backbone.", "module._orig_mod.", "net."):
        fitted = keys.fit({prefix + name: tensor for name, tensor in values.items()}, shapes)
        assert fitted.tensors.keys() == shapes.keys(), prefix
    mixed = {"model.conv.weight": torch.zeros(2), "criterion.weight": torch.zeros(2)}
    assert keys.fit(mixed, shapes).tensors.keys() == mixed.keys()
    assert keys.fit({"model.a": torch.zeros(1)}, {"model.a": torch.Size([1])}).notes == ()


def test_the_main_head_has_many_names() -> None:
    shapes = {"conv.weight": torch.Size([2]), "last_linear.weight": torch.Size([2, 2]), "last_linear.bias": torch.Size([2])}
    fitted = keys.fit({"conv.weight": torch.zeros(2), "fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}, shapes)
    assert fitted.tensors.keys() == shapes.keys()
    assert fitted.notes == ("The layer of the classes is 'fc' in the file and 'last_linear' here.",)


def test_timms_vgg() -> None:
    shapes = heads.shapes("vgg-a", 3, {})
    theirs = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    held = {}
    for key, shape in shapes.items():
        layer, _, what = key.rpartition(".")
        held[f"{theirs.get(layer, layer)}.{what}"] = torch.zeros(1, dtype=torch.uint8).expand(shape)
    second = torch.arange(4096 * 4096, dtype=torch.int32).reshape(4096, 4096)
    held["pre_logits.fc1.weight"] = torch.zeros(1, dtype=torch.uint8).expand(4096, 512, 7, 7)
    held["pre_logits.fc2.weight"] = second.reshape(4096, 4096, 1, 1)
    fitted = keys.fit(held, shapes)
    assert {key: tensor.shape for key, tensor in fitted.tensors.items()} == shapes
    assert torch.equal(fitted.tensors["classifier.3.weight"], second)


def test_weights_are_reshaped_only_where_the_numbers_keep_their_meaning() -> None:
    shapes = {"se.weight": torch.Size([4, 8, 1, 1]), "bn.weight": torch.Size([6]), "odd.weight": torch.Size([3, 4])}
    held = {"se.weight": torch.randn(4, 8), "bn.weight": torch.randn(1, 6), "odd.weight": torch.randn(4, 3)}
    fitted = keys.fit(held, shapes)
    assert torch.equal(fitted.tensors["se.weight"].flatten(), held["se.weight"].flatten())
    assert fitted.tensors["bn.weight"].shape == (6,)
    assert fitted.tensors["odd.weight"].shape == (4, 3)  # stays wrong, and is refused by name


def test_auxiliary_heads_that_one_side_lacks() -> None:
    with_aux, without = heads.shapes("googlenet-bn", 3, {}), heads.shapes("googlenet-bn", 3, {"aux": False})
    whole = {key: torch.zeros(shape) for key, shape in with_aux.items()}
    fitted = keys.fit(whole, without)
    assert fitted.tensors.keys() == without.keys() and "were left out" in fitted.notes[0]
    fitted = keys.fit({key: tensor for key, tensor in whole.items() if key in without}, with_aux)
    assert {*fitted.tensors, *fitted.kept} == set(with_aux) and "keep their start" in fitted.notes[0]


def test_families_that_have_the_networks_own_names_bring_their_view() -> None:
    views = {}
    for name in ("inception-v3", "xception"):
        family = keys.family_of(heads.shapes(name, 3, {}))
        assert family is not None and family.view is not None and not family.rules
        views[name] = (family.view.size_px, family.view.resize_px, family.view.mean, family.view.interpolation)
    assert views == {
        "inception-v3": (299, 342, (0.5, 0.5, 0.5), "bilinear"),
        "xception": (299, 333, (0.5, 0.5, 0.5), "bicubic"),
    }


def test_every_other_network_of_ours_is_no_foreign_family() -> None:
    deep = ("101", "152", "154", "169", "201", "kth")
    names = [name for name in catalog.NETWORKS if not any(part in name for part in deep)]
    families = {name: keys.family_of(heads.shapes(name, 3, {})) for name in names}
    assert {name for name, family in families.items() if family is not None} == {"inception-v3", "xception"}
