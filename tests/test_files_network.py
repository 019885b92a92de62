"""Spiking networks and graphs on disk: what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import spikemorph as sm
from graphs import network, random_counts, random_integer_graph, two_layers
from ir_graphs import assert_same
from spikemorph.convert.files import load, load_network, save
from spikemorph.convert.network import Analog, Encoding, Graded, Spike, Spikes, SpikingNetwork, Ternary
from spikemorph.errors import FileError, GraphError
from spikemorph.ir import store
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.ir.structure import Items, Leaf

torch.set_num_threads(1)

GOOD: dict[str, Any] = {
    "spike": {"kind": "ternary"},
    "encoding": {"kind": "analog", "bits": 8},
    "source": "abc",
}


def spikes() -> st.SearchStrategy[Spike]:
    return st.just(Ternary()) | st.integers(1, 2**31 - 1).map(Graded)


def encodings() -> st.SearchStrategy[Encoding]:
    return st.just(Spikes()) | st.integers(1, 16).map(Analog)


# ---------------------------------------------------------------- round trips
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), spike=spikes(), encoding=encodings(), source=st.text())
def test_a_network_comes_back_as_it_was(
    tmp_path: Path, seed: int, spike: Spike, encoding: Encoding, source: str
) -> None:
    rng = np.random.default_rng(seed)
    graph = random_integer_graph(rng)
    path = tmp_path / "net.safetensors"
    save(SpikingNetwork(graph, spike, encoding, source), path)
    read = load_network(path)
    assert_same(read.graph, graph)
    assert (read.spike, read.encoding, read.source) == (spike, encoding, source)


def test_a_network_from_a_file_runs_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    graph = random_integer_graph(rng)
    save(network(graph, Graded(2), Spikes()), tmp_path / "net.safetensors")
    x = tuple(each / 2 for each in random_counts(rng, graph, 3))
    before = sm.simulate(network(graph, Graded(2), Spikes()), x)
    after = sm.simulate(load_network(tmp_path / "net.safetensors"), x)
    assert (before.spikes, before.steps) == (after.spikes, after.steps)
    assert all(torch.equal(before.raw[name], each) for name, each in after.raw.items())


def test_float_and_integer_graphs_come_back(tmp_path: Path) -> None:
    captured = sm.capture(nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval(), torch.randn(2, 3))
    for graph in (captured, two_layers()):
        save(graph, tmp_path / "graph.safetensors")
        read = load(tmp_path / "graph.safetensors")
        assert isinstance(read, Graph)
        assert_same(read, graph)


def test_saving_replaces_a_file_and_loading_holds_none_open(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save(network(two_layers()), path)
    read = load_network(path)
    save(two_layers(), path)
    assert isinstance(load(path), Graph)
    assert_same(read.graph, two_layers())
    assert list(tmp_path.iterdir()) == [path]


def test_the_front_door_has_both() -> None:
    assert (sm.save, sm.load) == (save, load)


# ---------------------------------------------------------------- refused
def refused(path: Path) -> FileError:
    with pytest.raises(FileError) as caught:
        load(path)
    return caught.value


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"spike": None}, "spike None"),
        ({"spike": "ternary"}, "spike 'ternary'"),
        ({"spike": ["ternary"]}, "spike ['ternary']"),
        ({"spike": {}}, "spike {}"),
        ({"spike": {"kind": "unary"}}, "spike {'kind': 'unary'}"),
        ({"spike": {"kind": ["graded"]}}, "spike {'kind': ['graded']}"),
        ({"spike": {"kind": "graded"}}, "spike {'kind': 'graded'}"),
        *(
            (
                {"spike": {"kind": "graded", "largest": each}},
                f"spike {{'kind': 'graded', 'largest': {each!r}}}",
            )
            for each in (0, -1, 2.0, True, "3", None, [3], {}, 2**31)
        ),
        ({"encoding": None}, "encoding None"),
        ({"encoding": 8}, "encoding 8"),
        ({"encoding": {"kind": "rate"}}, "encoding {'kind': 'rate'}"),
        ({"encoding": {"kind": "analog"}}, "encoding {'kind': 'analog'}"),
        *(
            (
                {"encoding": {"kind": "analog", "bits": each}},
                f"encoding {{'bits': {each!r}, 'kind': 'analog'}}",
            )
            for each in (0, 17, -8, 8.0, True, "8", None, [8], {"x": 1})
        ),
        *(({"source": each}, f"source {each!r}") for each in (None, 1, True, ["abc"], {"a": "b"})),
    ],
)
def test_hostile_descriptions_are_refused(tmp_path: Path, change: dict[str, Any], got: str) -> None:
    path = tmp_path / "net.safetensors"
    store.write(path, two_layers(), "network", {**GOOD, **change})
    error = refused(path)
    assert (error.where, error.got) == (str(path), got)
    assert error.known == "a network file that `spikemorph.save` wrote"
    assert error.do == "make the file again; it is damaged or of another origin"


def test_a_long_description_is_cut_in_the_message(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    store.write(path, two_layers(), "network", {**GOOD, "source": ["x" * 10**5]})
    assert refused(path).got == "source ['" + "x" * 68 + "..."


@pytest.mark.parametrize("entry", sorted(GOOD))
def test_missing_descriptions_are_refused(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "net.safetensors"
    store.write(path, two_layers(), "network", {key: each for key, each in GOOD.items() if key != entry})
    assert refused(path).got == f"{entry} None"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
)
kinds = st.fixed_dictionaries(
    {"kind": st.sampled_from(["ternary", "graded", "spikes", "analog"]) | json_values},
    optional={"largest": json_values, "bits": json_values},
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spike=kinds | json_values, encoding=kinds | json_values, source=st.text() | json_values)
def test_any_description_is_a_network_or_a_file_error(
    tmp_path: Path, spike: Any, encoding: Any, source: Any
) -> None:
    path = tmp_path / "net.safetensors"
    store.write(path, two_layers(), "network", {"spike": spike, "encoding": encoding, "source": source})
    try:
        read = load_network(path)
    except FileError:
        return
    assert isinstance(read.spike, Ternary | Graded)
    assert isinstance(read.encoding, Analog | Spikes)
    assert read.source == source


def test_a_network_must_be_an_integer_graph(tmp_path: Path) -> None:
    captured = sm.capture(nn.Linear(3, 2).eval(), torch.randn(2, 3))
    store.write(tmp_path / "net.safetensors", captured, "network", GOOD)
    assert refused(tmp_path / "net.safetensors").got == "kind 'network', dialect float"


def test_a_graph_is_no_network(tmp_path: Path) -> None:
    path = tmp_path / "qnn.safetensors"
    save(two_layers(), path)
    with pytest.raises(FileError) as caught:
        load_network(path)
    assert str(caught.value) == (
        f"{path}: a graph of the integer dialect\n"
        "  known: this needs a spiking network\n"
        "  do:    convert the graph and save the result"
    )


def test_no_file_is_made_of_a_graph_against_the_rules(tmp_path: Path) -> None:
    broken = Graph(Dialect.INTEGER, two_layers().nodes, ("absent",), two_layers().tensors, Items((Leaf(0),)))
    with pytest.raises(GraphError):
        save(network(broken), tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path, cut = tmp_path / "net.safetensors", tmp_path / "cut.safetensors"
    save(network(two_layers()), path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        cut.write_bytes(whole[:length])
        assert refused(cut).where == f"file {cut}"
