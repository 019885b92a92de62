"""What is written is read back bit for bit, and hashes see what a graph computes, no more."""

from __future__ import annotations

import os
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ir_graphs import assert_same, changed, random_graph, random_graphs, taken_apart
from spikemorph.errors import FileError, GraphError
from spikemorph.ir import functions, ops
from spikemorph.ir.graph import Dialect, Graph, Node, Origin
from spikemorph.ir.store import graph_hash, read, write
from spikemorph.ir.structure import Items, Leaf, Named
from spikemorph.ir.verify import used_tensors
from test_ir_verify import float_graph, integer_graph, planned_graph

torch.set_num_threads(1)
EXTRA = {"spike": {"type": "Graded", "largest": 4}, "source": "ab", "list": [None, True, 1.5, "\ud800é"]}


# ---------------------------------------------------------------- round trips
@settings(max_examples=120, deadline=None)
@given(random_graphs())
def test_round_trip(graph: Graph):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        write(path, graph, "network", EXTRA)
        found, kind, extra = read(path)
        assert_same(graph, found)
        assert (kind, extra) == ("network", EXTRA)
        assert graph_hash(found) == graph_hash(graph)
        assert os.listdir(folder) == ["net.safetensors"]


@pytest.mark.parametrize("make", [integer_graph, float_graph, planned_graph])
def test_the_same_graph_makes_the_same_file(tmp_path, make):
    for name in "ab":
        write(tmp_path / name, make(), "graph", {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read(tmp_path / "a")[1:] == ("graph", {})


def test_units_are_kept_to_the_bit_and_do_not_enter_the_hash(tmp_path):
    units = {"spikes": torch.tensor([[0.1], [1 / 3]], dtype=torch.float64)}
    graph = replace(integer_graph(), units=units)
    write(tmp_path / "a", graph, "graph", {})
    assert_same(graph, read(tmp_path / "a")[0])
    assert graph_hash(graph) == graph_hash(integer_graph())
    with pytest.raises(GraphError, match="unit of 'spikes'"):
        write(tmp_path / "b", replace(graph, units={"spikes": -units["spikes"]}), "graph", {})


@pytest.mark.parametrize(("most", "size"), [(127, 1), (128, 2), (2**15, 4), (2**31, 8)])
def test_whole_numbers_take_as_little_room_as_they_can(tmp_path, most, size):
    graph = integer_graph()
    kernel = torch.tensor([[[most, -most - 1 if most < 128 else -most]], [[0, 1]]]).reshape(2, 1, 2)
    graph = replace(graph, tensors={**graph.tensors, "kernel": kernel})
    write(tmp_path / "a", graph, "graph", {})
    header, _ = taken_apart(tmp_path / "a")
    first, last = header["kernel"]["data_offsets"]
    assert last - first == size * kernel.numel()
    assert torch.equal(read(tmp_path / "a")[0].tensors["kernel"], kernel)
    assert read(tmp_path / "a")[0].tensors["kernel"].dtype == torch.int64


def test_views_shared_memory_and_gradients_do_not_matter(tmp_path):
    base = torch.nn.Parameter(torch.arange(6.0).reshape(3, 2))
    graph = float_graph()
    graph = replace(graph, tensors={"w": base.T, "b": base[:2, 0], "g": base[0]})
    write(tmp_path / "a", graph, "graph", {})
    assert_same(graph, read(tmp_path / "a")[0])
    assert not read(tmp_path / "a")[0].tensors["w"].requires_grad


def test_what_was_read_does_not_depend_on_the_file_any_more(tmp_path):
    write(tmp_path / "a", float_graph(), "graph", {})
    graph, _, _ = read(tmp_path / "a")
    with (tmp_path / "a").open("r+b") as file:
        file.write(bytes((tmp_path / "a").stat().st_size))
    assert_same(float_graph(), graph)


@pytest.mark.parametrize(
    "names", [("__metadata__", ""), ("\n", '"\\n"'), ("\ud800", "é\x00"), ("a.b", "a b")]
)
def test_any_name_of_a_tensor(tmp_path, names):
    graph = changed(float_graph(), "fc", op=ops.Linear(*names))
    graph = replace(graph, tensors=dict(zip(names, (torch.ones(2, 3), torch.zeros(2)), strict=True)))
    write(tmp_path / "a", graph, "graph", {})
    assert_same(graph, read(tmp_path / "a")[0])


def test_a_graph_without_tensors(tmp_path):
    graph = Graph(
        Dialect.FLOAT,
        (Node("x", ops.Input(0), (), ()),),
        ("x", "x"),
        {},
        Named(("", "a"), (Leaf(0), Leaf(1))),
    )
    write(tmp_path / "a", graph, "graph", {})
    assert_same(graph, read(tmp_path / "a")[0])


def test_whole_bounds_of_real_fields_become_real(tmp_path):
    graph = changed(float_graph(), "act", op=ops.Elementwise(functions.Clamp(0, 6)))
    assert graph_hash(graph) == graph_hash(float_graph())
    write(tmp_path / "a", graph, "graph", {})
    op: Any = read(tmp_path / "a")[0].by_name["act"].op
    assert type(op.function.hi) is float


def test_a_broken_graph_is_not_written(tmp_path):
    with pytest.raises(GraphError, match="recorded shape"):
        write(tmp_path / "a", changed(float_graph(), "fc", shape=(3,)), "graph", {})
    assert os.listdir(tmp_path) == []


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileError, match="there is no folder"):
        write(tmp_path / "no" / "a", float_graph(), "graph", {})


def test_a_refusal_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        save_file({}, "/no/such/folder/file")

    write(tmp_path / "a", float_graph(), "graph", {})
    before = (tmp_path / "a").read_bytes()
    monkeypatch.setattr("spikemorph.ir.store.save_file", fail)
    with pytest.raises(FileError, match="the system refuses"):
        write(tmp_path / "a", integer_graph(), "graph", {})
    assert (tmp_path / "a").read_bytes() == before
    assert os.listdir(tmp_path) == ["a"]


# ---------------------------------------------------------------- hashes
@settings(max_examples=60, deadline=None)
@given(random_graphs(), st.data())
def test_the_hash_sees_one_number_of_one_tensor(graph: Graph, data: st.DataObject):
    names = [name for name, tensor in used_tensors(graph).items() if tensor.numel()]
    if not names:
        return
    name = data.draw(st.sampled_from(names))
    tensor = graph.tensors[name].clone()
    flat = tensor.reshape(-1).view(torch.uint8)
    flat[data.draw(st.integers(0, flat.numel() - 1))] ^= 1
    other = replace(graph, tensors={**graph.tensors, name: flat.view(tensor.dtype).reshape(tensor.shape)})
    assert graph_hash(other) != graph_hash(graph)


@settings(max_examples=60, deadline=None)
@given(random_graphs(), st.randoms(use_true_random=False))
def test_the_hash_does_not_see_origins_order_and_stale_tensors(graph: Graph, random):
    names = list(graph.tensors)
    random.shuffle(names)
    tensors = {"stale": torch.ones(1)} | {name: graph.tensors[name] for name in names}
    nodes = (replace(node, origin=Origin("else", "where", "x")) for node in graph.nodes)
    assert graph_hash(graph.with_nodes(nodes, tensors=tensors)) == graph_hash(graph)


def other_value(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case None:
            return 1
        case tuple():
            return (*value, value[-1] if value else 1)
        case functions.Relu():
            return functions.Abs()
        case _:
            return functions.Relu()


@pytest.mark.parametrize("dialect", Dialect)
def test_the_hash_sees_every_field_of_every_op(dialect):
    """Renamed tensors are given the old one's numbers, so that only the field differs."""
    for seed in range(12):
        graph = random_graph(np.random.default_rng(seed), dialect, 8)
        known = graph_hash(graph)
        for node in graph.nodes:
            for each in fields(node.op):
                value = other_value(getattr(node.op, each.name))
                tensors = {**graph.tensors, value: torch.ones(1)} if isinstance(value, str) else graph.tensors
                other = changed(graph, node.name, op=replace(node.op, **{each.name: value}))
                assert graph_hash(replace(other, tensors=tensors)) != known, (node.op, each.name)


@pytest.mark.parametrize(
    "change",
    [
        lambda g: replace(g, outputs=g.outputs[::-1]),
        lambda g: replace(g, structure=Items((Leaf(1), Leaf(0)))),
        lambda g: replace(g, structure=Items((Leaf(0), Leaf(1)), is_list=True)),
        lambda g: replace(g, structure=Named(("a", "b"), (Leaf(0), Leaf(1)))),
        lambda g: replace(g, dialect=Dialect.PLANNED),
        lambda g: g.with_nodes((replace(g.nodes[0], name="other"), *g.nodes[1:])),
        lambda g: changed(g, "conv", inputs=("y",)),
        lambda g: changed(g, "conv", shape=(2, 4)),
        lambda g: changed(g, "conv", element_axis=1),
        lambda g: g.with_nodes(g.nodes[:-1]),
        lambda g: replace(g, tensors={**g.tensors, "map": g.tensors["map"].T}),
        lambda g: replace(g, tensors={**g.tensors, "map": g.tensors["map"].to(torch.int32)}),
    ],
)
def test_the_hash_sees_wiring_structure_and_shapes(change):
    assert graph_hash(change(integer_graph())) != graph_hash(integer_graph())


def test_the_hash_of_a_known_graph():
    """Pinned: certificates and files carry hashes from one version to the next."""
    assert graph_hash(integer_graph()) == PINNED


PINNED = "386535848a85ac031b7a72cb39b34ca8b0f9d1a76f19dc1aeafae760d9864cb0"
