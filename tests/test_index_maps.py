"""Flips, rolls and permutations move numbers and round nothing: captured, quantised, trained, spiking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm
from sequences import Fn, noise
from spikemorph.ir import ops

LEVELS = sm.Levels(activation=7)
ORDER = torch.randperm(15, generator=torch.Generator().manual_seed(3))

MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": lambda x: x.flip(1),
    "flip of two axes": lambda x: x.flip(1, 2),
    "roll": lambda x: x.roll(2, 1),
    "permutation": lambda x: x.flatten(1)[:, ORDER].unflatten(1, (5, 3)),
    "selection": lambda x: x.index_select(1, torch.tensor([4, 4, 0, 1, 2])),
}


def recurrent(move: Callable[[Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(0)
    parts = {"r": nn.RNN(3, 6, batch_first=True), "l": nn.Linear(6, 2)}
    return Fn(lambda s, x: s.l(s.r(move(x))[0][:, -1]), **parts).eval()


def feed_forward(move: Callable[[Tensor], Tensor]) -> nn.Module:
    """Moved twice: numbers of the input, and counts behind a neuron."""
    torch.manual_seed(0)
    parts = {"k": nn.Linear(3, 3), "l": nn.Linear(15, 2)}
    return Fn(lambda s, x: s.l(move(s.k(move(x)).relu()).flatten(1)), **parts).eval()


MODELS: dict[str, Any] = {"recurrent": recurrent, "feed forward": feed_forward}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("move", MOVES)
def test_index_maps_are_quantised_trained_and_converted(move: str, model: str) -> None:
    module, x = MODELS[model](MOVES[move]), noise(24, 5, 3)
    network = sm.trainable(sm.capture(module, x[:3]), LEVELS, x)
    integer = sm.freeze(network)
    maps = [node for node in integer.nodes if isinstance(node.op, ops.AxisMap)]
    assert maps
    for node in maps:
        assert isinstance(node.op, ops.AxisMap)
        assert set(integer.tensors[node.op.matrix].unique().tolist()) == {0, 1}
    for handover in (sm.Fresh(), sm.Delta()):
        assert sm.verify(sm.convert(integer), integer, x, handover=handover).lossless
    with torch.no_grad():
        torch.testing.assert_close(sm.evaluate(integer, x), network(x), rtol=1e-5, atol=1e-5)
        assert float((sm.evaluate(integer, x) - module(x)).abs().max()) < 0.5


@pytest.mark.parametrize("move", [name for name in MOVES if name != "selection"])
def test_moving_the_input_inside_the_network_is_moving_it_in_front(move: str) -> None:
    """Integer by integer: an index map needs no rounding."""
    x = noise(24, 5, 3)
    moved = MOVES[move](x)
    inside = sm.quantise(sm.capture(recurrent(MOVES[move]), x[:3]), x, LEVELS)
    before = sm.quantise(sm.capture(recurrent(lambda each: each), x[:3]), moved, LEVELS)
    got, wanted = sm.evaluate_integers(inside, x), sm.evaluate_integers(before, moved)
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(got[name], value)
