"""Counts against those of SpikingJelly's op_counter and of NeuroBench, on networks that all can run."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.measure.compare import Books, Comparison
from spikemorph.measure.operations import macs
from spikemorph.run.record import Everything

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, while they are imported

Case = tuple[nn.Sequential, Tensor]


def perceptron() -> Case:
    return nn.Sequential(nn.Linear(9, 12), nn.ReLU(), nn.Linear(12, 4)).eval(), torch.rand(6, 9) + 0.1


def padded() -> Case:
    model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2, padding=1))
    return model.eval(), torch.rand(6, 2, 7, 7) + 0.1


def grouped() -> Case:
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 2, groups=3, dilation=2))
    return model.eval(), torch.rand(6, 2, 7, 7) + 0.1


CASES = [perceptron, padded, grouped]


def spiking(case: Case) -> tuple[Comparison, list[Tensor]]:
    """Counts, and the spikes [steps, batch, ...] in front of the last layer."""
    model, x = case
    net = sm.convert(sm.quantise(sm.capture(model, x[:2]), x, sm.Levels(7)))
    run = sm.simulate(net, x, record=Everything())
    books = Books(net)
    books.add(run)
    assert run.trace is not None
    return books.compare(), list(run.trace["1"].float())


def heard(layer: nn.Module, trains: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for spikes in trains:
            layer(spikes)


@pytest.mark.parametrize("make", CASES)
def test_accumulates_are_those_of_spikingjelly(make: type[Case]) -> None:
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
    found, spikes = spiking(make())
    theirs = counters.SynOpCounter()
    with counters.DispatchCounterMode([theirs]):  # it takes 0 and 1 for spikes: their sign changes no count
        heard(make()[0][2], [(train != 0).float() for train in spikes])
    assert found.snn.layers["2"].accumulates * 6 == pytest.approx(theirs.get_total())


@pytest.mark.parametrize("make", CASES)
def test_macs_are_those_of_spikingjelly(make: type[Case]) -> None:
    """It counts taps in the padding, as `macs` does."""
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
    model, x = make()
    theirs = counters.MACCounter()
    with counters.DispatchCounterMode([theirs]):
        heard(model, [x])
    assert macs(sm.capture(model, x[:2])) * 6 == theirs.get_total()


@pytest.mark.parametrize("make", CASES)
def test_accumulates_are_those_of_neurobench(make: type[Case]) -> None:
    pytest.importorskip("neurobench")
    found, spikes = spiking(make())
    layer = nn.Sequential(make()[0][2])
    counted = [bench(layer, train) for train in spikes]
    assert found.snn.layers["2"].accumulates == pytest.approx(sum(each["Effective_ACs"] for each in counted))


@pytest.mark.parametrize("make", CASES)
def test_macs_are_those_of_neurobench(make: type[Case]) -> None:
    """Of the first layer, whose input is never zero: it leaves out zeros and taps in the padding."""
    pytest.importorskip("neurobench")
    model, x = make()
    found, _ = spiking((model, x))
    assert found.float.layers["0"].macs == pytest.approx(bench(nn.Sequential(model[0]), x)["Effective_MACs"])


def bench(layer: nn.Sequential, x: Tensor) -> dict[str, float]:
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    model, metric = TorchModel(layer), SynapticOperations()
    model.register_hooks()
    with torch.no_grad():
        counted: dict[str, float] = metric(model, model(x), (x, None))
    model.cleanup_hooks()
    return counted
