"""The table of published accuracies: its keys, its ranges, and torchvision's own figures for its own weights."""

import pytest
import torchvision.models

from striate.measure.accuracies import PUBLISHED
from striate.models import catalog
from striate.models.published import TORCHVISION

OF_TORCHVISION = [name for name, one in PUBLISHED.items() if one.source.startswith("torchvision")]


def test_every_line_is_of_a_network_and_says_how_and_where():
    assert not set(PUBLISHED) - set(catalog.NETWORKS)
    for name, one in PUBLISHED.items():
        assert one.protocol and one.source, name
        known = [accuracy for accuracy in (one.top1, one.top5) if accuracy is not None]
        assert known and all(0 < accuracy < 1 for accuracy in known), name
        assert one.top1 is None or one.top5 is None or one.top1 < one.top5, name
        # What is said of a data set agrees with the size and the classes of the network.
        of = {"ImageNet": 1000, "CIFAR-10": 10, "MNIST": 10, "Tiny ImageNet": 200}
        data = max((word for word in of if word in one.protocol), key=len)
        assert catalog.NETWORKS[name].classes == of[data], name


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_torchvision_s_figures_are_those_that_it_prints(name):
    weights = torchvision.models.get_model_weights(TORCHVISION[name]).IMAGENET1K_V1
    figures = weights.meta["_metrics"]["ImageNet-1K"]
    one = PUBLISHED[name]
    assert (one.top1, one.top5) == pytest.approx((figures["acc@1"] / 100, figures["acc@5"] / 100))


def test_errors_of_papers_as_accuracies():
    """Tables 3 of VGG (A-LRN, dense) and ResNet (plain-34, ten crops), table 2 of SE."""
    for name, top1, top5 in (("vgg-a-lrn", 29.7, 10.5), ("plain34", 28.54, 10.02), ("se-resnet152", 21.57, 5.73)):
        one = PUBLISHED[name]
        assert (one.top1, one.top5) == pytest.approx((1 - top1 / 100, 1 - top5 / 100))


def test_a_failed_training_is_no_published_accuracy():
    assert "se-googlenet-paths" not in PUBLISHED
