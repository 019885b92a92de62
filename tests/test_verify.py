"""The certificate: what it says of a right network, and that nothing wrong passes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from graphs import Builder, network, product, random_counts, random_integer_graph, two_layers, weighted_neuron
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.methods import convert
from spikemorph.convert.network import Analog, Graded, Spikes, SpikingNetwork, Ternary
from spikemorph.errors import DataError, FileError, GraphError
from spikemorph.evaluate.integers import INTEGERS
from spikemorph.evaluate.intervals import accumulator_bounds
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.store import graph_hash
from spikemorph.ir.verify import verify as check_graph
from spikemorph.run.dense import Dense
from spikemorph.run.record import Everything, Record
from spikemorph.run.reference import Reference
from spikemorph.run.result import Run
from spikemorph.verify.bounds import integer_type, steps_bound
from spikemorph.verify.certificate import (
    FirstDifference,
    emitters,
    network_hash,
    parse_certificate,
    recheck,
    verify,
)

torch.set_num_threads(1)

METHODS = [Lossless(spike, way) for spike in (Ternary(), Graded(3)) for way in (Analog(), Spikes())]
methods = st.sampled_from(METHODS)
seeds = st.integers(0, 10**6)


def drawn(seed: int, batch: int = 3) -> tuple[Graph, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """A random graph, input counts, and samples of exactly these counts."""
    rng = np.random.default_rng(seed)
    graph = random_integer_graph(rng)
    counts = random_counts(rng, graph, batch)
    return graph, counts, tuple(each / 2 for each in counts)


def traced(net: SpikingNetwork, counts: tuple[Tensor, ...]) -> Run:
    return Reference().run(net, counts, steps=None, record=(Everything(),))


# ---------------------------------------------------------------- a right network
@settings(max_examples=20)
@given(seed=seeds, method=methods)
def test_a_converted_network_is_lossless_and_its_certificate_says_what_ran(
    seed: int, method: Lossless
) -> None:
    graph, counts, x = drawn(seed)
    net = convert(graph, method)
    made, run = verify(net, graph, x), traced(net, counts)
    neurons = sum(int(np.prod(node.shape)) for node in graph.neurons)
    outputs = sum(int(np.prod(node.shape)) for node in graph.readouts)
    assert made.lossless
    assert (made.samples, made.neurons, made.neurons_compared) == (3, neurons, 3 * neurons)
    assert made.outputs_compared == 3 * outputs
    assert (made.neurons_different, made.outputs_different, made.unsettled_samples) == (0, 0, 0)
    assert (made.structural_differences, made.first_difference) == ((), None)
    assert made.graph_hash == graph_hash(graph) == net.source
    assert made.network_hash == network_hash(net)
    assert (made.steps_max, made.spikes, made.events) == (int(run.sample_steps.max()), run.spikes, run.events)
    assert made.steps_mean == pytest.approx(float(run.sample_steps.double().mean()))
    assert made.steps_mean <= made.steps_p999 <= made.steps_max <= made.steps_bound
    assert made.spikes_per_neuron == pytest.approx(run.spikes / max(3 * emitters(net), 1))
    assert made.spike_kind == ("ternary" if method.spike == Ternary() else "graded(3)")
    assert made.analog_inputs == ("none" if method.input == Spikes() else "input, injected once at step 0")
    assert made.accumulator_bounds.keys() == {node.name for node in (*graph.neurons, *graph.readouts)}
    assert made.engine == "event"
    assert parse_certificate(made.to_json()) == json.loads(made.to_json())
    assert recheck(made.to_json(), net, graph, x, engine=Reference())[1] == ()


def test_hashes_tell_networks_and_data_apart() -> None:
    graph, x = two_layers(), torch.tensor([[1.0, 0.5], [-1.5, 0.0]])
    made = [verify(convert(graph, method), graph, x) for method in METHODS]
    assert len({each.network_hash for each in made}) == len(METHODS)
    assert len({each.graph_hash for each in made}) == 1
    other = verify(convert(graph), graph, x.flip(0))
    assert other.data_hash != made[0].data_hash


def test_a_certificate_of_other_numbers_is_contradicted() -> None:
    graph, x = two_layers(), torch.tensor([[1.0, 0.5]])
    old = json.loads(verify(convert(graph), graph, x).to_json())
    for name, value in old.items():
        if name in {"format", "engine"}:
            continue
        forged = json.dumps({**old, name: [value]})
        _, wrong = recheck(forged, convert(graph), graph, x)
        assert wrong == (f"{name}: the certificate says {[value]!r}, measured {value!r}",)
        if name != "graph_hash":
            missing = json.dumps({key: each for key, each in old.items() if key != name})
            _, wrong = recheck(missing, convert(graph), graph, x)
            known = f"{name}: the certificate says None, measured {value!r}"
            later = name == "lengths_hash"  # certificates of earlier versions have no lengths
            assert wrong == (() if value is None or later else (known,))


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ("[]", "list"),
        ("{}", "format None, without a graph_hash"),
        ('{"format": 1}', "format 1, without a graph_hash"),
        ('{"format": 2, "graph_hash": ""}', "format 2, with a graph_hash"),
    ],
)
def test_what_is_no_certificate_is_refused(text: str, got: str) -> None:
    with pytest.raises(FileError) as caught:
        parse_certificate(text)
    assert (caught.value.where, caught.value.got) == ("the certificate", got)


# ---------------------------------------------------------------- where counts first differ
def first_difference(
    graph: Graph, changed: SpikingNetwork, batches: list[tuple[Tensor, ...]]
) -> FirstDifference | None:
    """By plain loops over two runs of the oracle."""
    before = 0
    for counts in batches:
        right, wrong = traced(network(graph), counts), traced(changed, counts)
        assert right.counts is not None
        assert wrong.counts is not None
        assert wrong.trace is not None
        for node in graph.neurons:
            for place in np.ndindex(tuple(right.counts[node.name].shape)):
                qnn, snn = int(right.counts[node.name][place]), int(wrong.counts[node.name][place])
                if qnn != snn:
                    emitted = [t for t, frame in enumerate(wrong.trace[node.name]) if frame[place]]
                    step = emitted[-1] + 1 if emitted else 0
                    channel = place[1] if len(place) > 1 else None
                    return FirstDifference(node.name, before + place[0], channel, place[2:], step, qnn, snn)
        before += len(counts[0])
    return None


@settings(max_examples=40)
@given(seed=seeds, method=methods, by=st.sampled_from([-9, -1, 1, 30]), pick=st.integers(0, 10**6))
def test_the_first_difference_is_that_of_the_oracle(seed: int, method: Lossless, by: int, pick: int) -> None:
    graph, counts, x = drawn(seed, batch=5)
    whole = sorted(
        name for name, each in graph.tensors.items() if not each.is_floating_point() and each.numel()
    )
    assume(whole)
    name = whole[pick % len(whole)]
    changed = graph.tensors[name].clone()
    changed.view(-1)[pick % changed.numel()] += by
    other = graph.with_nodes(graph.nodes, tensors={**graph.tensors, name: changed})
    try:
        check_graph(other)
    except GraphError:
        assume(False)
    net = network(other, method.spike, method.input)
    parts = [tuple(each[:2] for each in counts), tuple(each[2:] for each in counts)]
    made = verify(net, graph, [tuple(each[:2] for each in x), tuple(each[2:] for each in x)])
    assert made.first_difference == first_difference(graph, net, parts)
    assert (made.neurons_different > 0) == (made.first_difference is not None)
    assert not made.lossless


# ---------------------------------------------------------------- engines with a bug
@dataclass(frozen=True)
class Tampering:
    """Runs densely, then changes the result."""

    change: Callable[[Run], Run]

    def run(
        self,
        network: SpikingNetwork,
        counts: tuple[Tensor, ...],
        *,
        steps: int | None,
        record: tuple[Record, ...],
        **_: object,
    ) -> Run:
        return self.change(Dense().run(network, counts, steps=steps, record=(*record, Everything())))


def lose_last_spike(run: Run) -> Run:
    """The last spike of neuron4's only neuron is dropped in every sample."""
    assert run.counts is not None
    assert run.trace is not None
    trace = run.trace["neuron4"].clone()
    for sample in range(trace.shape[1]):
        emitted = trace[:, sample, 0].nonzero()
        if len(emitted):
            trace[int(emitted[-1]), sample, 0] = 0
    return replace(run, counts={**run.counts, "neuron4": trace.sum(0)}, trace={**run.trace, "neuron4": trace})


def test_an_engine_that_drops_a_spike_is_caught() -> None:
    graph = two_layers()
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.5, -1.5], [-1.5, 1.5]])
    net = convert(graph)
    right = traced(net, ((2 * x).long(),))
    assert right.trace is not None
    emitted = [right.trace["neuron4"][:, sample, 0].nonzero().flatten().tolist() for sample in range(4)]
    emitting = [sample for sample, steps in enumerate(emitted) if steps]
    assert emitting, "the data must make neuron4 spike"
    made = verify(net, graph, x, engine=Tampering(lose_last_spike))
    assert not made.lossless
    assert (made.structural_differences, made.outputs_different) == ((), 0)
    assert made.neurons_different == len(emitting)
    found = made.first_difference
    assert found is not None
    steps = emitted[emitting[0]]
    assert (found.layer, found.sample, found.channel, found.position) == ("neuron4", emitting[0], 0, ())
    assert found.step == (steps[-2] + 1 if len(steps) > 1 else 0)
    assert found.qnn - found.snn == int(right.trace["neuron4"][steps[-1], emitting[0], 0])


def without_counts(run: Run) -> Run:
    assert run.counts is not None
    return replace(run, counts={name: each for name, each in run.counts.items() if name != "neuron4"})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda run: replace(run, element_settled=torch.tensor([[True, False, False]])),
            {"unsettled_samples": 2},
        ),
        (lambda run: replace(run, raw={"readout6": run.raw["readout6"] + 1}), {"outputs_different": 3}),
        (lambda run: replace(run, raw={"readout6": run.raw["readout6"][:, :0]}), {"outputs_different": 3}),
        (lambda run: replace(run, raw={}), {"outputs_different": 3}),
        (without_counts, {"neurons_different": 3}),
    ],
)
def test_other_lies_of_an_engine_are_caught(change: Callable[[Run], Run], found: Mapping[str, int]) -> None:
    graph = two_layers()
    made = verify(convert(graph), graph, torch.zeros(3, 2), engine=Tampering(change))
    assert not made.lossless
    assert {name: getattr(made, name) for name in found} == found
    assert made.structural_differences == ()


# ---------------------------------------------------------------- what is proven
def at_moment(graph: Graph, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every value of the graph while its emitting nodes and inputs hold these counts."""
    values: dict[str, Tensor] = {}
    for node in graph.body:
        if node.name in counts:
            values[node.name] = counts[node.name].double()
        else:
            values[node.name] = INTEGERS[type(node.op)](node, [values[n] for n in node.inputs], graph.tensors)
    return values


def accumulators(graph: Graph, node: Node, values: Mapping[str, Tensor]) -> list[Tensor]:
    """What the node holds: its sum without and with the bias."""
    held = values[node.inputs[0]]
    bias = getattr(node.op, "bias", None)
    return [held] if bias is None else [held, held + graph.tensors[bias]]


@settings(max_examples=30)
@given(seed=seeds, method=methods)
def test_bounds_hold_at_every_step(seed: int, method: Lossless) -> None:
    graph, counts, _ = drawn(seed)
    net = convert(graph, method)
    run, bounds = traced(net, counts), accumulator_bounds(graph)
    assert run.trace is not None
    assert run.steps <= max(steps_bound(net), 1)
    assert int(run.sample_steps.max()) <= steps_bound(net)
    reached = {name: each.cumsum(0) for name, each in run.trace.items()}
    given_inputs = {n.name: counts[n.op.index] for n in graph.inputs if isinstance(n.op, ops.Input)}
    for step in range(run.steps):
        now = {**given_inputs, **{name: each[step] for name, each in reached.items()}}
        values = at_moment(graph, now)
        for node in (*graph.neurons, *graph.readouts):
            largest = max(int(each.abs().max()) for each in accumulators(graph, node, values))
            assert largest <= bounds[node.name], (node.name, step)


def test_the_bound_is_reached_and_not_more() -> None:
    assert accumulator_bounds(weighted_neuron([2, -1], 3, 0, 3))["neuron2"] == 36
    assert accumulator_bounds(two_layers()) == {"neuron2": 9, "neuron4": 8, "readout6": 8}
    assert steps_bound(network(two_layers())) == 4
    assert steps_bound(network(two_layers(), Ternary(), Spikes())) == 10
    assert steps_bound(network(two_layers(), Graded(2), Spikes())) == 5


def test_the_longest_path_and_the_start_at_zero_count() -> None:
    b = Builder()
    x = b.input(0, (1,), -9, 9)
    short = b.neuron(x, 1, 3, [4, 8])  # counts 1..3 that start at 0: three steps, not two
    long = b.neuron(b.linear(short, [[1]]), 0, 5, [1, 2, 3, 4, 5])
    last = b.neuron(b.add(ops.Add((1, -1)), long, short, bound=8), 0, 1, [1])
    graph = b.graph(b.readout(last))
    assert steps_bound(convert(graph)) == 3 + 5 + 1
    assert accumulator_bounds(graph)[short.name] == 9
    made = verify(convert(graph), graph, torch.tensor([[4.5], [-4.5]]))
    assert (made.lossless, made.steps_max) == (True, 3)

    b = Builder()
    alone = b.graph(b.readout(b.neuron(b.input(0, (1,), -9, 9), 2, 3, [4])))
    made = verify(convert(alone), alone, torch.tensor([[4.5]]))
    assert (made.steps_bound, made.steps_max) == (3, 3)


def test_the_narrowest_integer_type_is_chosen() -> None:
    names = [integer_type(bound) for bound in (0, 2**15 - 1, 2**15, 2**31 - 1, 2**31, 2**53)]
    assert names == ["int16", "int16", "int32", "int32", "int64", "int64"]
    with pytest.raises(GraphError, match="integers of up to 9007199254740993"):
        integer_type(2**53 + 1)
    op = two_layers().by_name["linear5"].op
    assert isinstance(op, ops.Linear)
    heavy = {**two_layers().tensors, op.weight: torch.tensor([[10**5]])}
    graph = two_layers().with_nodes(two_layers().nodes, tensors=heavy)
    made = verify(convert(graph), graph, torch.zeros(1, 2))
    assert made.accumulator_types == {"neuron2": "int16", "neuron4": "int16", "readout6": "int32"}
    assert made.integer_type == "int32"


def test_saturated_samples_are_counted() -> None:
    graph = weighted_neuron([1, 1], 3, 0, 3)  # unit 0.5, counts -12..12
    x = torch.tensor([[6.0, 0.0], [6.2, -6.25], [6.25, 0.0], [0.0, -6.3], [9.0, -9.0]])
    made = verify(convert(graph), graph, x)
    assert (made.saturated_samples, made.samples, made.lossless) == (3, 5, True)


# ---------------------------------------------------------------- data in any form
def test_batches_and_labels_change_nothing() -> None:
    graph = product()
    net, x = convert(graph), (torch.randn(7, 2, 3), torch.randn(7, 3))
    whole = verify(net, graph, x)
    labelled = DataLoader(TensorDataset(*x, torch.arange(7)), batch_size=3)
    assert verify(net, graph, labelled) == whole
    assert verify(net, graph, iter([tuple(each[:1] for each in x), tuple(each[1:] for each in x)])) == whole
    seen: list[int] = []
    verify(net, graph, labelled, watch=lambda run: seen.append(len(run.sample_steps)))
    assert seen == [3, 3, 1]


@pytest.mark.parametrize(
    "data",
    [[], (), torch.zeros(0, 2), DataLoader(TensorDataset(torch.zeros(0, 2)))],
    ids=["list", "tuple", "tensor", "loader"],
)
def test_empty_data_is_refused(data: Any) -> None:
    with pytest.raises(DataError) as caught:
        verify(convert(two_layers()), two_layers(), data)
    assert str(caught.value) == (
        "verification data: no samples\n"
        "  known: a tensor [batch, ...], a tuple of them, or a loader that yields batches\n"
        "  do:    pass a few hundred samples; labels are not needed"
    )


@pytest.mark.parametrize(
    ("data", "where", "got"),
    [
        (
            torch.tensor([[0.0, 1.0], [torch.nan, 0.0]]),
            "input 'input0'",
            "NaN or infinite values, first in sample 1",
        ),
        (
            torch.full((1, 2), 1e300, dtype=torch.float64),
            "input 'input0'",
            "NaN or infinite values, first in sample 0",
        ),
        (torch.zeros(4, 3), "input 'input0'", "shape (4, 3)"),
        (torch.tensor(1.0), "input 'input0'", "shape ()"),
        ((torch.tensor(1.0),), "input 'input0'", "shape ()"),
        ((torch.zeros(4, 2),) * 3, "verification data", "a tuple of 3 tensors"),
        ([{"x": torch.zeros(4, 2)}], "verification data", "a batch of type dict"),
        (3, "verification data", "int"),
    ],
    ids=str,
)
def test_unfit_data_is_refused(data: Any, where: str, got: str) -> None:
    net, graph = convert(two_layers()), two_layers()
    if not where:  # what follows the inputs is taken for labels
        assert verify(net, graph, data).samples == 4
        return
    with pytest.raises(DataError) as caught:
        verify(net, graph, data)
    assert (caught.value.where, caught.value.got) == (where, got)
