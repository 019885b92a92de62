"""Negative controls for sequences: they go wrong where they must, and the right way does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import spikemorph as sm
from graphs import network
from recurrent_graphs import How, float_graph, quantised, samples
from spikemorph.convert.methods import convert
from spikemorph.errors import GraphError
from spikemorph.evaluate.encode import input_counts
from spikemorph.recipes.controls import controls, in_float32
from spikemorph.run.dense import Dense
from spikemorph.run.handover import Replay
from spikemorph.run.record import Everything, SpikeCounts
from test_sequence_oracle import Layer

HOW = How(elements=60, features=2, units=6, behind="last")
LEVELS = sm.Levels(activation=7)
ENOUGH = 14


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, dict[str, float]]]:
    graph = quantised(HOW, 2, LEVELS)
    return controls(convert(graph), float_graph(HOW, 2), samples(HOW, 5, 9)[0], (2, ENOUGH))


def test_what_was_run_is_said(found: dict[str, object]) -> None:
    assert (found["samples"], found["elements"]) == (5, 60)
    assert found.keys() == {"samples", "elements", "raw_replay", "settled", "float32"}


def test_raw_replay_goes_wrong_and_settled_counts_do_not(
    found: dict[str, dict[str, dict[str, float]]],
) -> None:
    for way in ("raw_replay", "settled"):
        assert list(found[way]) == ["2 steps", f"{ENOUGH} steps"]
    assert found["raw_replay"]["2 steps"]["wrong_states_percent"] > 1
    assert found["raw_replay"]["2 steps"]["samples_with_wrong_states"] == 5
    assert found["settled"][f"{ENOUGH} steps"] == {
        "wrong_states_percent": 0.0,
        "first_wrong_element": None,
        "samples_with_wrong_states": 0,
    }
    assert found["settled"]["2 steps"]["wrong_states_percent"] > 0, "2 steps are too few to settle"


def test_percentages_are_counted_by_hand_alike(found: dict[str, dict[str, dict[str, float]]]) -> None:
    graph, (x,) = quantised(HOW, 2, LEVELS), samples(HOW, 5, 9)
    (state,) = graph.neurons
    counts = input_counts(graph, x)
    right = Dense().run(convert(graph), counts, steps=None, record=(SpikeCounts(),))
    wrong = Dense().run(convert(graph), counts, steps=2, record=(SpikeCounts(),), handover=Replay())
    assert right.counts is not None
    assert wrong.counts is not None
    differs = right.counts[state.name] != wrong.counts[state.name]
    said = found["raw_replay"]["2 steps"]
    assert said["wrong_states_percent"] == pytest.approx(100 * int(differs.sum()) / differs.numel())
    assert said["first_wrong_element"] == int(differs.any(2).any(0).nonzero()[0])


def test_replay_plays_the_train_of_the_element_before_and_nothing_first() -> None:
    """Element 0 has no train before it, so it is right."""
    graph, (x,) = quantised(HOW, 2, LEVELS), samples(HOW, 5, 9)
    (state,) = graph.neurons
    counts = input_counts(graph, x)
    right = Dense().run(convert(graph), counts, steps=ENOUGH, record=(SpikeCounts(),))
    wrong = Dense().run(convert(graph), counts, steps=ENOUGH, record=(SpikeCounts(),), handover=Replay())
    assert right.counts is not None
    assert wrong.counts is not None
    assert torch.equal(right.counts[state.name][:, 0], wrong.counts[state.name][:, 0])


def test_replay_sends_what_was_sent_one_element_before() -> None:
    """x = 2, 0, 0 and h[n] = round(x[n] + h[n - 1] / 2): trains ++0, +00, +00, each heard an element late."""
    one = np.array([[1]])
    graph = Layer(2 * one, one, np.array([0]), 2, 3).graph(3, 2)
    run = Dense().run(
        network(graph),
        (torch.tensor([[[2], [0], [0]]]),),
        steps=3,
        record=(Everything(),),
        handover=Replay(),
    )
    assert run.trace is not None
    (state,) = graph.neurons
    trains = run.trace[state.name][:, 0, :, 0].reshape(3, 3, 3)
    assert [trains[n, :, n].tolist() for n in range(3)] == [[1, 1, 0], [1, 0, 0], [1, 0, 0]]


def test_float32_percentages_are_percentages(found: dict[str, dict[str, float]]) -> None:
    said = found["float32"]
    counted = {"wrong_states_percent", "first_wrong_element", "samples_with_wrong_states"}
    assert said.keys() == {"samples", *counted}
    assert 0 <= said["wrong_states_percent"] <= 100
    assert 0 <= said["samples_with_wrong_states"] <= 5
    for seed in range(4):
        short = replace(HOW, elements=15)
        made = in_float32(float_graph(short, seed), samples(short, 3, seed)[0], levels=7)
        assert 0 <= made["wrong_states_percent"] <= 100
        assert (made["first_wrong_element"] is None) == (made["wrong_states_percent"] == 0)


@pytest.mark.parametrize(
    ("how", "number"), [(How(layers=2, behind="last"), 2), (How(both=True, behind="last"), 2)]
)
def test_controls_want_one_recurrence(how: How, number: int) -> None:
    graph, x = quantised(how), samples(how, 2)[0]
    with pytest.raises(GraphError) as caught:
        controls(convert(graph), float_graph(how, 0), x, (2,))
    error = caught.value
    assert (error.where, error.got, error.known) == ("controls", f"{number} recurrences", "one")
    assert error.do == "use a network with one RNN layer, in one direction"
    with pytest.raises(GraphError):
        in_float32(float_graph(how, 0), x, levels=3)
