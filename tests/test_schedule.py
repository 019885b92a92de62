"""Rounds: which elements of a recurrent network settle together."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from graphs import random_integer_graph, two_layers
from recurrent_graphs import How, Loops, Window, float_graph, hows, quantised, random_recurrent_graph
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.ir import ops
from spikemorph.ir.elements import is_sequence, with_element_axes
from spikemorph.ir.graph import Graph
from spikemorph.run.cells import gathered, plan_of, scattered
from spikemorph.run.schedule import count_of, schedule

seeds = st.integers(0, 10**6)


def rounds(how: How) -> list[tuple[str, list[int]]]:
    """Of every node, by the name of its op."""
    graph, timing = quantised(how), schedule(quantised(how))
    return [(type(node.op).__name__, timing.rounds[node.name]) for node in graph.body]


# ---------------------------------------------------------------- by hand
def test_one_layer_takes_an_element_a_round() -> None:
    for name, when in rounds(How(elements=4)):
        assert when == [0, 1, 2, 3], name


def test_two_layers_take_the_same_element_in_the_same_round() -> None:
    found = rounds(How(elements=4, layers=2))
    assert all(when == [0, 1, 2, 3] for _, when in found)
    assert schedule(quantised(How(elements=4, layers=2))).elements == 4


def test_backwards_the_last_element_comes_first() -> None:
    b = Loops(rng=np.random.default_rng(0))
    x = b.input(0, (3, 1), -2, 2)
    op = ops.Recurrence(b.tensor([[1]]), ops.Neuron(0, 1, b.tensor([1]), None, None), reverse=True)
    graph = b.graph(b.readout(b.add(op, x, bound=1)))
    assert all(when == [2, 1, 0] for when in schedule(graph).rounds.values())


def test_a_second_layer_waits_for_both_directions() -> None:
    how = How(elements=3, layers=2, both=True)
    timing = schedule(quantised(how))
    loops = [timing.rounds[node.name] for node in quantised(how).neurons]
    assert loops[:2] == [[0, 1, 2], [2, 1, 0]]
    assert loops[2][0] >= 2
    assert loops[2] == [2, 3, 4]
    assert loops[3] == [4, 3, 2]
    assert timing.elements == 5


def test_a_strided_front_end_runs_when_its_window_is_read() -> None:
    how = How(elements=7, front=(Window("conv", 3, 2),))
    graph = quantised(how)
    timing = schedule(graph)
    assert timing.elements == 3
    (first,) = graph.inputs
    assert timing.rounds[first.name] == [0, 0, 0, 1, 1, 2, 2]
    assert timing.look_ahead == max(3 - 3, 5 - 5, 7 - 7)


def test_what_reads_everything_runs_last() -> None:
    found = dict(rounds(How(elements=5, behind="mean")))
    assert found["Readout"] == [4]
    found = dict(rounds(How(elements=5, behind="first")))
    assert found["Readout"] == [0]


@settings(max_examples=15)
@given(seed=seeds)
def test_feed_forward_graphs_have_one_round_and_no_element_axes(seed: int) -> None:
    graph = random_integer_graph(np.random.default_rng(seed))
    assert with_element_axes(graph) == graph
    assert not is_sequence(graph)
    timing = schedule(graph)
    assert (timing.elements, timing.look_ahead) == (1, 0)
    plan = plan_of(graph, buffered_input=False)
    assert [cell.graph for cell in plan.cells] == [graph]


# ---------------------------------------------------------------- laws
def assert_lawful(graph: Graph) -> None:
    """Every element runs once, in some round, never before what it reads; recurrences one by one."""
    timing = schedule(graph)
    for node in graph.body:
        when = timing.rounds[node.name]
        assert len(when) == count_of(node)
        assert all(0 <= now < timing.elements for now in when)
        for name, read in zip(node.inputs, timing.reads[node.name], strict=True):
            for j, now in enumerate(when):
                assert all(timing.rounds[name][i] <= now for i in read(j)), (node.name, name)
        if isinstance(node.op, ops.Recurrence):
            order = when[::-1] if node.op.reverse else when
            assert all(a < b for a, b in pairwise(order)), node.name
    assert {now for each in timing.rounds.values() for now in each} == set(range(timing.elements))


@settings(max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(how=hows(most=16), seed=seeds)
def test_no_element_runs_before_what_it_reads(how: How, seed: int) -> None:
    assert_lawful(quantised(how, seed))


@settings(max_examples=40, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=seeds)
def test_so_it_is_around_any_recurrence(seed: int) -> None:
    assert_lawful(random_recurrent_graph(np.random.default_rng(seed)))


@settings(max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=seeds)
def test_an_element_depends_on_no_others_than_it_says(seed: int) -> None:
    """Changing an input element changes those elements of each value only that may read it."""
    rng = np.random.default_rng(seed)
    graph = random_recurrent_graph(rng)
    timing, (first, *_) = schedule(graph), graph.inputs
    counts = tuple(torch.from_numpy(rng.integers(-2, 3, (1, *node.shape))) for node in graph.inputs)
    place, axis = int(rng.integers(count_of(first))), first.element_axis
    other = counts[0].clone()
    touched = other if axis is None else other.select(axis + 1, place)
    touched += 3
    reached: dict[str, set[int]] = {node.name: set() for node in graph.body}
    reached[first.name] = {place}
    one, two = evaluate_counts(graph, counts), evaluate_counts(graph, (other, *counts[1:]))
    for node in graph.body:
        for name, read in zip(node.inputs, timing.reads[node.name], strict=True):
            reached[node.name] |= {j for j in range(count_of(node)) if reached[name] & set(read(j))}
        if isinstance(node.op, ops.Recurrence) and reached[node.name]:
            ends = min(reached[node.name]), max(reached[node.name])
            start, stop = (0, ends[1] + 1) if node.op.reverse else (ends[0], count_of(node))
            reached[node.name] = set(range(start, stop))
        differs = (one[node.name] != two[node.name])[0]
        if node.element_axis is None:
            assert reached[node.name] or not bool(differs.any()), node.name
        else:
            rows = differs.movedim(node.element_axis, 0).reshape(count_of(node), -1).any(1)
            assert set(rows.nonzero().flatten().tolist()) <= reached[node.name], node.name


# ---------------------------------------------------------------- cells
def test_every_emitter_and_readout_is_computed_exactly_once() -> None:
    for how in (How(elements=5, both=True, layers=2), How(elements=9, front=(Window("conv", 3, 2, 1),))):
        graph = quantised(how)
        plan = plan_of(graph, buffered_input=False)
        ports = [port for cell in plan.cells for port in (*cell.emitters, *cell.readouts)]
        for node in (*graph.neurons, *graph.readouts):
            made = sorted(j for port in ports if port.name == node.name for j in port.elements)
            assert made == list(range(count_of(node))), node.name


def test_equal_rounds_share_one_cell() -> None:
    plan = plan_of(quantised(How(elements=12)), buffered_input=False)
    assert len({id(cell.graph) for cell in plan.cells}) == 1
    assert len({cell.layout for cell in plan.cells}) == 1
    padded = plan_of(quantised(How(elements=12, front=(Window("conv", 3, 1, 1),))), buffered_input=False)
    assert 1 < len({id(cell.graph) for cell in padded.cells}) <= 4


def test_a_plan_is_made_once_for_a_graph_and_anew_for_an_equal_one() -> None:
    graph = quantised(How(elements=3))
    assert plan_of(graph, buffered_input=True) is plan_of(graph, buffered_input=True)
    assert plan_of(graph, buffered_input=True) is not plan_of(graph, buffered_input=False)
    assert plan_of(replace(graph), buffered_input=True) is not plan_of(graph, buffered_input=True)


def test_element_axes_follow_time_through_the_graph() -> None:
    graph = quantised(How(elements=7, front=(Window("conv", 3, 2),), behind="last"))
    axes = {type(node.op).__name__: node.element_axis for node in graph.body}
    assert (axes["Input"], axes["Conv"], axes["Permute"], axes["Recurrence"]) == (1, 1, 0, 0)
    assert axes["Readout"] is None
    assert all(node.element_axis is None for node in two_layers().nodes)
    assert all(node.element_axis is None for node in float_graph(How(), 0).nodes)


@pytest.mark.parametrize("axis", [0, 1])
def test_elements_are_taken_and_put_back(axis: int) -> None:
    values = torch.arange(2 * 3 * 3).reshape(2, 3, 3).double()
    part = gathered(values, axis, (-1, 1, 3))
    assert part.select(axis + 1, 0).abs().sum() == 0
    assert part.select(axis + 1, 2).abs().sum() == 0
    assert torch.equal(part.select(axis + 1, 1), values.select(axis + 1, 1))
    into = torch.zeros(2, 3, 3, dtype=torch.int64)
    scattered(into, axis, (2, 0), gathered(values, axis, (2, 0)))
    assert torch.equal(into.select(axis + 1, 2), values.select(axis + 1, 2).long())
    assert int(into.select(axis + 1, 1).abs().sum()) == 0
    assert torch.equal(gathered(values, None, (0,)), values)
