"""Whole networks of torchvision, untrained."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from spikemorph.capture import capture
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.ir import functions as fn
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph

models = pytest.importorskip("torchvision.models")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("resnet18", {ops.Conv: 20, ops.BatchNorm: 20, ops.Add: 8, ops.Elementwise: 17, ops.MaxPool: 1}),
        ("mobilenet_v3_small", {ops.Conv: 52, ops.Mul: 9, ops.Add: 6, ops.Elementwise: 42, ops.Linear: 2}),
    ],
)
def test_networks(name: str, kinds: dict[type, int]) -> None:
    model = getattr(models, name)().eval()
    graph = capture(model, torch.randn(1, 3, 40, 40))
    found = Counter(type(node.op) for node in graph.nodes)
    assert {kind: found[kind] for kind in kinds} == kinds
    x = torch.randn(3, 3, 40, 40)
    with torch.no_grad():
        wanted = model(x)
    got = evaluate_float(graph, (x,))[graph.outputs[0]]
    assert (got - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    assert set(graph.tensors) <= set(model.state_dict())
    if name == "resnet18":
        _check_names(graph)


def _check_names(graph: Graph) -> None:
    assert graph.by_name["layer1.0.relu"].op == ops.Elementwise(fn.Relu())
    assert {"conv1", "layer1.0.conv1", "layer1.0.add", "layer1.0.relu_2", "fc"} <= graph.by_name.keys()
    assert graph.by_name["layer1.0.add"].origin.source.startswith("resnet.py:")
