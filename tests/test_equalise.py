"""Units that leave the integer weights behind them their bits."""

from __future__ import annotations

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.ir.graph import Graph, Node
from spikemorph.levels import Levels, PerChannel
from spikemorph.passes import plan
from spikemorph.quantise.equalise import Readers, equalised, readers
from spikemorph.quantise.methods import PostTraining


def small_and_large(seed: int) -> tuple[Tensor, Tensor]:
    """Activations [channels, n] of very different sizes, and weights [outputs, channels] behind them."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-1, 1, 60).unsqueeze(1)
    return sizes * torch.rand(60, 400, generator=generator), torch.randn(20, 60, generator=generator)


def error_of_sums(x: Tensor, weight: Tensor, units: Tensor, hi: int, largest: int) -> float:
    """Variance of the error of sums over counts with integer weights, relative to the sums' own."""
    counts = (x / units.unsqueeze(1) + 0.5).floor().clamp(0, hi)
    absorbed = weight * units
    step = absorbed.abs().amax(1, keepdim=True) / largest
    sums = step * ((absorbed / step).round() @ counts)
    wanted = weight @ x
    return float(((sums - wanted).var(1) / wanted.var(1)).mean())


@given(seed=st.integers(0, 10**5), hi=st.sampled_from([15, 63, 255]), bits=st.integers(4, 8))
def test_sums_over_counts_are_closer_the_more_levels_there_are(seed: int, hi: int, bits: int) -> None:
    x, weight = (each.double() for each in small_and_large(seed))
    own, largest = x.amax(1) / hi, 2 ** (bits - 1) - 1
    reads = Readers(((weight.unsqueeze(2), largest),), 0)
    found = equalised((x, x), own, (0, hi), reads)
    assert bool((found >= own * (1 - 1e-12)).all())
    assert float(found.max()) <= float(own.max()) * (1 + 1e-9)
    before, after = (error_of_sums(x, weight, each, hi, largest) for each in (own, found))
    assert after <= (0.95 if hi == 255 else 1.2) * before


def test_a_unit_stays_where_weights_have_bits_to_spare() -> None:
    x, weight = small_and_large(0)
    own = x.double().amax(1) / 3
    reads = Readers(((weight.double().unsqueeze(2), 2**20),), 0)
    torch.testing.assert_close(equalised((x, x), own, (0, 3), reads), own)


def test_a_reader_that_keeps_channels_apart_holds_units_fine() -> None:
    x, weight = small_and_large(1)
    own, weighing = x.double().amax(1) / 255, ((weight.double().unsqueeze(2), 7),)
    alone, beside = (equalised((x, x), own, (0, 255), Readers(weighing, n)) for n in (0, 100))
    assert bool((beside <= alone).all())
    assert float(beside.sum()) < float(alone.sum())


def test_a_channel_without_samples_costs_others_no_bits() -> None:
    x, weight = small_and_large(2)
    own, dead = x.double().amax(1) / 255, x.clone()
    dead[0], own[0] = 0.0, 1000.0
    reads = Readers(((weight.double().unsqueeze(2), 7),), 0)
    found = equalised((dead, dead), own, (0, 255), reads)
    assert float(found.max()) <= float(own[1:].max()) * (1 + 1e-9)


def test_mean_errors_cost_nothing_where_biases_make_up_for_them() -> None:
    x, weight = small_and_large(3)
    x = x / 100 + x.amax(1, keepdim=True)
    own, reads = x.double().amax(1) / 255, Readers(((weight.double().unsqueeze(2), 7),), 0)
    plain, corrected = (equalised((x, x), own, (0, 255), reads, corrected=each) for each in (False, True))
    assert float((corrected / own).log().mean()) < 0.5 * float((plain / own).log().mean())


# ---------------------------------------------------------------- in networks
class Ends(nn.Module):
    """One activation read by a convolution, a sum, a convolution in groups behind a pool, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.apart, self.last = nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.relu(self.first(x))
        added = torch.relu(self.second(x) + x)
        pooled = torch.relu(self.apart(nn.functional.max_pool2d(x, 2)))
        return added, pooled, self.last(x.mean((2, 3)))


def planned() -> tuple[Graph, Node, Levels]:
    levels = Levels(15, 6, granularity=PerChannel())
    graph = plan(sm.capture(Ends().eval(), torch.rand(2, 3, 8, 8)), levels)
    return graph, graph.by_name["relu"], levels


def test_readers_are_found_behind_pools() -> None:
    graph, node, levels = planned()
    found = readers(graph, node, levels)
    assert [(tuple(weight.shape), largest) for weight, largest in found.weighing] == [
        ((8, 8, 9), 31),
        ((4, 8, 1), 31),
    ]
    assert found.others == 2


@pytest.mark.parametrize(("method", "part"), [(sm.levels.Nearest(), 0.5), (sm.levels.Reconstruction(), 0.95)])
def test_few_bits_lose_less(method: PostTraining, part: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    sizes = torch.logspace(-2, 1, 24)
    first, last = nn.Conv2d(1, 24, 3), nn.Conv2d(24, 6, 1)
    with torch.no_grad():
        first.weight.mul_(sizes.reshape(-1, 1, 1, 1))
        first.bias.mul_(sizes)  # type: ignore[union-attr]
    graph = sm.capture(nn.Sequential(first, nn.ReLU(), last).eval(), torch.rand(2, 1, 8, 8))
    x, levels = torch.rand(64, 1, 8, 8), Levels(255, 4, granularity=PerChannel())

    def error() -> float:
        made = sm.quantise(graph, x[:32], levels, method)
        return float((sm.evaluate(made, x[32:]) - sm.evaluate(graph, x[32:])).square().mean())

    now = error()
    for name in ("network", "reconstruct"):
        module = importlib.import_module(f"spikemorph.quantise.{name}")
        monkeypatch.setattr(module, "equalised", lambda samples, units, *rest, **how: units)
    assert now < part * error()
