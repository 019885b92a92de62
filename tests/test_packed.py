"""Packed weights come back as near as their precision says, and files that are none of ours are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from spikemorph.capture import capture
from spikemorph.convert.files import save
from spikemorph.errors import FileError
from spikemorph.evaluate.integers import evaluate
from spikemorph.recipes.packed import (
    BYTE,
    ENTRY,
    STEP,
    Byte,
    Half,
    Precision,
    halved,
    pack_graph,
    pack_state,
    rounded,
    unpack_graph,
    unpack_state,
)

PRECISIONS = [Half(), Byte()]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)
    ).eval()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_weights_of_two_axes_change(tmp_path: Path, precision: Precision) -> None:
    state = net().state_dict()
    pack_state(state, tmp_path / "a", precision)
    found = unpack_state(tmp_path / "a")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor) == (name not in ("0.weight", "4.weight"))
    assert all(torch.equal(found[name], each) for name, each in rounded(state, precision).items())


def test_bytes_are_within_half_a_step_of_their_channel() -> None:
    weight = torch.randn(6, 3, 5) * torch.tensor([1e-4, 1.0, 300.0, 0.0, 1.0, 1.0]).reshape(6, 1, 1)
    found = rounded({"w": weight}, Byte())["w"]
    step = weight.flatten(1).abs().amax(1) / 127
    assert ((found - weight).abs() <= 0.5001 * step.reshape(6, 1, 1)).all()
    assert found[3].eq(0).all()


def test_halves_are_the_nearest_float16_and_what_none_can_hold_stays() -> None:
    state = {"w": torch.randn(4, 4), "large": torch.full((2, 2), 1e6), "none": torch.zeros(0, 3)}
    found = rounded(state, Half())
    assert torch.equal(found["w"], state["w"].half().float())
    assert torch.equal(found["large"], state["large"])
    assert found["none"].shape == (0, 3)
    nan = torch.full((2, 2), float("nan"))
    assert rounded({"nan": nan}, Byte())["nan"].isnan().all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_was_packed_once_packs_to_the_same(precision: Precision) -> None:
    once = rounded(net().state_dict(), precision)
    twice = rounded(once, precision)
    for name, tensor in once.items():
        assert torch.allclose(tensor, twice[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_graph_comes_back_as_a_graph(tmp_path: Path, precision: Precision) -> None:
    x = torch.randn(4, 3, 8, 8)
    graph = capture(net(), x)
    pack_graph(graph, tmp_path / "a", precision)
    found = unpack_graph(tmp_path / "a")
    assert found.nodes == graph.nodes
    model = net()
    model.load_state_dict(rounded(model.state_dict(), precision))
    assert torch.equal(evaluate(found, x), evaluate(capture(model, x), x))
    assert not torch.equal(evaluate(found, x), evaluate(graph, x))


def test_a_halved_graph_computes_what_the_rounded_network_computes() -> None:
    x = torch.randn(4, 3, 8, 8)
    halves = halved(capture(net(), x))
    assert halves.tensors["0.weight"].dtype == torch.float16
    model = net()
    model.load_state_dict(rounded(model.state_dict(), Half()))
    assert torch.equal(evaluate(halves, x), evaluate(capture(model, x), x))


def test_a_byte_is_a_quarter_of_the_file(tmp_path: Path) -> None:
    state = {"w": torch.randn(100, 1000)}
    pack_state(state, tmp_path / "a", Byte())
    pack_state(state, tmp_path / "b", Half())
    assert (tmp_path / "a").stat().st_size < 102_000
    assert (tmp_path / "b").stat().st_size < 202_000


# ---------------------------------------------------------------- files of others
def tensors(path: Path, change: dict[str, Any]) -> None:
    """The same file with other tensors; None leaves one out."""
    changed = {key: each for key, each in (load_file(path) | change).items() if each is not None}
    save_file(changed, path, metadata={ENTRY: '{"format": 1}'})


@pytest.mark.parametrize(
    "change",
    [
        {STEP + "4.weight": None},
        {STEP + "4.weight": torch.ones(4)},
        {STEP + "4.weight": torch.ones(5, dtype=torch.float64)},
        {BYTE + "4.weight": torch.ones(5, 288)},
        {BYTE + "4.weight": None},
        {"4.weight": torch.ones(1)},
        {"half:4.bias": torch.ones(1)},
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "a"
    pack_state(net().state_dict(), path, Byte())
    tensors(path, change)
    with pytest.raises(FileError, match="does not fit"):
        unpack_state(path)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no readable"):
        unpack_state(tmp_path / "none")
    (tmp_path / "text").write_text("x" * 100)
    with pytest.raises(FileError, match="no readable"):
        unpack_state(tmp_path / "text")
    graph = capture(net(), torch.randn(2, 3, 8, 8))
    save(graph, tmp_path / "plain")
    with pytest.raises(FileError, match="packed weights of format 1"):
        unpack_graph(tmp_path / "plain")
    pack_graph(graph, tmp_path / "graph", Half())
    with pytest.raises(FileError, match="a packed graph"):
        unpack_state(tmp_path / "graph")
    pack_state(net().state_dict(), tmp_path / "state", Half())
    with pytest.raises(FileError, match="a packed state dict"):
        unpack_graph(tmp_path / "state")


def test_changed_weights_of_a_graph_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    pack_graph(capture(net(), torch.randn(2, 3, 8, 8)), path, Half())
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    content = load_file(path)
    content["whole:4.bias"] = content["whole:4.bias"] + 1
    save_file(content, path, metadata=metadata)
    with pytest.raises(FileError, match="hash"):
        unpack_graph(path)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no folder"):
        pack_state(net().state_dict(), tmp_path / "none" / "a", Half())
