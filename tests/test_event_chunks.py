"""The event engine on more samples than it takes at once, and what a run of it keeps."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import network, random_counts, random_integer_graph
from recurrent_graphs import assert_same_run, random_recurrent_graph, same
from shipped import SHIPPED
from spikemorph.convert.methods import convert
from spikemorph.data import Split
from spikemorph.errors import GraphError, MissingData
from spikemorph.evaluate.encode import input_counts
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.recipes import RECIPES
from spikemorph.run.cells import plan_of
from spikemorph.run.dense import Dense
from spikemorph.run.event import Event, program
from spikemorph.run.event.compose import composed
from spikemorph.run.event.whole import Task
from spikemorph.run.handover import Delta, Fresh
from spikemorph.run.record import Everything, LayerSpikes, Outputs, SpikeCounts
from spikemorph.run.reference import Reference
from test_stream import reading

LONG = {"s-mnist-784", "bccd", "camvid", "training-free-cifar10-resnet18", "training-free-cifar10-vgg"}
"""Networks that the dense engine takes too long for here."""


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    loops=st.booleans(),
    handover=st.sampled_from((Fresh(), Delta())),
    steps=st.sampled_from([None, 2]),
)
def test_chunks_change_nothing_that_is_recorded(
    seed: int, loops: bool, handover: Fresh | Delta, steps: int | None
) -> None:
    rng = np.random.default_rng(seed)
    graph = random_recurrent_graph(rng) if loops else random_integer_graph(rng)
    net, counts = network(graph), random_counts(rng, graph, 5)
    dense, event = (
        engine.run(net, counts, steps=steps, record=(Everything(),), handover=handover)
        for engine in (Dense(), Event(batch=2))
    )
    assert_same_run(event, dense)


def test_what_arrived_is_counted_when_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    graph = random_integer_graph(rng)
    net, counts = network(graph), random_counts(rng, graph, 5)
    plays: list[bool] = []
    play = Task.play

    def spy(self: Task, *, counts: bool, work: bool) -> object:
        plays.append(work)
        return play(self, counts=counts, work=work)

    monkeypatch.setattr(Task, "play", spy)
    run = Event(batch=2).run(net, counts, steps=None, record=())
    assert plays == [False] * 3
    expected = Dense().run(net, counts, steps=None, record=()).arrivals
    counts[0].zero_()
    assert expected
    assert all(torch.equal(run.arrivals[name], each) for name, each in expected.items())
    assert plays == [False] * 3 + [True] * 3
    assert run.arrivals is not None
    assert len(plays) == 6, "counted once"


def test_runs_can_be_copied() -> None:
    rng = np.random.default_rng(4)
    graph = random_integer_graph(rng)
    run = Event().run(network(graph), random_counts(rng, graph, 5), steps=None, record=())
    other = copy.deepcopy(run)
    assert all(torch.equal(other.arrivals[name], each) for name, each in run.arrivals.items())
    assert all(torch.equal(other.raw[name], each) for name, each in run.raw.items())


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - LONG))
def test_shipped_networks_step_by_step(name: str) -> None:
    recipe = RECIPES[name]
    net = convert(recipe.graph(None, "qnn"))
    try:
        counts = input_counts(net.graph, recipe.data(Split.TEST).x[:3].float())
    except MissingData as error:
        pytest.skip(str(error))
    record = (SpikeCounts(), Outputs(), LayerSpikes())
    dense, event = (
        engine.run(net, counts, steps=None, record=record) for engine in (Dense(), Event(batch=2))
    )
    assert (event.steps, event.spikes, event.events) == (dense.steps, dense.spikes, dense.events)
    assert torch.equal(event.element_steps, dense.element_steps)
    for part in ("raw", "layer_spikes", "layer_events", "counts", "layer_steps"):
        same(getattr(event, part), getattr(dense, part), part)
    for left, right in zip(event.work, dense.work, strict=True):
        same(left.arrivals, right.arrivals, "work")
    assert event.raws is not None
    assert dense.raws is not None
    for now, then in zip(event.raws, dense.raws, strict=True):
        same(now, then, "raws")


@pytest.mark.parametrize("narrow", [5, 20])
@pytest.mark.parametrize("record", [SpikeCounts(), Everything()])
def test_state_goes_on_in_sums_of_the_same_width(
    narrow: int, record: SpikeCounts | Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Biases that differ by element may make the sums of one cell fit int16, not those of the next."""
    monkeypatch.setattr(program, "NARROW", narrow)
    for seed in (*range(30), 52):
        rng = np.random.default_rng(seed)
        graph = random_recurrent_graph(rng)
        net, counts = network(graph), random_counts(rng, graph, 3)
        dense, event = (
            engine.run(net, counts, steps=None, record=(record,), handover=Delta())
            for engine in (Dense(), Event(threads=1))
        )
        assert dense.counts is not None
        same(event.counts, dense.counts, "counts")
        same(event.layer_spikes, dense.layer_spikes, "spikes")


def test_a_scale_behind_a_linear_layer_goes_into_its_weights() -> None:
    net, x = reading()
    for cell in plan_of(net.graph, buffered_input=False).cells:
        made = composed(cell.graph)
        assert len(made.nodes) < len(cell.graph.nodes)
        inputs = random_counts(np.random.default_rng(0), cell.graph, 3)
        before, after = (evaluate_counts(each, inputs) for each in (cell.graph, made))
        for node in (*cell.graph.readouts, *cell.graph.neurons):
            assert torch.equal(after[node.name], before[node.name])
    counts = input_counts(net.graph, x)
    dense, event = (engine.run(net, counts, steps=None, record=()) for engine in (Dense(), Event()))
    same(event.raw, dense.raw, "raw")
    for left, right in zip(event.work, dense.work, strict=True):
        same(left.arrivals, right.arrivals, "work")


@pytest.mark.parametrize("seed", [117844, 1005095, 1010996, 2012723])
@pytest.mark.parametrize("handover", [Fresh(), Delta()])
def test_time_along_two_axes_and_pools_over_sums(seed: int, handover: Fresh | Delta) -> None:
    """Outer products over time, neurons on transposed sequences, held counts of pools over scaled inputs."""
    rng = np.random.default_rng(seed)
    graph = random_recurrent_graph(rng)
    net, counts = network(graph), random_counts(rng, graph, 3)
    rest = evaluate_counts(graph, counts)
    for engine in (Reference(), Dense(), Event()):
        run = engine.run(net, counts, steps=None, record=(), handover=handover)
        same(run.raw, {name: rest[name].long() for name in run.raw}, "raw")


def test_a_pool_that_turns_time_is_refused() -> None:
    rng = np.random.default_rng(1006381)
    graph = random_recurrent_graph(rng)
    with pytest.raises(GraphError, match="keep the axis of time"):
        Dense().run(network(graph), random_counts(rng, graph, 2), steps=None, record=())
