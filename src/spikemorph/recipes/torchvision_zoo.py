"""The networks of torchvision, untrained but alive: what converts, and why the rest does not.

`scripts/draw-zoo` fills results/zoo.json row by row and draws docs/zoo.md from it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikemorph.errors import UsageError
from spikemorph.measure.support import Refused, Taken, support
from spikemorph.passes.levels import Levels

FAMILIES = {
    "AlexNet": "alexnet",
    "VGG": "vgg",
    "ResNet": "resnet",
    "ResNeXt": "resnext",
    "Wide ResNet": "wide_resnet",
    "DenseNet": "densenet",
    "GoogLeNet": "googlenet",
    "Inception v3": "inception",
    "SqueezeNet": "squeezenet",
    "ShuffleNet v2": "shufflenet",
    "MNASNet": "mnasnet",
    "MobileNetV2": "mobilenet_v2",
    "MobileNetV3": "mobilenet_v3",
    "EfficientNet": "efficientnet_b",
    "EfficientNetV2": "efficientnet_v2",
    "RegNetX": "regnet_x",
    "RegNetY": "regnet_y",
    "ConvNeXt": "convnext",
    "ViT": "vit",
    "Swin": "swin",
    "MaxViT": "maxvit",
    "FCN": "fcn",
    "DeepLabV3": "deeplabv3",
    "LRASPP": "lraspp",
}
"""Families and how the names of their networks begin."""

SEGMENTATION = ("FCN", "DeepLabV3", "LRASPP")

SIDES = {"inception_v3": 75, "vit_h_14": 56, "maxvit_t": 224}
"""Sides of the input image where SIDE is too small, or does not fit the patches."""

SIDE = 64
BATCH = 8
COMPARED = 2
LEVELS = Levels(activation=7)

OPTIONS: dict[str, dict[str, Any]] = {
    # the normalisation stands inside the model; the auxiliary heads are for training only
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "fcn": {"weights_backbone": None, "aux_loss": True},
    "deeplabv3": {"weights_backbone": None, "aux_loss": True},
    "lraspp": {"weights_backbone": None},
    **{name: {"image_size": SIDES.get(name, SIDE)} for name in ("vit_h_14", "vit")},
}
"""Arguments of constructors by the beginning of the name, besides weights=None; the longest counts."""


def names() -> list[str]:
    """Every classification network of the installed torchvision, and the segmentation networks."""
    from torchvision import models

    return [*models.list_models(module=models), *models.list_models(module=models.segmentation)]


def family(name: str) -> str:
    """The family of a network.

    Raises:
        UsageError: it is of none.
    """
    fitting = [each for each, start in FAMILIES.items() if name.startswith(start)]
    if not fitting:
        raise UsageError(
            where="zoo",
            got=repr(name),
            known=", ".join(FAMILIES),
            do="choose a network of these families, or add its family to FAMILIES",
        )
    return max(fitting, key=lambda each: len(FAMILIES[each]))


def row(name: str) -> Taken | Refused:
    """What becomes of a network with random weights.

    Raises:
        UsageError: torchvision has no such network.
        CaptureError: it cannot be exported, or its graph computes something else.
    """
    if name not in names():
        raise UsageError(where="zoo", got=repr(name), known=", ".join(names()), do="choose one of these")
    torch.manual_seed(0)
    side = SIDES.get(name, SIDE)
    x = torch.randn(BATCH, 3, side, side)
    return support(lambda: settled(_built(name), x), x, LEVELS, samples=COMPARED)


def _built(name: str) -> nn.Module:
    from torchvision import models

    fitting = [each for each in OPTIONS if name.startswith(each)]
    options = OPTIONS[max(fitting, key=len)] if fitting else {}
    module: nn.Module = models.get_model(name, weights=None, **options)
    return module


def settled(module: nn.Module, x: Tensor) -> nn.Module:
    """The module in eval mode, batch norms with statistics of x and with gains of both signs, in place.

    Without, a deep network of random weights is all zeros or grows beyond bounds.
    """
    norms = [each for each in module.modules() if isinstance(each, _BatchNorm)]
    module.eval()
    for each in norms:
        if each.affine:
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.normal_(each.bias, std=0.2)
            each.weight.data[torch.rand(len(each.weight)) < 1 / 8] *= -1
        each.reset_running_stats()
        each.momentum = None
        each.train()
    with torch.no_grad():
        module(x)
    return module.eval()
