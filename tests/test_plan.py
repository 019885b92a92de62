"""Passes and the plan: what becomes of each op, and where identity neurons must stand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.errors import GraphError
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.ir import functions as fn
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.levels import Levels, Max
from spikemorph.passes import plan
from spikemorph.passes.inspection import FATES
from spikemorph.passes.lower import LARGEST_DENOMINATOR, rational
from spikemorph.passes.patterns import rearranged
from spikemorph.passes.runner import Pass, run_passes

FINE = Levels(activation=255, identity=255, observer=Max(), weight_observer=Max(), skip_bits=12)


class Module(nn.Module):
    """A module whose forward is a function of itself and x."""

    def __init__(self, forward: Callable[[Module, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def wild_norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm with gains of both signs, one of them zero, and large shifts."""
    norm = nn.BatchNorm2d(channels)
    norm.weight.data = torch.linspace(-1.5, 1.5, channels)
    norm.bias.data = torch.linspace(2.0, -1.0, channels)
    norm.running_mean.copy_(torch.linspace(-0.3, 0.5, channels))
    norm.running_var.copy_(torch.linspace(0.4, 2.0, channels))
    return norm


def planned(forward: Callable[[Module, Tensor], Tensor], **parts: nn.Module) -> Graph:
    graph = sm.capture(Module(forward, **parts).eval(), torch.rand(2, 3, 8, 8))
    return plan(graph, Levels())


def kinds(graph: Graph) -> list[str]:
    return [type(node.op).__name__ for node in graph.nodes]


CASES: dict[str, tuple[Callable[[Module, Tensor], Tensor], dict[str, Callable[[], nn.Module]]]] = {
    "norm after relu before padding": (
        lambda m, x: m.b(F.relu(m.n(F.relu(m.a(x))))),
        {
            "a": lambda: nn.Conv2d(3, 5, 3),
            "n": lambda: wild_norm(5),
            "b": lambda: nn.Conv2d(5, 4, 3, padding=2),
        },
    ),
    "norm straight into a padded convolution": (
        lambda m, x: m.b(m.n(F.relu(m.a(x)))),
        {
            "a": lambda: nn.Conv2d(3, 5, 3),
            "n": lambda: wild_norm(5),
            "b": lambda: nn.Conv2d(5, 4, 3, padding=1),
        },
    ),
    "normalisation inside the model": (
        lambda m, x: F.relu(m.a((x - 0.45) / 0.22)),
        {"a": lambda: nn.Conv2d(3, 5, 3, padding=1)},
    ),
    "constant pad that is not zero": (
        lambda m, x: F.relu(m.a(F.pad(x, (1, 2, 0, 1), value=0.7))),
        {"a": lambda: nn.Conv2d(3, 5, 3)},
    ),
    "pool of accumulators with norm": (
        lambda m, x: F.max_pool2d(m.n(m.a(x)), 3, 2, 1),
        {"a": lambda: nn.Conv2d(3, 5, 3), "n": lambda: wild_norm(5)},
    ),
    "pool before relu after a falling norm": (
        lambda m, x: F.relu(m.n(F.max_pool2d(m.a(x), 2))),
        {"a": lambda: nn.Conv2d(3, 5, 3), "n": lambda: wild_norm(5)},
    ),
    "average without the padding": (
        lambda m, x: m.a(F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)),
        {"a": lambda: nn.Conv2d(3, 4, 1)},
    ),
    "adaptive average of uneven windows": (
        lambda m, x: m.a(F.adaptive_avg_pool2d(F.relu(x), (3, 5)).flatten(1)),
        {"a": lambda: nn.Linear(45, 4)},
    ),
    "upsampling between convolutions": (
        lambda m, x: m.b(F.interpolate(m.a(x), scale_factor=2, mode="bilinear")),
        {"a": lambda: nn.Conv2d(3, 4, 1), "b": lambda: nn.Conv2d(4, 3, 3, padding=1)},
    ),
    "upsampling by an odd factor": (
        lambda m, x: m.b(F.interpolate(F.relu(m.a(x)), size=(13, 11), mode="bilinear", align_corners=True)),
        {"a": lambda: nn.Conv2d(3, 4, 1), "b": lambda: nn.Conv2d(4, 3, 3, padding=1)},
    ),
    "linear bottlenecks with skips": (
        lambda m, x: m.c(m.b(m.a(x)) + m.a(x)) + m.a(x),
        {
            "a": lambda: nn.Conv2d(3, 4, 1),
            "b": lambda: nn.Conv2d(4, 4, 3, 1, 1),
            "c": lambda: nn.Conv2d(4, 4, 1),
        },
    ),
    "concat of different units": (
        lambda m, x: m.b(torch.cat([F.relu(m.a(x)), 10 * torch.sigmoid(m.a(x)), x], 1)),
        {"a": lambda: nn.Conv2d(3, 4, 1), "b": lambda: nn.Conv2d(11, 4, 3, padding=1)},
    ),
    "concat along rows": (
        lambda m, x: m.b(torch.cat([F.relu(m.a(x)), m.a(x)], 2)),
        {"a": lambda: nn.Conv2d(3, 4, 1), "b": lambda: nn.Conv2d(4, 4, 3, padding=1)},
    ),
    "squeeze and excite": (
        lambda m, x: m.b(F.relu(m.a(x)) * torch.sigmoid(m.s(F.relu(m.a(x)).mean((2, 3), keepdim=True)))),
        {"a": lambda: nn.Conv2d(3, 4, 1), "s": lambda: nn.Conv2d(4, 4, 1), "b": lambda: nn.Conv2d(4, 4, 1)},
    ),
    "grouped and transposed": (
        lambda m, x: m.b(F.silu(m.n(m.a(x)))),
        {
            "a": lambda: nn.Conv2d(3, 6, 3, groups=3),
            "n": lambda: wild_norm(6),
            "b": lambda: nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, groups=2, output_padding=1),
        },
    ),
    "channel shuffle": (
        lambda m, x: m.b(m.n(F.relu(m.a(x))).reshape(-1, 2, 3, 8, 8).transpose(1, 2).reshape(-1, 6, 8, 8)),
        {
            "a": lambda: nn.Conv2d(3, 6, 1),
            "n": lambda: wild_norm(6),
            "b": lambda: nn.Conv2d(6, 4, 3, padding=1),
        },
    ),
    "relu on the input, halves, maximum over channels": (
        lambda m, x: torch.cat([F.relu(x).chunk(2, 3)[1].amax(1, keepdim=True), m.a(x)[:, :1, :, ::2]], 1),
        {"a": lambda: nn.Conv2d(3, 4, 1)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_hard_cases_stay_close_and_lossless(name: str) -> None:
    """Fine grids give the module's own numbers, everywhere, borders included; and QNN = SNN."""
    forward, makers = CASES[name]
    torch.manual_seed(1)
    model = Module(forward, **{part: make() for part, make in makers.items()}).eval()
    x = torch.randint(0, 256, (24, 3, 8, 8)) / 255
    graph = sm.capture(model, x[:2])
    integer = sm.quantise(graph, x, FINE)
    with torch.no_grad():
        wanted = model(x)
    got = sm.evaluate(integer, x)
    spread = wanted.amax(0) - wanted.amin(0)
    assert float((got - wanted).abs().max() / spread.max()) < 0.05
    certificate = sm.verify(sm.convert(integer, sm.Lossless(sm.Graded(8))), integer, x[:6])
    assert certificate.lossless


def test_a_padded_norm_gets_a_bias_map_not_a_channel_bias() -> None:
    """Zero is zero: at the border fewer taps carry the norm's shift."""
    torch.manual_seed(0)
    _, makers = CASES["norm after relu before padding"]
    model = Module(lambda m, x: F.relu(m.b(m.n(F.relu(m.a(x))))), **{k: make() for k, make in makers.items()})
    x = torch.rand(8, 3, 8, 8)
    integer = sm.quantise(sm.capture(model.eval(), x[:2]), x, FINE)
    biased = [node.op for node in integer.neurons if isinstance(node.op, ops.Neuron) and node.op.bias]
    maps = [integer.tensors[op.bias] for op in biased if op.bias is not None]
    assert any(each.shape[-1] > 1 and bool((each[:, 0, 0] != each[:, 4, 4]).any()) for each in maps)


def test_pools_move_behind_rising_activations_only() -> None:
    conv = nn.Conv2d(3, 4, 1)
    swapped = planned(lambda m, x: F.relu(F.max_pool2d(m.a(x), 2)), a=conv)
    assert kinds(swapped) == ["Input", "Conv", "Quantiser", "MaxPool"]
    kept = planned(lambda m, x: m.b(F.silu(F.max_pool2d(m.a(x), 2))), a=conv, b=nn.Conv2d(4, 4, 1))
    assert kinds(kept) == ["Input", "Conv", "Quantiser", "MaxPool", "Quantiser", "Conv"]
    falling = planned(lambda m, x: F.relu(m.n(F.max_pool2d(m.a(x), 2))), a=conv, n=wild_norm(4))
    assert kinds(falling) == ["Input", "Conv", "Quantiser", "MaxPool", "Affine", "Quantiser"]


def test_chains_of_functions_are_one_neuron() -> None:
    graph = planned(lambda m, x: F.relu6(m.n(torch.tanh(m.a(x) * 2))), a=nn.Conv2d(3, 4, 1), n=wild_norm(4))
    (neuron,) = [node.op for node in graph.nodes if isinstance(node.op, ops.Quantiser)]
    assert [type(link) for link in neuron.chain] == [fn.Tanh, ops.Affine, fn.Clamp]


def test_a_value_with_two_readers_ends_its_chain() -> None:
    graph = planned(lambda m, x: torch.tanh(F.relu(m.a(x))) + F.relu(m.a(x)), a=nn.Conv2d(3, 4, 1))
    chains = [len(node.op.chain) for node in graph.nodes if isinstance(node.op, ops.Quantiser)]
    assert chains == [2, 1]

    def twice(m: Module, x: Tensor) -> Tensor:
        y = F.relu(m.a(x))
        return torch.tanh(y) + y

    shared = planned(twice, a=nn.Conv2d(3, 4, 1))
    assert [len(node.op.chain) for node in shared.nodes if isinstance(node.op, ops.Quantiser)] == [1, 1]


def test_linear_follows_linear_exactly_while_the_budget_lasts() -> None:
    short = planned(lambda m, x: m.b(m.a(x)), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1))
    assert kinds(short) == ["Input", "Conv", "Conv"]
    long = planned(
        lambda m, x: m.c(m.b(m.a(x))), a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(4, 4, 3), c=nn.Conv2d(4, 4, 3)
    )
    guards = [node for node in long.nodes if isinstance(node.op, ops.Quantiser)]
    assert len(guards) == 1
    assert "linear follows linear" in guards[0].op.reason
    assert not guards[0].op.chain


class SideBySide(nn.Module):
    """Half a picture's channels as they are, half from a smaller one: what a decoder with skips does."""

    def __init__(self, size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.near, self.far, self.size = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, 2, 1), size
        self.both = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        far = F.interpolate(torch.relu(self.far(x)), size=(self.size, self.size), mode="bilinear")
        return torch.relu(self.both(torch.cat((torch.relu(self.near(x)), far), 1)))


@pytest.mark.parametrize(("size", "bits", "guards"), [(12, 8, 0), (12, 6, 1), (13, 8, 1)])
def test_parts_side_by_side_are_weighed_alike_however_fine_they_are(
    size: int, bits: int, guards: int
) -> None:
    """Upsampled counts are many times finer than those beside them: short weights cannot serve both."""
    model, x = SideBySide(size).eval(), torch.randn(6, 3, size, size)
    graph, levels = sm.capture(model, x[:2]), Levels(activation=15, weight_bits=bits)
    found = [n.op for n in plan(graph, levels).nodes if isinstance(n.op, ops.Quantiser) and n.op.reason]
    assert len(found) == guards
    assert all("finer than another" in each.reason for each in found)
    wanted = model(x).detach()
    assert float((sm.evaluate(sm.quantise(graph, x, levels), x) - wanted).norm() / wanted.norm()) < 0.12


def test_a_wide_residual_branch_needs_no_identity_neuron_even_at_many_levels() -> None:
    """128 channels of 3x3 weights: the sum of 1,152 products of 8 bits each has room on the grid of a sum."""
    model = Module(
        lambda m, x: F.relu(m.second(F.relu(m.first(x))) + x),
        first=nn.Conv2d(128, 128, 3, padding=1),
        second=nn.Conv2d(128, 128, 3, padding=1),
    )
    graph = plan(sm.capture(model.eval(), torch.rand(2, 128, 4, 4)), Levels(activation=255))
    assert [node.name for node in graph.body if isinstance(node.op, ops.Quantiser) and node.op.reason] == []


def test_sums_of_sums_are_one_sum_with_signs() -> None:
    graph = planned(lambda m, x: m.a(x) - (m.b(x) - F.relu(x)), a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 3, 1))
    (total,) = [node for node in graph.nodes if isinstance(node.op, ops.Add)]
    assert total.op.signs == (1, -1, 1)


def test_planning_changes_no_number() -> None:
    """The planned graph, not quantised, is the captured graph."""
    for forward, makers in CASES.values():
        model = Module(forward, **{part: make() for part, make in makers.items()}).eval()
        x = torch.rand(3, 3, 8, 8, dtype=torch.float64)
        graph = sm.capture(model, x[:2].float())
        after = plan(graph, Levels())
        before = evaluate_float(graph, (x,))[graph.outputs[0]]
        assert torch.allclose(evaluate_float(after, (x,))[after.outputs[0]], before, atol=2e-3, rtol=1e-3)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
def test_fixed_point_rows_sum_exactly(rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.rand(rows, columns, dtype=torch.float64, generator=generator)
    matrix /= matrix.sum(1, keepdim=True)
    integers, denominator = rational(matrix)
    assert bool((integers.sum(1) == denominator).all())
    assert float((integers / denominator - matrix).abs().max()) <= columns / LARGEST_DENOMINATOR


@pytest.mark.parametrize(
    ("matrix", "wanted"),
    [
        (torch.tensor([[0.25, 0.75], [1.0, 0.0]]), ([[1, 3], [4, 0]], 4)),
        (torch.full((1, 49), 1 / 49), ([[1] * 49], 49)),
        (torch.tensor([[1 / 2, 1 / 3, 1 / 6]]), ([[3, 2, 1]], 6)),
    ],
)
def test_small_fractions_stay_exact(matrix: Tensor, wanted: tuple[list[list[int]], int]) -> None:
    integers, denominator = rational(matrix.double())
    assert (integers.tolist(), denominator) == wanted


def test_units_follow_numbers_through_rearrangement() -> None:
    """Channel shuffle keeps one unit a channel; flattening gives one a number; padding takes any."""
    pattern, _ = rearranged(ops.Reshape((2, 3, 4)), (6, 4), (6, 1))
    assert pattern == (2, 3, 1)
    pattern, index = rearranged(ops.Reshape((24,)), (6, 4), (6, 1))
    assert pattern == (24,)
    assert index[4:8].tolist() == [1] * 4
    pattern, _ = rearranged(ops.Pad((0, 0, 2, 1)), (6, 4), (6, 1))
    assert pattern == (6, 1)
    pattern, _ = rearranged(ops.Permute((1, 0)), (6, 4), (6, 1))
    assert pattern == (1, 6)


def test_a_broken_promise_names_the_pass() -> None:
    graph = sm.capture(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval(), torch.rand(2, 3, 8, 8))
    lazy = Pass("lazy", lambda each: each, removes=(ops.Elementwise,))
    with pytest.raises(GraphError, match=r"pass lazy: left 1\n"):
        run_passes(graph, (lazy,))
    broken = Pass("broken", lambda each: each.with_nodes(each.nodes[:-1]))
    with pytest.raises(GraphError, match=r"pass broken \(after: lazy\)"):
        run_passes(graph, (Pass("lazy", lambda each: each), broken))


def test_inspect_knows_every_op_that_capture_makes() -> None:
    """Flips and rolls become index maps; nothing that converts may be missing from the table."""
    model = Module(lambda m, x: F.relu(m.a(x.flip(3).roll(1, 2).clip(min=0))), a=nn.Conv2d(3, 4, 1)).eval()
    found = sm.inspect(model, torch.rand(2, 3, 8, 8))
    assert found.convertible
    assert {row.fate for row in found.rows} >= {"input", "linear", "neuron"}
    assert set(FATES) >= ops.FLOAT_OPS


def test_inspect_does_not_take_a_refused_result_for_an_input() -> None:
    model = Module(lambda m, x: F.relu(m.n(m.a(x))), a=nn.Conv2d(3, 4, 1), n=nn.GroupNorm(2, 4)).eval()
    rows = sm.inspect(model, torch.rand(2, 3, 8, 8)).rows
    assert [row.fate for row in rows].count("input") == 1
    assert "refused" in {row.fate for row in rows}
