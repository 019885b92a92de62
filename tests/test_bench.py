"""The benchmark: its fields, ratios, slopes, rivals that are absent, and bad input. No test judges a time."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

import spikemorph as sm
from graphs import Builder, network
from shipped import SHIPPED
from spikemorph.cli import bench as command
from spikemorph.convert.methods import convert
from spikemorph.errors import FileError, RunError, SpikemorphError, UsageError
from spikemorph.evaluate.encode import input_counts
from spikemorph.measure import bench as benching
from spikemorph.measure import timing
from spikemorph.measure.bench import BATCH, Bench, Row, Subject, bench, ratios
from spikemorph.measure.forward import fastest, float_forms
from spikemorph.measure.growth import growth, raised
from spikemorph.measure.peers import PEERS, Absent, Adapted, Peer
from spikemorph.measure.timing import Job, exponent, interleaved, summary, threads_of
from spikemorph.recipes import RECIPES
from spikemorph.run.dense import Dense

KEYS = {"engine", "batch", "threads", "ms_per_sample", "spread"}


class Tiny(nn.Module):
    """Conv, batch norm, ReLU, max-pool, conv, ReLU, linear on [n, 1, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.relu1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.pool, self.conv2, self.relu2 = nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU()
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(self.relu1(self.norm(self.conv1(x))))
        return self.head(self.relu2(self.conv2(y)).flatten(1))


class Functional(Tiny):
    """The same, one activation as a function: sinabs leaves it as it is, SpikingJelly refuses it."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(torch.relu(self.norm(self.conv1(x))))
        return self.head(self.relu2(self.conv2(y)).flatten(1))


class Reads(nn.Module):
    """A ReLU RNN over [n, 8, 3], its last state to two scores."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(3, 5, nonlinearity="relu", batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def subject(model: nn.Module, *shape: int, module: bool = True, name: str = "tiny") -> Subject:
    x = torch.rand(20, *shape)
    graph = sm.capture(model.eval(), x[:2])
    integer = sm.quantise(graph, x, sm.Levels(activation=4))
    return Subject(name, graph, integer, convert(integer), model if module else None, x)


@pytest.fixture(scope="module")
def tiny() -> Subject:
    torch.manual_seed(0)
    return subject(Tiny(), 1, 8, 8)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other simulator is installed."""
    real = builtins.__import__

    def refuse(name: str, *rest: object, **named: object) -> object:
        if name.split(".", maxsplit=1)[0] in PEERS:
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.usefixtures("alone")
def test_every_engine_has_a_row_and_every_absent_one_a_reason(tiny: Subject) -> None:
    seen: list[tuple[int, int]] = []
    made = bench(tiny, repeats=2, threads=1, progress=lambda done, total: seen.append((done, total)))
    found = {(row.engine, row.batch): row for row in made.rows}
    assert found.keys() == {
        (name, size) for name in ("event", "event-graded", "dense", "qnn", "float") for size in (1, BATCH)
    }
    assert seen[-1] == (2, 2)
    assert made.identical
    assert set(made.absent) == set(PEERS)
    assert all("spikemorph[peers]" in reason for reason in made.absent.values())
    for row in made.rows:
        assert row.threads == 1
        assert 0 < row.spread[0] <= row.ms_per_sample <= row.spread[1]
    event, dense = found["event", BATCH], found["dense", BATCH]
    assert (event.spikes, event.synaptic_operations, event.steps_max) == (
        dense.spikes,
        dense.synaptic_operations,
        dense.steps_max,
    )
    assert event.synaptic_operations_per_second == pytest.approx(
        1e3 * event.synaptic_operations / event.ms_per_sample
    )
    run = sm.simulate(tiny.network, benching.samples_of(tiny)[BATCH][0])
    assert event.spikes == run.spikes / BATCH
    assert event.steps_max == int(run.element_steps.max())
    assert {"processor", "cores", "load", "versions"} <= made.machine.keys()
    printed = json.loads(json.dumps(made.to_dict()))
    assert all(row.keys() >= KEYS for row in printed["rows"])
    assert printed["ratios"].keys() == printed["ratio_spread"].keys()


@pytest.mark.usefixtures("alone")
def test_ratios_are_those_of_the_rows(tiny: Subject) -> None:
    made = bench(tiny, repeats=3, threads=1)
    found = {(row.engine, row.batch): row.ms_per_sample for row in made.rows}
    assert made.ratios == {
        "event_to_float_b64": found["event", 64] / found["float", 64],
        "event_to_float_b1": found["event", 1] / found["float", 1],
        "event_to_qnn": found["event", 64] / found["qnn", 64],
        "event_to_dense": found["event", 64] / found["dense", 64],
        "event_graded_to_float_b64": found["event-graded", 64] / found["float", 64],
        "event_graded_to_float_b1": found["event-graded", 1] / found["float", 1],
        "event_graded_to_qnn": found["event-graded", 64] / found["qnn", 64],
        "event_graded_to_dense": found["event-graded", 64] / found["dense", 64],
    }
    steps = {row.engine: row.steps_max for row in made.rows}
    assert steps["event-graded"] < steps["event"]


def test_ratios_of_given_rows() -> None:
    def row(engine: str, batch: int, ms: float) -> Row:
        return Row(engine, batch, 1, ms, (ms, ms), "")

    rows = (row("event", 64, 3.0), row("float", 64, 6.0), row("event", 1, 2.0), row("sinabs", 64, 30.0))
    assert ratios(rows) == {"event_to_float_b64": 0.5, "event_to_sinabs": 0.1}


@pytest.mark.usefixtures("alone")
def test_a_sequence_has_both_ways_of_hand_over_and_no_peers() -> None:
    made = bench(subject(Reads(), 8, 3), repeats=1, threads=1)
    assert {row.engine for row in made.rows} == {
        "event",
        "event-delta",
        "event-graded",
        "event-graded-delta",
        "dense",
        "qnn",
        "float",
    }
    assert made.elements == 8
    assert made.identical
    assert {"event_to_float_b1", "event_delta_to_float_b1"} <= made.ratios.keys()
    assert all("recurrent" in reason for reason in made.absent.values())


def test_a_network_without_a_module_is_timed_by_its_graph() -> None:
    made = bench(subject(Tiny(), 1, 8, 8, module=False), repeats=1, threads=1)
    assert {row.setting for row in made.rows if row.engine == "float"} == {"float graph, node by node"}
    assert all("no torch module" in reason for reason in made.absent.values())


def test_outputs_that_differ_are_said(tiny: Subject) -> None:
    torch.manual_seed(1)
    other = subject(Tiny(), 1, 8, 8)
    mixed = Subject("mixed", tiny.float_graph, other.integer_graph, tiny.network, None, tiny.x)
    assert not bench(mixed, repeats=1, threads=1).identical


# ---------------------------------------------------------------- peers
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_runs_the_same_architecture(name: str) -> None:
    pytest.importorskip(name, exc_type=ImportError)
    adapted = _adapted(PEERS[name], Tiny())
    assert isinstance(adapted, Adapted), adapted
    x = torch.rand(4, 1, 8, 8)
    outputs = [form.call(form.place(x)) for form in adapted.forms]
    assert len(outputs) == 2
    assert isinstance(outputs[0], Tensor)
    assert isinstance(outputs[1], Tensor)
    assert outputs[0].shape == (4, 3)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)
    again = adapted.forms[0].call(adapted.forms[0].place(x))
    assert torch.equal(torch.as_tensor(again), outputs[0])  # nothing is kept between two runs
    assert adapted.spikes(adapted.forms[0].place(x)) > 0


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_that_does_not_convert_everything_has_no_row(name: str) -> None:
    pytest.importorskip(name, exc_type=ImportError)
    absent = _adapted(PEERS[name], Functional())
    assert isinstance(absent, Absent)
    assert "refuses" in absent.reason or "1 spiking layers of 2" in absent.reason


def _adapted(peer: Peer, model: nn.Module) -> Adapted | Absent:
    return peer(model.eval(), torch.rand(8, 1, 8, 8), 5, 2)


# ---------------------------------------------------------------- the float network
def test_every_form_of_a_module_computes_the_same() -> None:
    model, x = Tiny().eval(), torch.rand(6, 1, 8, 8)
    forms = float_forms(model, x)
    assert len({form.setting for form in forms}) == len(forms) >= 3
    for form in forms:
        torch.testing.assert_close(form.call(form.place(x)), model(x).detach(), rtol=1e-4, atol=1e-4)
    assert fastest(forms, (x,))[0] in forms


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_gives_its_float_network_as_a_module(name: str) -> None:
    recipe = RECIPES[name]
    graph = recipe.graph(None, "float")
    module = recipe.float_module(graph)
    assert module is not None
    x = torch.rand(2, *graph.inputs[0].shape)
    with torch.no_grad():
        pairs = zip(pytree.tree_leaves(module(x)), pytree.tree_leaves(sm.evaluate(graph, x)), strict=True)
    for got, wanted in pairs:
        assert got.shape == wanted.shape
        if not any(isinstance(each, nn.RNN) for each in module.modules()):
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


def test_a_module_of_another_architecture_is_refused() -> None:
    recipe = RECIPES["lidar"]
    with pytest.raises(FileError, match="recipe's own module"):
        recipe.float_module(RECIPES["fashion-mnist"].graph(None, "float"))


# ---------------------------------------------------------------- timing and growth
def test_the_exponent_of_a_known_power_law() -> None:
    assert exponent([(size, 3.0 * size**1.5) for size in (1, 2, 4, 8)]) == pytest.approx(1.5)
    assert exponent([(1, 2.0), (10, 2.0)]) == pytest.approx(0.0)
    assert exponent([(0, 1.0), (2, 1.0), (2, 3.0)]) is None
    assert exponent([]) is None


def test_repeats_are_interleaved() -> None:
    calls: list[str] = []
    jobs = [Job(lambda name=name: calls.append(name), samples=2) for name in "abc"]  # type: ignore[misc]
    times = interleaved(jobs, 2)
    assert "".join(calls) == "abc" + "abc" + "bca"
    assert [len(each) for each in times] == [2, 2, 2]


def test_times_are_those_of_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock ticks once a look, so every call takes one second."""
    clock = iter(range(100))
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    assert interleaved([Job(list), Job(list, samples=4)], 2) == ((1000.0, 1000.0), (250.0, 250.0))


def test_a_summary_is_the_median_and_its_percentiles() -> None:
    found = summary(tuple(float(each) for each in range(11)))
    assert (found.median, found.spread) == (5.0, (1.0, 9.0))


def test_threads_are_set_and_put_back() -> None:
    before = torch.get_num_threads()
    with threads_of(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_more_threads_than_any_core_has_use_for_are_refused() -> None:
    with pytest.raises(RunError, match="four times the cores"), threads_of(10_000):
        pass


def test_raised_thresholds_spike_less(tiny: Subject) -> None:
    counts = input_counts(tiny.network.graph, tiny.x)
    spikes = [
        sm.Event(threads=1).run(raised(tiny.network, by), counts, steps=None, record=()).spikes
        for by in (0.0, 0.2, 0.4)
    ]
    assert spikes[0] > spikes[1] > spikes[2]


def test_thresholds_of_falling_steps_are_raised_downwards() -> None:
    """2, 1, 0 where the sum reaches 4 and 8: at 3 the neuron rests at 2, with both moved by 4 at 1."""
    b = Builder()
    x = b.neuron(b.linear(b.input(0, (1,), 0, 9), [[1]]), 0, 2, [4, 8], values=[2, 1, 0])
    falling = network(b.graph(b.readout(x)))
    moved = raised(falling, 0.5)
    assert moved.graph.tensors[falling.graph.neurons[0].op.breakpoints].tolist() == [0, 4]
    counts = (torch.tensor([[3]]),)
    assert [Dense().run(each, counts, steps=None, record=()).spikes for each in (falling, moved)] == [2, 1]


def test_growth_has_all_curves(tiny: Subject) -> None:
    curves = growth(tiny, repeats=1, threads=1)
    assert set(curves) == {"spikes", "operations", "contrast", "batch", "steps", "length", "threads"}
    assert curves["length"].reason == "no sequence"
    for name in ("spikes", "operations", "contrast", "batch", "steps"):
        assert len(curves[name].points) >= 4
        assert curves[name].exponent is not None
    assert [point.at for point in curves["steps"].points] == [1, 2, 4, 8, 16, 32]


def test_a_sequence_grows_with_its_length() -> None:
    curve = growth(subject(Reads(), 8, 3), repeats=1, threads=1)["length"]
    assert [point.at for point in curve.points] == [1, 2, 4, 8]


# ---------------------------------------------------------------- the command
@pytest.mark.usefixtures("alone")
def test_the_command_prints_one_object_and_writes_the_same(
    tiny: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "subject_of", lambda recipe: tiny)
    wanted = command.Wanted(2, 1, growth=True, out=tmp_path / "bench.json")
    assert command.bench("lidar", wanted, as_json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "bench.json").read_text())
    assert printed["growth"]["batch"]["points"][0].keys() == {"at", "ms", "spread"}
    assert command.bench("lidar", command.Wanted(1, 1, growth=False), as_json=False) == 0
    shown = capsys.readouterr().out
    assert "event_to_float_b64" in shown
    assert "no row" in shown


@pytest.mark.parametrize(
    ("name", "wanted", "kind", "words"),
    [
        ("no-such", command.Wanted(1, 1), UsageError, "fashion-mnist"),
        ("lidar", command.Wanted(0, 1), RunError, "repeats"),
        ("lidar", command.Wanted(1, 0), RunError, "threads"),
        ("lidar", command.Wanted(1, 1, out=Path("no/such/folder/x.json")), FileError, "folder"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    name: str, wanted: command.Wanted, kind: type[SpikemorphError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        command.bench(name, wanted, as_json=True)


def test_the_library_refuses_repeats_of_zero(tiny: Subject) -> None:
    with pytest.raises(RunError, match="a whole number of at least 1"):
        bench(tiny, repeats=0, threads=1)
    empty = Subject("e", tiny.float_graph, tiny.integer_graph, tiny.network, None, tiny.x[:0])
    with pytest.raises(RunError, match="at least one sample"):
        bench(empty, repeats=1, threads=1)


def test_a_bench_is_plain_data(tiny: Subject) -> None:
    made = Bench("x", 1, 1, 1, (), {}, {}, identical=True, absent={}, machine={})
    assert json.loads(json.dumps(made.to_dict()))["growth"] == {}


def test_the_drawing_has_a_bar_for_every_ratio(tmp_path: Path) -> None:
    ratio = {"event_to_float_b64": 0.5, "event_to_sinabs": 0.02}
    spread = {name: (0.9 * value, 1.1 * value) for name, value in ratio.items()}
    facts = {"processor": "A & B"}
    made = Bench("x", 2, 1, 1, (), ratio, spread, identical=True, absent={}, machine=facts)
    held, out = tmp_path / "bench-x.json", tmp_path / "bench.svg"
    held.write_text(json.dumps(made.to_dict()))
    script = Path(__file__).parents[1] / "scripts" / "draw-bench"
    subprocess.run([sys.executable, str(script), str(out), str(held)], check=True)
    texts = [each.text for each in ElementTree.parse(out).iter("{http://www.w3.org/2000/svg}text")]
    assert {"0.5", "0.02", "sinabs, same steps", "x: 1 thread(s), A & B"} <= set(texts)
