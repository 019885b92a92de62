"""The command line against the float network: errors by layer, errors of the outputs over steps."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cli_models import Small
from spikemorph.cli import main

pytest.importorskip("sklearn")
torch.set_num_threads(1)

SMALL, DIGITS = "cli_models:Small", ("--data", "digits", "--samples", "20")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The exit code and both streams of `spikemorph ARGUMENTS`."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spikemorph", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture
def net(command: Command, tmp_path: Path) -> Path:
    """A converted network, its float network beside it."""
    out = tmp_path / "net.safetensors"
    assert command("convert", SMALL, *DIGITS, "--levels", "31", "--out", out, "--float")[0] == 0
    assert (tmp_path / "net.float.safetensors").is_file()
    return out


def errors(command: Command, *arguments: object) -> dict[str, object]:
    code, out, _ = command("run", *arguments, *DIGITS, "--layers", "--json")
    assert code == 0
    found: dict[str, object] = json.loads(out)["errors"]
    return found


def test_layers_are_compared_with_the_float_network_beside(command: Command, net: Path) -> None:
    found = errors(command, net)
    assert found["samples"] == 20
    assert found["first_broken"] is None
    layers = found["layers"]
    assert isinstance(layers, list)
    assert [layer["kind"] for layer in layers] == ["input", "neuron", "pool", "output"]
    assert 0 < layers[1]["added"] < 0.1
    assert layers[1]["unsettled"] == 0
    code, out, _ = command("run", net, *DIGITS, "--layers")
    assert code == 0
    assert "error by layer, against the float network" in out
    assert "no layer breaks: 'relu' adds the most" in out


def test_the_layer_that_breaks_first_is_named(command: Command, net: Path) -> None:
    assert errors(command, net, "--steps", 3)["first_broken"] == "relu"
    code, out, _ = command("run", net, *DIGITS, "--layers", "--steps", 3)
    assert code == 0
    assert "breaks first: it adds an error of" in out
    assert "it is not settled; run more steps" in out
    assert errors(command, net, "--steps", 3, "--threshold", 2)["first_broken"] is None


def test_the_model_itself_may_be_given(command: Command, net: Path, tmp_path: Path) -> None:
    beside = errors(command, net)
    (tmp_path / "net.float.safetensors").rename(tmp_path / "elsewhere.safetensors")
    assert errors(command, net, "--against", SMALL) == beside
    assert errors(command, net, "--against", tmp_path / "elsewhere.safetensors") == beside
    torch.save(Small().state_dict(), tmp_path / "small.pth")
    other = ("--against", "cli_models:other")
    assert errors(command, net, *other, "--weights", tmp_path / "small.pth") == beside
    assert errors(command, net, *other)["first_broken"] == "relu"


def test_without_it_the_qnn_is_compared_and_the_way_is_said(command: Command, net: Path) -> None:
    net.with_name("net.float.safetensors").unlink()
    code, out, _ = command("run", net, *DIGITS, "--layers", "--steps", 2)
    assert code == 0
    assert "error by layer, against the QNN" in out
    assert "'relu' (the model" in out
    assert "no float network to compare with: give the model again, --against package.module:factory" in out


def test_what_is_no_float_network_is_refused(command: Command, net: Path, tmp_path: Path) -> None:
    code, out, err = command("run", net, *DIGITS, "--layers", "--against", net)
    assert (code, out) == (2, "")
    assert f"{net}: no float network" in err
    code, _, err = command("run", net, *DIGITS, "--layers", "--weights", tmp_path / "x.pth")
    assert code == 2
    assert "--weights: " in err
    assert "add --against package.module:factory" in err


def test_the_qnn_may_not_take_the_place_of_the_float_network(command: Command, tmp_path: Path) -> None:
    out, qnn = tmp_path / "a.safetensors", tmp_path / "a.float.safetensors"
    code, _, err = command("convert", SMALL, *DIGITS, "--out", out, "--qnn", qnn, "--float")
    assert code == 2
    assert "give the QNN a name of its own" in err
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- over steps
def test_errors_over_steps_stand_in_a_table(command: Command, net: Path) -> None:
    code, out, _ = command("run", net, *DIGITS, "--over", "1,4,16", "--json")
    assert code == 0
    found = json.loads(out)["over_steps"]
    assert [row["steps"] for row in found["rows"]] == [1, 4, 16, None]
    assert found["rows"][-1]["relative"] < found["rows"][0]["relative"]
    assert found["rows"][-1]["accuracy"] == json.loads(out)["accuracy"]
    code, out, _ = command("run", net, *DIGITS, "--over", "1,4,16")
    assert code == 0
    assert "decoded outputs against the float network" in out
    assert "at rest" in out
    assert "acc %" in out


def test_regression_has_errors_to_its_targets(command: Command, net: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(0, 16, size=(5, 1, 8, 8)).astype(np.float32)
    y = np.random.default_rng(1).normal(size=(5, 10))
    np.savez(tmp_path / "targets.npz", x=x, y=y)
    code, out, _ = command("run", net, "--data", tmp_path / "targets.npz", "--over", "4", "--json")
    assert code == 0
    assert json.loads(out)["accuracy"] is None
    over = json.loads(out)["over_steps"]
    wanted = Small().eval()(torch.from_numpy(x)).detach().double().numpy()
    assert over["float_to_labels"]["output"] == pytest.approx(((wanted - y) ** 2).mean(), rel=1e-4)
    assert over["rows"][0]["to_labels"] > 0


@pytest.mark.parametrize("steps", ["", "0", "2,1", "1,1", "1,,2", "1.5", "x", "1" * 12])
def test_a_list_of_steps_rises(command: Command, net: Path, steps: str) -> None:
    code, out, err = command("run", net, *DIGITS, "--over", steps)
    assert (code, out) == (2, "")
    assert "--over: " in err


def test_errors_over_steps_need_the_float_network(command: Command, net: Path) -> None:
    net.with_name("net.float.safetensors").unlink()
    code, out, err = command("run", net, *DIGITS, "--over", "1")
    assert (code, out) == (2, "")
    assert "--over: no float network" in err
    assert "--against" in err


# ---------------------------------------------------------------- told before any work, and told plainly
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--layers", "--threshold", "0"), "--threshold: 0"),
        (("--layers", "--against", "cli_models:nothing"), "cli_models:nothing"),
        (("--threshold", "0.5"), "--threshold: given together with neither --layers nor --over"),
        (("--over", "1,2", "--threshold", "0.5"), "--threshold: given together with no --layers"),
        (("--against", SMALL), "--against: given together with neither --layers nor --over"),
    ],
)
def test_what_cannot_be_is_said_before_samples_run(
    command: Command, net: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr("spikemorph.cli.run._runs", None)
    code, _, err = command("run", net, *DIGITS, *words)
    assert code == 2
    assert said in err


def test_another_float_network_is_suspected(command: Command, net: Path) -> None:
    code, out, _ = command("run", net, *DIGITS, "--layers", "--against", "cli_models:other")
    assert code == 0
    assert "is it the float network, with the weights, that this one was converted from?" in out


def test_samples_of_another_shape_are_named(command: Command, tmp_path: Path) -> None:
    data, out = tmp_path / "x.npz", tmp_path / "net.safetensors"
    np.savez(data, x=np.zeros((20, 1, 12, 12), np.float32))
    code, _, err = command("convert", SMALL, "--data", data, "--out", out)
    assert code == 2
    assert f"samples of shape [1, 12, 12], those of --data {data}" in err.replace("\n", " ")
    assert not out.exists()


def test_a_rate_network_is_not_said_to_be_settled(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "rate.safetensors"
    assert command("convert", SMALL, *DIGITS, "--method", "rate", "--out", out)[0] == 0
    code, said, _ = command("run", out, *DIGITS, "--steps", "4", "--json")
    assert code == 0
    assert json.loads(said)["settled"] is None
