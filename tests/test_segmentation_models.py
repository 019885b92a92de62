"""torchvision's own segmentation classes convert whole, upsampling included: QNN = SNN on every neuron."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm

pytest.importorskip("torchvision")
from torchvision.models import MobileNetV3, mobilenet_v3_small, resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation import deeplabv3, fcn, lraspp

torch.set_num_threads(1)
SIZE = 48
CLASSES = 5


def trunk(**layers: str) -> nn.Module:
    """The first stages of a ResNet of one block a stage, taken as torchvision's builders take them."""
    whole = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])
    return IntermediateLayerGetter(whole, return_layers={layer: name for name, layer in layers.items()})


def fcn_net() -> nn.Module:
    backbone = trunk(out="layer3", aux="layer2")
    return fcn.FCN(backbone, fcn.FCNHead(256, CLASSES), fcn.FCNHead(128, CLASSES))


def deeplab_net() -> nn.Module:
    return deeplabv3.DeepLabV3(trunk(out="layer2"), deeplabv3.DeepLabHead(128, CLASSES, (1, 2, 3)))


def lraspp_net() -> nn.Module:
    whole = mobilenet_v3_small(weights=None)
    assert isinstance(whole, MobileNetV3)
    return lraspp._lraspp_mobilenetv3(whole, CLASSES)


def settled(model: nn.Module, x: Tensor) -> nn.Module:
    """At rest, batch norms with the statistics of x: no activation is dead or huge."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        model.train()(x)
    return model.eval()


@pytest.mark.parametrize(
    ("make", "heads"), [(fcn_net, ["out", "aux"]), (deeplab_net, ["out"]), (lraspp_net, ["out"])]
)
def test_segmentation_networks_convert_whole(make: Callable[[], nn.Module], heads: list[str]) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, SIZE, SIZE)
    model = settled(make(), x)
    graph = sm.capture(model, x[:2])
    integer = sm.quantise(graph, x, sm.Levels(activation=15))
    found: list[Any] = []
    certificate = sm.verify(sm.convert(integer), integer, x[:1], watch=lambda run: found.append(run.output))
    assert certificate.lossless
    assert certificate.neurons_different == certificate.outputs_different == 0
    assert list(found[0]) == heads
    assert all(each.shape == (1, CLASSES, SIZE, SIZE) for each in found[0].values())
    with torch.no_grad():
        wanted = model(x[:1])
    for head in heads:
        assert torch.corrcoef(torch.stack((found[0][head].flatten(), wanted[head].flatten())))[0, 1] > 0.8
