"""Step functions against brute force, and how torch looks them up."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikemorph.evaluate.functions import apply, never_negative, non_decreasing, turning_points
from spikemorph.evaluate.steps import step_function
from spikemorph.ir import functions as fn
from spikemorph.ir.ops import Affine, Neuron, Quantiser
from spikemorph.passes.levels import count_range
from spikemorph.quantise.tables import FAR, StepTable, step_table

FUNCTIONS = [
    fn.Relu(),
    fn.Clamp(0.0, 6.0),
    fn.Clamp(-1.0, 1.0),
    fn.LeakyRelu(0.1),
    fn.LeakyRelu(-0.5),
    fn.Sigmoid(),
    fn.Tanh(),
    fn.HardSigmoid(),
    fn.HardSwish(),
    fn.Silu(),
    fn.Swish(1.702),
    fn.Swish(-0.5),
    fn.Swish(0.0),
    fn.Mish(),
    fn.Gelu(),
    fn.Gelu(tanh=True),
    fn.Elu(),
    fn.Elu(alpha=-0.5),
    fn.Elu(alpha=-0.4, scale=-0.6),
    fn.Elu(alpha=0.4, scale=-0.6),
    fn.Softplus(beta=-1.0),
    fn.Clamp(0.5, -1.0),
    fn.Softplus(),
    fn.Abs(),
]


def looked_up(table: StepTable, lo: int, hi: int, acc: Tensor) -> Tensor:
    """F(acc) for acc [n, groups], as the engines read the table."""
    op = Neuron(lo, hi, "b", None if table.values is None else "v", None)
    tensors = {"b": table.breakpoints} | ({} if table.values is None else {"v": table.values})
    return step_function(op, acc, tensors, tuple(acc.shape[1:]))


def brute(chain: tuple[object, ...], x: Tensor, step: float, lo: int, hi: int) -> Tensor:
    for link in chain:
        x = apply(link, x) if not isinstance(link, Affine) else -0.5 * x + 0.25
    return (x / step + 0.5).floor().clamp(lo, hi)


@settings(max_examples=60)
@given(
    chain=st.lists(st.sampled_from(FUNCTIONS), min_size=0, max_size=3),
    affine=st.booleans(),
    unit=st.floats(0.001, 0.3),
    gain=st.sampled_from([1.0, -1.0]),
    rest=st.floats(-2, 2),
    step=st.floats(0.02, 1.0),
    p=st.sampled_from([1, 2, 3, 7, 15, 40]),
    signed=st.booleans(),
)
def test_a_table_is_its_function_at_every_integer(
    chain: list[fn.Function],
    affine: bool,
    unit: float,
    gain: float,
    rest: float,
    step: float,
    p: int,
    signed: bool,
) -> None:
    links: tuple[fn.Function | Affine, ...] = tuple(chain)
    if affine and len(links) > 1:
        links = (links[0], Affine("g", "o"), *links[1:])
    tensors = {"g": torch.tensor(-0.5).double(), "o": torch.tensor(0.25).double()}
    lo, hi = count_range(p, signed=signed)
    op = Quantiser(links, lo, hi)
    units = torch.tensor([gain * unit, unit * 0.37, 0.0], dtype=torch.float64)
    rests = torch.tensor([rest, -rest, rest], dtype=torch.float64)
    table = step_table(op, units, rests, torch.tensor([step], dtype=torch.float64), tensors)
    acc = torch.arange(-4000, 4001, dtype=torch.float64).unsqueeze(1).expand(-1, 3)
    wanted = brute(links, units * acc + rests, step, lo, hi)
    assert torch.equal(looked_up(table, lo, hi, acc), wanted)


@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
def test_breakpoints_are_sorted_and_values_stay_in_range(function: fn.Function) -> None:
    table = step_table(
        Quantiser((function,), -8, 8),
        torch.tensor([0.01, -0.02]).double(),
        None,
        torch.tensor([0.1]).double(),
        {},
    )
    assert bool((table.breakpoints.diff(dim=-1) >= 0).all())
    assert int(table.breakpoints.abs().max()) <= FAR
    if table.values is not None:
        assert int(table.values.min()) >= -8
        assert int(table.values.max()) <= 8


@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
def test_what_is_said_of_a_function_is_true(function: fn.Function) -> None:
    """Its sign decides the counts' range, its turning points where tables are searched."""
    x = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    y = apply(function, x)
    assert not never_negative(function) or bool((y >= 0).all())
    assert not non_decreasing(function) or bool((y.diff() >= -1e-12).all())
    edges = [-12.0, *turning_points(function), 12.0]
    for left, right in pairwise(edges):
        slope = y[(x >= left) & (x <= right)].diff()
        assert bool((slope >= -1e-9).all()) or bool((slope <= 1e-9).all())


def test_ties_go_up() -> None:
    """A value of exactly (k - 1/2) units counts k."""
    op = Quantiser((fn.Relu(),), 0, 3)
    table = step_table(op, torch.tensor(0.5).double(), None, torch.tensor(1.0).double(), {})
    assert table.breakpoints.tolist() == [1, 3, 5]
    assert table.values is None


@settings(max_examples=40)
@given(
    groups=st.sampled_from([(1,), (3,), (3, 1, 1), (1, 1, 4), (3, 2, 4), ()]),
    n=st.sampled_from([1, 3, 8, 9, 30]),
    rising=st.booleans(),
    seed=st.integers(0, 9999),
)
def test_few_and_many_breakpoints_are_looked_up_alike(
    groups: tuple[int, ...], n: int, rising: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 2, 4) if len(groups) == 3 else (3,) if groups else ()
    breakpoints = torch.randint(-50, 50, (*groups, n), generator=generator).sort(-1).values
    values = None if rising else torch.randint(-5, 6, (*groups, n + 1), generator=generator)
    acc = torch.randint(-60, 60, (5, *shape), generator=generator).double()
    found = looked_up(StepTable(breakpoints, values), 0, n, acc)
    k = (acc.unsqueeze(-1) >= breakpoints).sum(-1)
    wanted = k if values is None else values.expand(*acc.shape, n + 1).gather(-1, k.unsqueeze(-1)).squeeze(-1)
    assert torch.equal(found, wanted.double())
