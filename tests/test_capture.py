"""Every convertible operation: the captured graph computes what the module computes, for any batch size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikemorph.capture import capture
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.ir import functions as fn
from spikemorph.ir import ops, structure
from spikemorph.ir.graph import Dialect, Graph

X2, X3, X4 = (5,), (4, 6), (4, 6, 6)


class Fn(nn.Module):
    """forward is `function(self, *inputs)`; parts become attributes."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def tensor(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trained(model: nn.Module) -> nn.Module:
    """In eval mode, with batch norms that do something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(tensor(module.num_features))
            module.running_var.copy_(tensor(module.num_features).abs() + 0.5)
            if module.affine:
                nn.init.normal_(module.weight)
    return model.eval()


def both(model: nn.Module, *shapes: tuple[int, ...]) -> tuple[Graph, Any, Any]:
    """Capture at batch 2, run at batch 3 on other inputs; the graph, its outputs and the module's."""
    graph = capture(trained(model), tuple(tensor(2, *shape) for shape in shapes))
    inputs = tuple(tensor(3, *shape, seed=7 + i) * 2 for i, shape in enumerate(shapes))
    with torch.no_grad():
        wanted = model(*(each.clone() for each in inputs))
    values = evaluate_float(graph, inputs)
    assert graph.dialect is Dialect.FLOAT
    assert len(graph.by_name) == len(graph.nodes)
    for node in graph.nodes:
        assert type(node.op) in ops.FLOAT_OPS
        assert tuple(values[node.name].shape[1:]) == node.shape, node
    return graph, structure.build(graph.structure, [values[name] for name in graph.outputs]), wanted


def same(model: nn.Module, *shapes: tuple[int, ...]) -> Graph:
    """The captured graph, which computes what the module computes."""
    graph, got, wanted = both(model, *shapes)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    return graph


def kinds(graph: Graph) -> list[str]:
    return [type(node.op).__name__ for node in graph.nodes[1:]]


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), X3),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 1)), X4),
    "conv2d_no_bias": (nn.Conv2d(4, 6, 3, bias=False), X4),
    "conv2d_same": (nn.Conv2d(4, 6, 3, padding="same", dilation=2), X4),
    "conv2d_same_even": (nn.Conv2d(4, 6, (2, 4), padding="same"), X4),
    "conv1d_same_even": (nn.Conv1d(4, 6, 4, padding="same"), X3),
    "conv2d_valid": (nn.Conv2d(4, 6, 3, padding="valid"), X4),
    "conv_transpose1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), X3),
    "conv_transpose2d": (nn.ConvTranspose2d(4, 6, 3, stride=(2, 3), output_padding=(0, 1), dilation=2), X4),
    "linear": (nn.Linear(5, 3), X2),
    "linear_wide": (nn.Linear(6, 3, bias=False), X4),
    "weight_norm": (nn.utils.parametrizations.weight_norm(nn.Linear(5, 3)), X2),
    "batch_norm2d": (nn.BatchNorm2d(4), X4),
    "batch_norm1d": (nn.BatchNorm1d(5, affine=False), X2),
    "batch_norm1d_length": (nn.BatchNorm1d(4), X3),
    "max_pool1d": (nn.MaxPool1d(3, 2, padding=1), X3),
    "max_pool2d": (nn.MaxPool2d(2, stride=3, dilation=2, ceil_mode=True), X4),
    "avg_pool1d": (nn.AvgPool1d(3, 2, padding=1, ceil_mode=True), X3),
    "avg_pool2d": (nn.AvgPool2d((3, 2), padding=1, count_include_pad=False), X4),
    "avg_pool2d_divisor": (nn.AvgPool2d(2, divisor_override=3), X4),
    "adaptive_avg1d": (nn.AdaptiveAvgPool1d(4), X3),
    "adaptive_avg2d": (nn.AdaptiveAvgPool2d((4, None)), X4),
    "adaptive_max1d": (nn.AdaptiveMaxPool1d(1), X3),
    "adaptive_max2d": (nn.AdaptiveMaxPool2d(1), X4),
    "adaptive_max2d_windows": (nn.AdaptiveMaxPool2d((3, 2)), X4),
    "adaptive_max1d_overlapping": (nn.AdaptiveMaxPool1d(2), (4, 5)),
    "zero_pad": (nn.ZeroPad2d((1, -1, 2, 0)), X4),
    "constant_pad": (nn.ConstantPad1d((2, 1), 0.5), X3),
    "cut": (nn.ZeroPad2d(-1), X4),
    "upsample": (nn.Upsample(scale_factor=2), X4),
    "upsample_1d": (nn.Upsample(scale_factor=1.7), X3),
    "upsample_size": (nn.Upsample(size=(9, 4)), X4),
    "upsample_bilinear": (nn.Upsample(scale_factor=1.7, mode="bilinear"), X4),
    "upsample_corners": (nn.Upsample(size=(9, 4), mode="bilinear", align_corners=True), X4),
    "upsample_linear": (nn.Upsample(scale_factor=2.5, mode="linear"), X3),
    "pixel_shuffle": (nn.PixelShuffle(2), X4),
    "pixel_unshuffle": (nn.PixelUnshuffle(2), X4),
    "channel_shuffle": (nn.ChannelShuffle(2), X4),
    "prelu": (nn.PReLU(), X4),
    "mish": (nn.Sequential(nn.Mish(), nn.Linear(5, 2)), X2),
    "glu": (nn.Sequential(nn.GLU(1), nn.Flatten()), X4),
    "flatten": (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 8)), nn.Identity(), nn.Dropout()), X3),
}


Table = dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]]


@cache
def compared(table: str, shapes: tuple[tuple[int, ...], ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Results by name, ours and torch's, of all entries of a table with these inputs, captured as one."""
    entries = TABLES[table]
    members = nn.ModuleDict({
        name: trained(model) for name, (model, needs) in entries.items() if needs == shapes
    })
    together = Fn(
        lambda s, *x: {name: each(*(part.clone() for part in x)) for name, each in s.members.items()}
    )
    together.members = members
    return both(together, *shapes)[1:]


def check_entry(table: str, name: str) -> None:
    got, wanted = compared(table, TABLES[table][name][1])
    torch.testing.assert_close(got[name], wanted[name], rtol=1e-4, atol=1e-5)


LAYER_NAMES = sorted(LAYERS)


@pytest.mark.parametrize("name", LAYER_NAMES)
def test_layers(name: str) -> None:
    check_entry("layers", name)


W, C = tensor(6, 3), tensor(4, 1)
CALLS: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]] = {
    "matmul": (Fn(lambda s, x: x @ s.w, w=nn.Parameter(W)), (X3,)),
    "matmul_flat": (Fn(lambda s, x: torch.mm(x[:, 0], s.w), w=W), (X3,)),
    "matmul_from_left": (Fn(lambda s, x: s.w @ x, w=tensor(3, 4)), (X3,)),
    "addmm": (Fn(lambda s, x: torch.addmm(s.b, x[:, 0], s.w), w=W, b=tensor(3)), (X3,)),
    "f_batch_norm": (Fn(lambda s, x: F.batch_norm(x, s.m, s.v), m=tensor(4), v=tensor(4).abs()), (X4,)),
    "add": (Fn(lambda s, x, y: x + y), (X3, X3)),
    "add_broadcast": (Fn(lambda s, x, y: x + y), (X3, (4, 1))),
    "sub_alpha": (Fn(lambda s, x, y: torch.sub(x, y, alpha=2.5)), (X3, X3)),
    "rsub": (Fn(lambda s, x, y: torch.rsub(x, y, alpha=2) - y), (X3, X3)),
    "mul": (Fn(lambda s, x, y: x * y), (X3, (1, 6))),
    "squares": (Fn(lambda s, x: x * x + x**2 + torch.square(x) + x**1), (X3,)),
    "numbers": (Fn(lambda s, x: (3 - x * 2 + 1) / 7 - 0.5), (X3,)),
    "state": (Fn(lambda s, x: (x - s.c) / (s.c.abs() + 1) * s.c[None], c=C), (X3,)),
    "const_minus": (Fn(lambda s, x: s.c - x, c=C), (X3,)),
    "const_spreads": (Fn(lambda s, x: x * s.c, c=tensor(1, 3, 1, 6)), ((1, 4, 6),)),
    "neg": (Fn(lambda s, x: -x), (X3,)),
    "long_names": (
        Fn(lambda s, x, y: torch.multiply(torch.subtract(x, y, alpha=2), torch.negative(x).absolute())),
        (X3, X3),
    ),
    "long_divisions": (Fn(lambda s, x: torch.special.expit(x.divide(3).true_divide(s.c)) * 2, c=C), (X3,)),
    "cat": (Fn(lambda s, x, y: torch.cat([x, y, x], 2)), (X3, (4, 2))),
    "cat_zeros": (
        Fn(lambda s, x: torch.cat([x.new_zeros(x.shape[0], 2, 6), x, torch.zeros_like(x)], 1)),
        (X3,),
    ),
    "cat_token": (
        Fn(lambda s, x: torch.cat([s.c.expand(x.shape[0], -1, -1), x, x], 1), c=tensor(1, 1, 6)),
        (X3,),
    ),
    "stack": (Fn(lambda s, x, y: torch.stack([x, y], 1).amax(1)), (X3, X3)),
    "stack_zeros": (Fn(lambda s, x: torch.stack([x, torch.zeros_like(x)], -1).amax(-1)), (X3,)),
    "maximum": (Fn(lambda s, x, y: torch.maximum(x, y)), (X3, (4, 1))),
    "views": (Fn(lambda s, x: x.view(x.size(0), -1).reshape(-1, 6, 4).unsqueeze(2).squeeze(2)), (X3,)),
    "permute": (Fn(lambda s, x: x.permute(0, 3, 1, 2).transpose(-1, 1).contiguous()), (X4,)),
    "shuffle": (Fn(lambda s, x: x.view(-1, 2, 2, 6).transpose(1, 2).reshape(-1, 4, 6)), (X3,)),
    "chunks": (Fn(lambda s, x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1] + x.split([1, 3], 1)[0]), (X3,)),
    "unbind": (Fn(lambda s, x: x.unbind(1)[2] + x[:, -1]), (X3,)),
    "slices": (Fn(lambda s, x: x[:, 1:, ::2][..., -2:].narrow(1, 1, 2)), (X3,)),
    "expand": (Fn(lambda s, x: x.unsqueeze(1).expand(-1, 3, -1)), (X2,)),
    "repeat": (Fn(lambda s, x: x.repeat(1, 2, 3)), (X3,)),
    "repeat_interleave": (Fn(lambda s, x: x.repeat_interleave(2, 1)), (X3,)),
    "index_maps": (Fn(lambda s, x: x.flip(1, 2).roll((1, -2), (1, 2))[:, [2, 0, -1]]), (X3,)),
    "index_select": (Fn(lambda s, x: x.index_select(2, s.i), i=torch.tensor([3, 3, 0])), (X3,)),
    "means": (Fn(lambda s, x: x.mean((2, 3), keepdim=True) + x.mean(-1, keepdim=True)), (X4,)),
    "sum": (Fn(lambda s, x: x.sum((1, 3), keepdim=True)), (X4,)),
    "amax": (Fn(lambda s, x: x.amax((2, 3)) - x.max(dim=3)[0].max(dim=2).values), (X4,)),
    "no_grad": (Fn(lambda s, x: s.forward_plain(x), forward_plain=torch.no_grad()(lambda x: x * 2)), (X3,)),
    "softplus": (Fn(lambda s, x: F.softplus(x, beta=2.0) * x), (X3,)),
    "prelu_channels": (Fn(lambda s, x: s.p(x), p=nn.PReLU(4, init=0.3)), (X3,)),
    "recurrence": (
        Fn(lambda s, x: unrolled(s, x), w=nn.Linear(6, 5), u=nn.Linear(5, 5)),  # noqa: PLW0108
        (X3,),
    ),
}


def unrolled(s: Any, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 5)
    for t in range(x.shape[1]):
        h = torch.relu(s.w(x[:, t]) + s.u(h))
    return h


@pytest.mark.parametrize("name", sorted(CALLS))
def test_calls(name: str) -> None:
    check_entry("calls", name)


TABLES: dict[str, Table] = {
    "layers": {name: (model, (shape,)) for name, (model, shape) in LAYERS.items()},
    "calls": CALLS,
}


def test_prelu_with_a_slope_per_channel() -> None:
    layer = nn.PReLU(4)
    layer.weight.data = torch.tensor([0.1, -0.5, 2.0, 0.0])
    assert "Elementwise" in kinds(same(layer, X4))


FUNCTIONS: list[tuple[Callable[[Tensor], Tensor], fn.Function]] = [
    (F.relu, fn.Relu()),
    (lambda x: x.clone().relu_(), fn.Relu()),
    (lambda x: x.clamp(0), fn.Relu()),
    (lambda x: x.clamp(min=0), fn.Relu()),
    (lambda x: x.clamp_min(0.0), fn.Relu()),
    (lambda x: torch.maximum(x, torch.tensor(0.0)), fn.Relu()),
    (lambda x: torch.maximum(torch.zeros_like(x), x), fn.Relu()),
    (lambda x: torch.max(x, torch.zeros(4, 6)), fn.Relu()),
    (lambda x: F.threshold(x, 0, 0), fn.Relu()),
    (F.relu6, fn.Clamp(0.0, 6.0)),
    (lambda x: x.clamp(0, 1), fn.Clamp(0.0, 1.0)),
    (F.hardtanh, fn.Clamp(-1.0, 1.0)),
    (lambda x: x.clamp(max=2), fn.Clamp(None, 2.0)),
    (lambda x: x.clamp_max(2), fn.Clamp(None, 2.0)),
    (lambda x: torch.clamp(x, torch.tensor(-1.0), torch.tensor(2.0)), fn.Clamp(-1.0, 2.0)),
    (lambda x: torch.minimum(x, torch.tensor(2.0)), fn.Clamp(None, 2.0)),
    (F.leaky_relu, fn.LeakyRelu(0.01)),
    (torch.sigmoid, fn.Sigmoid()),
    (torch.tanh, fn.Tanh()),
    (F.hardsigmoid, fn.HardSigmoid()),
    (F.hardswish, fn.HardSwish()),
    (F.silu, fn.Silu()),
    (F.gelu, fn.Gelu()),
    (lambda x: F.gelu(x, approximate="tanh"), fn.Gelu(tanh=True)),
    (F.elu, fn.Elu()),
    (lambda x: F.elu(x, alpha=0.5), fn.Elu(0.5)),
    (F.selu, fn.Elu(1.6732632423543772, 1.0507009873554805)),
    (F.celu, fn.Elu()),
    (F.softplus, fn.Softplus()),
    (torch.abs, fn.Abs()),
    (lambda x: x * torch.sigmoid(x), fn.Silu()),
    (lambda x: x.sigmoid().mul(x), fn.Silu()),
    (lambda x: x * torch.sigmoid(1.702 * x), fn.Swish(1.702)),
    (lambda x: torch.sigmoid(x / -2) * x, fn.Swish(-0.5)),
    (F.mish, fn.Mish()),
    (lambda x: x * torch.tanh(F.softplus(x)), fn.Mish()),
    (lambda x: F.softplus(x).tanh().mul(x), fn.Mish()),
    (lambda x: x * F.hardsigmoid(x), fn.HardSwish()),
    (lambda x: x * F.relu6(x + 3) / 6, fn.HardSwish()),
    (lambda x: x * (F.relu6(x + 3) / 6), fn.HardSwish()),
    (lambda x: F.relu6(x + 3.0) * x * (1 / 6), fn.HardSwish()),
]


@cache
def functions_graph() -> Graph:
    return same(Fn(lambda s, x: [function(x) * 2 for function, _ in FUNCTIONS]), X3)


@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
def test_functions_are_recognised_in_every_spelling(number: int) -> None:
    graph = functions_graph()
    doubled = graph.by_name[graph.outputs[number]]
    (source,) = doubled.inputs
    assert isinstance(doubled.op, ops.Affine)
    assert graph.by_name[source].op == ops.Elementwise(FUNCTIONS[number][1])
    assert graph.by_name[source].inputs == ("input",)


def test_a_gate_of_another_value_stays_a_product() -> None:
    graph = same(Fn(lambda s, x, y: x * torch.sigmoid(y) + y * F.relu6(x + 3) / 6), X3, X3)
    assert kinds(graph).count("Mul") == 2


def test_in_place_relu_on_a_value_that_is_used_again() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.c(x)
        z = s.r(y)
        return z + y

    graph = same(Fn(forward, c=nn.Conv2d(4, 4, 1), r=nn.ReLU(inplace=True)), X4)
    assert graph.nodes[-1].inputs == ("r", "r")


def test_in_place_relu_on_the_input_itself() -> None:
    x = tensor(2, 5)
    before = x.clone()
    capture(Fn(lambda s, x: x.relu_() + 1).eval(), x)
    assert torch.equal(x, before)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.act(self.conv(self.act(x))) + x)


def test_names_origins_and_tensors() -> None:
    model = nn.Sequential(OrderedDict(block=Block(), again=Block()))
    model.again.conv = model.block.conv
    graph = same(model, X4)
    assert [node.name for node in graph.nodes] == [
        "input",
        "block.act",
        "block.conv",
        "block.act_2",
        "block.add",
        "block.act_3",
        "again.act",
        *[name for name in graph.by_name if "conv" in name][1:],
        "again.act_2",
        "again.add",
        "again.act_3",
    ]
    assert set(graph.tensors) == {"block.conv.weight", "block.conv.bias"}
    add = graph.by_name["block.add"].origin
    assert (add.module, add.call) == ("block", "aten.add.Tensor")
    assert add.source.startswith("test_capture.py:")
    assert not graph.tensors["block.conv.weight"].requires_grad


def test_names_of_functions_in_the_root_and_of_several_inputs() -> None:
    graph = same(Fn(lambda s, x, y: torch.relu(x + y) + s.b, b=tensor(6)), X3, X3)
    assert [node.name for node in graph.nodes] == ["input_0", "input_1", "add", "relu", "add_2"]
    assert list(graph.tensors) == ["b"]


def test_structures_of_outputs() -> None:
    graph = same(Fn(lambda s, x: {"a": [x, x * 2], "b": (x + 1,)}), X3)
    assert graph.outputs[0] == "input"
    assert graph.structure == structure.Named(
        ("a", "b"),
        (
            structure.Items((structure.Leaf(0), structure.Leaf(1)), True),
            structure.Items((structure.Leaf(2),)),
        ),
    )


def test_trailing_functions_run_on_the_host() -> None:
    assert kinds(same(nn.Sequential(nn.Linear(5, 3), nn.Softmax(1)), X2))[-1] == "Softmax"
    assert kinds(same(nn.Sequential(nn.Linear(5, 3), nn.LogSoftmax(-1)), X2))[-1] == "Softmax"
    assert kinds(same(nn.Sequential(nn.Linear(5, 3), nn.SiLU()), X2))[-1] == "HostFunction"
    assert kinds(same(nn.Sequential(nn.Linear(5, 3), nn.ReLU6()), X2))[-1] == "Elementwise"
    assert kinds(same(Fn(lambda s, x: x.softmax(1).argmax(1)), X2)) == ["Softmax", "Argmax"]
    assert kinds(same(Fn(lambda s, x: tuple(x.max(dim=1))), X2)) == ["AMax", "Argmax"]
    assert kinds(same(Fn(lambda s, x: x.sigmoid() * 2), X2))[0] == "Elementwise"


def test_a_trailing_sigmoid_moves_behind_views() -> None:
    model = nn.Sequential(nn.Conv2d(4, 1, 6), nn.Sigmoid(), nn.Flatten(), nn.Flatten(0, -1))
    graph = same(nn.Sequential(*model[:3]), X4)
    assert kinds(graph) == ["Conv", "Reshape", "HostFunction"]


def test_a_single_sample_is_enough() -> None:
    graph = capture(nn.Linear(5, 3).eval(), tensor(1, 5))
    assert evaluate_float(graph, (tensor(4, 5),))["linear"].shape == (4, 3)


class Named(nn.Module):
    def forward(self, x: Tensor, *, y: Tensor) -> Tensor:
        return x * 2 - y


def test_programs_with_named_arguments_are_taken_in_their_order() -> None:
    batch = torch.export.Dim("batch", min=1, max=2**20)
    axes = {"x": {0: batch}, "y": {0: batch}}
    program = torch.export.export(Named(), (tensor(2, 5),), {"y": tensor(2, 5)}, dynamic_shapes=axes)
    graph = capture(program)
    got = evaluate_float(graph, (torch.ones(3, 5), torch.zeros(3, 5)))
    assert torch.equal(got[graph.outputs[0]], torch.full((3, 5), 2.0))


def test_programs_are_taken_as_they_are() -> None:
    model = trained(
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    )
    batch = torch.export.Dim("batch", min=1, max=2**20)
    program = torch.export.export(model, (tensor(2, *X4),), dynamic_shapes=({0: batch},), strict=True)
    wanted = capture(model, tensor(2, *X4))
    for each in (program, program.run_decompositions()):
        graph = capture(each)
        values = evaluate_float(graph, (tensor(3, *X4),))
        expected = evaluate_float(wanted, (tensor(3, *X4),))
        torch.testing.assert_close(values[graph.outputs[0]], expected[wanted.outputs[0]])
    assert [node.name for node in capture(program).nodes] == [node.name for node in wanted.nodes]
