"""Cells and loops written by hand: captured as torch computes them, or refused where they are long."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm
from sequences import Fn, captured, kinds, nodes_of, noise
from spikemorph.capture import loops
from spikemorph.errors import Offence, UnsupportedOps
from spikemorph.ir import ops


def cells(self: Any, x: Tensor, *state: Tensor) -> Tensor:
    h = state[0] if state else None
    outs = []
    for each in x.unbind(1):
        h = self.cell(each, h)
        outs.append(h)
    return torch.stack(outs, 1)


@pytest.mark.parametrize("nonlinearity", ["relu", "tanh"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("given_state", [True, False])
def test_cells_in_a_loop_are_sums(nonlinearity: str, bias: bool, given_state: bool) -> None:
    torch.manual_seed(1)
    cell = nn.RNNCell(3, 5, bias=bias, nonlinearity=nonlinearity)
    graph = captured(Fn(cells, cell=cell), (3, 3), *[(5,)] * given_state)
    linear = [node.name for node in nodes_of(graph, ops.Linear)]
    first = ["cell.ih", "cell.hh"] if given_state else ["cell.ih"]
    assert linear[: len(first)] == first
    assert len(linear) == 6 if given_state else 5
    assert len(nodes_of(graph, ops.Affine)) == (bias and not given_state)
    assert [node.name for node in nodes_of(graph, ops.Elementwise)] == ["cell", "cell_2", "cell_3"]


def test_a_cell_may_start_from_a_parameter() -> None:
    torch.manual_seed(1)
    model = Fn(
        lambda s, x: s.cell(x, s.h.expand(x.shape[0], -1)), cell=nn.RNNCell(3, 5), h=nn.Parameter(noise(1, 5))
    )
    assert kinds(captured(model, (3,))) == ["Linear", "Affine", "HostFunction"]


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.incoming, self.own, self.out = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 5)
        for n in range(x.shape[1]):
            h = torch.relu(self.incoming(x[:, n]) + self.own(h))
        out: Tensor = self.out(h)
        return out


def test_cells_written_by_hand_are_ordinary_nodes() -> None:
    graph = captured(ByHand(), (3, 3))
    counts = [kinds(graph).count(kind) for kind in ("Linear", "Add", "Affine", "Elementwise", "Recurrence")]
    assert counts == [3 + 2 + 1, 2, 1, 3, 0]


def joined(self: Any, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[1], 5)
    for each in x:
        h = torch.tanh(torch.cat((each, h), 1) @ self.weight + self.bias)
    return h[:, :2] * 2


def test_cells_on_the_joined_input_and_state_with_time_first() -> None:
    model = Fn(joined, weight=nn.Parameter(noise(8, 5)), bias=nn.Parameter(noise(5)))
    assert nodes_of(captured(model, (3, 3), batch_axis=1), ops.Linear)


# ---------------------------------------------------------------- long ones
def offences(model: nn.Module, *inputs: Tensor, batch_axis: Any = 0) -> tuple[Offence, ...]:
    with pytest.raises(UnsupportedOps) as caught:
        sm.capture(model.eval(), inputs, batch_axis=batch_axis)
    return caught.value.offences


def test_long_loops_are_refused_and_named() -> None:
    found = offences(ByHand(), torch.ones(2, 130, 3))
    line = ByHand.forward.__code__.co_firstlineno + 3
    assert str(found[1]) == (
        f"own (test_capture_loops.py:{line}): "
        "aten.linear.default 130 times with the weight 'own.weight': a loop, written out\n"
        "  known: loops of at most 128 elements, whose elements have neurons of their own\n"
        "  do:    use torch.nn.RNN(nonlinearity='relu') or 'tanh': its elements run one after another on the "
        "same neurons"
    )
    assert [each.where.split()[0] for each in found] == ["incoming", "own"]


def test_long_loops_of_cells_and_of_matrices_are_refused() -> None:
    (found,) = offences(Fn(cells, cell=nn.RNNCell(3, 5)), torch.ones(2, 129, 3))
    assert found.got.startswith("aten.rnn_tanh_cell.default 129 times with the weight 'cell.weight_hh'")
    model = Fn(joined, weight=nn.Parameter(noise(8, 5)), bias=nn.Parameter(noise(5)))
    (found,) = offences(model, torch.ones(129, 2, 3), batch_axis=1)
    assert "129 times with the weight 'weight'" in found.got


def test_long_loops_are_one_row_of_inspect() -> None:
    seen = sm.inspect(ByHand().eval(), torch.ones(2, 129, 3))
    assert [(row.fate, row.place.split()[0]) for row in seen.rows] == [
        ("refused", "incoming"),
        ("refused", "own"),
    ]


def convolved(self: Any, x: Tensor) -> Tensor:
    h = torch.zeros_like(x[:, 0])
    for each in x.unbind(1):
        h = torch.relu(self.conv(h) + each)
    return h


def elementwise(self: Any, x: Tensor) -> Tensor:
    """An independently recurrent network."""
    h = torch.zeros_like(x[:, 0])
    for each in x.unbind(1):
        h = torch.relu(h * self.own.unsqueeze(0) + each)
    return h


def one_at_a_time(self: Any, x: Tensor) -> Tensor:
    h = torch.zeros(1, x.shape[0], 5)
    for n in range(x.shape[1]):
        _, h = self.r(x[:, n : n + 1], h)
    return h[0]


def framewise(self: Any, x: Tensor) -> Tensor:
    return torch.stack([self.conv(each) for each in x.unbind(1)], 1)


WHOLE = "call the recurrent layer once, on the whole sequence"
LONG: dict[str, tuple[nn.Module, tuple[int, ...], str, str]] = {
    "convolutions": (
        Fn(convolved, conv=nn.Conv1d(2, 2, 3, padding=1)),
        (2, 4),
        "aten.conv1d.default 5 times with the weight 'conv.weight'",
        "use torch.nn.RNN over the whole sequence, behind convolutions that see one element, or a shorter",
    ),
    "transposed convolutions": (
        Fn(convolved, conv=nn.ConvTranspose2d(2, 2, 1)),
        (2, 4, 4),
        "aten.conv_transpose2d.input 5 times with the weight 'conv.weight'",
        "use torch.nn.RNN over the whole sequence",
    ),
    "products": (
        Fn(elementwise, own=nn.Parameter(noise(3))),
        (3,),
        "aten.mul.Tensor 5 times with the weight 'own'",
        "use torch.nn.RNN(nonlinearity='relu') or 'tanh'",
    ),
    "ReLU RNN": (
        Fn(one_at_a_time, r=nn.RNN(3, 5, batch_first=True, nonlinearity="relu")),
        (3,),
        "aten.rnn_relu.input 5 times with the weight 'r.weight_hh_l0'",
        WHOLE,
    ),
    "tanh RNN": (
        Fn(one_at_a_time, r=nn.RNN(3, 5, batch_first=True)),
        (3,),
        "aten.rnn_tanh.input 5 times with the weight 'r.weight_hh_l0'",
        WHOLE,
    ),
    "frames": (
        Fn(framewise, conv=nn.Conv2d(1, 2, 3)),
        (1, 4, 4),
        "aten.conv2d.default 5 times with the weight 'conv.weight'",
        "call it once, on all elements",
    ),
}


@pytest.mark.parametrize("name", LONG)
def test_long_loops_of_any_operation_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "LONGEST", 4)
    model, shape, got, do = LONG[name]
    (found,) = offences(model, noise(2, 5, *shape))
    assert found.got.startswith(got)
    assert found.do.startswith(do)
    captured(model, (4, *shape))


def test_long_convolutional_loops_are_refused_as_they_come() -> None:
    (found,) = offences(LONG["convolutions"][0], noise(2, 129, 2, 4))
    assert "129 times" in found.got


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 3, 1), nn.Linear(3, 3)])
def test_shared_layers_are_no_loops(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deep network may use one layer again and again, up to the limit; windows are one use."""
    monkeypatch.setattr(loops, "LONGEST", 3)
    captured(Fn(lambda s, x: s.c(s.c(s.c(x))), c=layer), (3, 3))
    with pytest.raises(UnsupportedOps):
        captured(Fn(lambda s, x: s.c(s.c(s.c(s.c(x)))), c=layer), (3, 3))


def test_a_deep_network_that_shares_a_block_is_captured() -> None:
    block = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())
    captured(nn.Sequential(*[block] * 20, nn.Flatten(), nn.Linear(32, 3)), (2, 4, 4))
