"""The batch on another axis than 0, and frames folded into it: captured, or refused with advice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from sequences import Fn, captured, kinds, lively, nodes_of, noise
from spikemorph.errors import CaptureError, DataError, Offence, UnsupportedOps
from spikemorph.ir import ops

ELSEWHERE: dict[str, Any] = {
    "relu": lambda s, x: torch.relu(x),
    "affine": lambda s, x: 1 - 2 * x / 3,
    "linear": lambda s, x: s.linear(x),
    "product": lambda s, x: x * x.tanh(),
    "sum": lambda s, x: x + x[:1],
    "one less axis": lambda s, x: x - x[0],
    "maximum": lambda s, x: torch.maximum(x, x.flip(0)),
    "constant of features": lambda s, x: x + s.features,
    "constant of elements": lambda s, x: x * s.elements,
    "constant of the batch": lambda s, x: x + torch.ones(4, x.shape[1], 1) * s.features,
    "matrix": lambda s, x: x @ s.matrix,
    "pick": lambda s, x: x[-1],
    "part": lambda s, x: x[1:3],
    "narrow": lambda s, x: x.narrow(2, 1, 2),
    "every other": lambda s, x: x[::2],
    "unbind": lambda s, x: x.unbind(0)[2],
    "split": lambda s, x: x.split(3)[1],
    "flip": lambda s, x: x.flip(0),
    "gather": lambda s, x: x[torch.tensor([0, 3, 0])],
    "roll": lambda s, x: x.roll(1, 0),
    "cat": lambda s, x: torch.cat((x, x.relu()), 0),
    "cat of features": lambda s, x: torch.cat((x, x.relu()), 2),
    "cat with a constant": lambda s, x: torch.cat((torch.zeros(1, x.shape[1], 3), x), 0),
    "stack": lambda s, x: torch.stack((x[0], x[1], x[3])),
    "stack with a constant": lambda s, x: torch.stack((x[0], torch.ones(x.shape[1], 3))),
    "mean": lambda s, x: x.mean(0),
    "amax": lambda s, x: x.amax((0, 2)),
    "max": lambda s, x: x.max(0).values,
    "sum over": lambda s, x: x.sum(2, keepdim=True),
    "pad": lambda s, x: F.pad(x, (0, 0, 0, 0, 1, 2)),
    "expand": lambda s, x: x[:1].expand(4, -1, -1),
    "spread": lambda s, x: x[0].expand(4, -1, -1),
    "repeat": lambda s, x: x[:2].repeat(2, 1, 1),
    "turn": lambda s, x: x.permute(2, 1, 0),
    "batch last": lambda s, x: x.permute(0, 2, 1),
    "reshape behind": lambda s, x: x.unflatten(2, (1, 3)).flatten(2),
    "reshape in front": lambda s, x: x.reshape(2, 2, x.shape[1], 3)[1],
    "squeeze": lambda s, x: x[:1].squeeze(0),
    "unsqueeze": lambda s, x: x[0].unsqueeze(0),
    "transpose of a matrix": lambda s, x: x[0].t().t(),
    "pool": lambda s, x: F.max_pool1d(x.transpose(0, 1), 2).transpose(0, 1),
    "dropout": lambda s, x: s.dropout(x).clone().contiguous(),
    "softmax": lambda s, x: x.softmax(2),
    "argmax": lambda s, x: x.argmax(2),
    "zeros": lambda s, x: x + torch.zeros_like(x),
}
"""Of x [4, batch, 3]."""


@pytest.mark.parametrize("name", ELSEWHERE)
def test_operations_with_the_batch_on_axis_1(name: str) -> None:
    """Everything comes out batch first, wherever the module has the batch."""
    torch.manual_seed(2)
    model = Fn(
        ELSEWHERE[name],
        linear=nn.Linear(3, 2),
        features=nn.Parameter(noise(3)),
        elements=nn.Parameter(noise(4, 1, 1)),
        matrix=nn.Parameter(noise(3, 2)),
        dropout=nn.Dropout(),
    )
    with torch.no_grad():
        shape = list(model.eval()(noise(4, 11, 3)).shape)
    captured(model, (4, 3), batch_axis=1, outputs=shape.index(11))


def frames(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def back(y: Tensor, x: Tensor) -> Tensor:
    return y.unflatten(0, (x.shape[0], -1))


FOLDED: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d(2, 3, 3, stride=2, padding=1, dilation=2), (3, 2, 8)),
    "conv2d": (nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(2, 1), groups=2), (3, 2, 6, 6)),
    "conv2d same": (nn.Conv2d(2, 4, (2, 4), padding="same"), (3, 2, 6, 6)),
    "transposed": (nn.ConvTranspose2d(2, 4, 3, stride=2, output_padding=1), (3, 2, 4, 4)),
    "batch norm": (nn.BatchNorm2d(2), (3, 2, 4, 4)),
    "batch norm of features": (nn.BatchNorm1d(5), (3, 5)),
    "max pool": (nn.MaxPool2d(2, padding=1), (3, 2, 6, 6)),
    "average pool": (nn.AvgPool2d(3, stride=1), (3, 2, 6, 6)),
    "adaptive pools": (nn.Sequential(nn.AdaptiveMaxPool2d(3), nn.AdaptiveAvgPool2d(1)), (3, 2, 6, 6)),
    "upsample": (nn.Upsample(scale_factor=2), (3, 2, 4, 4)),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), (3, 2, 4)),
    "activations": (nn.Sequential(nn.Hardswish(), nn.PReLU(2), nn.ELU()), (3, 2, 4)),
    "constants": (Fn(lambda s, y: y * s.c[:, None] + 1 - s.c.view(1, 2, 1), c=noise(2)), (3, 2, 4)),
    "product": (Fn(lambda s, y: y * y.sigmoid()), (3, 2, 4)),
    "turn": (Fn(lambda s, y: y.permute(0, 2, 1)[:, 1:]), (3, 2, 4)),
    "turn and rectify": (Fn(lambda s, y: y.permute(0, 2, 1).relu()), (3, 2, 4)),
    "norm and pool of features": (Fn(lambda s, y: F.max_pool1d(s.n(y), 2), n=nn.BatchNorm1d(5)), (3, 5)),
    "cat": (Fn(lambda s, y: torch.cat((y, y.relu()), 1).transpose(1, 2)), (3, 2, 4)),
    "stack": (Fn(lambda s, y: torch.stack((y, y.relu()), 1)), (3, 2, 4)),
    "means": (Fn(lambda s, y: y.mean(2) + y.amax(-1)), (3, 2, 4)),
    "shapes": (Fn(lambda s, y: y.unsqueeze(1).squeeze(1).flatten(1).view(-1, 4, 2)), (3, 2, 4)),
    "refolded": (Fn(lambda s, y: s.l(y.reshape(-1, 4)).reshape(-1, 2, 3), l=nn.Linear(4, 3)), (3, 2, 4)),
    "frames of the batch": (Fn(lambda s, y: y + torch.ones(y.shape[0], 1, 1)), (3, 2, 4)),
    "whole": (Fn(lambda s, y: y[:]), (3, 2, 4)),
    "pad": (nn.ZeroPad2d((1, -1, 2, 0)), (3, 2, 4, 4)),
    "glu": (nn.GLU(1), (3, 2, 4)),
    "softmax": (nn.Softmax(1), (3, 5)),
    "repeat": (Fn(lambda s, y: y.repeat(1, 2, 1)), (3, 2, 4)),
}


@pytest.mark.parametrize("name", FOLDED)
def test_operations_on_folded_frames(name: str) -> None:
    torch.manual_seed(2)
    body, shape = FOLDED[name]
    captured(Fn(lambda s, x: back(s.body(frames(x)), x), body=body), shape)
    captured(Fn(lambda s, x: s.body(frames(x)), body=body), shape, outputs=-1)


def cnn(channels: int = 4) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(1, channels, 3),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(27, 5),
        nn.ReLU(),
    )


class PerFrame(nn.Module):
    """A CNN for every frame, then a recurrent layer, then a classifier."""

    def __init__(self, how: str, **recurrent: Any) -> None:
        super().__init__()
        self.how, self.cnn = how, cnn()
        self.rnn = nn.RNN(5, 4, batch_first=True, **recurrent)
        self.out = nn.Linear(4 * (1 + self.rnn.bidirectional), 2)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c, h, w = x.shape
        match self.how:
            case "reshape":
                y = self.cnn(x.reshape(b * n, c, h, w)).reshape(b, n, -1)
            case "minus one":
                y = self.cnn(x.view(-1, c, h, w)).view(b, -1, 5)
            case _:
                y = self.cnn(x.flatten(0, 1)).unflatten(0, (b, n))
        found: Tensor = self.out(self.rnn(y)[0][:, -1])
        return found


@pytest.mark.parametrize("how", ["reshape", "minus one", "flatten"])
def test_a_cnn_per_frame_in_front_of_a_recurrent_layer(how: str) -> None:
    graph = captured(PerFrame(how), (6, 1, 8, 8))
    assert [(type(node.op).__name__, node.shape) for node in graph.nodes[:9]] == [
        ("Input", (6, 1, 8, 8)),
        ("Permute", (1, 6, 8, 8)),
        ("Conv", (4, 6, 6, 6)),
        ("BatchNorm", (4, 6, 6, 6)),
        ("Elementwise", (4, 6, 6, 6)),
        ("Conv", (3, 6, 6, 6)),
        ("Elementwise", (3, 6, 6, 6)),
        ("MaxPool", (3, 6, 3, 3)),
        ("Permute", (6, 3, 3, 3)),
    ]
    assert kinds(graph)[8:] == [
        "Reshape",
        "Linear",
        "Elementwise",
        "Linear",
        "Recurrence",
        "Slice",
        "Reshape",
        "Linear",
    ]
    (first, _) = nodes_of(graph, ops.Conv)
    assert isinstance(first.op, ops.Conv)
    assert (first.op.stride, first.op.padding, first.op.dilation) == ((1, 1, 1), (0, 0, 0), (1, 1, 1))
    assert tuple(graph.tensors[first.op.weight].shape) == (4, 1, 1, 3, 3)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, y: Tensor) -> Tensor:
        y = self.first(y).relu()
        return (self.second(y) + y).relu().mean((2, 3))


def test_residual_blocks_per_frame_turn_their_axes_once() -> None:
    graph = captured(Fn(lambda s, x: back(s.body(frames(x)), x), body=Residual()), (4, 1, 5, 5))
    assert kinds(graph) == ["Permute", "Conv", "Elementwise", "Conv", "Add", "Elementwise", "Permute", "Mean"]


@given(order=st.permutations(range(4)), second=st.permutations(range(4)))
@example(order=[0, 2, 3, 1], second=[0, 1, 3, 2])
@settings(max_examples=10)
def test_permutations_compose(order: list[int], second: list[int]) -> None:
    """One permutation in place of two, none in place of inverse ones."""
    model = Fn(lambda s, x: x.permute(*order).permute(*second) + 1)
    place = [order[axis] for axis in second].index(0)
    graph = captured(model, (2, 3, 4), outputs=place)
    rest = [order[axis] for axis in second if order[axis] != 0]
    assert kinds(graph) == (["Affine"] if rest == [1, 2, 3] else ["Permute", "Affine"])


# ---------------------------------------------------------------- refusals
def offences(model: nn.Module, x: Tensor, batch_axis: int = 0) -> tuple[Offence, ...]:
    with pytest.raises(UnsupportedOps) as caught:
        sm.capture(lively(model), x, batch_axis=batch_axis)
    return caught.value.offences


def innermost(self: Any, x: Tensor) -> Tensor:
    y = self.layer(x.transpose(0, 1).flatten(0, 1))
    found: Tensor = y.relu()
    return found


def test_frames_folded_with_the_batch_innermost_are_refused() -> None:
    (found,) = offences(Fn(innermost, layer=nn.Linear(3, 2)), torch.ones(2, 5, 3))
    assert found.got == "aten._unsafe_view.default with the batch innermost in a fold of elements and batch"
    assert (
        found.known == "frames folded with the batch outermost: x [batch, elements, ...] as x.flatten(0, 1)"
    )
    assert found.do.startswith("put the batch first before folding and after unfolding: x.transpose(0, 1)")


def test_frames_unfolded_in_the_wrong_order_are_refused() -> None:
    model = Fn(lambda s, x: x.flatten(0, 1).relu().reshape(5, x.shape[0], 3))
    (found,) = offences(model, torch.ones(2, 5, 3))
    assert "with the batch innermost" in found.got


MIXING: dict[str, tuple[Any, str]] = {
    "mean of the batch": (lambda s, x: x.mean(1), "aten.mean.dim on the batch axis"),
    "pick of the batch": (lambda s, x: x[:, 0], "aten.select.int on the batch axis"),
    "flip of the batch": (lambda s, x: x.flip(1), "aten.flip.default on the batch axis"),
    "twice the batch": (lambda s, x: torch.cat((x, x), 1), "aten.cat.default on the batch axis"),
    "softmax over the batch": (lambda s, x: x.softmax(1), "aten.softmax.int on the batch axis"),
    "outer": (lambda s, x: x[0] + x[1][:, None], "aten.add.Tensor on the batch axis"),
    "window over the batch": (
        lambda s, x: F.avg_pool1d(x.transpose(1, 2), 3, 1, 1),
        "aten.avg_pool1d.default on the batch axis",
    ),
    "convolution over the batch": (
        lambda s, x: F.conv1d(x.transpose(1, 2), torch.ones(2, 3, 3), padding=1),
        "aten.conv1d.default on a value with the batch on axis 2",
    ),
    "matrix in front": (
        lambda s, x: torch.ones(2, 3) @ x.transpose(1, 2),
        "aten.matmul.default with the batch as a matrix axis",
    ),
    "shift of the batch": (lambda s, x: F.pad(x, (0, 0, 1, -1)), "aten.pad.default on the batch axis"),
    "shuffle": (
        lambda s, x: F.channel_shuffle(x.transpose(1, 2), 3),
        "aten.channel_shuffle.default on a value with the batch on axis 2",
    ),
    "other samples": (
        lambda s, x: x + torch.arange(x.shape[1])[:, None],
        "aten.add.Tensor with a constant of shape [2, 1] that broadcasts over the batch",
    ),
}
"""Of x [4, batch, 3]."""


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_samples_is_refused_wherever_the_batch_is(name: str) -> None:
    function, got = MIXING[name]
    assert [each.got for each in offences(Fn(function), torch.ones(4, 2, 3), 1)] == [got]


FOLDED_MIXING: dict[str, tuple[Any, str]] = {
    "mean": (lambda s, y: y.mean(0), "aten.mean.dim on the batch axis"),
    "flip": (lambda s, y: y.flip(0), "aten.flip.default on the batch axis"),
    "first samples": (lambda s, y: y[: y.shape[0] // 3], "aten.slice.Tensor on the batch axis"),
    "turn": (lambda s, y: y[:, :, None].transpose(0, 3), "aten.transpose.int on the batch axis"),
    "shuffle": (
        lambda s, y: F.pixel_shuffle(y[..., None], 2),
        "aten.pixel_shuffle.default on frames folded into the batch",
    ),
    "recurrent": (lambda s, y: s.r(y)[0], "aten.rnn_tanh.input on frames folded into the batch"),
}


@pytest.mark.parametrize("name", FOLDED_MIXING)
def test_what_mixes_folded_frames_is_refused(name: str) -> None:
    function, got = FOLDED_MIXING[name]
    model = Fn(lambda s, x: function(s, frames(x)), r=nn.RNN(4, 4, batch_first=True))
    assert [each.got for each in offences(model, torch.ones(2, 3, 4, 4))] == [got]


def test_repeated_samples_are_not_taken_for_frames() -> None:
    """A batch of 2 * batch, too, but with the batch innermost."""
    for function in (lambda s, x: x.repeat(2, 1), lambda s, x: torch.cat((x, x))):
        (found,) = offences(Fn(function), torch.ones(2, 3))
        assert "on the batch axis" in found.got


WRONG_AXES: dict[str, tuple[Any, str]] = {
    "negative": (-1, "batch_axis: -1"),
    "boolean": (True, "batch_axis: True"),
    "too many": ((0, 1), "batch_axis: (0, 1)"),
    "a word": ("first", "batch_axis: 'first'"),
    "no such axis": (3, "example_inputs[0]: a tensor of shape [4, 2, 3] with the batch on axis 3"),
}


@pytest.mark.parametrize("name", WRONG_AXES)
def test_wrong_batch_axes_are_refused(name: str) -> None:
    batch_axis, text = WRONG_AXES[name]
    with pytest.raises(DataError) as caught:
        sm.capture(nn.Linear(3, 2).eval(), torch.ones(4, 2, 3), batch_axis=batch_axis)
    assert str(caught.value).startswith(text)


def test_a_state_without_its_batch_axis_is_told_about_batch_axis() -> None:
    layer = nn.RNN(3, 5, batch_first=True).eval()
    with pytest.raises(DataError) as caught:
        sm.capture(layer, (torch.ones(2, 4, 3), torch.ones(1, 2, 5)))
    assert caught.value.got == "batch sizes [2, 1] on axes [0, 0]"
    assert "batch_axis=(0, 1)" in caught.value.do


def test_a_single_sample_is_repeated_along_its_axis() -> None:
    graph = sm.capture(nn.RNN(3, 5).eval(), torch.ones(4, 1, 3), batch_axis=1)
    assert graph.nodes[0].shape == (4, 3)


def test_a_program_says_itself_where_its_batch_is() -> None:
    batch = torch.export.Dim("batch", min=1, max=2**20)
    model, x = nn.Linear(3, 2).eval(), torch.ones(4, 2, 3)
    program = torch.export.export(model, (x,), dynamic_shapes=({1: batch},))
    for given_inputs in (None, x):
        assert sm.capture(program, given_inputs).nodes[0].shape == (4, 3)
    both = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n"), 1: batch},))
    with pytest.raises(CaptureError) as caught:
        sm.capture(both)
    assert "several dynamic axes" in caught.value.got
