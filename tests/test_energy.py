"""Operations, memory traffic and energy: counted by hand, priced by hand, read from files, and printed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm
from graphs import network
from spikemorph.cli import main
from spikemorph.convert.network import Graded, Spikes, SpikingNetwork
from spikemorph.errors import FileError
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.measure.compare import Books, Comparison
from spikemorph.measure.dense import bits_of_weights
from spikemorph.measure.energy import HOROWITZ_45NM, MODELS, PRICED, CostModel, Energies, Prices, verdict
from spikemorph.measure.ledger import COUNTED, Ledger, Operations
from spikemorph.measure.models import load_model
from spikemorph.measure.operations import synaptic_operations
from spikemorph.measure.spiking import layer_of
from spikemorph.run.handover import Delta, Fresh
from spikemorph.units import Joules

FIRST, SECOND = [[1, -2], [3, 1]], [[1, -4], [1, 1], [-1, 1]]


def by_hand() -> Graph:
    """Two numbers in 0..3, two neurons that count to one, three outputs."""
    tensors = {
        "unit": torch.tensor(1.0, dtype=torch.float64),
        "first": torch.tensor(FIRST),
        "ones": torch.tensor([1]),
        "second": torch.tensor(SECOND),
        "scale": torch.tensor(1.0, dtype=torch.float64),
    }
    nodes = (
        Node("x", ops.Input(0, 0, 3, "unit"), (), (2,)),
        Node("first", ops.Linear("first", None), ("x",), (2,)),
        Node("act", ops.Neuron(0, 1, "ones", None, None), ("first",), (2,)),
        Node("second", ops.Linear("second", None), ("act",), (3,)),
        Node("out", ops.Readout("scale", None, None), ("second",), (3,)),
    )
    return Graph(Dialect.INTEGER, nodes, ("out",), tensors)


def measured(net: SpikingNetwork, x: Tensor, **options: object) -> tuple[Comparison, sm.Run]:
    books, run = Books(net), sm.simulate(net, x, **options)
    books.add(run)
    return books.compare(), run


def test_a_spiking_run_is_counted_by_hand() -> None:
    """x = (2, 0): one number reaches two sums, 2 and 6; both neurons spike once; a spike reaches three."""
    found, _ = measured(network(by_hand()), torch.tensor([[2.0, 0.0]]))
    assert found.snn.layers == {
        "first": Operations(macs=2, weight_bits=2 * 3, accumulator_bits=2 * 2 * 16),
        "second": Operations(accumulates=6, weight_bits=6 * 3, accumulator_bits=2 * 6 * 16),
        "act": Operations(updates=2, spikes=2, events=2, state_bits=2 * 2 * (16 + 1), event_bits=2 * (2 + 1)),
        "x": Operations(activation_bits=2 * 2),
    }
    assert found.snn.total == sum(found.snn.layers.values(), Operations())


def test_dense_networks_are_counted_by_hand() -> None:
    found, _ = measured(network(by_hand()), torch.tensor([[2.0, 0.0]]))
    assert found.qnn.layers == {
        "x": Operations(activation_bits=2 * 2),
        "first": Operations(macs=4, weight_bits=4 * 3),
        "act": Operations(updates=2, activation_bits=2),
        "second": Operations(macs=6, weight_bits=6 * 3),
    }
    assert found.float.total == Operations(
        macs=10, updates=2, weight_bits=10 * 32, activation_bits=(2 + 2) * 32
    )


def test_the_float_network_is_the_one_given_without_what_integers_need() -> None:
    """An identity neuron is none in float32; another float graph is counted as it is."""
    graph = by_hand()
    helps = replace(graph.by_name["act"], op=replace(graph.by_name["act"].op, identity=True))
    nodes = tuple(helps if node.name == "act" else node for node in graph.nodes)
    books = Books(network(replace(graph, nodes=nodes)))
    assert books.compare().float.total == Operations(macs=10, weight_bits=320, activation_bits=2 * 32)
    wide = sm.capture(nn.Sequential(nn.Linear(2, 5), nn.ReLU()).eval(), torch.rand(3, 2))
    assert books.compare(wide).float.total == Operations(
        macs=10, updates=5, weight_bits=320, activation_bits=(2 + 5) * 32
    )


def test_energy_is_priced_by_hand() -> None:
    found, _ = measured(network(by_hand()), torch.tensor([[2.0, 0.0]]))
    costs = found.energies()
    assert costs.keys() == {model.name for model in MODELS}
    assert costs["45nm"].snn == pytest.approx((2 * 0.3 + 6 * 0.1 + 2 * 0.1) * 1e-12)
    assert costs["45nm"].qnn == pytest.approx((10 * 0.3 + 2 * 0.1) * 1e-12)
    assert costs["45nm"].float == pytest.approx((10 * 4.6 + 2 * 0.9) * 1e-12)
    assert costs["45nm-float32"].snn == pytest.approx((2 * 4.6 + 6 * 0.9) * 1e-12)
    assert costs["2409.03368"] == Energies(
        Joules(pytest.approx(125e-12)), None, Joules(pytest.approx((2 * 12.5 + 6 * 0.077) * 1e-12))
    )
    arithmetic, bit = costs["45nm"].snn * 1e12, 10 / 64
    stored = arithmetic + (24 + 68) * bit
    assert costs["memory"].snn == pytest.approx((stored + 2 * 3.0 + 4 * 0.25) * 1e-12)
    events = stored + 256 * bit + (6 + 4) * 2 * bit
    assert costs["memory-events"].snn == pytest.approx(events * 1e-12)


def test_silence_still_costs_one_look_at_every_neuron() -> None:
    found, run = measured(network(by_hand()), torch.zeros(3, 2))
    assert run.spikes == 0
    assert found.snn.total == Operations(updates=2, state_bits=2 * 2 * 17, activation_bits=4)


def test_only_single_spikes_accumulate() -> None:
    x = torch.tensor([[2.0, 0.0], [3.0, 3.0]])
    single, _ = measured(network(by_hand(), encoding=Spikes()), x)
    assert single.snn.total.macs == 0
    assert single.snn.total.activation_bits == 0
    graded, run = measured(network(by_hand(), spike=Graded(3)), x)
    assert graded.snn.total.accumulates == 0
    assert graded.snn.total.macs * 2 == synaptic_operations(run)


def test_ones_add_even_what_is_no_spike() -> None:
    graph = by_hand()
    ones = replace(graph, tensors={**graph.tensors, "first": torch.tensor([[1, -1], [1, 0]])})
    found, _ = measured(network(ones), torch.tensor([[2.0, 0.0]]))
    assert found.snn.layers["first"].accumulates == 2
    assert found.qnn.layers["first"] == Operations(accumulates=4, weight_bits=4 * 2)


@pytest.mark.parametrize(
    ("weight", "bits"), [([0, 1], 1), ([-1, 1], 2), ([-8, 7], 4), ([-8, 8], 5), ([0], 1)]
)
def test_weights_have_as_many_bits_as_they_need(weight: list[int], bits: int) -> None:
    assert bits_of_weights(torch.tensor(weight)) == bits


class Reader(nn.Module):
    """Convolution over time, ReLU RNN, last state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 4, stride=2, padding=1)
        self.rnn = nn.RNN(4, 6, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.rnn(torch.relu(self.conv(x)).transpose(1, 2))
        return self.head(states[:, -1])


@pytest.mark.parametrize("handover", [Fresh(), Delta()])
def test_a_sequence_adds_up(handover: Fresh | Delta) -> None:
    x = torch.rand(5, 1, 12)
    graph = sm.quantise(sm.capture(Reader().eval(), x[:2]), x, sm.Levels(7))
    net = sm.convert(graph)
    found, run = measured(net, x, handover=handover)
    total = found.snn.total
    assert total.spikes * 5 == pytest.approx(run.spikes)
    assert total.events * 5 == pytest.approx(run.events)
    assert (total.macs + total.accumulates) * 5 == pytest.approx(synaptic_operations(run))
    updates = 6 * int(run.element_steps.clamp(min=1).sum())
    assert found.snn.layers["rnn.l0"].updates * 5 == pytest.approx(updates)
    assert set(found.snn.layers) <= {*graph.by_name, *run.layer_spikes}
    assert found.qnn.layers["rnn.l0"].macs == 6 * 6 * 6


def test_batches_add_up() -> None:
    x = torch.rand(7, 2) * 3
    whole, parts = Books(network(by_hand())), Books(network(by_hand()))
    whole.add(sm.simulate(whole.network, x))
    for part in (x[:3], x[3:]):
        parts.add(sm.simulate(parts.network, part))
    assert parts.ledger == whole.ledger
    assert parts.samples == 7


def test_parts_of_a_layer_go_under_its_name() -> None:
    graph = by_hand()
    assert [layer_of(graph, name) for name in ("first", "first.3", "act.held", "act.0.handover")] == [
        "first", "first", "act", "act",
    ]  # fmt: skip


def test_every_count_has_a_price() -> None:
    assert [f"{name}s" for name in PRICED] == list(COUNTED)
    assert Prices(**dict.fromkeys(PRICED, 1.0)).of(Operations(*([1.0] * len(COUNTED)))) == pytest.approx(
        1e-11
    )
    assert Ledger({}).total == Operations()


def test_the_verdict_says_plainly_when_the_spiking_network_costs_more() -> None:
    cheap, dear = Energies(Joules(9.0), Joules(4.0), Joules(2.0)), Energies(None, Joules(4.0), Joules(8.0))
    assert verdict({"a": cheap, "b": dear}) == (
        "a: the SNN costs less than the QNN (0.5 times), less than the float network (0.222 times)",
        "b: the SNN costs MORE than the QNN (2 times), an unknown share of the float network, which this"
        " model has no price for",
        "The SNN costs more than the QNN of the same bits under 1 of 2 models: b.",
    )
    assert verdict({"a": cheap})[-1] == "The SNN costs less than the QNN of the same bits under all 1 models."


GOOD = {
    "name": "chip",
    "source": "sheet",
    "snn": {"accumulate": 0.1, "event": 2, "update": 0},
    "qnn": {"mac": 0.3},
}


@pytest.mark.parametrize("form", ["json", "toml"])
def test_a_model_of_the_users_own(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"chip.{form}"
    snn = "accumulate = 0.1\nevent = 2\nupdate = 0"
    toml = f'name = "chip"\nsource = "sheet"\n[snn]\n{snn}\n[qnn]\nmac = 0.3\n'
    path.write_text(json.dumps(GOOD) if form == "json" else toml)
    assert load_model(path) == CostModel(
        "chip", "sheet", None, Prices(mac=0.3), Prices(accumulate=0.1, event=2.0)
    )


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("[1]", "a list"),
        ("{", "Expecting property name"),
        (json.dumps({**GOOD, "gpu": {}}), "unknown entries gpu"),
        (json.dumps({**GOOD, "name": ""}), "''"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "source"}), "nothing"),
        (json.dumps({**GOOD, "name": HOROWITZ_45NM.name}), "'45nm'"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "snn"}), "prices of qnn"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "qnn"}), "prices of snn"),
        (json.dumps({**GOOD, "snn": 3}), "3"),
        (json.dumps({**GOOD, "snn": {}}), "{}"),
        (json.dumps({**GOOD, "snn": {"macs": 1}}), "unknown price macs"),
        (json.dumps({**GOOD, "snn": {"mac": -1}}), "-1"),
        (json.dumps({**GOOD, "snn": {"mac": True}}), "True"),
        (json.dumps({**GOOD, "snn": {"mac": "1"}}), "'1'"),
        (json.dumps({**GOOD, "snn": {"mac": float("nan")}}), "nan"),
        (json.dumps({**GOOD, "snn": {"mac": 10**400}}), "1000"),
        ("[" * 60000, "recursion"),
        (" " * 70000, "more than 65536 bytes"),
    ],
)
def test_a_bad_model_is_refused_in_four_parts(tmp_path: Path, text: str, got: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(FileError) as refused:
        load_model(path)
    error = refused.value
    assert str(path) in error.where
    assert got in error.got
    assert error.known
    assert error.do


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"No such file(.|\n)*known:(.|\n)*do:"):
        load_model(tmp_path / "none.toml")


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["spikemorph", "energy", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return (int(left.value.code or 0), *capsys.readouterr())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a network, data and a cost model."""
    import numpy as np

    sm.save(network(by_hand()), tmp_path / "net.safetensors")
    np.savez(
        tmp_path / "x.npz", x=np.array([[2.0, 0.0]] * 3, dtype=np.float32), y=np.zeros(3, dtype=np.int64)
    )
    (tmp_path / "chip.json").write_text(json.dumps(GOOD))
    return tmp_path


def test_the_command_prints_one_object(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (files / "net.safetensors", "--data", files / "x.npz", "--model", files / "chip.json", "--json")
    code, out, _ = said(monkeypatch, capsys, *words)
    printed = json.loads(out)
    assert code == 0
    assert printed["samples"] == 3
    assert printed["operations"]["snn"]["total"]["accumulates"] == 6
    assert printed["energy"]["chip"] == {
        "float": None, "qnn": pytest.approx(3e-12), "snn": pytest.approx(4.6e-12),
    }  # fmt: skip
    assert printed["energy"]["2409.03368"]["qnn"] is None
    assert set(printed["models"]) == {*(model.name for model in MODELS), "chip"}
    assert "MORE than the QNN" in next(line for line in printed["verdict"] if line.startswith("chip"))
    assert any("analog input" in note for note in printed["notes"])


def test_the_command_prints_tables_and_a_verdict(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (files / "net.safetensors", "--data", files / "x.npz", "--layers")
    code, out, _ = said(monkeypatch, capsys, *words)
    assert code == 0
    for text in ("MACs", "SNN, layer by layer", "second", "Horowitz", "under 2 of 3 models: memory"):
        assert text in out


@pytest.mark.parametrize(
    ("words", "got"),
    [
        (("net.safetensors",), "no recipe, and no --data"),
        (("fashion-mnist", "--samples", "0"), "0"),
        (("net.safetensors", "--data", "x.npz", "--handover", "slow"), "'slow'"),
        (("net.safetensors", "--data", "x.npz", "--model", "none.json"), "No such file"),
    ],
)
def test_the_command_refuses_in_one_block(
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    got: str,
) -> None:
    monkeypatch.chdir(files)
    code, out, err = said(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    assert got in err
    assert "known:" in err
    assert "do:" in err
