"""Grids: the integer graph is close to the float one, and the trainable twin is the integer graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from ir_graphs import random_graph
from spikemorph.data import Split, load
from spikemorph.evaluate.encode import input_counts
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.levels import LeastSquares, Levels, Max, Override, Percentile, PerChannel, PerTensor
from spikemorph.passes.levels import Observer
from spikemorph.passes.plan import sources_of_outputs
from spikemorph.quantise import QuantisedNetwork
from spikemorph.quantise.inputs import input_grid
from spikemorph.quantise.methods import Nearest, PostTraining, Reconstruction
from spikemorph.quantise.scale import AT_ONCE, choose_unit
from spikemorph.recipes.digits import PlainNet, ResidualNet

FINE = Levels(
    activation=255,
    identity=255,
    weight_bits=8,
    skip_bits=12,
    observer=Max(),
    weight_observer=Max(),
    input=sm.Analog(bits=12),
)


def drawn(seed: int) -> tuple[Graph, tuple[Tensor, ...]]:
    """A random float graph of all captured ops, with sane batch norms, and inputs.

    Recurrences that grow from element to element would grow the first rounding along.
    """
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, Dialect.FLOAT, 7)
    kept = [node for node in graph.nodes if not isinstance(node.op, ops.AxisMap)]
    if len(kept) < len(graph.nodes):
        return drawn(seed + 10**6)  # never captured: averages become AxisMap in a pass
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        if isinstance(node.op, ops.BatchNorm):
            tensors[node.op.variance] = tensors[node.op.variance].abs() + 0.1
        if isinstance(node.op, ops.Recurrence):
            weight = tensors[node.op.weight]
            tensors[node.op.weight] = weight / torch.linalg.matrix_norm(weight.double(), 2).clamp(min=1)
    x = tuple(torch.tensor(rng.normal(size=(16, *n.shape)), dtype=torch.float32) for n in graph.inputs)
    return graph.with_nodes(graph.nodes, tensors=tensors), x


@settings(max_examples=50)
@given(seed=st.integers(0, 10**5))
@example(seed=7997)
@example(seed=20548)  # a tensor is called ""
def test_at_fine_levels_the_integer_graph_is_the_float_graph(seed: int) -> None:
    """Gains of both signs, padded batch norms, sums of different units, concats, pools: all ops at random."""
    graph, x = drawn(seed)
    network = sm.trainable(graph, FINE, x)
    integer = sm.freeze(network)
    wanted = evaluate_float(graph, x)
    values = evaluate_counts(integer, input_counts(integer, x))
    names = zip(sources_of_outputs(graph), sources_of_outputs(network.graph), strict=True)
    for name, planned in names:
        op = integer.by_name[f"{planned}.readout"].op
        assert isinstance(op, ops.Readout)
        got = values[f"{planned}.readout"] * integer.tensors[op.scale]
        got = got if op.offset is None else got + integer.tensors[op.offset]
        scale = wanted[name].abs().max().clamp(min=1e-6)
        assert float((got - wanted[name]).abs().max() / scale) < 0.08, name
    assert integer.units.keys() == {node.name for node in integer.neurons}


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**5),
    p=st.sampled_from([1, 3, 15, 255]),
    bits=st.integers(2, 8),
    granularity=st.sampled_from([PerTensor(), PerChannel()]),
    graded=st.booleans(),
    coded=st.booleans(),
)
def test_random_float_graphs_become_lossless_spiking_networks(
    seed: int, p: int, bits: int, granularity: PerTensor | PerChannel, graded: bool, coded: bool
) -> None:
    graph, x = drawn(seed)
    integer = sm.quantise(graph, x, Levels(p, bits, granularity=granularity, observer=Percentile(99.0)))
    method = sm.Lossless(sm.Graded(4) if graded else sm.Ternary(), sm.Spikes() if coded else sm.Analog())
    network = sm.convert(integer, method)
    certificate = sm.verify(network, integer, tuple(each[:4] for each in x))
    assert certificate.lossless, certificate.first_difference
    assert certificate.steps_max <= certificate.steps_bound
    assert certificate.integer_type in {"int16", "int32"}


def agreement(network: nn.Module, integer: Graph, x: Tensor) -> tuple[int, int]:
    """Neurons that agree between the trainable network and its integer graph, and all."""
    assert isinstance(network, QuantisedNetwork)
    rest = evaluate_counts(integer, input_counts(integer, x))
    with torch.no_grad():
        values, _ = network.integers(x)
    same = sum(int((values[n.name] == rest[n.name]).sum()) for n in integer.neurons)
    return same, sum(rest[n.name].numel() for n in integer.neurons)


@pytest.mark.parametrize("model", [PlainNet, ResidualNet])
@pytest.mark.parametrize(("p", "bits"), [(3, 4), (15, 8), (255, 8)])
def test_the_trained_module_and_its_integer_graph_agree_on_real_data(
    model: type[nn.Module], p: int, bits: int
) -> None:
    """At least 99.99 % of all activations, after some training steps that move every parameter."""
    torch.manual_seed(0)
    data, test = load("digits", Split.TRAIN), load("digits", Split.TEST)
    graph = sm.capture(model().eval(), data.x[:2])
    network = sm.trainable(graph, Levels(p, bits), data.x[:128])
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for start in range(0, 512, 64):
        optimiser.zero_grad()
        x, y = data.x[start : start + 64], data.y[start : start + 64]
        scores, activity = network.with_activity(x)
        (nn.functional.cross_entropy(scores, y) + 0.01 * activity).backward()
        optimiser.step()
    integer = sm.freeze(network)
    same, all_of_them = agreement(network, integer, test.x)
    assert same / all_of_them >= 0.9999
    scores = sm.evaluate(integer, test.x)
    with torch.no_grad():
        assert (scores.argmax(1) == network(test.x).argmax(1)).double().mean() > 0.99


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    data = load("digits", Split.TRAIN)
    network = sm.trainable(sm.capture(ResidualNet().eval(), data.x[:2]), Levels(7, 4), data.x[:64])
    nn.functional.cross_entropy(network(data.x[:64]), data.y[:64]).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


def test_the_count_penalty_makes_fewer_spikes() -> None:
    data = load("digits", Split.TRAIN)
    spikes = []
    for penalty in (0.0, 5.0):
        torch.manual_seed(0)
        graph = sm.capture(PlainNet().eval(), data.x[:2])
        network = sm.trainable(graph, Levels(3, 4), data.x[:64])
        optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
        for start in range(0, 640, 64):
            optimiser.zero_grad()
            x, y = data.x[start : start + 64], data.y[start : start + 64]
            scores, activity = network.with_activity(x)
            (nn.functional.cross_entropy(scores, y) + penalty * activity).backward()
            optimiser.step()
        run = sm.simulate(sm.convert(sm.freeze(network)), data.x[:32])
        spikes.append(run.spikes)
    assert spikes[1] < 0.7 * spikes[0]


def test_overrides_reach_the_named_module_alone() -> None:
    data = load("digits", Split.TRAIN)
    graph = sm.capture(PlainNet().eval(), data.x[:2])
    levels = Levels(
        3, 4, overrides={"features.0": Override(weight_bits=8), "features.5": Override(activation=7)}
    )
    integer = sm.quantise(graph, data.x[:64], levels)
    assert int(integer.tensors["features.0.weight"].abs().max()) > 7
    assert int(integer.tensors["features.3.weight"].abs().max()) <= 7
    neurons = {node.name: node.op for node in integer.neurons}
    assert neurons["features.5"].hi == 7
    assert neurons["features.2"].hi == 3


def test_per_channel_units_are_used_where_consumers_absorb_them() -> None:
    data = load("digits", Split.TRAIN)
    graph = sm.capture(PlainNet().eval(), data.x[:2])
    network = sm.trainable(graph, Levels(15, granularity=PerChannel()), data.x[:64])
    wide = {
        node.name: node.op.per_channel for node in network.graph.nodes if isinstance(node.op, ops.Quantiser)
    }
    assert wide == {"features.2": True, "features.5": True, "features.9": True}
    plain = sm.quantise(graph, data.x[:256], Levels(7))
    fine = sm.quantise(graph, data.x[:256], Levels(7, granularity=PerChannel()))
    wanted = sm.evaluate(graph, data.x[256:512])
    errors = [float((sm.evaluate(each, data.x[256:512]) - wanted).square().mean()) for each in (plain, fine)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize(
    ("x", "grid"),
    [
        (torch.tensor([0.0, 3.0, 16.0]), (1.0, 0, 255)),
        (torch.tensor([0.0, 128.0, 255.0]) / 255, (1 / 255, 0, 255)),
        (torch.tensor([-2.0, 0.0, 1.0]), (1.0, -127, 127)),
        (torch.tensor([-0.5, 0.25]), (0.5 / 127, -127, 127)),
        (torch.tensor([0.1, 0.3]), (float(torch.tensor(0.3)) / 255, 0, 255)),
        (torch.zeros(3), (1.0, 0, 255)),
    ],
)
def test_the_input_keeps_its_own_grid_where_it_has_one(x: Tensor, grid: tuple[float, int, int]) -> None:
    unit, lo, hi = input_grid(x, 8)
    assert (lo, hi) == grid[1:]
    assert unit == pytest.approx(grid[0], rel=1e-12)


def test_units_reach_what_their_observer_says() -> None:
    samples = torch.cat([torch.arange(1.0, 1001.0), torch.zeros(500)]).unsqueeze(0)
    assert float(choose_unit(samples, 0, 10, Max())) == pytest.approx(100.0)
    assert float(choose_unit(samples, 0, 10, Percentile(50.0))) == pytest.approx(50.0)
    assert float(choose_unit(-samples, -10, 10, Max())) == pytest.approx(100.0)
    assert float(choose_unit(torch.zeros(1, 9), 0, 10, LeastSquares())) == pytest.approx(0.1)


class Many(nn.Module):
    """Channels that are seldom active, and then strongly."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)


@pytest.mark.parametrize("method", [Nearest(), Reconstruction()])
def test_units_see_what_is_rare_and_large(method: PostTraining) -> None:
    generator = torch.Generator().manual_seed(0)
    rare = torch.rand(32, 64, 16, 16, generator=generator) < 2e-3
    x = torch.where(rare, 1.0, 0.01) * torch.rand(rare.shape, generator=generator)
    graph = sm.capture(Many().eval(), x[:2])
    levels = Levels(15, granularity=PerChannel(), input=sm.Analog(16))
    lost = sm.evaluate(sm.quantise(graph, x, levels, method), x) - x
    best = choose_unit(x.movedim(1, 0).flatten(1), 0, 15, LeastSquares()).reshape(-1, 1, 1)
    least = (x / best + 0.5).floor().clamp(0, 15) * best - x
    assert float(lost.square().mean()) < 1.05 * float(least.square().mean())


@pytest.mark.parametrize("observer", [Max(), Percentile(90.0), LeastSquares()])
def test_units_are_those_of_their_row_however_many_rows_there_are(observer: Observer) -> None:
    samples = torch.randn(70, 1000) * torch.logspace(-3, 3, 70).unsqueeze(1)
    assert samples.numel() > AT_ONCE
    alone = [choose_unit(row.unsqueeze(0), -7, 7, observer) for row in samples]
    assert torch.equal(choose_unit(samples, -7, 7, observer), torch.cat(alone))


@given(seed=st.integers(0, 999), hi=st.sampled_from([1, 3, 15]))
def test_least_squares_is_never_worse_than_max(seed: int, hi: int) -> None:
    samples = torch.randn(2, 300, generator=torch.Generator().manual_seed(seed)).relu()

    def error(unit: Tensor) -> Tensor:
        unit = unit.unsqueeze(1)
        return (samples - unit * (samples / unit + 0.5).floor().clamp(0, hi)).square().sum(1)

    best, largest = choose_unit(samples, 0, hi, LeastSquares()), choose_unit(samples, 0, hi, Max())
    assert bool((error(best) <= error(largest) * 1.02).all())
