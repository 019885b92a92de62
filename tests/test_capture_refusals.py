"""What capture refuses, in which words, and that it refuses everything at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikemorph.capture import capture, capture_with_notes
from spikemorph.capture.context import RULES, Call, Context
from spikemorph.capture.values import Value
from spikemorph.errors import CaptureError, DataError, Offence, UnsupportedOps
from spikemorph.ir import functions as fn
from spikemorph.ir import ops

FLAT, LINE, IMAGE = torch.ones(2, 6), torch.ones(2, 4, 6), torch.ones(2, 4, 6, 6)


class Fn(nn.Module):
    """forward is `function(self, *inputs)`; parts become attributes."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def offences(model: nn.Module, *inputs: Tensor) -> tuple[Offence, ...]:
    with pytest.raises(UnsupportedOps) as caught:
        capture(model.eval(), inputs)
    return caught.value.offences


REFUSED: dict[str, tuple[nn.Module, Tensor, list[str], str]] = {
    "lstm": (
        Fn(lambda s, x: s.g(x)[0], g=nn.LSTM(6, 3, batch_first=True)),
        LINE,
        ["aten.lstm.input"],
        "nonlinearity='relu'",
    ),
    "gru": (
        Fn(lambda s, x: s.g(x)[0], g=nn.GRU(6, 3, batch_first=True)),
        LINE,
        ["aten.gru.input"],
        "Conv1d over time",
    ),
    "layer_norm": (nn.LayerNorm(6), LINE, ["aten.layer_norm.default"], "train with BatchNorm1d"),
    "group_norm": (nn.GroupNorm(2, 4), IMAGE, ["aten.group_norm.default"], "train with BatchNorm1d"),
    "attention": (
        Fn(lambda s, x: s.a(x, x, x)[0], a=nn.MultiheadAttention(6, 2, batch_first=True)),
        LINE,
        ["torch.nn.MultiheadAttention"],
        "attention is not converted yet",
    ),
    "product": (
        Fn(lambda s, x: x @ x.transpose(1, 2)),
        LINE,
        ["aten.matmul.default of two activations"],
        "attention is not converted yet",
    ),
    "branch": (
        Fn(lambda s, x: torch.where(x > 0, x, 0.1 * x)),
        LINE,
        ["aten.gt.Scalar", "aten.where.self"],
        "ReLU, clamp",
    ),
    "random": (Fn(lambda s, x: x + torch.rand(6)), LINE, ["aten.rand.default"], "call model.eval()"),
    "dropout": (
        Fn(lambda s, x: F.dropout(x)),
        LINE,
        ["aten.native_dropout.default in training mode"],
        "training=self.training",
    ),
    "embedding": (
        Fn(lambda s, x: s.e(x.long()), e=nn.Embedding(9, 3)),
        FLAT,
        ["aten._to_copy.default from torch.float32 to torch.int64", "aten.embedding.default"],
        "remove the conversion of types",
    ),
    "circular": (
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        IMAGE,
        ["aten.pad.default in circular mode"],
        "padding_mode='zeros'",
    ),
    "conv3d": (nn.Conv3d(4, 2, 3), IMAGE[:, :, None].repeat(1, 1, 6, 1, 1), ["aten.conv3d.default"], "2-d"),
    "indices": (
        nn.MaxPool2d(2, return_indices=True),
        IMAGE,
        ["aten.max_pool2d_with_indices.default with the indices of the maxima"],
        "return_indices=False",
    ),
    "windows": (
        nn.AdaptiveMaxPool2d(4),
        IMAGE,
        ["aten.adaptive_max_pool2d.default from 6 to 4 places in windows of different sizes"],
        "divides 6",
    ),
    "bicubic": (
        nn.Upsample(scale_factor=2, mode="bicubic"),
        IMAGE,
        ["aten.upsample_bicubic2d.vec"],
        "mode='nearest'",
    ),
    "einsum": (
        Fn(lambda s, x: torch.einsum("bc,co->bo", x, s.w), w=nn.Parameter(torch.ones(6, 2))),
        FLAT,
        ["aten.einsum.default"],
        "torch.nn.functional.linear",
    ),
    "softmax": (
        Fn(lambda s, x: x.softmax(1) * 2),
        FLAT,
        ["aten.softmax.int inside the network"],
        "return its result as it is",
    ),
    "division": (Fn(lambda s, x: x / x.abs()), FLAT, ["aten.div.Tensor by an activation"], "constant"),
    "power": (Fn(lambda s, x: x**3), FLAT, ["aten.pow.Tensor_Scalar with exponent 3"], "x * x * x"),
    "softplus": (nn.Softplus(threshold=2), FLAT, ["aten.softplus.default with threshold = 2"], "ReLU"),
    "celu": (nn.CELU(0.5), FLAT, ["aten.celu.default with alpha = 0.5"], "ReLU"),
    "batch mean": (Fn(lambda s, x: x.mean(0)), LINE, ["aten.mean.dim on the batch axis"], "leave axis 0"),
    "batch pick": (Fn(lambda s, x: x[0]), LINE, ["aten.select.int on the batch axis"], "leave axis 0"),
    "batch join": (
        Fn(lambda s, x: torch.cat([x, x])),
        LINE,
        ["aten.cat.default on the batch axis"],
        "axis 0",
    ),
    "batch flip": (Fn(lambda s, x: x.flip(0)), LINE, ["aten.flip.default on the batch axis"], "axis 0"),
    "batch softmax": (Fn(lambda s, x: x.softmax(0)), LINE, ["aten.softmax.int on the batch axis"], "axis 0"),
    "batch outer": (Fn(lambda s, x: x + x[:, None]), FLAT, ["aten.add.Tensor on the batch axis"], "axis 0"),
    "batch size": (
        Fn(lambda s, x: x / x.shape[0]),
        LINE,
        ["aten.div.Tensor with a number that depends on the batch size"],
        "use a constant",
    ),
    "batch value": (
        Fn(lambda s, x: x + torch.ones(6) * x.shape[0]),
        LINE,
        ["aten.add.Tensor with a tensor that depends on the batch size"],
        "a parameter or a buffer",
    ),
    "batch places": (
        Fn(lambda s, x: x + torch.arange(x.shape[0])[:, None]),
        FLAT,
        ["aten.add.Tensor with a constant of shape [2, 1] that broadcasts over the batch"],
        "leading axis of 1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    model, x, got, advice = REFUSED[name]
    found = offences(model, x)
    assert [each.got for each in found] == got
    assert advice in found[0].do
    assert all(each.known for each in found)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4, track_running_stats=False), nn.InstanceNorm2d(4)])
def test_norms_of_the_batch_or_the_sample_are_refused_by_every_torch(layer: nn.Module) -> None:
    (found,) = offences(nn.Sequential(nn.Conv2d(4, 4, 1), layer), IMAGE)
    assert found.where == "1"
    assert "norm" in found.known


@pytest.mark.parametrize("layer", [nn.LSTM(6, 3), nn.GRU(6, 3)])
def test_recurrent_layers_that_torch_cannot_export_are_refused_by_name(layer: nn.Module) -> None:
    """With the batch on axis 1 the number of elements is what is dynamic."""
    (found,) = offences(Fn(lambda s, x: s.layer(x)[0], layer=layer), LINE)
    assert found.where.startswith("layer")
    assert "multiply sums over time: not converted" in found.known
    notes = capture_with_notes(layer.eval(), LINE)
    assert len(notes.offences) == 1


class TwoFaults(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"norm": nn.LayerNorm(6), "act": nn.ReLU()})

    def forward(self, x: Tensor) -> Tensor:
        x = self.body["norm"](x)
        x = self.body["act"](x)
        return x.cumsum(1) + 1


def test_all_offences_are_told_at_once_in_four_parts() -> None:
    with pytest.raises(UnsupportedOps) as caught:
        capture(TwoFaults().eval(), LINE)
    first, second = caught.value.offences
    line = TwoFaults.forward.__code__.co_firstlineno + 1
    assert str(first) == (
        f"body.norm (test_capture_refusals.py:{line}): aten.layer_norm.default\n"
        "  known: BatchNorm at rest is an affine map; this norm divides by a statistic of the activations "
        "themselves\n"
        "  do:    train with BatchNorm1d or BatchNorm2d in its place"
    )
    assert second.where == f"the model (test_capture_refusals.py:{line + 2})"
    assert "2 operation(s) without a spiking form" in str(caught.value)


def test_notes_go_on_behind_what_is_refused() -> None:
    model = nn.Sequential(
        nn.Conv1d(4, 4, 1), nn.LayerNorm(6), nn.Dropout(), nn.Linear(6, 2), nn.GELU(), nn.LayerNorm(2)
    )
    notes = capture_with_notes(model.eval(), LINE)
    assert [each.where for each in notes.offences] == ["1", "5"]
    assert [type(node.op).__name__ for node in notes.graph.nodes] == [
        "Input",
        "Conv",
        "Input",
        "Linear",
        "Elementwise",
        "Input",
    ]
    assert [(each.origin.module, each.reason) for each in notes.vanished] == [
        ("2", "dropout: identity in eval mode")
    ]


def test_what_hangs_on_a_refused_batch_is_not_told_again() -> None:
    model = Fn(lambda s, x: torch.relu(torch.cat([x, x], 0)).reshape(-1, 8, 6).cumsum(1))
    assert [each.got for each in offences(model, LINE)] == [
        "aten.cat.default on the batch axis",
        "aten.cumsum.default",
    ]


def test_notes_without_offences_are_the_graph() -> None:
    notes = capture_with_notes(nn.Linear(6, 2).eval(), FLAT)
    assert (notes.offences, notes.vanished) == ((), ())
    assert notes.graph.outputs == capture(nn.Linear(6, 2).eval(), FLAT).outputs


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)
        return x * self.seen


def spoilt() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    model[1].running_var[0] = float("nan")
    return model.eval()


WRONG: dict[str, tuple[object, object, type[Exception], str]] = {
    "training": (
        nn.Sequential(nn.Linear(6, 3), nn.ReLU()),
        FLAT,
        CaptureError,
        "the model, 0, 1: training mode",
    ),
    "one in training": (
        nn.Sequential(nn.Linear(6, 3).eval(), nn.Dropout()).eval().append(nn.Dropout()),
        FLAT,
        CaptureError,
        "2: training mode",
    ),
    "nan": (spoilt(), FLAT, CaptureError, "1.running_var: 1 of 3 values are NaN or infinite"),
    "state": (Counter().eval(), FLAT, CaptureError, "seen: a buffer that forward writes to"),
    "no model": (3, FLAT, CaptureError, "model: a value of type int"),
    "integers": (
        nn.Linear(6, 3).eval(),
        FLAT.long(),
        DataError,
        "example_inputs[0]: a tensor of torch.int64",
    ),
    "a list": (nn.Linear(6, 3).eval(), [FLAT], DataError, "example_inputs[0]: a value of type list"),
    "nothing": (nn.Linear(6, 3).eval(), (), DataError, "example_inputs: an empty tuple"),
    "no sample": (nn.Linear(6, 3).eval(), FLAT[:0], DataError, "example_inputs[0]: a tensor of shape [0, 6]"),
    "scalar": (nn.Linear(6, 3).eval(), torch.tensor(1.0), DataError, "a tensor of shape []"),
    "nan input": (nn.Linear(6, 3).eval(), FLAT * float("nan"), DataError, "example_inputs[0]: NaN"),
    "batches": (nn.Bilinear(6, 6, 3).eval(), (FLAT, FLAT[:1]), DataError, "batch sizes [2, 1]"),
    "constant": (Fn(lambda s, x: (x, torch.ones(2))).eval(), FLAT, CaptureError, "output 1: a constant"),
    "none": (Fn(lambda s, x: (x, None)).eval(), FLAT, CaptureError, "output 1: None"),
    "number": (Fn(lambda s, x: {"a": x, "b": 3}).eval(), FLAT, CaptureError, "output 1: 3"),
    "keys": (Fn(lambda s, x: {1: x}).eval(), FLAT, CaptureError, "outputs: outputs of type dict"),
    "overflow": (Fn(lambda s, x: x * 1e30 * 1e30).eval(), FLAT, CaptureError, "output 0: NaN or infinity"),
    "branch": (
        Fn(lambda s, x: x if x.sum() > 0 else -x).eval(),
        FLAT,
        CaptureError,
        "remove branches on values",
    ),
    "fixed batch": (Fn(lambda s, x: x.view(2, 3, 2)).eval(), FLAT, CaptureError, "do not fix the batch size"),
    "shapes": (nn.Linear(5, 3).eval(), FLAT, CaptureError, "torch.export: RuntimeError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_captured_at_all(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    model, inputs, kind, text = WRONG[name]
    with pytest.raises(kind) as caught:
        capture(model, inputs)  # type: ignore[arg-type]
    assert text in str(caught.value)
    assert type(caught.value) is kind
    assert capfd.readouterr() == ("", "")


def test_the_message_of_torch_is_kept() -> None:
    with pytest.raises(CaptureError) as caught:
        capture(nn.Linear(5, 3).eval(), FLAT)
    assert str(caught.value.__cause__) in caught.value.got


def test_programs_need_a_dynamic_batch() -> None:
    program = torch.export.export(nn.Linear(6, 3).eval(), (FLAT,))
    with pytest.raises(CaptureError) as caught:
        capture(program)
    assert caught.value.got == "the fixed shape [2, 6]"
    assert "dynamic_shapes=({0: batch},)" in caught.value.do


def test_programs_are_told_how_many_inputs_they_have() -> None:
    batch = torch.export.Dim("batch", min=1, max=2**20)
    program = torch.export.export(nn.Linear(6, 3).eval(), (FLAT,), dynamic_shapes=({0: batch},))
    with pytest.raises(CaptureError, match="2 tensors"):
        capture(program, (FLAT, FLAT))


def _wrong_relu(ctx: Context, call: Call) -> Value:
    return ctx.emit(call, ops.Elementwise(fn.Abs()), call.act())


def test_a_wrong_rule_is_found_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES._rules, "relu", _wrong_relu)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Flatten())
    with pytest.raises(CaptureError) as caught:
        capture(model.eval(), torch.randn(4, 6))
    assert caught.value.where == "1"
    assert caught.value.got.startswith(
        "aten.relu.default, captured as Elementwise '1', differs from torch by"
    )
