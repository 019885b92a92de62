"""The command line on recurrent networks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spikemorph.cli import main

MODEL = "cli_models:TimeFirst"
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


def test_a_model_may_take_time_first(command: Command, tmp_path: Path) -> None:
    """Data has the batch first all the same."""
    data, net, axis = tmp_path / "x.npz", tmp_path / "net.safetensors", ("--batch-axis", 1)
    np.savez(data, x=np.random.default_rng(0).normal(size=(20, 5, 8)).astype(np.float32))
    assert command("inspect", MODEL, "--shape", "5,8", *axis)[0] == 0
    assert command("inspect", MODEL, "--data", data, *axis)[0] == 0
    code, out, _ = command("convert", MODEL, "--data", data, "--out", net, *axis, "--json")
    assert (code, json.loads(out)["elements"]) == (0, 5)
    code, out, _ = command("verify", net, "--data", data, "--handover", "delta", "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)


def test_a_model_that_takes_time_first_is_told_the_option(command: Command) -> None:
    code, _, err = command("inspect", MODEL, "--shape", "5,8")
    assert code == 2
    assert "--batch-axis 1" in err


def test_axes_that_samples_do_not_have_are_refused(command: Command) -> None:
    code, out, err = command("inspect", MODEL, "--shape", "5,8", "--batch-axis", 3)
    assert (code, out) == (2, "")
    assert err.split("\n")[:3] == [
        "spikemorph: --batch-axis: 3 for samples of shape [2, 5, 8]",
        "  known: an axis from 0 to 2",
        "  do:    1 for a model that takes [elements, batch, ...]; leave it out for [batch, ...]",
    ]
