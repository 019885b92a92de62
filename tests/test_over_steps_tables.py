"""Tables over steps: every entry is that of a run of so many steps, whatever is scored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.convert.network import SpikingNetwork
from spikemorph.convert.rate import Rate
from spikemorph.measure.operations import synaptic_operations
from spikemorph.measure.over_steps import over_steps
from spikemorph.measure.segmentation import confusion, mean_iou, scenes_iou
from spikemorph.recipes.over_steps import QUIESCENT, Way, curve, hits, losses, measured
from spikemorph.verify.certificate import analog_inputs

torch.set_num_threads(1)
STEPS = (3, 6)
N = 5


@pytest.fixture(scope="module")
def case() -> tuple[sm.Graph, SpikingNetwork, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(N, 1, 6, 6)
    model = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    graph = sm.capture(model, x)
    return graph, sm.convert(sm.quantise(graph, x, sm.Levels(activation=15))), x


def test_each_value_is_that_of_a_run_of_so_many_steps(case: tuple[sm.Graph, SpikingNetwork, Tensor]) -> None:
    _, network, x = case
    labels = torch.randint(5, (N, 6, 6), generator=torch.Generator().manual_seed(2))

    def score(outputs: Any, part: slice) -> Tensor:
        return confusion(outputs, labels[part])

    values, spikes = curve(
        network, x, score, STEPS, rest=True, finish=lambda table, n: mean_iou(table) + n, batch=2
    )
    assert list(values) == ["3", "6", QUIESCENT]
    neurons = N * sum(torch.Size(node.shape).numel() for node in network.graph.neurons)
    for key, steps in (("3", 3), ("6", 6), (QUIESCENT, None)):
        run = sm.simulate(network, x, steps=steps)
        assert values[key] == scenes_iou(run.output, labels) + N
        assert spikes[key] == pytest.approx(run.spikes / neurons)
    assert len(set(values.values())) == 3


def test_numbers_are_averaged_and_methods_keep_their_own_steps() -> None:
    torch.manual_seed(1)
    x, labels = torch.rand(N, 6), torch.tensor([0, 1, 2, 0, 1])
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)).eval()
    graph = sm.capture(model, x)
    coarse, fine = (sm.convert(sm.quantise(graph, x, sm.Levels(p))) for p in (3, 31))
    rate = sm.convert(graph, Rate(), x)
    ways = (
        Way("lossless", fine, (6,), rest=True),
        Way("lossless", coarse, (3,)),
        Way("rate", rate, STEPS),
    )
    told: list[tuple[int, int]] = []
    table = measured(ways, x, hits(labels), batch=2, progress=lambda *done: told.append(done))
    assert told[-1] == (15, 15)
    assert {name: list(row) for name, row in table.by_method.items()} == {
        "lossless": ["3", "6", QUIESCENT],
        "rate": ["3", "6"],
    }
    for name, steps, network in (("lossless", 3, coarse), ("lossless", 6, fine), ("rate", 6, rate)):
        output = sm.simulate(network, x, steps=steps).output
        right = 100 * float((output.argmax(1) == labels).double().mean())
        assert table.by_method[name][str(steps)] == right
    one = [synaptic_operations(sm.simulate(coarse, x[i : i + 1], steps=3)) for i in range(2)]
    assert table.costs["lossless"]["3"]["synaptic_operations"] == sum(one) / 2
    lost = losses(table, 90.0, {"3": "rate", QUIESCENT: "lossless", "8": "rate"})
    assert lost == {
        "3": 90.0 - table.by_method["rate"]["3"],
        QUIESCENT: 90.0 - table.by_method["lossless"][QUIESCENT],
    }


def test_results_say_when_analog_values_enter(case: tuple[sm.Graph, SpikingNetwork, Tensor]) -> None:
    graph, network, x = case
    assert analog_inputs(network) == "input, injected once at step 0"
    assert analog_inputs(sm.convert(graph, Rate(), x)) == "input, injected in every step"
    ramp = sm.convert(sm.quantise(graph, x, sm.Levels(3)), sm.Lossless(ramp=4))
    assert analog_inputs(ramp) == "input, injected evenly over steps 0..3"


def test_a_network_may_be_looked_at_at_rest_only(case: tuple[sm.Graph, SpikingNetwork, Tensor]) -> None:
    _, network, x = case
    (reached,) = over_steps(network, x, ())
    assert (reached.outputs, len(reached.spikes)) == ({}, 0)
    assert torch.equal(reached.quiescent, sm.simulate(network, x).output)
    table = measured([Way("lossless", network, (), rest=True)], x, lambda outputs, part: float(part.stop))
    assert list(table.by_method["lossless"]) == list(table.costs["lossless"]) == [QUIESCENT]
