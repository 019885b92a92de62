"""The narrow ResNet-18 that conversions without training start from."""

from __future__ import annotations

import pytest
import torch

import spikemorph as sm
from spikemorph.data import Split
from spikemorph.data.cifar import load_cifar10
from spikemorph.errors import MissingData
from spikemorph.recipes.result import accuracy
from spikemorph.recipes.training_free_cifar10 import RESNET18


def test_its_weights_fit_its_module_and_its_graph() -> None:
    graph = RESNET18.graph(None, "float")
    module = RESNET18.float_module(graph)
    assert module is not None
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(module(x), sm.evaluate(graph, x), rtol=1e-3, atol=1e-3)


def test_it_knows_its_classes() -> None:
    try:
        data = load_cifar10(Split.VALIDATION).first(300)
    except MissingData as missing:
        pytest.skip(str(missing))
    assert accuracy(sm.evaluate(RESNET18.graph(None, "float"), data.x), data.y) > 80
