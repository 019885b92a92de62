"""Lengths of modules as users write them: each sample is what it is at its own length, or it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.errors import DataError
from spikemorph.evaluate.ends import as_lengths
from spikemorph.ir.graph import Graph

LEVELS = sm.Levels(activation=15)
BATCH = 6
Forward = Callable[..., Any]


def rnn(features: int, units: int, **how: Any) -> nn.RNN:
    return nn.RNN(features, units, batch_first=True, **how)


class Written(nn.Module):
    """A module of some parts and the function that uses them."""

    def __init__(self, forward: Forward, parts: dict[str, nn.Module | nn.Parameter]) -> None:
        super().__init__()
        self.written = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *x: Tensor) -> Any:
        return self.written(self, *x)


def written(forward: Forward, **parts: Callable[[], nn.Module | nn.Parameter]) -> Written:
    torch.manual_seed(0)
    return Written(forward, {name: part() for name, part in parts.items()}).eval()


def noise(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(BATCH, *shape, generator=generator) for shape in shapes)


def graphs(module: Written, x: tuple[Tensor, ...], length: int) -> tuple[Graph, Graph]:
    """The network as captured, and captured at a length with the same weights and units."""
    full = sm.trainable(sm.capture(module, x), LEVELS, x)
    short = sm.trainable(sm.capture(module, tuple(each[:, :length] for each in x)), LEVELS)
    short.load_state_dict(full.state_dict())
    return sm.freeze(full), sm.freeze(short)


def assert_right(module: Written, x: tuple[Tensor, ...], length: int) -> None:
    """QNN and SNN with lengths give what the network captured at that length gives."""
    full, short = graphs(module, x, length)
    lengths = torch.full((BATCH,), length)
    got = sm.evaluate(full, x, lengths=lengths)
    wanted = sm.evaluate(short, tuple(each[:, :length] for each in x))
    if got.shape != wanted.shape:
        got = got[:, :length]
    assert torch.equal(got, wanted)
    assert sm.verify(sm.convert(full), full, x, lengths=lengths).lossless


def refusal(module: Written, x: tuple[Tensor, ...], length: int) -> DataError:
    graph = sm.quantise(sm.capture(module, x), x, LEVELS)
    with pytest.raises(DataError) as caught:
        sm.evaluate(graph, x, lengths=torch.full((BATCH,), length))
    return caught.value


def over_time(convolution: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return convolution(x.transpose(1, 2)).transpose(1, 2)


# ---------------------------------------------------------------- several inputs
SEQ2SEQ = written(
    lambda s, x, y: s.out(s.decode(y, s.encode(x)[1])[0]),
    encode=lambda: rnn(3, 4),
    decode=lambda: rnn(2, 4),
    out=lambda: nn.Linear(4, 2),
)


def test_inputs_of_the_same_number_of_elements_end_together() -> None:
    assert_right(SEQ2SEQ, noise((5, 3), (5, 2)), 3)


def test_inputs_of_different_numbers_of_elements_are_refused() -> None:
    error = refusal(SEQ2SEQ, noise((5, 3), (4, 2)), 4)
    assert error.got == "lengths for inputs of 5 ('input_0'), 4 ('input_1')"
    audio = written(
        lambda s, a, x: s.r(torch.cat([F.relu(s.c(a)).transpose(1, 2), x], 2))[0][:, -1],
        c=lambda: nn.Conv1d(1, 3, 4, stride=4),
        r=lambda: rnn(6, 4),
    )
    assert refusal(audio, noise((1, 24), (6, 3)), 5).got.startswith("lengths for inputs of 24")


# ---------------------------------------------------------------- constants of single elements
def positions(s: Any, x: Tensor) -> Tensor:
    return s.p[:, : x.shape[1]]


PLACED: dict[str, Forward] = {
    "bias, last": lambda s, x: (s.r(x)[0] + positions(s, x))[:, -1],
    "gain, last": lambda s, x: (s.r(x)[0] * positions(s, x))[:, -1],
    "bias, last, linear": lambda s, x: s.l((s.r(x)[0] + positions(s, x))[:, -1]),
    "gain, last, linear": lambda s, x: s.l((s.r(x)[0] * positions(s, x))[:, -1]),
    "bias, tanh, linear": lambda s, x: s.l(torch.tanh(s.r(x)[0] + positions(s, x))[:, -1]),
    "gain, tanh, linear": lambda s, x: s.l(torch.tanh(s.r(x)[0] * positions(s, x))[:, -1]),
    "gain, sum": lambda s, x: s.l(torch.relu(s.r(x)[0] * positions(s, x) + s.r(x)[0])[:, -1]),
    "bias, every element": lambda s, x: s.r(x)[0] + positions(s, x),
    "gain, every element": lambda s, x: s.r(x)[0] * positions(s, x),
    "bias in front": lambda s, x: s.r(x + positions(s, x))[0][:, -1],
}


@pytest.mark.parametrize("name", PLACED)
def test_constants_that_differ_from_element_to_element_are_refused(name: str) -> None:
    module = written(
        PLACED[name],
        r=lambda: rnn(4, 4),
        l=lambda: nn.Linear(4, 2),
        p=lambda: nn.Parameter(torch.randn(1, 8, 4)),
    )
    error = refusal(module, noise((8, 4)), 4)
    assert error.where.startswith("lengths, at '")
    assert "differ from element to element" in error.got
    assert error.do.startswith("normalise and add positions outside the model")


def test_constants_of_channels_are_those_of_any_length() -> None:
    module = written(
        lambda s, x: s.l((s.r(over_time(s.b, x))[0] * s.g + s.g)[:, -1]),
        b=lambda: nn.BatchNorm1d(3),
        r=lambda: rnn(3, 4),
        l=lambda: nn.Linear(4, 2),
        g=lambda: nn.Parameter(torch.randn(4)),
    )
    assert_right(module, noise((8, 3)), 5)


# ---------------------------------------------------------------- first states
@pytest.mark.parametrize("both", [False, True])
def test_first_states_of_another_recurrence(both: bool) -> None:
    module = written(
        lambda s, x: s.q(x, s.r(x)[1])[0],
        r=lambda: rnn(3, 4, bidirectional=both),
        q=lambda: rnn(3, 4, bidirectional=both),
    )
    if both:
        assert refusal(module, noise((6, 3)), 4).got == "a state at the last of the captured elements"
    else:
        assert_right(module, noise((6, 3)), 4)


REPEATED: dict[str, Forward] = {
    "every element": lambda s, x: s.q(s.r(x)[1].transpose(0, 1).expand(-1, x.shape[1], -1))[0],
    "last": lambda s, x: s.q(s.r(x)[1].transpose(0, 1).expand(-1, x.shape[1], -1))[0][:, -1],
    "backwards": lambda s, x: s.q(s.r(x)[1].transpose(0, 1).expand(-1, x.shape[1], -1).flip(1))[0][:, -1],
    "beside a sequence": lambda s, x: s.q(x + s.r(x)[1].transpose(0, 1))[0][:, -1],
}


@pytest.mark.parametrize("name", REPEATED)
def test_a_state_repeated_for_every_element(name: str) -> None:
    module = written(REPEATED[name], r=lambda: rnn(3, 3), q=lambda: rnn(3, 3))
    if name in {"every element", "beside a sequence"}:
        assert_right(module, noise((6, 3)), 4)
    else:
        assert refusal(module, noise((6, 3)), 4).where.startswith("lengths, at '")


# ---------------------------------------------------------------- windows
@dataclass(frozen=True)
class Front:
    """A convolution over time with explicit and own padding, perhaps a second one without activation between.

    `symmetric`: filters that read the same backwards, whose borders look alike at both ends.
    """

    kernel: int
    stride: int
    dilation: int
    pads: tuple[int, int]
    padding: int
    offset: float
    symmetric: bool
    twice: bool
    both: bool

    @property
    def reach(self) -> int:
        """Elements of the input without which there is no window."""
        return self.dilation * (self.kernel - 1) + 1 - sum(self.pads) - 2 * self.padding

    @property
    def refusable(self) -> bool:
        """Whether anything could be wrong at another length."""
        return self.offset > 0 or self.twice

    def module(self) -> Written:
        how = {"stride": self.stride, "dilation": self.dilation, "padding": self.padding}
        made = written(
            lambda s, x: s.r(F.relu(over_time(lambda y: self.convolved(s, y), x)))[1][-1],
            c=lambda: nn.Conv1d(2, 3, self.kernel, **how),
            d=lambda: nn.Conv1d(3, 3, 3, padding=1),
            r=lambda: rnn(3, 4, bidirectional=self.both),
        )
        if self.symmetric:
            made.c.weight.data += made.c.weight.data.flip(2)
        return made

    def convolved(self, module: Any, x: Tensor) -> Tensor:
        x = F.pad(x - self.offset if self.offset else x, self.pads)
        return module.d(module.c(x)) if self.twice else module.c(x)


fronts = st.builds(
    Front,
    kernel=st.integers(1, 5),
    stride=st.sampled_from([1, 1, 2, 3]),
    dilation=st.integers(1, 2),
    pads=st.tuples(st.integers(0, 4), st.sampled_from([0, 0, 1, 3])),
    padding=st.sampled_from([0, 1, 2]),
    offset=st.sampled_from([0.0, 0.7]),
    symmetric=st.booleans(),
    twice=st.sampled_from([False, False, True]),
    both=st.booleans(),
)


@settings(max_examples=8)
@given(front=fronts, elements=st.integers(2, 9), data=st.data())
def test_windows_with_any_padding_are_right_or_refused(front: Front, elements: int, data: Any) -> None:
    assume(front.reach <= elements)
    length, x = data.draw(st.integers(max(1, front.reach), elements)), noise((elements, 2))
    full, short = graphs(front.module(), x, length)
    got, refused = None, None
    try:
        got = sm.evaluate(full, x, lengths=torch.full((BATCH,), length))
    except DataError as error:
        refused = error
    if refused is not None:
        assert refused.where.startswith("lengths, at '")
        assert front.refusable
    else:
        assert torch.equal(got, sm.evaluate(short, tuple(each[:, :length] for each in x)))


def test_a_short_capture_does_not_hide_the_border() -> None:
    module = written(
        lambda s, x: s.r(F.relu(over_time(s.c, x - 0.7)))[0][:, -1],
        c=lambda: nn.Conv1d(2, 4, 3, padding=1),
        r=lambda: rnn(4, 4),
    )
    strided = written(
        lambda s, x: s.r(F.relu(over_time(s.c, x - 0.7)))[0][:, -1],
        c=lambda: nn.Conv1d(2, 4, 3, stride=2, padding=1),
        r=lambda: rnn(4, 4),
    )
    symmetric = written(
        lambda s, x: s.r(F.relu(over_time(s.c, x - 0.7)))[0][:, -1],
        c=lambda: nn.Conv1d(2, 4, 3, padding=1),
        r=lambda: rnn(4, 4),
    )
    symmetric.c.weight.data += symmetric.c.weight.data.flip(2)
    for each, elements, length in ((module, 2, 1), (module, 8, 4), (symmetric, 2, 1), (strided, 8, 7)):
        assert "differ from element to element" in refusal(each, noise((elements, 2)), length).got


@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_causal_padding_is_right(offset: float) -> None:
    module = written(
        lambda s, x: s.r(F.relu(over_time(lambda y: s.c(F.pad(y, (2, 0))), x - offset)))[0][:, -1],
        c=lambda: nn.Conv1d(2, 4, 3),
        r=lambda: rnn(4, 4),
    )
    for length in (1, 3, 7):
        assert_right(module, noise((7, 2)), length)


def test_sums_beyond_the_end_are_not_padding() -> None:
    module = written(
        lambda s, x: s.r(over_time(lambda y: s.d(s.c(y)), x))[0][:, -1],
        c=lambda: nn.Conv1d(2, 3, 3, padding=1),
        d=lambda: nn.Conv1d(3, 3, 3, padding=1),
        r=lambda: rnn(3, 4),
    )
    error = refusal(module, noise((8, 2)), 4)
    assert error.do.startswith("put an activation in between")


# ---------------------------------------------------------------- time as another axis
MIXED: dict[str, Forward] = {
    "units as time": lambda s, x: s.q(s.r(x)[0].transpose(1, 2))[0][:, -1],
    "units onto time": lambda s, x: (s.r(x)[0] + s.r(x)[0].transpose(1, 2))[:, 0],
    "linear over time": lambda s, x: over_time(s.l, s.r(x)[0])[:, 0],
    "softmax over time": lambda s, x: s.r(x)[0].softmax(1),
    "argmax over everything": lambda s, x: s.r(x)[0].flatten(1).argmax(1),
}


@pytest.mark.parametrize("name", MIXED)
def test_axes_of_the_same_size_are_not_taken_for_each_other(name: str) -> None:
    module = written(MIXED[name], r=lambda: rnn(6, 6), q=lambda: rnn(6, 6), l=lambda: nn.Linear(6, 6))
    error = refusal(module, noise((6, 6)), 4)
    assert error.got.endswith("which mixes elements")


def test_a_front_that_mixes_all_time_says_so() -> None:
    module = written(
        lambda s, x: s.r(over_time(s.l, x))[0][:, -1], l=lambda: nn.Linear(6, 6), r=lambda: rnn(3, 4)
    )
    error = refusal(module, noise((6, 3)), 4)
    assert error.got == "lengths for a network whose inputs have no elements"
    assert "a linear layer over it" in error.do


# ---------------------------------------------------------------- lengths as given
LAST = written(lambda s, x: s.r(x)[0][:, -1], r=lambda: rnn(3, 4))
UNFIT = ["ab", [None, 2], [[1], [2, 3]], 3, [2**70, 1], {"a": 1}, torch.zeros(BATCH, dtype=torch.complex64)]


@pytest.mark.parametrize("lengths", UNFIT, ids=str)
def test_whatever_is_given_as_lengths_is_refused_in_four_parts(lengths: Any) -> None:
    x = noise((5, 3))
    graph = sm.quantise(sm.capture(LAST, x), x, LEVELS)
    net = sm.convert(graph)
    for call in (
        lambda: sm.simulate(net, x, lengths=lengths),
        lambda: sm.evaluate(graph, x, lengths=lengths),
        lambda: sm.verify(net, graph, x, lengths=lengths),
    ):
        with pytest.raises(DataError) as caught:
            call()
        assert caught.value.where == "lengths"
        assert caught.value.known.endswith("whole numbers, one a sample")
        assert caught.value.do == "pass a tensor of int64 [batch]"


def test_more_lengths_than_samples_are_refused_at_any_batch_size() -> None:
    x = torch.zeros(256, 5, 3)
    graph = sm.quantise(sm.capture(LAST, noise((5, 3))), noise((5, 3)), LEVELS)
    with pytest.raises(DataError):
        sm.evaluate(graph, x, lengths=torch.ones(300, dtype=torch.int64))


def test_what_stands_behind_the_ends_may_be_anything() -> None:
    (x,) = noise((5, 3))
    graph = sm.quantise(sm.capture(LAST, (x,)), (x,), LEVELS)
    net, lengths = sm.convert(graph), torch.tensor([5, 2, 3, 1, 4, 5])
    bad = x.clone()
    for k, length in enumerate(as_lengths(lengths).tolist()):
        bad[k, length:] = torch.nan if k % 2 else 1e9
    assert torch.equal(sm.evaluate(graph, bad, lengths=lengths), sm.evaluate(graph, x, lengths=lengths))
    assert torch.equal(sm.simulate(net, bad, lengths=lengths).output, sm.evaluate(graph, x, lengths=lengths))
    assert sm.verify(net, graph, bad, lengths=lengths) == sm.verify(net, graph, x, lengths=lengths)
    bad[1, 1] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        sm.evaluate(graph, bad, lengths=lengths)
