"""Recurrent layers: captured as torch computes them, or refused with advice."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import spikemorph as sm
from sequences import Fn, captured, kinds, nodes_of, noise
from spikemorph.capture.refusals import PACKED
from spikemorph.errors import CaptureError, DataError, Offence, UnsupportedOps
from spikemorph.ir import functions as fn
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph

ELEMENTS, FEATURES, UNITS = 4, 3, 5

STATES = ("none", "zeros", "constant", "parameter", "input", "computed")
READ = ("all", "output", "states", "last", "last state", "both ends")


def rnn(**how: Any) -> nn.RNN:
    torch.manual_seed(3)
    return nn.RNN(FEATURES, UNITS, **how)


class Reader(nn.Module):
    """A recurrent layer with an initial state of some kind, of whose results some are read."""

    def __init__(self, layer: nn.RNN, state: str, read: str) -> None:
        super().__init__()
        self.layer, self.state, self.read = layer, state, read
        self.rows = layer.num_layers * (1 + layer.bidirectional)
        self.h0 = nn.Parameter(noise(self.rows, 1, UNITS, seed=9))
        self.make = nn.Linear(FEATURES, self.rows * UNITS)

    def forward(self, x: Tensor, *given: Tensor) -> Any:
        output, states = self.layer(x, *given or self.initial(x))
        last = output[:, -1] if self.layer.batch_first else output[-1]
        match self.read:
            case "all":
                return output, states
            case "output":
                return output
            case "states":
                return states
            case "last":
                return last
            case "last state":
                return states[-1]
        return torch.cat((states[0], states[-1]), -1)

    def initial(self, x: Tensor) -> tuple[Tensor, ...]:
        batch = x.shape[0 if self.layer.batch_first else 1]
        match self.state:
            case "zeros":
                return (torch.zeros(self.rows, batch, UNITS),)
            case "constant":
                return (torch.full((self.rows, batch, UNITS), 0.5),)
            case "parameter":
                return (self.h0.expand(-1, batch, -1).contiguous(),)
            case "computed":
                first = x[:, 0] if self.layer.batch_first else x[0]
                return (self.make(first).view(batch, self.rows, UNITS).transpose(0, 1),)
        return ()


@given(
    layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    relu=st.booleans(),
    bias=st.booleans(),
    batch_first=st.booleans(),
    elements=st.sampled_from([1, ELEMENTS]),
    state=st.sampled_from(STATES),
    read=st.sampled_from(READ),
)
@settings(max_examples=30, phases=[Phase.reuse, Phase.generate])  # an export an example: too slow to shrink
def test_all_variants_compute_what_torch_computes(
    layers: int,
    bidirectional: bool,
    relu: bool,
    bias: bool,
    batch_first: bool,
    elements: int,
    state: str,
    read: str,
) -> None:
    layer = rnn(
        num_layers=layers,
        bidirectional=bidirectional,
        nonlinearity="relu" if relu else "tanh",
        bias=bias,
        batch_first=batch_first,
    )
    axis = 0 if batch_first else 1
    rows = layers * (1 + bidirectional)
    places = {"all": (axis, 1), "output": axis, "states": 1}.get(read, 0)
    model = Reader(layer, state, read)
    shapes, axes = [(elements, FEATURES)], [axis]
    if state == "input":
        shapes.append((rows, UNITS))
        axes.append(1)
    graph = captured(model, *shapes, batch_axis=tuple(axes), outputs=places)
    function = fn.Relu() if relu else fn.Tanh()
    cells = nodes_of(graph, ops.Recurrence)
    whole = read in ("all", "states")
    assert len(cells) == rows if whole else 0 < len(cells) <= rows
    assert all(
        isinstance(node.op, ops.Recurrence) and node.op.cell == ops.Elementwise(function) for node in cells
    )


def test_names_and_shapes_are_those_of_the_parameters_of_torch() -> None:
    model = Fn(lambda s, x: s.r(x)[0], r=rnn(num_layers=2, bidirectional=True, batch_first=True))
    graph = captured(model, (ELEMENTS, FEATURES))
    assert [(node.name, node.shape) for node in graph.nodes] == [
        ("input", (4, 3)),
        ("r.l0_input", (4, 5)),
        ("r.l0", (4, 5)),
        ("r.l0_reverse_input", (4, 5)),
        ("r.l0_reverse", (4, 5)),
        ("r.l0_both", (4, 10)),
        ("r.l1_input", (4, 5)),
        ("r.l1", (4, 5)),
        ("r.l1_reverse_input", (4, 5)),
        ("r.l1_reverse", (4, 5)),
        ("r.l1_both", (4, 10)),
    ]
    weights = [
        node.op.weight for node in nodes_of(graph, ops.Recurrence) if isinstance(node.op, ops.Recurrence)
    ]
    assert weights == [f"r.weight_hh_{name}" for name in ("l0", "l0_reverse", "l1", "l1_reverse")]


def test_a_state_of_zeros_leaves_no_node_and_a_constant_one_an_offset_at_its_element() -> None:
    zero = captured(Reader(rnn(batch_first=True), "zeros", "output"), (ELEMENTS, FEATURES))
    assert kinds(zero) == ["Linear", "Recurrence"]
    layer = rnn(batch_first=True, bidirectional=True)
    graph = captured(Reader(layer, "parameter", "output"), (ELEMENTS, FEATURES))
    assert kinds(graph) == ["Linear", "Affine", "Recurrence"] * 2 + ["Concat"]
    for node, element in zip(nodes_of(graph, ops.Affine), (0, ELEMENTS - 1), strict=True):
        assert isinstance(node.op, ops.Affine)
        assert node.op.offset is not None
        offset = graph.tensors[node.op.offset]
        assert offset.abs().sum(1).nonzero().flatten().tolist() == [element]


def test_a_state_that_is_an_input_is_added_at_the_first_element() -> None:
    layer = rnn(batch_first=True)
    graph = captured(Fn(lambda s, x, h: s.r(x, h)[0], r=layer), (4, 3), (1, 5), batch_axis=(0, 1))
    assert kinds(graph) == ["Linear", "Linear", "Pad", "Add", "Recurrence"]
    assert graph.by_name["r.l0_start.pad"].op == ops.Pad((0, 3, 0, 0))


def test_the_last_state_is_read_off_its_own_layer() -> None:
    """No concatenation of layers, which would bring them to one grid."""
    layer = rnn(num_layers=2, bidirectional=True)
    model = Fn(lambda s, x: torch.cat((s.r(x)[1][-2], s.r(x)[1][-1]), 1), r=layer)
    graph = captured(model, (4, 3), batch_axis=1)
    joined = nodes_of(graph, ops.Concat)
    assert [node.name for node in joined][-1] == "cat"
    assert not any("last" in node.name for node in joined)


def test_dropout_between_layers_is_ignored_at_rest() -> None:
    captured(Fn(lambda s, x: s.r(x)[0], r=rnn(num_layers=2, dropout=0.5, batch_first=True)), (4, 3))


FOLLOWED: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (
        Fn(lambda s, x: s.o(s.r(x)[0][:, -1]), r=rnn(batch_first=True), o=nn.Linear(5, 2)),
        (4, 3),
    ),
    "linear on all": (Fn(lambda s, x: s.o(s.r(x)[0]), r=rnn(batch_first=True), o=nn.Linear(5, 2)), (4, 3)),
    "conv": (
        Fn(lambda s, x: s.c(s.r(x)[0].transpose(1, 2)), r=rnn(batch_first=True), c=nn.Conv1d(5, 2, 3)),
        (4, 3),
    ),
    "mean": (Fn(lambda s, x: s.r(x)[0].mean(1), r=rnn(batch_first=True)), (4, 3)),
    "max": (Fn(lambda s, x: s.r(x)[0].amax(1), r=rnn(batch_first=True)), (4, 3)),
    "conv in front": (
        Fn(
            lambda s, x: s.r(s.c(x).relu().transpose(1, 2))[0],
            c=nn.Conv1d(2, 3, 3, padding=1),
            r=rnn(batch_first=True),
        ),
        (2, 7),
    ),
    "conv in front, time first": (
        Fn(
            lambda s, x: s.r(s.b(s.c(x)).relu().permute(2, 0, 1))[1][0],
            c=nn.Conv1d(2, 3, 3),
            b=nn.BatchNorm1d(3),
            r=rnn(),
        ),
        (2, 7),
    ),
    "mean over time first": (Fn(lambda s, x: s.r(x.transpose(0, 1))[0].mean(0), r=rnn()), (4, 3)),
    "max over time first": (Fn(lambda s, x: s.r(x.transpose(0, 1))[0].amax(0), r=rnn()), (4, 3)),
    "bias over time first": (
        Fn(
            lambda s, x: s.r(s.l(x.transpose(0, 1)) * 2 + s.p)[0][1:].transpose(0, 1),
            l=nn.Linear(3, 3),
            p=nn.Parameter(noise(4, 1, 3)),
            r=rnn(),
        ),
        (4, 3),
    ),
    "two stacked": (
        Fn(lambda s, x: s.b(s.a(x)[0])[0], a=rnn(batch_first=True), b=nn.RNN(5, 2, batch_first=True)),
        (4, 3),
    ),
    "one layer twice": (
        Fn(lambda s, x: s.r(s.r(x)[0][..., :3])[0], r=rnn(batch_first=True)),
        (4, 3),
    ),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_stands_around_a_recurrent_layer(name: str) -> None:
    model, shape = FOLLOWED[name]
    graph = captured(model, shape)
    assert nodes_of(graph, ops.Recurrence)


# ---------------------------------------------------------------- refusals
def offences(model: nn.Module, *inputs: Tensor, batch_axis: Any = 0) -> tuple[Offence, ...]:
    with pytest.raises(UnsupportedOps) as caught:
        sm.capture(model.eval(), inputs, batch_axis=batch_axis)
    return caught.value.offences


GATED = [
    nn.LSTM(3, 5, batch_first=True),
    nn.GRU(3, 5, batch_first=True),
    nn.LSTM(3, 5),
    nn.GRU(3, 5),
]


@pytest.mark.parametrize("layer", GATED)
def test_gates_are_refused_with_advice(layer: nn.Module) -> None:
    (found,) = offences(Fn(lambda s, x: s.layer(x)[0], layer=layer), torch.ones(2, 4, 3))
    assert found.where.startswith("layer")
    assert "the gates of LSTM and GRU multiply sums over time" in found.known
    assert found.do == "use torch.nn.RNN with nonlinearity='relu' or 'tanh', or Conv1d over time"


@pytest.mark.parametrize("cell", [nn.LSTMCell(3, 5), nn.GRUCell(3, 5)])
def test_cells_with_gates_are_refused_with_advice(cell: nn.Module) -> None:
    found = offences(Fn(lambda s, x: s.cell(x)[0], cell=cell), torch.ones(2, 3))
    assert "torch.nn.RNN" in found[0].do


def packing(self: Any, x: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, torch.tensor([4, 3]), batch_first=True)
    return pad_packed_sequence(self.r(packed)[0], batch_first=True)[0]


def test_packed_sequences_are_refused_with_advice() -> None:
    advice = "call the recurrent layer on the padded batch, and give the lengths to simulate"
    with pytest.raises(CaptureError) as caught:
        sm.capture(Fn(packing, r=rnn(batch_first=True)).eval(), torch.ones(2, 4, 3))
    assert "on a packed sequence" in caught.value.got
    assert caught.value.do.startswith(advice)
    packed = pack_padded_sequence(torch.ones(2, 4, 3), torch.tensor([4, 3]), batch_first=True)
    for given_inputs in (packed, (packed,)):
        with pytest.raises(DataError) as found:
            sm.capture(rnn(batch_first=True).eval(), given_inputs)
        assert found.value.got == "a packed sequence"
        assert (found.value.known, found.value.do) == PACKED[1:]


def test_a_state_of_the_wrong_shape_is_refused_in_four_parts() -> None:
    model = Fn(lambda s, x, h: s.r(x, h)[0], r=rnn(batch_first=True))
    with pytest.raises(CaptureError) as caught:
        sm.capture(model.eval(), (torch.ones(2, 4, 3), torch.ones(2, 2, 5)), batch_axis=(0, 1))
    assert type(caught.value) is CaptureError
    assert caught.value.where == "torch.export"
    assert "Expected hidden size" in caught.value.got
    assert caught.value.do.startswith("give the initial state as [layers * directions, batch, units]")


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3)])
def test_a_batch_taken_for_elements_is_told_where_the_batch_may_be(shape: tuple[int, ...]) -> None:
    """One sequence without a batch, and batch_first forgotten."""
    with pytest.raises(CaptureError) as caught:
        sm.capture(Fn(lambda s, x: s.r(x)[0], r=rnn()).eval(), torch.ones(shape))
    assert "r takes [batch, elements, features] with batch_first=True" in caught.value.do
    assert "batch_axis=1 (--batch-axis 1)" in caught.value.do


def functional(self: Any, x: Tensor) -> Tensor:
    zeros = torch.zeros(1, x.shape[0], 5)
    return torch.rnn_tanh(x, zeros, [self.incoming, self.own * 2], False, 1, 0.0, False, False, True)[0]


def test_weights_may_be_computed_from_parameters() -> None:
    model = Fn(functional, incoming=nn.Parameter(noise(5, 3)), own=nn.Parameter(noise(5, 5) / 4))
    assert kinds(captured(model, (4, 3))) == ["Linear", "Recurrence"]


def test_inspect_calls_it_a_recurrent_neuron() -> None:
    seen = sm.inspect(rnn(nonlinearity="relu").eval(), torch.ones(4, 2, 3), batch_axis=1)
    fates = {row.name: row.fate for row in seen.rows}
    assert fates["rnn_relu.l0"] == "recurrent neuron"
    assert seen.convertible


def test_programs_keep_their_recurrent_layers() -> None:
    batch = torch.export.Dim("batch", min=1, max=2**20)
    model = rnn().eval()
    x = noise(4, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (x,), dynamic_shapes=({1: batch},))
    graph: Graph = sm.capture(program)
    with torch.no_grad():
        wanted = model(x)[0]
    torch.testing.assert_close(sm.evaluate(graph, x.transpose(0, 1))[0], wanted.transpose(0, 1))
