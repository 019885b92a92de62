"""The event engine: equal to the others in every field, whatever the threads, batches and room."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from graphs import network, random_counts, random_integer_graph
from recurrent_graphs import assert_same_run, random_recurrent_graph
from spikemorph.convert.network import Encoding, Graded, Spike, Spikes, SpikingNetwork, Ternary
from spikemorph.errors import RunError
from spikemorph.evaluate.encode import input_counts
from spikemorph.ir.encoding import Analog
from spikemorph.ir.graph import Graph
from spikemorph.run.dense import Dense
from spikemorph.run.event import Event, elements, whole
from spikemorph.run.event.lower import lower
from spikemorph.run.event.pack import joined
from spikemorph.run.event.plans import space_for
from spikemorph.run.event.program import Kind, Program
from spikemorph.run.event.rows import narrowest
from spikemorph.run.event.tape import play_tape
from spikemorph.run.handover import Delta, Fresh, Handover, Replay
from spikemorph.run.record import Everything, Record, SpikeCounts
from spikemorph.run.result import Run

KINDS: list[tuple[Spike, Encoding]] = [
    (spike, encoding) for spike in (Ternary(), Graded(3)) for encoding in (Analog(), Spikes())
]
WAYS: tuple[Handover, ...] = (Fresh(), Delta())


def drawn(seed: int, *, loops: bool, batch: int = 5) -> tuple[SpikingNetwork, tuple[Tensor, ...]]:
    rng = np.random.default_rng(seed)
    graph = random_recurrent_graph(rng) if loops else random_integer_graph(rng)
    return network(graph), random_counts(rng, graph, batch)


def assert_same_totals(a: Run, b: Run) -> None:
    """Every field that a run without records of single steps has."""
    assert (a.steps, a.spikes, a.events, a.elements) == (b.steps, b.spikes, b.events, b.elements)
    assert torch.equal(a.element_steps, b.element_steps)
    assert torch.equal(a.element_settled, b.element_settled)
    for part in ("raw", "layer_spikes", "layer_events", "counts"):
        left, right = getattr(a, part), getattr(b, part)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left), part
    for one, two in zip(a.work, b.work, strict=True):
        assert one.arrivals.keys() == two.arrivals.keys()
        assert all(torch.equal(one.arrivals[name], two.arrivals[name]) for name in one.arrivals)


@example(seed=117844, kind=KINDS[0], steps=None, loops=True, handover=Fresh())  # an outer product over time
@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    steps=st.sampled_from([None, 1, 3]),
    loops=st.booleans(),
    handover=st.sampled_from(WAYS),
)
def test_any_graph_runs_as_in_the_dense_engine(
    seed: int, kind: tuple[Spike, Encoding], steps: int | None, loops: bool, handover: Handover
) -> None:
    net, counts = drawn(seed, loops=loops, batch=3)
    net = replace(net, spike=kind[0], encoding=kind[1])
    dense, event = (
        engine.run(net, counts, steps=steps, record=(Everything(),), handover=handover)
        for engine in (Dense(), Event())
    )
    assert_same_run(event, dense)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    loops=st.booleans(),
    handover=st.sampled_from(WAYS),
    steps=st.sampled_from([None, 2]),
)
def test_threads_and_batches_change_no_number(
    seed: int, loops: bool, handover: Handover, steps: int | None
) -> None:
    net, counts = drawn(seed, loops=loops)
    runs = [
        engine.run(net, counts, steps=steps, record=(SpikeCounts(),), handover=handover)
        for engine in (Dense(), Event(threads=1), Event(threads=3), Event(threads=2, batch=2))
    ]
    for run in runs[1:]:
        assert_same_totals(run, runs[0])


@pytest.mark.parametrize("record", [SpikeCounts(), Everything()])
@pytest.mark.parametrize("handover", WAYS)
def test_room_grows_on_demand(handover: Handover, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    grown: list[int] = []
    for module in (elements, whole):
        monkeypatch.setattr(module, "SPIKES", 1)
        monkeypatch.setattr(module, "STEPS", 1)
        monkeypatch.setattr(module, "space_for", lambda *room: grown.append(room[1]) or space_for(*room))
    for seed in range(12):
        net, counts = drawn(seed, loops=seed % 2 == 0)
        net = replace(net, encoding=Spikes())
        dense, event = (
            engine.run(net, counts, steps=None, record=(record,), handover=handover)
            for engine in (Dense(), Event(threads=1))
        )
        assert_same_totals(event, dense)
    assert max(grown) > 8, "nothing had to grow"


@pytest.mark.parametrize(("record", "steps"), [(SpikeCounts(), None), (SpikeCounts(), 1), (Everything(), 1)])
def test_chosen_graphs_run_as_in_the_dense_engine(record: Record, steps: int | None) -> None:
    """Random examples may miss a broken kernel for a whole run; these seeds show what mutants break."""
    for seed in range(12):
        spike, encoding = KINDS[seed % len(KINDS)]
        for loops in (False, True):
            net, counts = drawn(seed, loops=loops, batch=3)
            net = replace(net, spike=spike, encoding=encoding)
            dense, event = (
                engine.run(net, counts, steps=steps, record=(record,), handover=Delta())
                for engine in (Dense(), Event(threads=1))
            )
            assert_same_totals(event, dense)


class Reader(nn.Module):
    """A recurrence and scores of all its states."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(4, 6, nonlinearity="relu", batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(x)[0])
        return out


def test_room_that_grows_keeps_what_samples_of_any_length_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sample is brighter than those before, so it needs room when they have been counted."""
    torch.manual_seed(0)
    x = torch.rand(5, 7, 4)
    graph = sm.quantise(sm.capture(Reader().eval(), x[:2]), x, sm.Levels(activation=7))
    net = replace(sm.convert(graph), encoding=Spikes())
    counts = input_counts(graph, x * torch.tensor([0.01, 0.1, 0.2, 0.5, 1.0])[:, None, None])
    ends = torch.tensor([5, 7, 6, 7, 7])
    monkeypatch.setattr(elements, "SPIKES", 1)
    monkeypatch.setattr(elements, "STEPS", 1)
    dense, event = (
        engine.run(net, counts, steps=None, record=(SpikeCounts(),), lengths=ends)
        for engine in (Dense(), Event(threads=1))
    )
    assert_same_totals(event, dense)


# ---------------------------------------------------------------- torch modules
def program(model: nn.Module, x: Tensor, levels: sm.Levels) -> tuple[Graph, Program]:
    torch.manual_seed(0)
    graph = sm.quantise(sm.capture(model.eval(), x[:2]), x, levels)
    return graph, lower(graph, {node.name: (-1, 1) for node in graph.neurons})


class Blocks(nn.Module):
    """What residual, grouped, dense and upsampling networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 40, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.deep = nn.Sequential(
            nn.Conv2d(40, 40, 3, 1, 1, groups=40), nn.ReLU6(), nn.Conv2d(40, 40, 1, groups=4)
        )
        self.side = nn.Sequential(nn.Conv2d(40, 8, 3, 1, 2, dilation=2), nn.ReLU())
        self.up = nn.ConvTranspose2d(48, 6, 3, 2, 1)
        self.head = nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = torch.relu(self.deep(y) + y)
        y = torch.cat([y, self.side(y)], 1)
        y = torch.relu(self.up(y) + 0.1)
        y = nn.functional.interpolate(y, scale_factor=2.0, mode="bilinear")
        out: Tensor = self.head(torch.relu(y).mean((2, 3)))
        return out


@pytest.mark.parametrize("activation", [3, 15, 100])
def test_blocks_of_common_networks(activation: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 20, 20)
    graph, _ = program(Blocks(), x, sm.Levels(activation=activation))
    net = sm.convert(graph)
    runs = [sm.simulate(net, x, engine=engine, record=Everything()) for engine in (Dense(), Event(threads=1))]
    assert_same_run(runs[1], runs[0])
    whole_runs = [sm.simulate(net, x, engine=engine, record=SpikeCounts()) for engine in (Dense(), Event())]
    assert_same_totals(*whole_runs)
    assert sm.verify(net, graph, x, engine=Event(threads=2)).lossless


def test_narrow_sums_are_narrow_and_blocks_are_vectorised() -> None:
    torch.manual_seed(0)
    x = torch.rand(8, 3, 12, 12)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3), nn.ReLU()
    )
    _, made = program(model, x, sm.Levels(activation=3, weight_bits=4))
    kinds = [stage.kind for stage in made.stages]
    assert kinds == [Kind.ANALOG, Kind.NEURON, Kind.POOL, Kind.NEURON, Kind.READOUT]
    assert not made.stages[3].wide
    assert made.stages[3].bound < 2**15
    wide = program(model, x, sm.Levels(activation=15, weight_bits=8))[1]
    assert wide.stages[3].wide
    weights = [edge.rows for stage in made.stages for edge in stage.edges if edge.rows is not None]
    assert {each.dtype for each in weights} == {np.dtype(np.int8)}


@pytest.mark.parametrize(
    ("largest", "kind"), [(0, np.int8), (2**7 - 1, np.int8), (2**7, np.int16), (2**15, np.int32)]
)
def test_weights_lie_in_the_narrowest_type_that_holds_their_negatives_too(largest: int, kind: type) -> None:
    for sign in (1, -1):
        assert narrowest(np.array([[[0, sign * largest]]])) is kind


@pytest.mark.parametrize("steps", [None, 1, 2])
def test_a_pool_runs_with_the_neurons_that_it_alone_reads(steps: int | None) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, 12, 12)
    model = nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 40, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    )
    graph, made = program(model, x, sm.Levels(activation=3, weight_bits=4))
    assert joined(made) == {2: 3}
    net = sm.convert(graph)
    runs = [
        sm.simulate(net, x, engine=engine, steps=steps, record=SpikeCounts()) for engine in (Dense(), Event())
    ]
    assert runs[1].layer_spikes[graph.neurons[1].name].sum() > 0
    assert_same_totals(*runs)


class Subtracts(nn.Module):
    """A convolution taken off a linear layer: its channels lie apart in the flat sums."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.line, self.head = nn.Conv2d(2, 3, 3), nn.Linear(72, 48), nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.line(x.flatten(1)) - self.conv(x).flatten(1)))
        return out


def test_a_layer_whose_channels_lie_apart_is_subtracted() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 2, 6, 6)
    graph, _ = program(Subtracts(), x, sm.Levels(activation=7))
    runs = [
        sm.simulate(sm.convert(graph), x, engine=engine, record=SpikeCounts())
        for engine in (Dense(), Event(threads=1))
    ]
    assert_same_totals(runs[1], runs[0])


class Shifts(nn.Module):
    """A convolution whose windows add in behind a margin: no window has the number of its position."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6 * 8 * 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.pad(self.second(torch.relu(self.first(x))), (2, 0, 4, 0))
        out: Tensor = self.head(torch.relu(y).flatten(1))
        return out


def test_windows_that_add_in_behind_a_margin() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 2, 8, 8)
    graph, _ = program(Shifts(), x, sm.Levels(activation=7, weight_bits=4))
    runs = [
        sm.simulate(sm.convert(graph), x, engine=engine, record=SpikeCounts())
        for engine in (Dense(), Event(threads=1))
    ]
    assert_same_totals(runs[1], runs[0])


def test_a_changed_graph_compiles_nothing() -> None:
    sm.simulate(*_small(4), engine=Event(threads=1))
    before = len(play_tape.signatures)  # type: ignore[attr-defined]
    sm.simulate(*_small(9), engine=Event(threads=1))
    assert before == 1
    assert len(play_tape.signatures) == before  # type: ignore[attr-defined]


def _small(width: int) -> tuple[SpikingNetwork, Tensor]:
    x = torch.rand(4, width)
    graph = sm.quantise(sm.capture(nn.Sequential(nn.Linear(width, 3), nn.ReLU()).eval(), x), x, sm.Levels())
    return sm.convert(graph), x


def test_numbers_that_are_read_twice_count_twice() -> None:
    for seed in (42191, 7, 8, 9):
        net, counts = drawn(seed, loops=True, batch=3)
        dense, event = (
            engine.run(net, counts, steps=None, record=(Everything(),)) for engine in (Dense(), Event())
        )
        assert_same_run(event, dense)


@pytest.mark.parametrize("arguments", [{"threads": 0}, {"batch": 0}, {"threads": 1.5}, {"batch": True}])
def test_unfit_arguments_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(RunError, match=r"Event\((threads|batch)\)") as caught:
        Event(**arguments)
    assert caught.value.do


def test_raw_trains_are_not_replayed() -> None:
    net, counts = drawn(1, loops=True)
    with pytest.raises(RunError, match="Replay"):
        Event().run(net, counts, steps=4, record=(), handover=Replay())
