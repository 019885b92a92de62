"""A file that was not written by us, or was changed since, is one FileError and nothing else."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ir_graphs import assert_same, changed, taken_apart
from spikemorph.errors import FileError
from spikemorph.ir import ops
from spikemorph.ir.store import graph_hash, read, write
from spikemorph.ir.verify import verify
from test_ir_verify import float_graph, integer_graph, planned_graph

torch.set_num_threads(1)


def forge(path: Path, header: Any, data: bytes) -> None:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


def refused(path: Path) -> FileError:
    with pytest.raises(FileError) as caught:
        read(path)
    assert caught.value.where == f"file {path}"
    assert all((caught.value.got, caught.value.known, caught.value.do))
    return caught.value


Change = Callable[[dict[str, Any]], Any]


def entry(key: str, value: Any) -> Change:
    return lambda header: header | {key: value}


def without(key: str) -> Change:
    return lambda header: {name: value for name, value in header.items() if name != key}


def in_node(index: int, **parts: Any) -> Change:
    def change(header):
        header["nodes"][index] |= parts
        return header

    return change


def in_op(index: int, **parts: Any) -> Change:
    def change(header):
        header["nodes"][index]["op"] |= parts
        return header

    return change


def less(index: int, *path: str) -> Change:
    def change(header):
        place = header["nodes"][index]
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        return header

    return change


def deep(depth: int, inner: Any = 0) -> Any:
    for _ in range(depth):
        inner = {"list": [inner]}
    return inner


RELU = {"type": "Relu"}
INTEGER_EDITS = [
    (lambda _: [], "it is [], not an object"),
    (entry("format", 2), "format 2, written by a newer spikemorph"),
    (entry("format", 0), "format is 0, not 1"),
    (entry("format", "1"), "format is '1', not a whole number"),
    (entry("format", True), "format is True, not a whole number"),
    (entry("format", 1.0), "format is 1.0, not a whole number"),
    (without("format"), "format is None"),
    (without("hash"), "the set of entries"),
    (entry("more", 1), "the set of entries"),
    (entry("kind", "thing"), "kind is 'thing'"),
    (entry("kind", ["graph"]), "kind is ['graph']"),
    (entry("extra", []), "extra is [], not an object"),
    (entry("extra", {"x": math.nan}), "NaN is no finite number"),
    (entry("units", []), "units is [], not an object"),
    (entry("units", {"spikes": [[1]]}), "units of 'spikes' is [[1]], not a shape and values"),
    (entry("units", {"spikes": [[2], [0.5]]}), "units of 'spikes' is [2], not its shape"),
    (entry("units", {"spikes": [[1] * 65, [0.5]]}), "at most 64 axes"),
    (entry("units", {"spikes": [[1], ["a"]]}), "units of 'spikes' is 'a', not a finite number"),
    (entry("units", {"spikes": [[], [0.0]]}), "unit of 'spikes': torch.float64, from 0.0 to 0.0"),
    (entry("units", {"conv": [[], [1.0]]}), "unit of 'conv': no node of this name emits spikes"),
    (entry("units", {"spikes": [[3, 1], [1.0, 1.0, 1.0]]}), "shape [3, 1] for counts [2, 3]"),
    (entry("dialect", "binary"), "dialect is 'binary'"),
    (entry("dialect", {}), "dialect is {}"),
    (entry("dialect", "float"), "not an op of the float dialect"),
    (entry("hash", "0" * 64), "the hash is '0000"),
    (entry("hash", None), "the hash is None"),
    (entry("nodes", {}), "nodes is {}, not a list"),
    (entry("nodes", []), "the set of tensors"),
    (entry("nodes", [1]), "a node is 1"),
    (entry("outputs", "out"), "outputs is 'out', not a list"),
    (entry("outputs", [1]), "an output is 1, not a string"),
    (entry("outputs", ["out", "gone"]), "'gone'"),
    (entry("outputs", []), "for 0 output(s)"),
    (entry("structure", 0), "leaves [0] for 2"),
    (entry("structure", None), "structure is None"),
    (entry("structure", 1.5), "structure is 1.5"),
    (entry("structure", True), "structure is True"),
    (entry("structure", {"set": []}), "structure is {'set': []}"),
    (entry("structure", {"list": [0, 1], "tuple": []}), "structure is {"),
    (entry("structure", {"dict": [[0, 1]]}), "structure is 0, not a string"),
    (entry("structure", {"dict": [["a"]]}), "pairs of key and value"),
    (entry("structure", {"dict": [["a", 0], ["a", 1]]}), "one key a value"),
    (entry("structure", {"dict": {"a": 0}}), "structure is {"),
    (entry("structure", deep(80)), "deeper nesting"),
    (entry("structure", deep(400)), "nest"),
    (entry("structure", {"list": [-1, 0, 1]}), "leaves [-1, 0, 1]"),
    (in_node(1, name=1), "the name of a node is 1"),
    (in_node(1, name="x"), "names are unique"),
    (in_node(1, more=1), "a node is {"),
    (less(1, "shape"), "a node is {"),
    (in_node(1, inputs="x"), "node 'conv', inputs is 'x', not a list"),
    (in_node(1, inputs=[0]), "node 'conv', inputs is 0, not a string"),
    (in_node(1, inputs=["conv"]), "the name of an earlier node"),
    (in_node(1, shape=[2, 3.0]), "node 'conv', shape is 3.0"),
    (in_node(1, shape=[2, True]), "node 'conv', shape is True"),
    (in_node(1, shape=[2, 4]), "recorded shape (2, 4)"),
    (in_node(0, shape=[1, 2**62]), "recorded shape (2, 3)"),
    (in_node(1, shape=[10**30]), "a whole number of 64 bits"),
    (in_node(1, element_axis="0"), "node 'conv', element_axis is '0'"),
    (in_node(1, element_axis=7), "element axis 7"),
    (in_node(1, origin=["a"]), "three strings"),
    (in_node(1, origin=[1, "", ""]), "origin is 1"),
    (in_node(1, origin="abc"), "origin is 'abc', not a list"),
    (in_node(1, op=None), "node 'conv' is None, not an object"),
    (in_node(1, op={}), "type is None"),
    (in_op(1, type="Evil"), "type is 'Evil', not a known op"),
    (in_op(1, type="Relu"), "type is 'Relu'"),
    (in_op(1, type=["Conv"]), "type is ['Conv']"),
    (in_op(1, type="__import__"), "type is '__import__'"),
    (in_op(1, type="Linear"), "fields of Linear"),
    (in_op(1, more=1), "fields of Conv"),
    (less(1, "op", "groups"), "fields of Conv"),
    (in_op(1, weight=1), "weight is 1, not a string"),
    (in_op(1, weight=None), "weight is None"),
    (in_op(1, bias=0), "bias is 0, not a string"),
    (in_op(1, bias="map"), "'map' of shape (1, 5)"),
    (in_op(1, stride=1), "stride is 1, not a list"),
    (in_op(1, stride=["1"]), "stride is '1'"),
    (in_op(1, stride=[0]), "stride (0,)"),
    (in_op(1, stride=[10**18]), "recorded shape"),
    (in_op(1, groups=1.0), "groups is 1.0"),
    (in_op(1, groups=10**400), "groups is 1000"),
    (in_op(1, transposed=0), "transposed is 0, not true or false"),
    (in_op(1, weight="gone"), "the set of tensors"),
    (in_op(2, hi=2), "all in 0..2"),
    (in_op(2, lo=4), "counts 4..3"),
    (in_op(3, value=None), "value is None, not a finite number"),
    (in_op(3, value=10**400), "not a finite number"),
    (in_op(3, value=True), "value is True"),
    (in_op(3, pads=[0, 0, 2**63 - 1, 1]), "recorded shape"),
    (in_op(6, axis=None), "axis is None"),
    (in_op(7, axis=0.5), "axis is 0.5"),
    (in_node(6, op={"type": "HostFunction", "function": None}), "function is None"),
    (in_node(6, op={"type": "HostFunction", "function": {"type": "Softmax"}}), "type is 'Softmax'"),
    (
        in_node(6, op={"type": "HostFunction", "function": {"type": "Affine", "gain": None, "offset": None}}),
        "Affine",
    ),
    (in_node(6, op={"type": "HostFunction", "function": RELU | {"x": 1}}), "fields of Relu"),
    (
        in_node(6, op={"type": "HostFunction", "function": {"type": "Clamp", "lo": "0", "hi": None}}),
        "lo is '0'",
    ),
    (
        in_node(6, op={"type": "HostFunction", "function": {"type": "LeakyRelu", "slope": None}}),
        "slope is None",
    ),
    (in_node(6, op={"type": "HostFunction", "function": {"type": "Gelu", "tanh": 1}}), "tanh is 1"),
    (in_node(6, op={"type": "HostFunction", "function": RELU}), "the hash"),
    (in_op(6, log=True), "the hash"),
]


@pytest.mark.parametrize(("change", "says"), INTEGER_EDITS, ids=[says for _, says in INTEGER_EDITS])
def test_an_edited_header_is_refused(tmp_path, change, says):
    path = tmp_path / "net"
    write(path, integer_graph(), "graph", {})
    header, data = taken_apart(path)
    ours = json.loads(header["__metadata__"]["spikemorph"])
    header["__metadata__"]["spikemorph"] = json.dumps(change(ours))
    forge(path, header, data)
    assert says in str(refused(path))


PLANNED_EDITS = [
    (in_op(2, chain=RELU), "chain is {'type': 'Relu'}, not a list"),
    (in_op(2, chain=[1]), "chain is 1, not an object"),
    (in_op(2, chain=[{"type": "Quantiser"}]), "type is 'Quantiser'"),
    (in_op(2, chain=[{"type": "Affine", "gain": "g"}]), "fields of Affine"),
    (in_op(2, chain=[{"type": "Affine", "gain": 1, "offset": None}]), "gain is 1, not a string"),
    (in_op(2, chain=[]), "the set of tensors"),
    (in_op(2, reason=None), "reason is None, not a string"),
    (in_op(2, per_channel=None), "per_channel is None"),
]


@pytest.mark.parametrize(("change", "says"), PLANNED_EDITS, ids=[says for _, says in PLANNED_EDITS])
def test_an_edited_chain_is_refused(tmp_path, change, says):
    path = tmp_path / "net"
    write(path, planned_graph(), "graph", {})
    header, data = taken_apart(path)
    ours = json.loads(header["__metadata__"]["spikemorph"])
    header["__metadata__"]["spikemorph"] = json.dumps(change(ours))
    forge(path, header, data)
    assert says in str(refused(path))


RAW = [
    ("not json", "no JSON"),
    ("", "no JSON"),
    ("[" * 100_000, "nested without end"),
    ('{"a":' * 100_000, "nested without end"),
    ('{"format": 1e999}', "no finite number"),
    ('{"format": -Infinity}', "no finite number"),
    ('{"format": ' + "9" * 5000 + "}", "no JSON"),
    ("null", "it is None"),
    ('"spikemorph"', "it is 'spikemorph'"),
]


@pytest.mark.parametrize(("text", "says"), RAW, ids=[f"{text[:20]} {says}" for text, says in RAW])
def test_metadata_that_is_no_header(tmp_path, text, says):
    save_file({}, tmp_path / "net", metadata={"spikemorph": text})
    assert says in str(refused(tmp_path / "net"))


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_safetensors_of_others(tmp_path, metadata):
    save_file({"w": torch.ones(2)}, tmp_path / "net", metadata=metadata)
    assert "a safetensors file of another program" in str(refused(tmp_path / "net"))


def tensor_entry(**parts: Any) -> Callable[[dict], dict]:
    return lambda header: header | {"kernel": header["kernel"] | parts}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("kernel"), "no readable safetensors"),
        (tensor_entry(dtype="BOOL"), "tensor 'kernel' is 'BOOL'"),
        (tensor_entry(dtype="F8_E4M3"), "tensor 'kernel' is 'F8_E4M3'"),
        (tensor_entry(dtype="U8"), "tensor 'kernel' is 'U8'"),
        (tensor_entry(dtype="F99"), "no readable safetensors"),
        (tensor_entry(dtype="I16"), "no readable safetensors"),
        (tensor_entry(shape=[4]), "weight of shape (4,)"),
        (tensor_entry(shape=[2, 1, 1]), "no readable safetensors"),
        (tensor_entry(shape=[2**63, 2, 1]), "no readable safetensors"),
        (tensor_entry(shape=[-1]), "no readable safetensors"),
        (tensor_entry(data_offsets=[0, 2**62]), "no readable safetensors"),
        (lambda h: h | {"more": {"dtype": "I8", "shape": [0], "data_offsets": [0, 0]}}, "the set of tensors"),
        (without("__metadata__"), "of another program"),
    ],
)
def test_forged_tensor_entries(tmp_path, change, says):
    write(tmp_path / "net", integer_graph(), "graph", {})
    header, data = taken_apart(tmp_path / "net")
    forge(tmp_path / "net", change(header), data)
    assert says in str(refused(tmp_path / "net"))


@pytest.mark.parametrize("shape", [[0, 2**63], [0, 2**62, 2**62], [0, 2**40, 2**40], [0] + [1] * 100])
def test_empty_tensors_of_impossible_shape(tmp_path, shape):
    graph = integer_graph()
    empty = torch.zeros(0, dtype=torch.int64)
    op = ops.Neuron(0, 0, "steps", None, None)
    graph = changed(replace(graph, tensors={**graph.tensors, "steps": empty}), "spikes", op=op)
    write(tmp_path / "net", graph, "graph", {})
    assert_same(graph, read(tmp_path / "net")[0])
    header, data = taken_apart(tmp_path / "net")
    header["steps"]["shape"] = shape
    forge(tmp_path / "net", header, data)
    assert "a possible shape" in str(refused(tmp_path / "net"))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, 2**40, 2**64 - 1])
def test_header_lengths_that_lie(tmp_path, size):
    write(tmp_path / "net", integer_graph(), "graph", {})
    content = (tmp_path / "net").read_bytes()
    (tmp_path / "net").write_bytes(size.to_bytes(8, "little") + content[8:])
    assert "no readable safetensors" in str(refused(tmp_path / "net"))


def test_nesting_in_the_safetensors_header(tmp_path):
    forge(tmp_path / "net", b'{"a":' * 100_000, b"")
    assert "no readable safetensors" in str(refused(tmp_path / "net"))


def test_no_file(tmp_path):
    assert str(refused(tmp_path / "net")) == (
        f"file {tmp_path / 'net'}: no such file\n"
        "  known: the path of a file that spikemorph wrote\n"
        "  do:    correct the path; a relative one starts at the current folder"
    )
    assert refused(tmp_path).got == "a folder"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe").got == "neither file nor folder"
    assert "File name too long" in refused(tmp_path / ("n" * 300)).got


def test_a_newer_format_says_upgrade(tmp_path):
    save_file({}, tmp_path / "net", metadata={"spikemorph": '{"format": 7, "whatever": []}'})
    assert str(refused(tmp_path / "net")) == (
        f"file {tmp_path / 'net'}: format 7, written by a newer spikemorph\n"
        "  known: this spikemorph reads formats up to 1\n"
        "  do:    upgrade spikemorph"
    )


def test_a_network_is_no_pickle(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "net")
    assert "no readable safetensors" in str(refused(tmp_path / "net"))


def test_truncations(tmp_path):
    write(tmp_path / "net", integer_graph(), "graph", {})
    content = (tmp_path / "net").read_bytes()
    for length in {*range(0, len(content), 13), *range(40), *range(len(content) - 40, len(content))}:
        (tmp_path / "net").write_bytes(content[:length])
        refused(tmp_path / "net")
    (tmp_path / "net").write_bytes(content + b"\0")
    refused(tmp_path / "net")


WHOLE: dict[str, bytes] = {}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from([integer_graph, float_graph, planned_graph]))
def test_flipped_bytes(tmp_path_factory, data, make):
    """A FileError, or a graph that keeps the rules and differs in nothing that is hashed."""
    path = tmp_path_factory.getbasetemp() / "flipped"
    if make.__name__ not in WHOLE:
        write(path, make(), "graph", {"remark": "x" * 20})
        WHOLE[make.__name__] = path.read_bytes()
    content = bytearray(WHOLE[make.__name__])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        graph, _, _ = read(path)
    except FileError:
        return
    verify(graph)
    assert graph_hash(graph) == graph_hash(make())
