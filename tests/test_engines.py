"""The engines against the oracle, and the laws of lossless conversion on random integer graphs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from graphs import network, random_counts, random_integer_graph
from spikemorph.convert.network import Analog, Encoding, Graded, Spike, Spikes, SpikingNetwork, Ternary
from spikemorph.errors import RunError
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.run.dense import Dense
from spikemorph.run.record import Everything, LayerSpikes, Outputs, SpikeCounts
from spikemorph.run.reference import Reference
from spikemorph.run.result import Run
from spikemorph.run.simulate import simulate
from spikemorph.verify.bounds import steps_bound

SPIKES: tuple[Spike, ...] = (Ternary(), Graded(3))
ENCODINGS: tuple[Encoding, ...] = (Analog(), Spikes())
KINDS = [(spike, encoding) for spike in SPIKES for encoding in ENCODINGS]


def drawn(seed: int, batch: int) -> tuple[SpikingNetwork, tuple[Tensor, ...]]:
    rng = np.random.default_rng(seed)
    graph = random_integer_graph(rng)
    return network(graph), random_counts(rng, graph, batch)


def assert_same_run(a: Run, b: Run) -> None:
    assert (a.steps, a.spikes, a.events) == (b.steps, b.spikes, b.events)
    assert torch.equal(a.sample_steps, b.sample_steps)
    assert torch.equal(a.settled, b.settled)
    for part in ("raw", "layer_spikes", "layer_events", "arrivals", "counts", "layer_steps", "trace"):
        left, right = getattr(a, part), getattr(b, part)
        assert left.keys() == right.keys(), part
        for name in left:
            assert torch.equal(left[name], right[name]), (part, name)
    assert a.raws is not None
    assert b.raws is not None
    for left, right in zip(a.raws, b.raws, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in left)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS), steps=st.sampled_from([None, 1, 3]))
def test_dense_equals_the_reference_in_everything(
    seed: int, kind: tuple[Spike, Encoding], steps: int | None
) -> None:
    net, counts = drawn(seed, 3)
    net = replace(net, spike=kind[0], encoding=kind[1])
    wanted = (Everything(),)
    assert_same_run(
        Dense().run(net, counts, steps=steps, record=wanted),
        Reference().run(net, counts, steps=steps, record=wanted),
    )


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS))
def test_at_quiescence_every_count_is_the_quantised_networks(seed: int, kind: tuple[Spike, Encoding]) -> None:
    net, counts = drawn(seed, 4)
    net = replace(net, spike=kind[0], encoding=kind[1])
    run = Dense().run(net, counts, steps=None, record=(SpikeCounts(),))
    rest = evaluate_counts(net.graph, counts)
    assert bool(run.settled.all())
    assert run.counts is not None
    for node in net.graph.neurons:
        assert torch.equal(run.counts[node.name], rest[node.name].to(torch.int64)), node.name
    for node in net.graph.readouts:
        assert torch.equal(run.raw[node.name], rest[node.name].to(torch.int64)), node.name
    assert run.steps <= max(steps_bound(net), 1)


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6))
def test_ternary_and_graded_and_both_encodings_rest_at_the_same_counts(seed: int) -> None:
    net, counts = drawn(seed, 3)
    runs = [
        Dense().run(replace(net, spike=spike, encoding=encoding), counts, steps=None, record=(SpikeCounts(),))
        for spike, encoding in KINDS
    ]
    for run in runs[1:]:
        for node in net.graph.neurons:
            assert run.counts is not None
            assert runs[0].counts is not None
            assert torch.equal(run.counts[node.name], runs[0].counts[node.name])


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_dense_is_exact_for_any_batch_and_backend(onednn: bool, batch: int) -> None:
    """float32 convolutions are not, with oneDNN off and a batch of 16 or more: that is what this guards."""
    for seed in range(3):
        net, counts = drawn(seed, batch)
        with torch.backends.mkldnn.flags(enabled=onednn):
            dense = Dense().run(net, counts, steps=None, record=(Everything(),))
        oracle = Reference().run(net, counts, steps=None, record=(Everything(),))
        assert_same_run(dense, oracle)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_large_convolutions_are_exact_with_onednn_off() -> None:
    """Wide sums near 2**24: the place where a float32 transform algorithm goes wrong."""
    from spikemorph.evaluate.linear import LINEAR
    from spikemorph.ir import ops

    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-127, 128, (32, 64, 14, 14), generator=generator)
    w = torch.randint(-127, 128, (64, 64, 3, 3), generator=generator)
    op = ops.Conv("w", None, (1, 1), (1, 1), (1, 1))
    with torch.backends.mkldnn.flags(enabled=False):
        fast = LINEAR[ops.Conv](op, [x.double()], {"w": w})
    rows = torch.nn.functional.unfold(x.double(), 3, padding=1).to(torch.int64)
    exact = torch.einsum("ok,nkp->nop", w.reshape(64, -1), rows).reshape(fast.shape)
    assert torch.equal(fast.to(torch.int64), exact)


def test_runs_share_nothing() -> None:
    net, counts = drawn(11, 5)
    first = Dense().run(net, counts, steps=None, record=(Everything(),))
    Dense().run(net, tuple(each[:2] * 0 for each in counts), steps=2, record=())
    again = Dense().run(net, counts, steps=None, record=(Everything(),))
    assert_same_run(first, again)


def test_only_what_is_asked_for_is_recorded() -> None:
    net, counts = drawn(3, 2)
    plain = Dense().run(net, counts, steps=2, record=())
    assert (plain.counts, plain.raws, plain.layer_steps, plain.trace) == (None, None, None, None)
    some = Dense().run(net, counts, steps=2, record=(Outputs(), LayerSpikes()))
    assert some.raws is not None
    assert len(some.raws) == 2
    assert some.layer_steps is not None
    assert some.counts is None
    assert some.trace is None


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), steps=st.integers(1, 6))
def test_settled_says_whether_more_steps_would_change_anything(seed: int, steps: int) -> None:
    net, counts = drawn(seed, 4)
    short = Dense().run(net, counts, steps=steps, record=(SpikeCounts(),))
    longer = Dense().run(net, counts, steps=steps + 1, record=(Everything(),))
    assert longer.trace is not None
    emitted = torch.zeros(len(short.settled), dtype=torch.bool)
    for spikes in longer.trace.values():
        emitted |= (spikes[-1] != 0).reshape(len(emitted), -1).any(1)
    assert torch.equal(short.settled, ~emitted)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_impossible_steps_are_refused(steps: object) -> None:
    net, _ = drawn(0, 1)
    x = tuple(torch.zeros(1, *node.shape) for node in net.graph.inputs)
    with pytest.raises(RunError, match="whole number of at least 1"):
        simulate(net, x, steps=steps)  # type: ignore[arg-type]


def test_values_without_axes_run_like_any_other() -> None:
    """Samples of shape [batch]: a network on plain numbers."""
    x = torch.linspace(-1, 2, 9)
    integer = sm.quantise(sm.capture(nn.Sequential(nn.ReLU()).eval(), x), x, sm.Levels(7))
    certificate = sm.verify(sm.convert(integer), integer, x)
    assert certificate.lossless
    assert certificate.samples == 9
