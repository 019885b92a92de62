"""Saved streams: what is damaged, or of another network, never reaches the kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import spikemorph as sm
from spikemorph.convert.network import Graded
from spikemorph.errors import DataError, FileError, UsageError
from spikemorph.run.event import tables
from test_stream import reading, small

Change = Callable[[dict[str, Tensor]], object]
DAMAGED: dict[str, Change] = {
    "smaller state": lambda made: made.update({"state.narrow": made["state.narrow"][:, :1]}),
    "state of another type": lambda made: made.update({"state.narrow": made["state.narrow"].int()}),
    "half of the state": lambda made: made.pop("state.wide"),
    "no state": lambda made: [made.pop("state.wide"), made.pop("state.narrow")],
    "more": lambda made: made.update({"other": torch.zeros(1)}),
    "less": lambda made: made.pop("input.0"),
    "before the start": lambda made: made.update({"at": torch.tensor([-5, 1])}),
    "behind the end": lambda made: made.update({"at": torch.tensor([99, 1])}),
    "rounds behind the end": lambda made: made.update({"at": torch.tensor([4, 99])}),
    "a place of another type": lambda made: made.update({"at": torch.tensor([4.0, 4.0])}),
}


def saved(path: Path) -> tuple[sm.SpikingNetwork, Path]:
    net, x = reading()
    session = sm.stream(net)
    for n in range(4):
        session.push(x[:1, n])
    session.save(path / "s.safetensors")
    return net, path / "s.safetensors"


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_files_are_refused(how: str, tmp_path: Path) -> None:
    net, file = saved(tmp_path)
    made = load_file(file)
    sm.stream(net, saved=file)
    DAMAGED[how](made)
    save_file({name: each.contiguous() for name, each in made.items()}, file, metadata=metadata(file))
    with pytest.raises(FileError, match="damaged"):
        sm.stream(net, saved=file)


def metadata(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as content:
        return dict(content.metadata())


def test_other_spikes_and_other_layouts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, file = saved(tmp_path)
    with pytest.raises(FileError, match="another network"):
        sm.stream(replace(net, spike=Graded(3)), saved=file)
    monkeypatch.setattr(tables, "LAYOUT", tables.LAYOUT + 1)
    with pytest.raises(FileError, match="version"):
        sm.stream(net, saved=file)


def test_what_is_no_tensor_is_refused() -> None:
    net, x = small()
    session = sm.stream(net)
    session.push(x[:1])
    for wrong in (None, 5, "ab", x[:1].numpy(), [x[:1]]):
        with pytest.raises(DataError, match=r"Stream\.push"):
            session.push(wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="None"):
        session.push((None,))
    with pytest.raises(UsageError, match="saved"):
        sm.stream(net, saved=5)  # type: ignore[arg-type]
