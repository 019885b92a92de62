"""A ramp changes when things arrive, never what is counted at rest; all engines agree step by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import spikemorph as sm
from graphs import network, random_counts, random_integer_graph
from spikemorph.convert.network import Graded, Spike, Ternary
from spikemorph.errors import GraphError, LevelsError
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.evaluate.intervals import ramped
from spikemorph.run.record import Everything, Outputs, SpikeCounts
from spikemorph.verify.bounds import steps_bound
from test_engines import assert_same_run

KEPT = Outputs((1, 2, 4, 9, 17, 33))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    spike=st.sampled_from([Ternary(), Graded(3)]),
    ramp=st.integers(2, 24),
    steps=st.sampled_from([None, 3]),
)
def test_engines_agree_on_a_ramp(seed: int, spike: Spike, ramp: int, steps: int | None) -> None:
    rng = np.random.default_rng(seed)
    graph = random_integer_graph(rng)
    counts = random_counts(rng, graph, 3)
    net = replace(network(graph), spike=spike, ramp=ramp)
    slow = sm.Reference().run(net, counts, steps=steps, record=(Everything(),))
    assert_same_run(sm.Dense().run(net, counts, steps=steps, record=(Everything(),)), slow)
    assert_same_run(sm.Event().run(net, counts, steps=steps, record=(Everything(),)), slow)
    some = sm.Event(threads=2).run(net, counts, steps=steps, record=(KEPT, SpikeCounts()))
    plain = sm.Event().run(net, counts, steps=steps, record=())
    for run in (some, plain):
        assert (run.steps, run.spikes) == (slow.steps, slow.spikes)
        assert torch.equal(run.sample_steps, slow.sample_steps)
        assert all(torch.equal(run.raw[name], slow.raw[name]) for name in slow.raw)
        assert all(torch.equal(run.arrivals[name], slow.arrivals[name]) for name in slow.arrivals)
    for raw, step in zip(some.raws, some.at, strict=True):
        there = slow.raws[min(step, len(slow.raws)) - 1]
        assert all(torch.equal(raw[name], there[name]) for name in raw)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), ramp=st.integers(1, 40))
def test_at_rest_a_ramp_changes_nothing(seed: int, ramp: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_integer_graph(rng)
    counts = random_counts(rng, graph, 3)
    net = replace(network(graph), ramp=ramp)
    run = sm.Dense().run(net, counts, steps=None, record=(SpikeCounts(),))
    rest = evaluate_counts(graph, counts)
    assert bool(run.settled.all())
    assert ramp <= run.steps <= max(steps_bound(net), 1)
    for name, each in run.counts.items():
        assert torch.equal(each, rest[name].to(torch.int64))


@given(whole=st.integers(-(2**29), 2**29), ramp=st.integers(1, 2**15), data=st.data())
def test_what_has_entered_is_the_rounded_share(whole: int, ramp: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 2 * ramp))
    got = int(ramped(torch.tensor(whole), steps, ramp))
    assert abs(2 * ramp * got - 2 * whole * min(steps, ramp)) <= ramp
    assert int(ramped(torch.tensor(whole), ramp, ramp)) == whole


def deep() -> tuple[sm.ir.graph.Graph, torch.Tensor]:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(12):
        layers += [nn.Linear(24, 24), nn.ReLU()]
    x = torch.randn(64, 24)
    return sm.quantise(sm.capture(nn.Sequential(*layers).eval(), x[:2]), x, sm.Levels(activation=31)), x


def test_deep_networks_settle_sooner(tmp_path) -> None:
    qgraph, x = deep()
    at_once, over = sm.convert(qgraph), sm.convert(qgraph, sm.Lossless(ramp=31))
    a, b = sm.simulate(at_once, x), sm.simulate(over, x)
    assert torch.equal(a.output, b.output)
    assert b.spikes < a.spikes
    assert sm.verify(over, qgraph, x).lossless
    sm.save(over, tmp_path / "n.safetensors")
    assert sm.load(tmp_path / "n.safetensors").ramp == 31


def test_ramps_that_make_no_sense_are_refused() -> None:
    for wrong in (0, -3, 1.5, True, 2**15 + 1):
        with pytest.raises(LevelsError, match="ramp"):
            sm.Lossless(ramp=wrong)
    with pytest.raises(LevelsError, match="Analog"):
        sm.Lossless(input=sm.Spikes(), ramp=4)
    x = torch.rand(8, 5, 3)
    rnn = sm.capture(nn.RNN(3, 4, nonlinearity="relu", batch_first=True).eval(), x[:2])
    with pytest.raises(GraphError, match="recurrent"):
        sm.convert(sm.quantise(rnn, x, sm.Levels()), sm.Lossless(ramp=4))
