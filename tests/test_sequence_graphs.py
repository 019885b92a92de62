"""Recurrent graphs on disk, as text, from torch modules, and their trainable twins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from ir_graphs import assert_same
from recurrent_graphs import KINDS, How, Window, assert_same_run, float_graph, hows, quantised, samples
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.network import Encoding, Spike, SpikingNetwork
from spikemorph.evaluate.encode import input_counts
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.ir import ops
from spikemorph.ir.store import graph_hash
from spikemorph.ir.text import text
from spikemorph.run.handover import Delta


# ---------------------------------------------------------------- files
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(how=hows(most=12), kind=st.sampled_from(KINDS), seed=st.integers(0, 10**6))
def test_a_recurrent_network_comes_back_as_it_was(
    tmp_path: Path, how: How, kind: tuple[Spike, Encoding], seed: int
) -> None:
    graph, path = quantised(how, seed), tmp_path / "net.safetensors"
    net = sm.convert(graph, Lossless(*kind))
    sm.save(net, path)
    back = sm.load(path)
    assert isinstance(back, SpikingNetwork)
    assert_same(back.graph, net.graph)
    assert graph_hash(back.graph) == graph_hash(graph) == back.source
    axes = [node.element_axis for node in graph.nodes]
    assert [node.element_axis for node in back.graph.nodes] == axes
    assert (back.spike, back.encoding) == (net.spike, net.encoding)


def test_a_loaded_network_runs_as_the_saved_one(tmp_path: Path) -> None:
    how = How(elements=6, layers=2, both=True, front=(Window("conv", 3, 1, 1),), behind="last")
    net, x = sm.convert(quantised(how)), samples(how, 3)
    sm.save(net, tmp_path / "net.safetensors")
    back = sm.load(tmp_path / "net.safetensors")
    assert isinstance(back, SpikingNetwork)
    one, two = (sm.simulate(each, x, record=sm.Everything(), handover=Delta()) for each in (net, back))
    assert torch.equal(one.output, two.output)
    assert torch.equal(one.element_steps, two.element_steps)
    assert (one.spikes, one.events, one.steps) == (two.spikes, two.events, two.steps)
    assert one.trace is not None
    assert two.trace is not None
    assert all(torch.equal(one.trace[name], two.trace[name]) for name in one.trace)


def test_float_graphs_with_recurrences_come_back_too(tmp_path: Path) -> None:
    how = How(elements=5, both=True, state=True, relu=False)
    graph = float_graph(how, 1)
    sm.save(graph, tmp_path / "graph.safetensors")
    back = sm.load(tmp_path / "graph.safetensors")
    assert not isinstance(back, SpikingNetwork)
    assert_same(back, graph)
    assert torch.equal(sm.evaluate(back, samples(how, 2)), sm.evaluate(graph, samples(how, 2)))


# ---------------------------------------------------------------- text
def test_text_shows_the_recurrence_and_its_elements() -> None:
    graph = quantised(How(elements=5, both=True, behind="last"))
    lines = text(graph).splitlines()
    forward, backward = (next(line for line in lines if f" {node.name} " in line) for node in graph.neurons)
    for line, node in zip((forward, backward), graph.neurons, strict=True):
        assert f"Recurrence(weight={node.name}.weight, cell=Neuron(lo=0, hi=3, " in line
        assert f"breakpoints={node.name}.breakpoints" in line
        assert "[5 elements, 3]" in line
    assert "reverse=True" in backward
    assert "reverse" not in forward
    floats = text(float_graph(How(elements=5, relu=False), 0))
    assert "Recurrence(weight=w0, cell=Elementwise(function=Tanh()))" in floats


# ---------------------------------------------------------------- from torch
class Tagger(nn.Module):
    """A convolution, two layers both ways, the last states."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3, stride=2, padding=1)
        self.rnn = nn.RNN(3, 4, num_layers=2, bidirectional=True, batch_first=True, nonlinearity="relu")
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        _, h = self.rnn(torch.relu(self.conv(x)).transpose(1, 2))
        out: Tensor = self.head(h.transpose(0, 1).flatten(1))
        return out


def test_a_torch_module_from_capture_to_certificate() -> None:
    torch.manual_seed(1)
    x = torch.randn(6, 2, 13)
    graph = sm.capture(Tagger().eval(), x[:2])
    integer = sm.quantise(graph, x, sm.Levels(activation=7))
    net = sm.convert(integer)
    for handover in (sm.Fresh(), sm.Delta()):
        for engine in (sm.Dense(), sm.Reference()):
            made = sm.verify(net, integer, x, handover=handover, engine=engine)
            assert made.lossless
            assert (made.neurons_different, made.outputs_different, made.elements) == (0, 0, 13)
    runs = [
        engine.run(net, input_counts(integer, x), steps=None, record=(sm.Everything(),), handover=Delta())
        for engine in (sm.Dense(), sm.Reference())
    ]
    assert_same_run(*runs)


# ---------------------------------------------------------------- trainable twins
TWINS: dict[str, How] = {
    "relu": How(elements=9, behind="linear"),
    "tanh": How(elements=9, relu=False, behind="last"),
    "two layers both ways": How(elements=6, layers=2, both=True, behind="mean"),
    "given state": How(elements=6, state=True, behind="last"),
    "front and residual": How(elements=9, front=(Window("conv", 3, 2, 1),), residual=True, behind="linear"),
}


@pytest.mark.parametrize("name", TWINS)
def test_a_trained_twin_is_its_integer_graph(name: str) -> None:
    how = TWINS[name]
    x = samples(how, 64, 5)
    twin = sm.trainable(float_graph(how, 3), sm.Levels(activation=15), x)
    before = {key: each.detach().clone() for key, each in twin.named_parameters()}
    optimiser = torch.optim.Adam(twin.parameters(), lr=0.01)
    for _ in range(4):
        optimiser.zero_grad()
        out, activity = twin.with_activity(*x)
        (out.square().mean() - out.mean() + 0.1 * activity).backward()
        optimiser.step()
    graph = sm.freeze(twin)
    loops = [node for node in graph.neurons if isinstance(node.op, ops.Recurrence)]
    assert len(loops) == how.layers * (1 + how.both)
    rest = evaluate_counts(graph, input_counts(graph, x))
    with torch.no_grad():
        values, _ = twin.integers(*x)
    same = [(values[node.name].double() == rest[node.name]).flatten() for node in graph.neurons]
    assert float(torch.cat(same).double().mean()) >= 0.9999
    moved = {key for key, each in twin.named_parameters() if not torch.equal(each, before[key])}
    assert moved == before.keys()


@pytest.mark.parametrize("name", TWINS)
def test_gradients_reach_every_parameter(name: str) -> None:
    how = TWINS[name]
    x = samples(how, 64, 5)
    twin = sm.trainable(float_graph(how, 3), sm.Levels(activation=15), x)
    twin(*x).square().mean().backward()
    for key, each in twin.named_parameters():
        assert each.grad is not None, key
        assert bool(each.grad.isfinite().all()), key
        assert bool((each.grad != 0).any()), key
    loops = [node.op for node in twin.graph.nodes if isinstance(node.op, ops.Recurrence)]
    assert len(loops) == how.layers * (1 + how.both)
    assert all(twin.tensor(op.weight).grad is not None for op in loops)
