"""Gates as people write them by hand: squeeze-and-excite, attention over channels, self-gated functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.ir import ops


class Gated(nn.Module):
    """A gate between two convolutions; a to d work over channels, k along them, s over places."""

    def __init__(self, gate: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3)
        self.a, self.b = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.c, self.d = nn.Linear(8, 4), nn.Linear(4, 8)
        self.k, self.s = nn.Conv1d(1, 1, 3, padding=1, bias=False), nn.Conv2d(2, 1, 7, padding=3)
        self.pool, self.act = nn.AdaptiveAvgPool2d(1), nn.Hardswish(inplace=True)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.gate(self, self.first(x)))


def _expand_as(s: Any, x: Tensor) -> Tensor:
    b, c, _, _ = x.size()
    y = s.pool(x).view(b, c)
    y = torch.sigmoid(s.d(F.relu(s.c(y), inplace=True))).view(b, c, 1, 1)
    return x * y.expand_as(x)


def _torch_mul(s: Any, x: Tensor) -> Tensor:
    y = x.mean((2, 3), keepdim=True)
    return torch.mul(x, F.hardsigmoid(s.b(F.relu(s.a(y))), inplace=True))


def _multiply(s: Any, x: Tensor) -> Tensor:
    y = x.view(x.size(0), x.size(1), -1).mean(dim=2)
    return torch.multiply(torch.sigmoid(s.d(F.relu(s.c(y)))).view(-1, x.size(1), 1, 1), x)


def _in_place(s: Any, x: Tensor) -> Tensor:
    y = F.avg_pool2d(x, x.shape[2:])
    return x.mul_(s.b(F.silu(s.a(y), inplace=True)).sigmoid_())


def _hard_by_hand(s: Any, x: Tensor) -> Tensor:
    y = F.adaptive_avg_pool2d(x, (1, 1))
    return x * (F.relu6(s.b(F.relu(s.a(y))) + 3.0, inplace=True) / 6.0)


def _clamped(s: Any, x: Tensor) -> Tensor:
    y = x.sum(dim=(2, 3), keepdim=True) / (x.shape[2] * x.shape[3])
    return x * torch.clamp(s.b(s.act(s.a(y))) * 0.2 + 0.5, 0, 1)


def _one_more(s: Any, x: Tensor) -> Tensor:
    y = torch.tanh(s.d(s.c(s.pool(x).flatten(1)).relu())).unsqueeze(2).unsqueeze(3)
    return x * (1 + y)


def _residual(s: Any, x: Tensor) -> Tensor:
    return F.relu(x + _expand_as(s, x))


def _over_channels(s: Any, x: Tensor) -> Tensor:
    """Efficient channel attention (Wang et al., 2020)."""
    y = s.pool(x).squeeze(-1).transpose(-1, -2)
    y = s.k(y).transpose(-1, -2).unsqueeze(-1)
    return x * torch.sigmoid(y).expand_as(x)


def _channels_and_places(s: Any, x: Tensor) -> Tensor:
    """Convolutional block attention (Woo et al., 2018)."""
    means, peaks = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
    x = x * torch.sigmoid(s.b(F.relu(s.a(means))) + s.b(F.relu(s.a(peaks))))
    places = torch.cat([x.mean(dim=1, keepdim=True), x.max(dim=1, keepdim=True)[0]], dim=1)
    return x * torch.sigmoid(s.s(places))


def _halves(s: Any, x: Tensor) -> Tensor:
    u, v = x.chunk(2, dim=1)
    gate = v.mean((2, 3), keepdim=True).sigmoid()
    return torch.cat([u * gate, v * gate], dim=1)


GATES: dict[str, tuple[Callable[[Any, Tensor], Tensor], int]] = {
    "expand_as": (_expand_as, 1),
    "torch.mul": (_torch_mul, 1),
    "torch.multiply": (_multiply, 1),
    "in place": (_in_place, 1),
    "relu6(x + 3) / 6": (_hard_by_hand, 1),
    "clamp(x / 5 + 1 / 2)": (_clamped, 1),
    "1 + gate": (_one_more, 1),
    "residual": (_residual, 1),
    "over channels": (_over_channels, 1),
    "channels and places": (_channels_and_places, 2),
    "halves": (_halves, 2),
}
"""Gates, and how many products they are."""


@pytest.mark.parametrize("name", GATES)
def test_gates_written_by_hand_are_products_and_lossless(name: str) -> None:
    gate, products = GATES[name]
    x = torch.randn(8, 3, 8, 8)
    graph = sm.capture(Gated(gate).eval(), x[:2])
    assert sum(isinstance(node.op, ops.Mul) for node in graph.nodes) == products
    integer = sm.quantise(graph, x, sm.Levels(activation=7))
    certificate = sm.verify(sm.convert(integer), integer, x)
    assert certificate.lossless
    assert certificate.engine == "event"
    assert certificate.spikes_per_neuron > 0.1
