"""Recurrent networks used wrongly: every mistake has an error in four parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import spikemorph as sm
from graphs import network
from recurrent_graphs import How, Window, quantised, samples
from sequences import Fn, noise
from spikemorph.convert.methods import convert
from spikemorph.errors import DataError, RunError, SpikemorphError, UnsupportedOps, UsageError
from spikemorph.evaluate.encode import input_counts
from spikemorph.run import tally
from spikemorph.run.handover import Replay

HOW = How(elements=6, features=2, units=3, state=True, behind="last")
GRAPH = quantised(HOW)
PLAIN = How(elements=6, features=2)


def parts(error: SpikemorphError) -> tuple[str, str, str, str]:
    text = str(error)
    assert text == f"{error.where}: {error.got}\n  known: {error.known}\n  do:    {error.do}"
    return error.where, error.got, error.known, error.do


# ---------------------------------------------------------------- data
RESHAPE = "reshape the data, or capture with an example of this shape"
UNFIT: dict[str, tuple[Any, tuple[str, str, str, str]]] = {
    "too few elements": (
        (torch.zeros(2, 5, 2), torch.zeros(2, 1, 3)),
        ("input 'input0'", "shape (2, 5, 2)", "[batch >= 1, 6, 2]", RESHAPE),
    ),
    "too many elements": (
        (torch.zeros(2, 7, 2), torch.zeros(2, 1, 3)),
        ("input 'input0'", "shape (2, 7, 2)", "[batch >= 1, 6, 2]", RESHAPE),
    ),
    "elements of another shape": (
        (torch.zeros(2, 6, 3), torch.zeros(2, 1, 3)),
        ("input 'input0'", "shape (2, 6, 3)", "[batch >= 1, 6, 2]", RESHAPE),
    ),
    "an empty sequence": (
        (torch.zeros(2, 0, 2), torch.zeros(2, 1, 3)),
        ("input 'input0'", "shape (2, 0, 2)", "[batch >= 1, 6, 2]", RESHAPE),
    ),
    "an empty batch": (
        (torch.zeros(0, 6, 2), torch.zeros(0, 1, 3)),
        ("input 'input0'", "shape (0, 6, 2)", "[batch >= 1, 6, 2]", RESHAPE),
    ),
    "one element, without time": (
        (torch.zeros(2, 2), torch.zeros(2, 1, 3)),
        ("input 'input0'", "shape (2, 2)", "[batch >= 1, 6, 2]", RESHAPE),
    ),
    "a state of another size": (
        (torch.zeros(2, 6, 2), torch.zeros(2, 1, 4)),
        ("input 'input1'", "shape (2, 1, 4)", "[batch >= 1, 1, 3]", RESHAPE),
    ),
    "a state of more layers": (
        (torch.zeros(2, 6, 2), torch.zeros(2, 2, 3)),
        ("input 'input1'", "shape (2, 2, 3)", "[batch >= 1, 1, 3]", RESHAPE),
    ),
    "no state": (
        torch.zeros(2, 6, 2),
        (
            "the input",
            "1 tensor(s)",
            "the network takes 2",
            "pass one tensor, or a tuple with one tensor for each argument",
        ),
    ),
    "states of another batch": (
        (torch.zeros(2, 6, 2), torch.zeros(3, 1, 3)),
        (
            "the input",
            "batches of 2, 3",
            "all inputs share one batch axis in front",
            "pass as many samples in every argument",
        ),
    ),
    "elements in a list": (
        ([torch.zeros(2, 2)] * 6, torch.zeros(2, 1, 3)),
        ("input 'input0'", "list", "a torch tensor", "use torch.as_tensor(...)"),
    ),
    "whole numbers": (
        (torch.zeros(2, 6, 2, dtype=torch.int64), torch.zeros(2, 1, 3)),
        (
            "input 'input0'",
            "dtype torch.int64",
            "floating-point numbers, on the scale the network was trained on",
            "convert images with x.float() / 255, other data with x.float()",
        ),
    ),
}

CALLS: dict[str, Callable[[Any], object]] = {
    "simulate": lambda x: sm.simulate(convert(GRAPH), x),
    "the reference": lambda x: sm.simulate(convert(GRAPH), x, engine=sm.Reference(), handover=sm.Delta()),
    "evaluate": lambda x: sm.evaluate(GRAPH, x),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", UNFIT)
def test_unfit_sequences_are_refused_in_four_parts(name: str, call: str) -> None:
    x, wanted = UNFIT[name]
    with pytest.raises(DataError) as caught:
        CALLS[call](x)
    assert parts(caught.value) == wanted


def test_numbers_that_are_none_are_refused_wherever_they_stand() -> None:
    x, state = samples(HOW, 3)
    x[1, 4, 0] = torch.nan
    with pytest.raises(DataError) as caught:
        sm.simulate(convert(GRAPH), (x, state))
    assert caught.value.got == "NaN or infinite values, first in sample 1"


def test_verify_refuses_elements_of_another_shape_in_mid_stream() -> None:
    """The second batch of a loader holds shorter sequences."""
    graph = quantised(PLAIN)
    with pytest.raises(DataError) as caught:
        sm.verify(convert(graph), graph, [torch.randn(2, 6, 2), torch.randn(2, 5, 2)])
    assert (caught.value.got, caught.value.known) == ("shape (2, 5, 2)", "[batch >= 1, 6, 2]")


def test_the_reference_refuses_counts_of_another_length() -> None:
    graph = quantised(PLAIN)
    (counts,) = input_counts(graph, samples(PLAIN, 2))
    with pytest.raises(RunError) as caught:
        sm.Reference().run(network(graph), (counts[:, :4],), steps=None, record=())
    assert caught.value.where == "counts of input input0"
    assert caught.value.got == "shape [2, 4, 2]"


# ---------------------------------------------------------------- models
def packing(self: Any, x: Tensor, ends: Tensor) -> Tensor:
    return self.r(pack_padded_sequence(x, ends, batch_first=True, enforce_sorted=False))[1][-1]


def test_lengths_as_an_input_are_told_where_lengths_go() -> None:
    model = Fn(packing, r=nn.RNN(3, 4, batch_first=True)).eval()
    with pytest.raises(DataError) as caught:
        sm.capture(model, (noise(2, 5, 3), torch.tensor([5, 3])))
    assert parts(caught.value) == (
        "example_inputs[1]",
        "a tensor of torch.int64, one number a sample, such as lengths of packed sequences",
        "padded batches [batch, elements, features]; packed sequences are not captured",
        "capture a forward that takes no lengths: call the recurrent layer on the padded batch, and give the "
        "lengths to simulate, evaluate and verify: lengths=...; where they are indices, put their embedding "
        "in front of the captured model",
    )


def test_a_state_that_is_always_zero_is_no_input() -> None:
    model = Fn(lambda s, x, h: s.r(x, h)[0], r=nn.RNN(3, 4, batch_first=True)).eval()
    graph = sm.capture(model, (noise(2, 5, 3), torch.zeros(1, 2, 4)), batch_axis=(0, 1))
    with pytest.raises(DataError) as caught:
        sm.quantise(graph, (noise(8, 5, 3), torch.zeros(8, 1, 4)), sm.Levels(7))
    assert parts(caught.value) == (
        "calibration, input 'input_1'",
        "zeros alone",
        "samples whose range is that of the data to come",
        "an input that is always zero, such as an initial state h0, is no input: drop the argument from "
        "forward (torch.nn.RNN starts from zero by itself) and capture again; else pass samples of training "
        "data",
    )


def test_a_sole_input_of_zeros_needs_data() -> None:
    graph = sm.capture(nn.RNN(3, 4, batch_first=True).eval(), noise(2, 5, 3))
    with pytest.raises(DataError) as caught:
        sm.quantise(graph, torch.zeros(8, 5, 3), sm.Levels(7))
    assert caught.value.do == "pass a few hundred samples of training data"


WITHIN_FRAMES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "all states": lambda s, x: s.r(x.flatten(0, 1))[0],
    "last states": lambda s, x: s.r(x.flatten(0, 1))[1][-1],
    "another above": lambda s, x: s.q(s.r(x.reshape(-1, 5, 3))[1][-1].unflatten(0, (x.shape[0], -1)))[0],
}


@pytest.mark.parametrize("name", WITHIN_FRAMES)
def test_recurrent_layers_within_frames_are_refused_as_such(name: str) -> None:
    inner, outer = nn.RNN(3, 4, batch_first=True), nn.RNN(4, 4, batch_first=True)
    with pytest.raises(UnsupportedOps) as caught:
        sm.capture(Fn(WITHIN_FRAMES[name], r=inner, q=outer).eval(), noise(2, 6, 5, 3))
    (found,) = caught.value.offences
    assert parts(found)[1:] == (
        "aten.rnn_tanh.input on frames folded into the batch",
        "recurrent layers over the elements of a sample; one within every frame (a hierarchy of two) is not "
        "converted",
        "use a convolution or linear layer within the frames, or one recurrent layer over all elements of "
        "all frames, with x.flatten(1, 2)",
    )


# ---------------------------------------------------------------- hand-overs
NO_HANDOVERS: list[tuple[Any, str]] = [
    ("delta", "str"),
    (sm.Delta, "the class Delta itself"),
    (sm.Fresh, "the class Fresh itself"),
    (None, "NoneType"),
    (True, "bool"),
]


@pytest.mark.parametrize(("handover", "got"), NO_HANDOVERS, ids=str)
def test_hand_overs_are_values(handover: Any, got: str) -> None:
    graph = quantised(PLAIN)
    with pytest.raises(UsageError) as caught:
        sm.simulate(convert(graph), samples(PLAIN, 1), handover=handover)
    assert parts(caught.value) == (
        "simulate(handover)",
        got,
        "Fresh or Delta",
        "use Fresh() or Delta()",
    )


@pytest.mark.parametrize(("handover", "got"), NO_HANDOVERS, ids=str)
def test_verify_takes_no_other_hand_overs_either(handover: Any, got: str) -> None:
    """It would run fresh and certify a hand-over that there is not."""
    graph = quantised(PLAIN)
    with pytest.raises(UsageError) as caught:
        sm.verify(convert(graph), graph, samples(PLAIN, 1), handover=handover)
    assert (caught.value.where, caught.value.got) == ("verify(handover)", got)


def test_the_reference_says_that_it_cannot_replay() -> None:
    """Run fresh instead, it would pass for lossless."""
    graph = quantised(PLAIN)
    with pytest.raises((RunError, UsageError)):
        sm.simulate(convert(graph), samples(PLAIN, 1), handover=Replay(), engine=sm.Reference(), steps=3)


def test_replay_without_a_number_of_steps_is_refused() -> None:
    graph = quantised(PLAIN)
    with pytest.raises((RunError, UsageError)):
        sm.simulate(convert(graph), samples(PLAIN, 1), handover=Replay())


# ---------------------------------------------------------------- traces
def test_traces_that_fill_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = quantised(PLAIN), samples(PLAIN, 2)
    net = convert(graph)
    run = sm.simulate(net, x, record=sm.Everything())
    assert run.trace is not None
    size = sum(each.numel() for each in run.trace.values())
    monkeypatch.setattr(tally, "LARGEST_TRACE", size)
    sm.simulate(net, x, record=sm.Everything())
    monkeypatch.setattr(tally, "LARGEST_TRACE", size - 1)
    with pytest.raises(RunError) as caught:
        sm.simulate(net, x, record=sm.Everything())
    assert parts(caught.value) == (
        "simulate(record=Everything())",
        f"{size:.2g} numbers after {run.steps} steps",
        f"single spikes are kept up to {size - 1:.2g} numbers",
        "run fewer samples or a shorter sequence, or record SpikeCounts() and LayerSpikes()",
    )
    assert sm.simulate(net, x, record=(sm.SpikeCounts(), sm.LayerSpikes())).counts


def test_a_front_end_that_eats_the_sequence_is_left_out_by_the_helper() -> None:
    """Guards the helper of these tests: windows that do not fit make no graph of no elements."""
    graph = quantised(How(elements=2, front=(Window("conv", 3),)))
    assert graph.neurons[-1].shape[0] == 2
