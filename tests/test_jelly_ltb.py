"""SpikingJelly's local threshold balancing against its formulas, spelled out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from spikemorph.measure.peers import Absent
from spikemorph.measure.peers.jelly_ltb import Balanced, balance

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, while they are imported


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.pool(self.relu(self.conv(x))).flatten(1))
        return out


class Capped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second, self.cap = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cap(self.second(self.relu(self.first(x))))
        return out


@pytest.fixture
def case() -> tuple[Small, list[Tensor]]:
    pytest.importorskip("spikingjelly")
    torch.manual_seed(0)
    return Small().eval(), [torch.rand(5, 2, 6, 6) for _ in range(3)]


def by_hand(model: Small, batches: list[Tensor]) -> Tensor:
    threshold = torch.zeros(4)
    for x in batches:
        z = model.pool(model.conv(x))
        over = (z.clamp(min=0) - threshold[:, None, None]).clamp(min=0).mean((0, 2, 3))
        threshold = (threshold + 2 * over).clamp(min=1e-6)
    return threshold


def test_spikes_and_outputs_are_those_of_the_formulas(case: tuple[Small, list[Tensor]]) -> None:
    model, batches = case
    found = balance(model, batches, (6, 12), 1)
    assert isinstance(found, Balanced)
    x = batches[0]
    with torch.no_grad():
        outputs, spikes = found.over_steps(x)
        threshold = by_hand(model, batches)[:, None, None]
        current = model.pool(model.conv(x))
        v, sent, scores = threshold / 2 + 0 * current, [], []
        for _ in range(12):
            v = v + current
            sent.append((v >= threshold).float())
            v = v - sent[-1] * threshold
            scores.append(model.head((sent[-1] * threshold).flatten(1)))
        for steps in (6, 12):
            wanted = torch.stack(scores[found.starts[steps] : steps]).mean(0)
            assert torch.allclose(outputs[steps], wanted, atol=1e-5)
            assert spikes[steps] == float(sum(each.sum() for each in sent[:steps]))


def test_where_too_few_steps_are_left_the_last_five_are_read(case: tuple[Small, list[Tensor]]) -> None:
    model, batches = case
    with torch.no_grad():
        model.conv.weight *= 0.01
        model.conv.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        model.conv.weight[1:] *= 0.01
    found = balance(model, [batches[0]], (2, 6), 1)
    assert isinstance(found, Balanced)
    threshold, mean = by_hand(model, batches[:1]), model.pool(model.conv(batches[0])).mean((0, 2, 3)).max()
    start = int(torch.ceil((threshold / 2).max() / mean))
    assert found.starts == {2: 0, 6: start if start <= 2 else 1}


def test_what_it_refuses_is_reported(case: tuple[Small, list[Tensor]]) -> None:
    absent = balance(Capped().eval(), [torch.rand(3, 4)], (8,), 2)
    assert isinstance(absent, Absent)
    assert "1 spiking layers of 2" in absent.reason or "refuses" in absent.reason
