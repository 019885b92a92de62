"""The oracle against laws, hand-computed traces, and torch in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product as product_of

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor

from graphs import Builder, integer_graphs, network, pooled, product, two_layers, weighted_neuron
from graphs import random_counts as drawn_counts
from graphs import random_integer_graph as drawn_graph
from spikemorph.convert.network import Analog, Graded, Spikes, SpikingNetwork, Ternary
from spikemorph.errors import GraphError, RunError
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.verify import verify
from spikemorph.run import reference
from spikemorph.run.record import Everything, LayerSpikes, Outputs, SpikeCounts
from spikemorph.run.reference import Reference
from spikemorph.run.reference_ops import REFERENCE, value

SEEDS = st.integers(0, 2**20)
SPIKES = st.sampled_from([Ternary(), Graded(2), Graded(3), Graded(1000)])
NETWORKS = st.builds(network, integer_graphs(), SPIKES, st.sampled_from([Analog(), Spikes()]))
NEURON = {"step": st.integers(1, 12), "lo": st.integers(-5, 0), "hi": st.integers(0, 7)}
WEIGHTED = st.lists(st.tuples(st.integers(-12, 12), st.integers(-9, 9)), min_size=1, max_size=6)
ALL = (Everything(),)
RECORDED = ("counts", "raws", "layer_steps", "trace")


def simulate(net, counts, steps=None, record=ALL):
    net = net if isinstance(net, SpikingNetwork) else network(net)
    return Reference().run(net, tuple(counts), steps=steps, record=record)


def plain(tensors: Mapping[str, Tensor]) -> dict[str, list]:
    return {name: each.tolist() for name, each in tensors.items()}


# ---------------------------------------------------------------- one neuron
def membrane(arrivals: Sequence[int], step: int, lo: int, hi: int) -> list[int]:
    """The textbook bipolar neuron: v starts at 1/2, fires at v >= 1 or v < 0, subtracts; runs out."""
    v, count, spikes = Fraction(1, 2), 0, []
    for arriving in (*arrivals, *[0] * (hi - lo + 1)):
        v += Fraction(arriving, step)
        fired = int(v >= 1 and count < hi) - int(v < 0 and count > lo)
        v, count = v - fired, count + fired
        spikes.append(fired)
    return spikes


@given(inputs=WEIGHTED, **NEURON, spike=SPIKES, encoding=st.sampled_from([Analog(), Spikes()]))
def test_one_neuron_rounds_the_sum_whatever_the_timing(inputs, step, lo, hi, spike, encoding):
    counts, weights = zip(*inputs, strict=True)
    total = sum(count * weight for count, weight in inputs)
    net = network(weighted_neuron(weights, step, lo, hi), spike, encoding)
    run = simulate(net, [torch.tensor([counts])])
    law = min(max(math.floor(Fraction(1, 2) + Fraction(total, step)), lo), hi)
    assert run.counts["neuron2"].tolist() == [[law]] == run.raw["readout3"].tolist()


@given(inputs=WEIGHTED, **NEURON)
def test_ternary_tracking_is_the_membrane_form_step_by_step(inputs, step, lo, hi):
    counts, weights = zip(*inputs, strict=True)
    run = simulate(
        network(weighted_neuron(weights, step, lo, hi), encoding=Spikes()), [torch.tensor([counts])]
    )
    arrivals = (run.trace["input0"][:, 0] * torch.tensor(weights)).sum(1).tolist()
    expected = membrane(arrivals, step, lo, hi)
    tracked = run.trace["neuron2"].flatten().tolist()
    assert tracked == expected[: len(tracked)]
    assert not any(expected[len(tracked) :])


@given(arrivals=st.lists(st.integers(-40, 40), min_size=1), order=st.randoms(use_true_random=False), **NEURON)
def test_membrane_form_settles_at_the_same_count_in_any_order(arrivals, order, step, lo, hi):
    # Silence between arrivals is timing as well.
    spread = [n for each in order.sample(arrivals, len(arrivals)) for n in (each, *[0] * order.randrange(3))]
    ones = torch.ones(1, len(arrivals), dtype=torch.int64)
    tracked = simulate(weighted_neuron(arrivals, step, lo, hi), [ones])
    assert sum(membrane(spread, step, lo, hi)) == tracked.counts["neuron2"].item()


# ---------------------------------------------------------------- at rest
def at_rest(graph: Graph, counts: Sequence[Tensor]) -> dict[str, Tensor]:
    """Every value of the graph when all has arrived: torch in float64, one pass."""
    tensors = {name: each.double() for name, each in graph.tensors.items()}
    values: dict[str, Tensor] = {}
    for node in graph.body:
        inputs = [values[name] for name in node.inputs] or [counts[node.op.index].double()]
        values[node.name] = by_torch(node, inputs, tensors)
    return values


def by_torch(node: Node, inputs: list[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    x, rank = inputs[0], len(node.shape)
    match node.op:
        case ops.Input():
            return x
        case ops.Conv(weight, _, stride, padding, dilation, groups, transposed, output_padding):
            name = f"conv{'_transpose' if transposed else ''}{len(stride)}d"
            more = {"output_padding": output_padding} if transposed else {}
            return getattr(F, name)(
                x, tensors[weight], None, stride, padding, groups=groups, dilation=dilation, **more
            )
        case ops.Linear(weight):
            return x @ tensors[weight].T
        case ops.AxisMap(axis, matrix):
            return torch.tensordot(x, tensors[matrix], ([axis + 1], [1])).movedim(-1, axis + 1)
        case ops.Scale(factor):
            return x * tensors[factor]
        case ops.Add(signs):
            return sum(with_rank(each, rank) * sign for each, sign in zip(inputs, signs, strict=True))
        case ops.Concat(axis):
            return torch.cat(inputs, axis + 1)
        case ops.Reshape(shape):
            return x.flatten(1).unflatten(1, shape)
        case ops.Permute(axes):
            return x.permute(0, *(axis + 1 for axis in axes))
        case ops.Slice(axis, start, stop, step):
            return x.movedim(axis + 1, 0)[start:stop:step].movedim(0, axis + 1)
        case ops.Expand(shape):
            return with_rank(x, rank).expand(-1, *shape)
        case ops.Pad(pads):
            return F.pad(x, [size for i in range(rank - 1, -1, -1) for size in pads[2 * i : 2 * i + 2]])
        case ops.Mul():
            return with_rank(x, rank) * with_rank(inputs[1], rank)
        case ops.MaxPool(kernel, stride, padding, dilation, ceil):
            pool = F.max_pool1d if len(kernel) == 1 else F.max_pool2d
            flat = x.reshape(-1, 1, *x.shape[x.dim() - len(kernel) :])
            return pool(flat, kernel, stride, padding, dilation, ceil).reshape(x.shape[0], *node.shape)
        case ops.AMax(axes, keepdim):
            return x.amax([axis + 1 for axis in axes], keepdim)
        case ops.Neuron(lo, _, breakpoints, values, bias):
            a = (x if bias is None else x + tensors[bias])[..., None]
            k = (tensors[breakpoints] <= a).sum(-1, keepdim=True)
            if values is None:
                return (lo + k[..., 0]).double()
            return tensors[values].expand(*x.shape, -1).gather(-1, k)[..., 0]
        case ops.Readout(_, bias):
            return x if bias is None else x + tensors[bias]
    raise AssertionError(node)


def with_rank(x: Tensor, rank: int) -> Tensor:
    return x.reshape(x.shape[0], *(1,) * (rank + 1 - x.dim()), *x.shape[1:])


@settings(max_examples=100)
@given(graph=integer_graphs(), seed=SEEDS)
def test_at_rest_every_network_equals_one_pass_whatever_the_spikes_and_the_encoding(graph, seed):
    verify(graph)
    counts = drawn_counts(np.random.default_rng(seed), graph, 2)
    rest = at_rest(graph, counts)
    for spike, encoding in product_of((Ternary(), Graded(3), Graded(1000)), (Analog(), Spikes())):
        run = simulate(network(graph, spike, encoding), counts)
        for name, each in {**run.raw, **run.counts}.items():
            assert tuple(each.shape[1:]) == graph.by_name[name].shape
            assert torch.equal(each.double(), rest[name]), name
        assert run.settled.all()


# ---------------------------------------------------------------- time
@settings(max_examples=50)
@given(net=NETWORKS, seed=SEEDS, steps=st.integers(1, 8))
def test_a_sample_is_settled_iff_the_next_step_is_silent(net, seed, steps):
    counts = drawn_counts(np.random.default_rng(seed), net.graph, 3)
    first, longer, much_longer = (simulate(net, counts, steps=steps + more) for more in (0, 1, 20))
    assert (first.steps, longer.steps) == (steps, steps + 1)
    assert torch.equal(first.settled, longer.sample_steps <= steps)
    for name, raw in first.raw.items():
        assert torch.equal(raw[first.settled], much_longer.raw[name][first.settled])
    assert torch.equal(much_longer.sample_steps[first.settled], first.sample_steps[first.settled])
    for name, trace in first.trace.items():
        assert torch.equal(trace, longer.trace[name][:steps])


@settings(max_examples=50)
@given(net=NETWORKS, seed=SEEDS)
def test_a_batch_is_its_samples_one_by_one(net, seed):
    counts = drawn_counts(np.random.default_rng(seed), net.graph, 3)
    batch = simulate(net, counts)
    singles = [simulate(net, [each[i : i + 1] for each in counts]) for i in range(3)]
    assert batch.steps == max(each.steps for each in singles)
    assert batch.sample_steps.tolist() == [each.sample_steps.item() for each in singles]
    for field in ("raw", "counts", "layer_spikes", "layer_events"):
        for name, whole in getattr(batch, field).items():
            assert torch.equal(whole, torch.cat([getattr(each, field)[name] for each in singles])), field
    for name, arrivals in batch.arrivals.items():
        assert torch.equal(arrivals, sum(each.arrivals[name] for each in singles))


@settings(max_examples=50)
@given(net=NETWORKS, seed=SEEDS)
def test_totals_are_those_of_the_trace(net, seed):
    run = simulate(net, drawn_counts(np.random.default_rng(seed), net.graph, 2))
    emitting = net.graph.neurons + (net.graph.inputs if net.encoding == Spikes() else ())
    assert set(run.trace) == set(run.counts) == set(run.layer_spikes) == {node.name for node in emitting}
    last = torch.zeros(2, dtype=torch.int64)
    for name, trace in run.trace.items():
        flat = trace.flatten(2)
        assert int(trace.abs().max()) <= net.spike.largest
        assert torch.equal(trace.sum(0), run.counts[name])
        assert torch.equal(flat.abs().sum((0, 2)), run.layer_spikes[name])
        assert torch.equal((flat != 0).sum((0, 2)), run.layer_events[name])
        assert torch.equal(flat.abs().sum((1, 2)), run.layer_steps[name])
        last = torch.maximum(last, ((flat != 0).any(2) * torch.arange(1, run.steps + 1)[:, None]).amax(0))
    assert torch.equal(run.sample_steps, last)
    assert len(run.raws) == run.steps
    assert plain(run.raws[-1]) == plain(run.raw)


# ---------------------------------------------------------------- by hand
def test_two_layers_step_by_step():
    run = simulate(two_layers(), [torch.tensor([[2, 1], [0, 0]])])
    # Sample 0: accumulators 3 and 4 want 1 and 2. neuron4 sees 4 - 2, fires, sees -2 more, takes it back.
    assert run.trace["neuron2"].tolist() == [[[1, 1], [0, 0]], [[0, 1], [0, 0]]]
    assert run.trace["neuron4"].tolist() == [[[1], [0]], [[-1], [0]]]
    assert [each["readout6"].tolist() for each in run.raws] == [[[8], [5]], [[5], [5]]]
    assert run.counts["neuron2"].tolist() == [[1, 2], [0, 0]]
    assert run.counts["neuron4"].tolist() == [[0], [0]]
    assert (run.steps, run.sample_steps.tolist(), run.settled.tolist()) == (2, [2, 0], [True, True])
    assert plain(run.layer_spikes) == plain(run.layer_events) == {"neuron2": [3, 0], "neuron4": [2, 0]}
    assert plain(run.layer_steps) == {"neuron2": [2, 1], "neuron4": [1, 1]}
    assert plain(run.arrivals) == {"linear1": [1, 1], "linear3": [1, 2], "linear5": [2]}
    assert (run.spikes, run.events) == (5, 5)
    assert run.output.tolist() == [[1.25], [1.25]]
    assert [each.tolist() for each in run.outputs] == [[[2.0], [1.25]], [[1.25], [1.25]]]


def test_two_layers_with_a_spiking_input():
    run = simulate(network(two_layers(), encoding=Spikes()), [torch.tensor([[2, 1]])])
    assert run.trace["input0"].tolist() == [[[1, 1]], [[1, 0]]]
    assert run.trace["neuron2"].tolist() == [[[0, 1]], [[1, 1]]]
    assert run.trace["neuron4"].tolist() == [[[-1]], [[1]]]
    assert [each["readout6"].tolist() for each in run.raws] == [[[2]], [[5]]]
    assert plain(run.layer_spikes) == {"input0": [3], "neuron2": [3], "neuron4": [2]}
    assert plain(run.arrivals) == {"linear1": [2, 1], "linear3": [1, 2], "linear5": [2]}


def test_a_graded_spike_counts_its_size_but_is_one_event():
    run = simulate(network(two_layers(), Graded(2)), [torch.tensor([[2, 1]])])
    assert run.trace["neuron2"].tolist() == [[[1, 2]]]
    assert run.trace["neuron4"].tolist() == [[[0]]]
    assert (run.steps, run.spikes, run.events) == (1, 3, 2)


def test_a_product_follows_both_factors():
    x = torch.tensor([[[2, 0, 0], [0, 0, 1]]])
    run = simulate(product(), [x, torch.tensor([[3, -1, 0]])])
    # Factors after the steps: 1 * 1, 2 * 2, 2 * 3.
    raws = [each["readout5"][0].tolist() for each in run.raws]
    assert raws == [[[each, 0, 0], [0, 0, 0]] for each in (1, 4, 6)]
    # First factor in 2 steps and 1, the second, seen from both rows, in 3 and 1.
    assert run.arrivals["mul4"].tolist() == [[2 + 3, 1, 0], [3, 1, 1]]


def test_pools_follow_the_counts_that_have_arrived():
    x = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    x[0, 0, 0] = torch.tensor([3, 1, -4, -4])
    x[0, 0, 1] = torch.tensor([0, 0, -4, -4])
    x[0, 0, 2:, 2:] = 2
    run = simulate(pooled(), [x])
    # All four sources of the second window are below zero, so the maximum is.
    pool = run.trace["maxpool2"].cumsum(0).flatten(1).tolist()
    assert pool == [[1, -1, 0, 1], [2, -2, 0, 2], [3, -2, 0, 2]]
    assert run.counts["amax3"].tolist() == [[3]]
    assert run.arrivals == {}


def test_a_network_without_neurons_takes_one_silent_step():
    b = Builder()
    graph = b.graph(b.readout(b.linear(b.input(0, (2,), -3, 3), [[1, 2]]), bias=[7]))
    run = simulate(graph, [torch.tensor([[1, -2]])])
    assert (run.steps, run.sample_steps.item(), run.settled.item(), run.spikes) == (1, 0, True, 0)
    assert run.raw["readout2"].item() == 4


# ---------------------------------------------------------------- records
@pytest.mark.parametrize(
    ("record", "kept"),
    [
        ((), ()),
        ((SpikeCounts(),), ("counts",)),
        ((Outputs(),), ("raws",)),
        ((LayerSpikes(), SpikeCounts()), ("counts", "layer_steps")),
        (ALL, RECORDED),
    ],
)
def test_only_what_is_asked_for_is_kept(record, kept):
    run, full = (simulate(two_layers(), [torch.tensor([[2, 1]])], record=each) for each in (record, ALL))
    assert tuple(name for name in RECORDED if getattr(run, name) is not None) == kept
    assert [str(getattr(run, name)) for name in kept] == [str(getattr(full, name)) for name in kept]


# ---------------------------------------------------------------- single ops
@settings(max_examples=200)
@given(seed=SEEDS)
def test_max_pools_are_torchs(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 3))
    kernel, stride, dilation = (tuple(rng.integers(1, high, n).tolist()) for high in (5, 5, 4))
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    x = rng.integers(-14, 5, (2, 3, *rng.integers(max(kernel) * 3, 15, n)))
    op = ops.MaxPool(kernel, stride, padding, dilation, bool(rng.integers(2)))
    pool = F.max_pool1d if n == 1 else F.max_pool2d
    wanted = pool(torch.from_numpy(x).double(), kernel, stride, padding, dilation, op.ceil)
    assert np.array_equal(value(op, (x,), {}), wanted.numpy())


def test_a_window_of_padding_only_is_refused():
    with pytest.raises(GraphError) as error:
        value(ops.MaxPool((2,), (1,), (1,), (2,)), (np.zeros((1, 1), np.int64),), {})
    assert error.value.got == "a window that holds nothing but padding, on an input of size (1,)"
    assert error.value.where == "max pool of kernel (2,), dilation (2,), padding (1,)"
    assert error.value.do == "use less padding or dilation, or a larger input"


@settings(max_examples=100)
@given(graph=integer_graphs(), seed=SEEDS)
def test_each_op_is_torchs(graph, seed):
    rng = np.random.default_rng(seed)
    tensors = {name: each.double() for name, each in graph.tensors.items()}
    numbers = {name: each.numpy() for name, each in graph.tensors.items()}
    for node in graph.nodes[len(graph.inputs) :]:
        inputs = tuple(rng.integers(-99, 100, (2, *graph.by_name[name].shape)) for name in node.inputs)
        wanted = by_torch(node, [torch.from_numpy(each).double() for each in inputs], tensors)
        assert np.array_equal(value(node.op, inputs, numbers), wanted.numpy()), node


def test_every_op_of_the_dialect_has_a_rule():
    assert REFERENCE.missing() == frozenset()
    assert set(REFERENCE.gaps) == {*ops.HOST, ops.Recurrence}  # a recurrence runs as cells


def test_the_generator_draws_every_op_in_all_its_forms():
    graphs = [drawn_graph(np.random.default_rng(seed)) for seed in range(100)]
    nodes = [node for graph in graphs for node in graph.nodes]
    assert {type(node.op) for node in nodes} == ops.INTEGER_OPS - {*ops.HOST, ops.Recurrence}
    convs = [node.op for node in nodes if isinstance(node.op, ops.Conv)]
    assert len({(len(op.stride), op.transposed, op.groups > 1) for op in convs}) == 8
    neurons = [node.op for node in nodes if isinstance(node.op, ops.Neuron)]
    assert len({(op.values is None, op.bias is None) for op in neurons}) == 4
    assert {len(graph.inputs) for graph in graphs} == {len(graph.readouts) for graph in graphs} == {1, 2}
    busy = [simulate(g, drawn_counts(np.random.default_rng(0), g, 2), record=()).spikes for g in graphs]
    assert np.median(busy) > 20


# ---------------------------------------------------------------- errors
def test_fewer_than_one_step_is_refused():
    with pytest.raises(RunError) as error:
        simulate(two_layers(), [torch.tensor([[2, 1]])], steps=0)
    assert str(error.value) == (
        "simulate(steps): 0\n"
        "  known: a whole number of at least 1, or None for a run until quiescence\n"
        "  do:    give the number of steps to simulate"
    )


ONE, PAIR = torch.zeros(1, 3, dtype=torch.int64), torch.zeros(2, 2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("counts", "where", "got", "known"),
    [
        ((PAIR,), "counts", "1 tensors", "2 of them: [batch, 2, 3], [batch, 3]"),
        ((PAIR.float(), ONE), "counts of input input0", "torch.float32", "torch.int64"),
        ((PAIR, ONE), "counts of input input1", "shape [1, 3]", "[2, 3] in a batch of 2"),
        ((PAIR[0], ONE), "counts of input input0", "shape [2, 3]", "[2, 2, 3] in a batch of 2"),
        ((PAIR.sum(), ONE), "counts of input input0", "shape []", "[0, 2, 3] in a batch of 0"),
    ],
)
def test_counts_that_do_not_fit_are_refused(counts, where, got, known):
    with pytest.raises(RunError) as error:
        simulate(product(), counts)
    assert (error.value.where, error.value.got, error.value.known) == (where, got, known)
    assert error.value.do == "encode the inputs with the network's own grid, one tensor for each argument"


def test_a_run_that_does_not_end_gives_up(monkeypatch):
    monkeypatch.setattr(reference, "LIMIT", 2)
    graph, counts = weighted_neuron([1], 1, 0, 3), torch.tensor([[3], [1]])
    with pytest.raises(RunError) as error:
        simulate(graph, [counts])
    assert str(error.value) == (
        "simulate(steps=None): 1 of 2 samples still in flight after 2 steps\n"
        "  known: a run until quiescence ends within the proven bound of steps\n"
        "  do:    give steps=n for a run of n steps, or use larger graded spikes"
    )
    assert simulate(graph, [counts], steps=5).settled.all()
    assert simulate(graph, [torch.tensor([[2]])]).steps == 2
