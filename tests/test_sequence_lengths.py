"""Sequences of different lengths in one batch: each as if its network had been captured at its length."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import spikemorph as sm
from graphs import network, two_layers
from recurrent_graphs import KINDS, WAYS, How, Window, exact_runs, float_graph, quantised, samples
from spikemorph.convert.methods import convert
from spikemorph.convert.network import Encoding, Spike
from spikemorph.errors import DataError
from spikemorph.evaluate.encode import input_counts
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.ir.graph import Graph

LEVELS = sm.Levels(activation=3, input=sm.Analog(bits=4))
FULL = 9
CONV = Window("conv", 3, 2, 1)


def at_length(how: How, seed: int, elements: int) -> Graph:
    """The network captured at a length, with the weights and units of the one at full length."""
    full = sm.trainable(float_graph(how, seed), LEVELS, samples(how, 16, seed + 1))
    short = sm.trainable(float_graph(replace(how, elements=elements), seed), LEVELS)
    short.load_state_dict(full.state_dict())
    return sm.freeze(short)


def cut(how: How, x: tuple[Tensor, ...], lengths: list[int], behind: str) -> tuple[Tensor, ...]:
    """The samples, with zeros or large numbers behind their ends."""
    x = (x[0].clone(), *x[1:])
    for k, length in enumerate(lengths):
        rest = x[0][k].narrow(how.axis - 1, length, how.elements - length)
        rest.copy_(0 * rest if behind == "zeros" else 3 * rest.sign())
    return x


def assert_as_alone(
    how: How, seed: int, x: tuple[Tensor, ...], together: dict[str, Tensor], k: int, length: int
) -> None:
    """Every neuron and readout of sample k is that of the network captured at its length."""
    graph = at_length(how, seed, length)
    own = (x[0][k : k + 1].narrow(how.axis, 0, length), *(each[k : k + 1] for each in x[1:]))
    wanted = evaluate_counts(graph, input_counts(graph, own))
    for node in (*graph.neurons, *graph.readouts):
        got, axis = together[node.name][k], node.element_axis
        got = got if axis is None else got.narrow(axis, 0, node.shape[axis])
        assert torch.equal(got, wanted[node.name][0]), (node.name, k, length)


def assert_lengths_cut(
    how: How, seed: int, kind: tuple[Spike, Encoding], lengths: list[int], behind: str = "zeros"
) -> None:
    """Engines and QNN agree, and each sample is what it is alone."""
    graph, ends = at_length(how, seed, how.elements), torch.tensor(lengths)
    x = cut(how, samples(how, len(lengths), seed + 2), lengths, behind)
    net, counts = replace(network(graph), spike=kind[0], encoding=kind[1]), input_counts(graph, x)
    if behind == "zeros":
        assert len(list(exact_runs(net, counts, ends))) == len(WAYS)
    together = evaluate_counts(graph, counts, ends)
    for k, length in enumerate(lengths):
        assert_as_alone(how, seed, x, together, k, length)


CASES: dict[str, How] = {
    "one layer": How(behind="last"),
    "every element": How(behind="all"),
    "linear on every element": How(behind="linear"),
    "two layers": How(layers=2, behind="last"),
    "both ways": How(both=True, behind="all"),
    "both ways, the last states": How(both=True, behind="ends"),
    "both ways, the first element": How(both=True, behind="first"),
    "two layers both ways": How(layers=2, both=True, relu=False, behind="ends"),
    "strided convolution": How(front=(CONV,), behind="last"),
    "convolution without stride": How(front=(Window("conv", 3, 1, 1),), behind="last"),
    "dilated convolution": How(front=(Window("conv", 2, 1, 2, 2),), behind="all"),
    "two convolutions": How(front=(CONV, Window("conv", 3, 1, 1)), both=True, behind="ends"),
    "convolution and pool": How(front=(Window("conv", 3, 1, 1), Window("max", 2, 2)), behind="last"),
    "given state": How(state=True, behind="last"),
    "residual on every element": How(residual=True, behind="all"),
}


@pytest.mark.parametrize("behind", ["zeros", "noise"])
@pytest.mark.parametrize("name", CASES)
def test_each_sample_is_as_if_captured_at_its_length(name: str, behind: str) -> None:
    assert_lengths_cut(replace(CASES[name], elements=FULL), 3, KINDS[0], [FULL, 3, 6], behind)


DOUBTFUL = {
    "given state both ways": How(state=True, both=True, behind="ends"),
    "backwards, the last element": How(both=True, behind="last"),
    "a pool of numbers below zero": How(front=(Window("max", 3, 1, 1),), behind="last"),
    "a residual beside the recurrence": How(residual=True, behind="last"),
}
"""What stands at the end of the batch is not what stood at the end of the sample."""


@pytest.mark.parametrize("name", DOUBTFUL)
def test_ends_that_lie_elsewhere_are_right_or_refused(name: str) -> None:
    refusal: DataError | None = None
    try:
        assert_lengths_cut(replace(DOUBTFUL[name], elements=FULL), 3, KINDS[0], [FULL, 3, 6])
    except DataError as error:
        refusal = error
    assert refusal is None or refusal.where.startswith("lengths, at '")


@settings(max_examples=8, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    lengths=st.lists(st.integers(3, FULL), min_size=1, max_size=3),
    layers=st.integers(1, 2),
    both=st.booleans(),
    relu=st.booleans(),
    front=st.sampled_from([(), (CONV,), (Window("conv", 3, 1, 0),)]),
    behind=st.sampled_from(["all", "ends", "first", "linear"]),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
)
def test_whatever_the_lengths(
    lengths: list[int], kind: tuple[Spike, Encoding], seed: int, **how: Any
) -> None:
    assert_lengths_cut(How(elements=FULL, **how), seed, kind, lengths)


def test_full_lengths_change_nothing() -> None:
    how = How(elements=FULL, both=True, front=(CONV,), behind="ends")
    graph, x = quantised(how), samples(how, 4)
    net, whole = convert(graph), torch.full((4,), FULL)
    for handover in WAYS:
        with_lengths = sm.simulate(net, x, handover=handover, lengths=whole)
        without = sm.simulate(net, x, handover=handover)
        assert torch.equal(with_lengths.output, without.output)
        assert with_lengths.spikes == without.spikes
        assert torch.equal(with_lengths.element_steps, without.element_steps)


def test_ended_samples_send_nothing_any_more() -> None:
    how = How(elements=FULL, behind="last")
    graph, x = quantised(how), samples(how, 2)
    x[0][1, 2:] = 0.0
    run = sm.simulate(convert(graph), x, handover=sm.Delta(), lengths=torch.tensor([FULL, 2]))
    assert int(run.element_steps[4:, 1].sum()) == 0
    assert int(run.element_steps[4:, 0].sum()) > 0


# ---------------------------------------------------------------- refusals
REFUSED: list[tuple[Any, str, str, str]] = [
    (
        torch.tensor([3, 0]),
        "lengths 0..3",
        "1..9",
        "leave empty samples out, cut longer ones, or capture a longer example",
    ),
    (
        torch.tensor([3, 10]),
        "lengths 3..10",
        "1..9",
        "leave empty samples out, cut longer ones, or capture a longer example",
    ),
    (
        torch.tensor([3]),
        "torch.int64 of shape [1]",
        "2 whole numbers, one a sample",
        "pass a tensor of int64 [batch]",
    ),
    (
        torch.tensor([3.0, 4.0]),
        "torch.float32 of shape [2]",
        "2 whole numbers, one a sample",
        "pass a tensor of int64 [batch]",
    ),
    (
        torch.tensor([True, True]),
        "torch.bool of shape [2]",
        "2 whole numbers, one a sample",
        "pass a tensor of int64 [batch]",
    ),
    (
        torch.tensor([[3], [4]]),
        "torch.int64 of shape [2, 1]",
        "2 whole numbers, one a sample",
        "pass a tensor of int64 [batch]",
    ),
]


@pytest.mark.parametrize(("lengths", "got", "known", "do"), REFUSED, ids=[row[1] for row in REFUSED])
def test_unfit_lengths_are_refused_in_four_parts(lengths: Tensor, got: str, known: str, do: str) -> None:
    how = How(elements=FULL, behind="last")
    graph, x = quantised(how), samples(how, 2)
    net = convert(graph)
    for call in (
        lambda: sm.simulate(net, x, lengths=lengths),
        lambda: sm.simulate(net, x, lengths=lengths, engine=sm.Reference()),
        lambda: sm.evaluate(graph, x, lengths=lengths),
        lambda: sm.verify(net, graph, x, lengths=lengths),
    ):
        with pytest.raises(DataError) as caught:
            call()
        assert (caught.value.where, caught.value.got) == ("lengths", got)
        assert (caught.value.known, caught.value.do) == (known, do)


def test_lengths_in_a_list_are_as_good() -> None:
    how = How(elements=FULL, behind="last")
    graph, x = quantised(how), samples(how, 2)
    net, lengths = convert(graph), [FULL, 4]
    wanted = sm.evaluate(graph, x, lengths=torch.tensor(lengths))
    assert torch.equal(sm.evaluate(graph, x, lengths=lengths), wanted)  # type: ignore[arg-type]
    assert torch.equal(sm.simulate(net, x, lengths=lengths).output, wanted)  # type: ignore[arg-type]
    assert sm.verify(net, graph, x, lengths=lengths).lossless  # type: ignore[arg-type]


@pytest.mark.parametrize("lengths", [[4], [4, 5, 6]])
def test_verify_wants_a_length_for_every_sample(lengths: list[int]) -> None:
    how = How(elements=FULL, behind="last")
    graph = quantised(how)
    with pytest.raises(DataError, match="lengths"):
        sm.verify(convert(graph), graph, samples(how, 2), lengths=torch.tensor(lengths))


def test_lengths_are_for_integer_recurrent_graphs() -> None:
    with pytest.raises(DataError) as caught:
        sm.simulate(network(two_layers()), torch.zeros(2, 2), lengths=torch.tensor([1, 1]))
    assert (caught.value.where, caught.value.do) == ("lengths", "leave lengths out")
    assert caught.value.got == "lengths for a network without recurrent layers"
    how = How(elements=FULL)
    with pytest.raises(DataError) as caught:
        sm.evaluate(float_graph(how, 0), samples(how, 2), lengths=torch.tensor([2, 2]))
    assert (caught.value.where, caught.value.got) == ("evaluate(lengths)", "a float graph")
    assert caught.value.known == "lengths are for integer graphs"


LAST, WINDOW = "read the last state instead of a mean", "use a convolution with a stride, or a max-pool"
MIXING = {
    "mean behind": (How(behind="mean"), "AxisMap", LAST),
    "maximum behind": (How(behind="max"), "AMax", LAST),
    "flatten behind": (How(behind="flatten"), "Reshape", LAST),
    "convolution behind": (How(behind="conv"), "Conv", LAST),
    "average in front": (How(front=(Window("avg", 2, 2),), behind="last"), "AxisMap", WINDOW),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_has_no_meaning_at_another_length_is_refused(name: str) -> None:
    how, op, instead = MIXING[name]
    how = replace(how, elements=FULL)
    graph, x = quantised(how), samples(how, 2)
    with pytest.raises(DataError) as caught:
        sm.simulate(convert(graph), x, lengths=torch.tensor([FULL, 4]))
    assert caught.value.where.startswith("lengths, at '")
    assert caught.value.got == f"{op}, which mixes elements"
    assert caught.value.known.startswith("windows over time in front of the recurrence")
    assert caught.value.do == f"{instead}, or run samples of one length together"


def test_a_sample_shorter_than_a_window_is_refused() -> None:
    how = How(elements=FULL, front=(Window("conv", 3),), behind="last")
    graph, x = quantised(how), samples(how, 2)
    with pytest.raises(DataError) as caught:
        sm.simulate(convert(graph), x, lengths=torch.tensor([FULL, 2]))
    assert caught.value.got == "lengths down to 2"
    assert caught.value.known == "at least one window of every convolution"
