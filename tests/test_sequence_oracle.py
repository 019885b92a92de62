"""One recurrent layer of ReLU neurons by plain loops, which share nothing with either engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import network, rounding
from recurrent_graphs import Loops, all_engines
from spikemorph.convert.network import Graded, SpikingNetwork, Ternary
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.evaluate.intervals import accumulator_bounds
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.run.dense import Dense
from spikemorph.run.handover import Delta, Fresh, Handover
from spikemorph.run.record import SpikeCounts
from spikemorph.verify.bounds import steps_bound

Array = npt.NDArray[np.int64]


@dataclass
class Layer:
    """h[n] = clip(floor(1/2 + (incoming x[n] + own h[n - 1] + bias) / step), 0, hi)."""

    incoming: Array
    own: Array
    bias: Array
    step: int
    hi: int

    def target(self, accumulator: Array) -> Array:
        return np.clip((2 * (accumulator + self.bias) + self.step) // (2 * self.step), 0, self.hi)

    def graph(self, elements: int, most: int) -> Graph:
        b = Loops(rng=np.random.default_rng(0))
        x = b.linear(b.input(0, (elements, self.incoming.shape[1]), -most, most), self.incoming)
        cell = ops.Neuron(0, self.hi, b.tensor(rounding(self.step, 0, self.hi)), None, b.tensor(self.bias))
        h = b.add(ops.Recurrence(b.tensor(self.own), cell), x, bound=self.hi)
        return b.graph(b.readout(h))


@dataclass
class Told:
    """What a run of one sample did."""

    counts: list[Array] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    settled: list[bool] = field(default_factory=list)
    spikes: int = 0
    handed: int = 0
    largest: int = 0


def told(layer: Layer, x: Array, m: int, *, keep: bool, steps: int | None = None) -> Told:
    """One sample x [elements, features]; keep: accumulators and counts stay from element to element."""
    units = len(layer.own)
    found = Told()
    acc, count, held = (np.zeros(units, np.int64) for _ in range(3))
    state, before = np.zeros(units, np.int64), np.zeros(x.shape[1], np.int64)
    for now in x:
        if not keep:
            acc, count, held, before = acc * 0, count * 0, held * 0, before * 0
        acc, before = acc + layer.incoming @ (now - before), now
        number, last, pending = 0, 0, True
        while pending if steps is None else number < steps:
            number += 1
            given_on = np.clip(state - held, -m, m)
            held = held + given_on
            acc = acc + layer.own @ given_on
            found.largest = max(found.largest, int(np.abs([acc, acc + layer.bias]).max()))
            spike = np.clip(layer.target(acc) - count, -m, m)
            count = count + spike
            found.handed += int(np.abs(given_on).sum())
            found.spikes += int(np.abs(spike).sum())
            if given_on.any() or spike.any():
                last = number
            pending = bool((held != state).any() or (count != layer.target(acc)).any())
        state = count
        found.counts.append(count)
        found.steps.append(last)
        found.settled.append(not pending)
    return found


def drawn(seed: int) -> tuple[Layer, Array, SpikingNetwork]:
    rng = np.random.default_rng(seed)
    units, features, elements = (int(n) for n in rng.integers(1, (6, 4, 12)))
    layer = Layer(
        rng.integers(-9, 10, (units, features)),
        rng.integers(-9, 10, (units, units)),
        rng.integers(-20, 21, units),
        int(rng.integers(2, 25)),
        int(rng.integers(1, 9)),
    )
    x = rng.integers(-6, 7, (4, elements, features)) * (rng.random((4, elements, 1)) < 0.7)
    return layer, x, network(layer.graph(elements, 6))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    spike=st.sampled_from([Ternary(), Graded(2), Graded(100)]),
    handover=st.sampled_from([Fresh(), Delta()]),
    steps=st.sampled_from([None, None, 1, 2, 4]),
)
def test_the_dense_engine_does_what_plain_loops_do(
    seed: int, spike: Ternary | Graded, handover: Handover, steps: int | None
) -> None:
    layer, x, net = drawn(seed)
    net = SpikingNetwork(net.graph, spike, net.encoding, "")
    run = Dense().run(net, (torch.from_numpy(x),), steps=steps, record=(SpikeCounts(),), handover=handover)
    (state,) = net.graph.neurons
    keep = handover == Delta()
    wanted = [told(layer, each, spike.largest, keep=keep, steps=steps) for each in x]
    assert run.counts is not None
    assert run.counts[state.name].tolist() == [[list(h) for h in each.counts] for each in wanted]
    assert run.raw[net.graph.outputs[0]].tolist() == run.counts[state.name].tolist()
    assert run.layer_spikes[state.name].tolist() == [each.spikes for each in wanted]
    assert run.layer_spikes[f"{state.name}.handover"].tolist() == [each.handed for each in wanted]
    assert run.element_steps.T.tolist() == [each.steps for each in wanted]
    assert run.element_settled.T.tolist() == [each.settled for each in wanted]
    assert max(each.largest for each in wanted) <= accumulator_bounds(net.graph)[state.name]
    if steps is None:
        rest = evaluate_counts(net.graph, (torch.from_numpy(x),))[state.name]
        assert run.counts[state.name].tolist() == rest.tolist()


def test_the_plain_loops_know_a_case_by_hand() -> None:
    """x = 2, 0, 0 and h[n] = round(x[n] + h[n - 1] / 2), 0..3: counts 2, 1, 1 (ties go up)."""
    one = np.array([[1]])
    layer = Layer(2 * one, one, np.array([0]), 2, 3)
    found = told(layer, np.array([[2], [0], [0]]), 1, keep=False)
    assert [int(h) for (h,) in found.counts] == [2, 1, 1]
    assert (found.spikes, found.handed, found.steps) == (4, 3, [2, 2, 1])
    found = told(layer, np.array([[2], [0], [0]]), 1, keep=True)
    assert [int(h) for (h,) in found.counts] == [2, 1, 1]
    # element 1 takes one unit back, element 2 only hears that the state fell from 2 to 1
    assert (found.spikes, found.handed, found.steps) == (3, 3, [2, 2, 1])


# ---------------------------------------------------------------- a fixed number of steps
@pytest.mark.parametrize("handover", [Fresh(), Delta()])
def test_too_few_steps_are_reported_and_enough_are_exact(handover: Handover) -> None:
    _, x, net = drawn(17)
    counts = (torch.from_numpy(x),)
    short = all_engines(net, counts, handover, steps=1)
    assert short.steps == short.elements == x.shape[1]
    assert not bool(short.element_settled.all())
    assert torch.equal(short.settled, short.element_settled.all(0))
    enough = steps_bound(net)
    run = all_engines(net, counts, handover, steps=enough)
    assert run.steps == enough * run.elements
    assert bool(run.element_settled.all())
    until = all_engines(net, counts, handover)
    assert run.counts is not None
    assert until.counts is not None
    for name, each in until.counts.items():
        assert torch.equal(run.counts[name], each)
    assert torch.equal(run.element_steps, until.element_steps)
    assert run.spikes == until.spikes
