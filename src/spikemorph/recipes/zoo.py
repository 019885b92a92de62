"""Pretrained networks of other people as modules: weights from `data.pretrained`, definitions from `zoo`."""

from __future__ import annotations

from torch import nn

from spikemorph.data.pretrained import EFFICIENTNET_LITE0
from spikemorph.errors import MissingData


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 at rest: [batch, 3, 224, 224] to the logits of ImageNet's 1,000 classes.

    Its pixels are those of `photos.EFFICIENTNET_LITE`: with torchvision's it finds 11 photos in 100 fewer.
    Its padding was laid out for 224 x 224 images; others run, with other borders.

    Raises:
        MissingData: the weights cannot be had, or the package with the definition is not installed.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingData(
            where="network efficientnet-lite0",
            got="the package efficientnet-lite-pytorch is not installed",
            known="it holds the definition of the network",
            do="pip install 'spikemorph[zoo]'",
        ) from error
    module: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(EFFICIENTNET_LITE0.state_dict())
    return module.eval()
