"""The command line: what every command prints, writes and returns, and every bad input as one block."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import cli_models
from spikemorph.cli import main
from spikemorph.convert.files import load
from spikemorph.convert.network import Graded, Spikes, SpikingNetwork, Ternary
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.ir.ops import Neuron
from spikemorph.ir.store import graph_hash

pytest.importorskip("sklearn")
torch.set_num_threads(1)

SMALL, DIGITS = "cli_models:Small", ("--data", "digits", "--samples", "40")


@dataclass(frozen=True)
class Said:
    """The exit code and both streams of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


Command = Callable[..., Said]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `spikemorph ARGUMENTS` in this process, through the same entry point as the installed script."""

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["spikemorph", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return Said(int(left.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with converted networks, their certificate and bad files; tests only read it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        for model, name in ((SMALL, "net"), ("cli_models:other", "other")):
            out, qnn = folder / f"{name}.safetensors", folder / f"{name}-qnn.safetensors"
            words = ["convert", model, *DIGITS, "--levels", "3", "--out", str(out), "--qnn", str(qnn)]
            patch.setattr(sys, "argv", ["spikemorph", *words])
            with pytest.raises(SystemExit) as left:
                main()
            assert not left.value.code
        certify = ["verify", str(folder / "net.safetensors"), *DIGITS, "--certificate"]
        patch.setattr(sys, "argv", ["spikemorph", *certify, str(folder / "certificate.json")])
        with pytest.raises(SystemExit) as left:
            main()
        assert not left.value.code
    cli_models.lay_files(folder)
    return folder


# ---------------------------------------------------------------- inspect
def test_inspect_prints_a_row_for_each_operation(command: Command) -> None:
    said = command("inspect", SMALL, "--shape", "1,8,8", "--levels", "3")
    assert said.code == 0
    fates = {line.split()[1]: line for line in said.out.splitlines()[1:]}
    assert list(fates) == ["Input", "Affine", "Conv", "BatchNorm", "Relu", "MaxPool", "Reshape", "Linear"]
    assert "conv (cli_models.py:" in fates["Conv"]
    assert "counts 0..3" in fates["Relu"]


def test_inspect_takes_its_example_from_data_and_prints_one_object(command: Command) -> None:
    said = command("inspect", SMALL, "--data", "digits", "--json")
    assert said.code == 0
    assert said.json["convertible"] is True
    assert [row["op"] for row in said.json["rows"]][:3] == ["Input", "Affine", "Conv"]


def test_inspect_lists_everything_that_is_refused(command: Command) -> None:
    said = command("inspect", "cli_models:Refused", "--shape", "1,8,8", "--json")
    refused = [row for row in said.json["rows"] if row["fate"] == "refused"]
    assert said.code == 1
    assert said.json["convertible"] is False
    assert len(refused) == 2
    assert all(row["do"] and "cli_models.py:" in row["place"] for row in refused)
    table = command("inspect", "cli_models:Refused", "--shape", "1,8,8")
    assert table.code == 1
    assert "erfinv" in table.out
    assert "cumsum" in table.out


@pytest.mark.filterwarnings("ignore")
def test_inspect_reads_an_exported_program(command: Command, tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(
        cli_models.Small().eval(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, tmp_path / "net.pt2")
    said = command("inspect", tmp_path / "net.pt2", "--json")
    assert said.code == 0
    assert [row["op"] for row in said.json["rows"]][-1] == "Linear"


def test_what_a_model_prints_is_no_part_of_the_json(command: Command) -> None:
    said = command("inspect", "cli_models:talkative", "--shape", "1,8,8", "--json")
    assert said.json["convertible"]
    assert said.err == "a model is being made\n"


# ---------------------------------------------------------------- convert
def test_convert_writes_the_network_and_the_qnn(made: Path) -> None:
    network, qnn = load(made / "net.safetensors"), load(made / "net-qnn.safetensors")
    assert isinstance(network, SpikingNetwork)
    assert isinstance(qnn, Graph)
    assert qnn.dialect is Dialect.INTEGER
    assert network.source == graph_hash(network.graph) == graph_hash(qnn)
    assert network.spike == Ternary()
    assert [(each.op.lo, each.op.hi) for each in qnn.neurons if isinstance(each.op, Neuron)] == [(0, 3)]
    assert not list(made.glob(".spikemorph-*"))


def test_convert_takes_every_choice(command: Command, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    choices = ("--spike", "graded:4", "--per-channel", "--observer", "99.5", "--spike-input", "--json")
    weights = ("--weights", made / "good.safetensors", "--levels", 7, "--weight-bits", 4)
    said = command("convert", SMALL, *DIGITS, "--out", out, *choices, *weights)
    network = load(out)
    assert isinstance(network, SpikingNetwork)
    assert said.code == 0
    assert said.json["file"] == str(out)
    assert said.json["bytes"] == out.stat().st_size
    assert said.json["graph_hash"] == graph_hash(network.graph)
    assert said.json["neurons"] == 3 * 64 + 48
    assert (said.json["spike_kind"], said.json["analog_inputs"]) == ("graded(4)", "none")
    assert (network.spike, network.encoding) == (Graded(4), Spikes())
    weight = network.graph.tensors[network.graph.by_name["conv"].op.weight]  # type: ignore[union-attr]
    assert int(weight.abs().max()) == 7
    (neuron,) = [each.op for each in network.graph.neurons if isinstance(each.op, Neuron)]
    assert network.graph.tensors[neuron.breakpoints].shape == (3, 1, 1, 7)


def test_weights_and_observers_matter(command: Command, made: Path, tmp_path: Path) -> None:
    given = ("convert", "cli_models:other", *DIGITS, "--levels", 3, "--json")
    same = command(*given, "--weights", made / "good.pth", "--out", tmp_path / "a.safetensors")
    other = command(*given, "--observer", "max", "--out", tmp_path / "b.safetensors")
    original = load(made / "net.safetensors").source  # type: ignore[union-attr]
    assert same.json["graph_hash"] == original
    assert other.json["graph_hash"] not in {original, load(made / "other.safetensors").source}  # type: ignore[union-attr]


def test_a_failing_convert_writes_nothing_at_all(command: Command, tmp_path: Path) -> None:
    out, old = tmp_path / "net.safetensors", tmp_path / "old.safetensors"
    old.write_text("as it was")
    for words in (
        ("cli_models:Refused", "--out", old),
        (SMALL, "--out", out, "--qnn", tmp_path / "no" / "qnn.safetensors"),
        (SMALL, "--out", out, "--qnn", tmp_path / "." / "net.safetensors"),
    ):
        said = command("convert", *words, *DIGITS, "--json")
        assert (said.code, said.out) == (2, "")
        assert list(tmp_path.iterdir()) == [old]
        assert old.read_text() == "as it was"


def test_a_failing_convert_names_every_offence(command: Command, tmp_path: Path) -> None:
    said = command("convert", "cli_models:Refused", *DIGITS, "--out", tmp_path / "net.safetensors")
    assert "2 operation(s) without a spiking form" in said.err
    assert said.err.count("cli_models.py:") == 2


# ---------------------------------------------------------------- verify
def test_verify_writes_a_certificate(command: Command, made: Path, tmp_path: Path) -> None:
    file = tmp_path / "certificate.json"
    qnn = ("--qnn", made / "net-qnn.safetensors")
    said = command("verify", made / "net.safetensors", *DIGITS, *qnn, "--certificate", file, "--json")
    written = json.loads(file.read_text())
    assert said.code == 0
    assert said.json == {**written, "ok": True, "complaints": []}
    assert written["lossless"]
    assert (written["samples"], written["neurons_compared"]) == (40, 40 * 240)
    assert "LOSSLESS" in command("verify", made / "net.safetensors", *DIGITS).out


@pytest.mark.parametrize("engine", ["event", "dense", "reference"])
def test_recheck_agrees_with_either_engine(command: Command, made: Path, engine: str) -> None:
    checked = ("--recheck", made / "certificate.json", "--engine", engine, "--json")
    said = command("verify", made / "net.safetensors", *DIGITS, *checked)
    assert (said.code, said.json["engine"], said.json["complaints"]) == (0, engine, [])


def test_recheck_finds_a_changed_certificate(command: Command, made: Path, tmp_path: Path) -> None:
    forged = json.loads((made / "certificate.json").read_text()) | {"spikes": 1, "approved": True}
    (tmp_path / "forged.json").write_text(json.dumps(forged))
    given = ("verify", made / "net.safetensors", *DIGITS, "--recheck", tmp_path / "forged.json")
    said = command(*given, "--json")
    assert said.code == 1
    assert said.json["complaints"] == [
        f"spikes: the certificate says 1, measured {said.json['spikes']}",
        "approved: the certificate says True, measured None",
    ]
    assert "spikes: the certificate says 1" in command(*given).out


def test_recheck_finds_other_data(command: Command, made: Path) -> None:
    other = ("--data", "digits", "--samples", "40", "--split", "validation")
    said = command(
        "verify", made / "net.safetensors", *other, "--recheck", made / "certificate.json", "--json"
    )
    assert (said.code, said.json["lossless"]) == (1, True)
    assert any(each.startswith("data_hash: the certificate says") for each in said.json["complaints"])


def test_verify_locates_where_another_qnn_differs(command: Command, made: Path) -> None:
    given = ("verify", made / "net.safetensors", *DIGITS, "--qnn", made / "other-qnn.safetensors")
    said = command(*given, "--json")
    assert (said.code, said.json["ok"]) == (1, False)
    found = {(each["layer"], each["part"].partition(" ")[0]) for each in said.json["structural_differences"]}
    assert ("conv", "weight[0,") in found
    assert ("relu", "breakpoints[0,") in found
    assert said.json["first_difference"]["layer"] == "relu"
    assert "the network was converted from graph" in said.json["complaints"][0]
    table = command(*given)
    assert table.out.startswith("NOT LOSSLESS")
    assert "conv: weight[0, 0, 0, 0]" in table.out
    assert "first difference:" in table.out


# ---------------------------------------------------------------- run, data, reproduce
def test_run_reports_what_happened(command: Command, made: Path) -> None:
    said = command("run", made / "net.safetensors", *DIGITS, "--json")
    assert said.code == 0
    assert (said.json["samples"], said.json["settled"]) == (40, 40)
    assert said.json["accuracy"] in [100 * n / 40 for n in range(41)]
    assert sum(said.json["layers"].values()) == pytest.approx(said.json["spikes"] / 40)
    assert said.json["spikes_per_neuron"] == pytest.approx(said.json["spikes"] / 40 / 240)
    with_reference = command("run", made / "net.safetensors", *DIGITS, "--engine", "reference", "--json")
    assert with_reference.json == said.json


def test_run_says_how_many_samples_had_not_settled(command: Command, made: Path) -> None:
    given = ("run", made / "net.safetensors", *DIGITS, "--steps", 1)
    settled = command(*given, "--json").json["settled"]
    assert settled < 40
    said = command(*given, "--layers")
    assert said.code == 0
    assert f"{40 - settled} samples had not settled after 1 steps" in said.out
    assert "spikes a sample" in said.out
    assert "relu" in said.out
    assert "not settled" not in command("run", made / "net.safetensors", *DIGITS).out


def test_run_has_no_accuracy_without_labels(command: Command, made: Path) -> None:
    said = command("run", made / "net.safetensors", "--data", made / "x.npz", "--json")
    assert (said.code, said.json["accuracy"]) == (0, None)


def test_data_lists_the_named_sets(command: Command) -> None:
    rows = {row["name"]: row for row in command("data", "--json").json["sources"]}
    assert {"digits", "mnist", "fashion-mnist"} <= rows.keys()
    assert rows["digits"]["samples"] == 1797
    fetched = command("data", "--fetch", "digits")
    assert fetched.code == 0
    assert "digits" in fetched.out


def test_the_installed_script_has_the_same_exit_codes(made: Path) -> None:
    script = "from spikemorph.cli import main; main()"
    file = made / "missing.safetensors"
    words = [sys.executable, "-c", script, "run", str(file), "--data", "digits", "--json"]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"spikemorph: file {file}: no such file\n")


# ---------------------------------------------------------------- bad input
BAD_MODELS = [
    (("cli_models",), "MODEL: 'cli_models'"),
    ((":Small",), "MODEL: ':Small'"),
    (("cli_models:",), "MODEL: 'cli_models:'"),
    (("no_such:x:y",), "MODEL no_such:x:y: ModuleNotFoundError"),
    (("cli_models:absent",), "MODEL cli_models:absent: AttributeError"),
    (("cli_models:failing",), "MODEL cli_models:failing: RuntimeError: no such checkpoint"),
    (("cli_models:leaving",), "MODEL cli_models:leaving: SystemExit: 0"),
    (("cli_models:nothing",), "MODEL cli_models:nothing: a NoneType"),
    (("absent.pt2",), "absent.pt2: not readable"),
    (("broken.pt2",), "broken.pt2: not readable"),
    (("broken.pt2", "--weights", "good.pth"), "--weights: good.pth"),
    ((SMALL, "--weights", "absent.pth"), "--weights absent.pth: FileNotFoundError"),
    ((SMALL, "--weights", "foreign.pth"), "--weights foreign.pth: RuntimeError: Error(s) in loading"),
    ((SMALL, "--weights", "foreign.safetensors"), "--weights foreign.safetensors: RuntimeError"),
    ((SMALL, "--weights", "cut.safetensors"), "--weights cut.safetensors: SafetensorError"),
    ((SMALL, "--weights", "hostile.pth"), "--weights hostile.pth: damaged, or it holds objects"),
    ((SMALL, "--weights", "x.npz"), "--weights x.npz: "),
    ((SMALL, "--weights", "nan.pth"), "conv.weight: 9 of 27 values are NaN or infinite"),
]
BAD_CHOICES = [
    (("--levels", "0"), "Levels(activation): 0"),
    (("--levels", "256"), "Levels(activation): 256"),
    (("--weight-bits", "1"), "Levels(weight_bits): 1"),
    (("--weight-bits", "9"), "Levels(weight_bits): 9"),
    (("--spike", "foo"), "--spike: 'foo'"),
    (("--spike", "ternary:2"), "--spike: 'ternary:2'"),
    (("--spike", "graded:-1"), "--spike: 'graded:-1'"),
    (("--spike", "graded:²"), "--spike: 'graded:²'"),
    (("--spike", "graded:" + "9" * 5000), "--spike: 'graded:99"),
    (("--spike", "graded:0"), "Graded(largest): 0"),
    (("--spike", "graded:2147483648"), "Graded(largest): 2147483648"),
    (("--observer", "foo"), "--observer: 'foo'"),
    (("--observer", "101"), "--observer: '101'"),
    (("--observer", "nan"), "--observer: 'nan'"),
    (("--out", "absent/net.safetensors"), "file absent/net.safetensors: there is no folder"),
    (("--out", "."), "file .: a folder"),
    (("--samples", "0"), "--samples: 0"),
    (("--data", "nonsense"), "--data nonsense: no registered name"),
    (("--data", "absent.npz"), "absent.npz: no such file"),
    (("--data", "no-x.npz"), "no-x.npz: no array x, only z"),
    (("--data", "nan.npz"), "nan.npz: "),
    (("--data", "labels.npz"), "labels.npz: y of shape [3] beside 4 samples"),
    (("--data", "wide.npz"), "torch.export: "),
]
BAD_RUNS = [
    (("run", "absent.safetensors"), "file absent.safetensors: no such file"),
    (("run", "cut.safetensors"), "file cut.safetensors: "),
    (("run", "foreign.safetensors"), "file foreign.safetensors: a safetensors file of another program"),
    (("run", "net-qnn.safetensors"), "net-qnn.safetensors: a graph of the integer dialect"),
    (("run", "net.safetensors", "--steps", "0"), "simulate(steps): 0"),
    (("run", "net.safetensors", "--samples", "0"), "--samples: 0"),
    (("run", "net.safetensors", "--engine", "foo"), "--engine: 'foo'"),
    (("run", "net.safetensors", "--data", "wide.npz"), "input 'input': shape (4, 1, 10, 10)"),
    (("verify", "net.safetensors", "--data", "wide.npz"), "input 'input': shape (4, 1, 10, 10)"),
    (("verify", "net.safetensors", "--qnn", "absent.safetensors"), "file absent.safetensors: no such file"),
    (
        ("verify", "net.safetensors", "--certificate", "absent/c.json"),
        "file absent/c.json: there is no folder",
    ),
    (("verify", "net.safetensors", "--recheck", "absent.json"), "absent.json: "),
    (("verify", "net.safetensors", "--recheck", "bytes.json"), "bytes.json: "),
    (("verify", "net.safetensors", "--recheck", "broken.json"), "the certificate: Unterminated string"),
    (("verify", "net.safetensors", "--recheck", "list.json"), "the certificate: list"),
]
OTHERS = [
    (("inspect", SMALL), "the example input: neither --data nor --shape"),
    (("inspect", SMALL, "--shape", "1,x"), "--shape: '1,x'"),
    (("inspect", SMALL, "--shape", "1,0"), "--shape: '1,0'"),
    (("inspect", SMALL, "--shape", "1,8,8", "--levels", "0"), "Levels(activation): 0"),
    (("reproduce", "nonsense"), "reproduce: 'nonsense'"),
    (("data", "--fetch", "nonsense"), "data set: 'nonsense'"),
]
ALL = [
    *((("inspect", *words, "--shape", "1,8,8"), first) for words, first in BAD_MODELS),
    *((("convert", SMALL, "--data", "x.npz", "--out", "new", *words), first) for words, first in BAD_CHOICES),
    *(((*words[:2], "--data", "x.npz", *words[2:]), first) for words, first in BAD_RUNS),
    *OTHERS,
]


@pytest.mark.parametrize(("words", "first"), ALL, ids=[" ".join(words)[:60] for words, _ in ALL])
def test_bad_input_is_one_readable_block(
    command: Command, made: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], first: str
) -> None:
    monkeypatch.chdir(made)
    before = sorted(made.iterdir())
    said = command(*words, "--json")
    assert said.code == 2
    assert said.out == ""
    block = said.err[said.err.index("spikemorph: ") :]
    assert block.startswith(f"spikemorph: {first}")
    assert (block.count("\n  known: "), block.count("\n  do:    ")) == (1, 1)
    assert "Traceback" not in said.err
    assert "\x1b" not in said.err
    assert sorted(made.iterdir()) == before


@pytest.mark.parametrize("words", [("run",), ("run", "net", "--data", "digits", "--steps", "x"), ("nope",)])
def test_misspelt_commands_leave_stdout_empty(command: Command, words: tuple[str, ...]) -> None:
    said = command(*words, *(("--json",) if words[0] == "run" else ()))
    assert (said.code, said.out) == (2, "")
    assert "Usage:" in said.err
