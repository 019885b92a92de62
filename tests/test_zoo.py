"""Pretrained networks: they load, they see, they are captured."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import spikemorph as sm
from spikemorph.data import Split
from spikemorph.data.photos import EFFICIENTNET_LITE, TORCHVISION, load_photos
from spikemorph.errors import MissingData
from spikemorph.recipes.zoo import efficientnet_lite0


@pytest.fixture(scope="module")
def lite() -> nn.Module:
    pytest.importorskip("efficientnet_lite_pytorch")
    try:
        return efficientnet_lite0()
    except MissingData as error:
        pytest.skip(str(error))


def test_efficientnet_lite0_sees_with_its_own_normalisation(lite: nn.Module) -> None:
    try:
        seen = load_photos(Split.TEST, samples=20, normal=EFFICIENTNET_LITE)
    except MissingData as error:
        pytest.skip(str(error))
    with torch.inference_mode():
        right = int((lite(seen.x).argmax(1) == seen.y).sum())
    assert right >= 15
    assert seen.x.mul(128).sub(seen.x.mul(128).round()).abs().max() < 1e-4


def test_efficientnet_lite0_is_captured(lite: nn.Module) -> None:
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    graph = sm.capture(lite, x)
    torch.testing.assert_close(sm.evaluate(graph, x), lite(x), rtol=1e-3, atol=1e-3)


def test_one_step_of_a_pixel_is_known() -> None:
    assert EFFICIENTNET_LITE.step == pytest.approx((1 / 128,) * 3)
    assert TORCHVISION.step == pytest.approx((1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)))


def test_a_definition_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MissingData, match="efficientnet-lite-pytorch") as met:
        efficientnet_lite0()
    assert "zoo" in met.value.do
