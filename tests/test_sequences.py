"""Recurrent networks run element by element: exact, in both engines, with both hand-overs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import Phase, assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphs import network, random_counts
from recurrent_graphs import (
    KINDS,
    WAYS,
    How,
    assert_at_rest,
    converted,
    exact_runs,
    hows,
    quantised,
    random_recurrent_graph,
    samples,
)
from spikemorph.convert.network import Encoding, Graded, Spike, SpikingNetwork, Ternary
from spikemorph.errors import DataError
from spikemorph.evaluate.encode import input_counts
from spikemorph.run.dense import Dense
from spikemorph.run.event import Event
from spikemorph.run.handover import Delta, Fresh, Handover
from spikemorph.run.record import SpikeCounts
from spikemorph.run.result import Run
from spikemorph.verify.bounds import steps_bound

seeds = st.integers(0, 10**6)
kinds = st.sampled_from(KINDS)
unshrunk = [Phase.explicit, Phase.reuse, Phase.generate]  # long sequences are too slow to shrink


def assert_exact(net: SpikingNetwork, counts: tuple[Tensor, ...]) -> None:
    runs = list(exact_runs(net, counts))
    assert len(runs) == len(WAYS)
    for run in runs:
        assert int(run.element_steps.max()) <= steps_bound(net)
        assert run.steps == int(run.element_steps.amax(1).clamp(min=1).sum())


@settings(max_examples=15, phases=unshrunk)
@given(how=hows(), kind=kinds, seed=seeds)
def test_fresh_and_delta_of_all_engines_are_the_quantised_network(
    how: How, kind: tuple[Spike, Encoding], seed: int
) -> None:
    assert_exact(*converted(how, kind, seed))


@settings(max_examples=25, phases=unshrunk)
@given(kind=kinds, seed=seeds)
def test_so_they_are_whatever_stands_around_recurrences(kind: tuple[Spike, Encoding], seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_recurrent_graph(rng)
    assert_exact(replace(network(graph), spike=kind[0], encoding=kind[1]), random_counts(rng, graph, 2))


# ---------------------------------------------------------------- long ones
LONG = How(elements=1000, units=4)


@pytest.mark.parametrize("spike", [Ternary(), Graded(3)], ids=["ternary", "graded"])
@pytest.mark.parametrize("handover", WAYS, ids=["fresh", "delta"])
def test_a_thousand_elements(spike: Spike, handover: Handover) -> None:
    graph = quantised(LONG, seed=2)
    counts = input_counts(graph, samples(LONG, 4, seed=8))
    run = Dense().run(
        replace(network(graph), spike=spike), counts, steps=None, record=(SpikeCounts(),), handover=handover
    )
    assert_at_rest(run, graph, counts)
    assert run.elements == 1000
    assert run.counts is not None
    (state,) = (node for node in graph.neurons)
    busy = (run.counts[state.name].diff(dim=1) != 0).any(2).double().mean()
    assert busy > 0.5, "the state must keep moving"


@settings(max_examples=6)
@example(how=How(units=1, features=1, behind="all"), kind=KINDS[0], elements=264, seed=130804)
@given(how=hows(), kind=st.sampled_from(KINDS), elements=st.integers(200, 1000), seed=st.integers(0, 10**6))
def test_any_network_over_long_sequences(
    how: How, kind: tuple[Spike, Encoding], elements: int, seed: int
) -> None:
    """Random fronts, layers, directions, states: fresh = delta = QNN after hundreds of elements."""
    try:
        net, counts = converted(replace(how, elements=elements), kind, seed)
    except DataError as error:  # a random ReLU state may grow beyond any float: then there is no unit
        assume("NaN or infinite" not in str(error))
        raise
    for handover in WAYS:
        run = Event().run(net, counts, steps=None, record=(SpikeCounts(),), handover=handover)
        assert_at_rest(run, net.graph, counts)


# ---------------------------------------------------------------- what is handed over
def played(net: SpikingNetwork, counts: tuple[Tensor, ...], handover: Handover) -> Run:
    return Dense().run(net, counts, steps=None, record=(SpikeCounts(),), handover=handover)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_delta_sends_nothing_where_nothing_changes(kind: tuple[Spike, Encoding]) -> None:
    """On constant input an element is silent exactly where the state before it had become stationary."""
    how = How(elements=30, units=3)
    net = replace(network(quantised(how, seed=5)), spike=kind[0], encoding=kind[1])
    counts = input_counts(net.graph, (samples(how, 6, seed=3)[0][:, :1].expand(-1, 30, -1),))
    (state,) = net.graph.neurons
    run, fresh = played(net, counts, Delta()), played(net, counts, Fresh())
    assert run.counts is not None
    h = run.counts[state.name]
    stationary = (h[:, 1:-1] == h[:, :-2]).all(2).T
    assert torch.equal(run.element_steps[2:] == 0, stationary)
    assert bool(stationary[-1].any()), "some state must have come to rest"
    assert int(fresh.element_steps[2:][stationary].sum()) > 0


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_delta_sends_fewer_spikes_where_little_changes(kind: tuple[Spike, Encoding]) -> None:
    how = How(elements=60, units=4)
    net = replace(network(quantised(how, seed=4)), spike=kind[0], encoding=kind[1])
    phase = torch.linspace(0, 3, 60)[None, :, None] + torch.tensor([0.0, 1.0])
    counts = input_counts(net.graph, (2 * torch.sin(phase) * torch.tensor([1.0, -0.7, 0.4])[:, None, None],))
    fresh, delta = played(net, counts, Fresh()), played(net, counts, Delta())
    for run in (fresh, delta):
        assert_at_rest(run, net.graph, counts)
    assert 0 < 2 * delta.spikes < fresh.spikes
    assert int(delta.element_steps.sum()) < int(fresh.element_steps.sum())


def test_feed_forward_networks_do_not_know_hand_overs() -> None:
    from graphs import two_layers

    counts = (torch.tensor([[2, 1], [-3, 0]]),)
    fresh, delta = (played(network(two_layers()), counts, way) for way in WAYS)
    assert (fresh.spikes, fresh.steps, fresh.elements) == (delta.spikes, delta.steps, 1)
    assert not any(name.endswith(".handover") for name in delta.layer_spikes)
