"""Gains behind weights go into them; the function stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikemorph as sm
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir import ops
from spikemorph.passes.absorb import absorb_gains
from spikemorph.passes.lower import lower_batch_norms

CASES = {
    "conv": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), (3, 6, 6)),
    "grouped, no bias": (
        nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        (4, 6, 6),
    ),
    "transposed": (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), nn.BatchNorm2d(6), nn.ReLU()),
        (4, 5, 5),
    ),
    "linear": (nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU()), (5,)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_function_stays(name: str) -> None:
    model, shape = CASES[name]
    torch.manual_seed(0)
    nn.init.uniform_(model[1].weight, -1, 1)
    nn.init.uniform_(model[1].bias, -1, 1)
    nn.init.uniform_(model[1].running_var, 0.5, 2)
    x = torch.randn(6, *shape)
    graph = lower_batch_norms(sm.capture(model.eval(), x[:2]))
    made = absorb_gains(graph)
    assert not any(isinstance(node.op, ops.Affine) for node in made.nodes)
    torch.testing.assert_close(evaluate(made, x), evaluate(graph, x), rtol=1e-4, atol=1e-5)


class Shared(nn.Module):
    """A convolution that others read as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.relu(self.norm(y)) + torch.relu(y)


def test_a_value_that_others_read_keeps_its_gain_apart() -> None:
    x = torch.randn(3, 2, 4, 4)
    graph = lower_batch_norms(sm.capture(Shared().eval(), x[:2]))
    made = absorb_gains(graph)
    assert sum(isinstance(node.op, ops.Affine) for node in made.nodes) == 1
    assert torch.equal(evaluate(made, x), evaluate(graph, x))
