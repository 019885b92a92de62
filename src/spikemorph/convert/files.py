"""Networks on disk: one safetensors file with the graph in its header. Loading executes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikemorph.convert.network import (
    Analog,
    Binary,
    Encoding,
    Graded,
    Spike,
    Spikes,
    SpikingNetwork,
    Ternary,
    Window,
)
from spikemorph.errors import FileError, LevelsError, expect
from spikemorph.ir import store
from spikemorph.ir.coding import JSON
from spikemorph.ir.graph import Dialect, Graph

LONGEST = 2**31 - 1
"""Steps of a window."""


def save(network: SpikingNetwork | Graph, path: str | Path) -> None:
    """Write a spiking network, or a float or integer graph. The file appears whole or not at all.

    Raises:
        FileError: the folder is not there or not writable.
    """
    expect("save(network)", network, (SpikingNetwork, Graph), "pass what convert or quantise gave")
    expect("save(path)", path, (str, Path), "pass a file name")
    if isinstance(network, Graph):
        store.write(Path(path), network, "graph", {})
        return
    extra: dict[str, JSON] = {
        "spike": _spike_out(network.spike),
        "encoding": _encoding_out(network.encoding),
        "source": network.source,
    }
    if network.ramp != 1:
        extra["ramp"] = network.ramp
    if network.window is not None:
        extra["window"] = {"start": network.window.start, "least": network.window.least}
    store.write(Path(path), network.graph, "network", extra)


def load(path: str | Path) -> SpikingNetwork | Graph:
    """What `save` wrote.

    Raises:
        FileError: not there, truncated, foreign, damaged, hostile, or written by a newer version.
    """
    expect("load(path)", path, (str, Path), "pass a file name")
    graph, kind, extra = store.read(Path(path))
    if kind == "graph":
        return graph
    if kind != "network" or not graph.dialect.whole:
        raise _damaged(path, f"kind {kind!r}, dialect {graph.dialect.value}")
    source = extra.get("source")
    if not isinstance(source, str):
        raise _damaged(path, f"source {source!r}")
    spike, encoding = _spike_in(path, extra.get("spike")), _encoding_in(path, extra.get("encoding"))
    window = _window_in(path, extra.get("window"))
    ramp = extra.get("ramp", 1)
    if type(ramp) is not int or not 1 <= ramp <= LONGEST:
        raise _damaged(path, f"ramp {ramp!r}")
    rates = graph.dialect is Dialect.RATE
    if rates != (window is not None) or (isinstance(spike, Binary) and not rates):
        raise _damaged(path, f"dialect {graph.dialect.value}, spike {spike!r}, window {window!r}")
    return SpikingNetwork(graph, spike, encoding, source, window, ramp)


def load_network(path: str | Path) -> SpikingNetwork:
    """A spiking network from a file.

    Raises:
        FileError: as `load`, and where the file holds a graph that was not converted.
    """
    loaded = load(path)
    if isinstance(loaded, Graph):
        raise FileError(
            where=str(path),
            got=f"a graph of the {loaded.dialect.value} dialect",
            known="this needs a spiking network",
            do="convert the graph and save the result",
        )
    return loaded


def _spike_out(spike: Spike) -> dict[str, Any]:
    if isinstance(spike, Graded):
        return {"kind": "graded", "largest": spike.largest}
    return {"kind": "binary" if isinstance(spike, Binary) else "ternary"}


def _spike_in(path: str | Path, value: object) -> Spike:
    if isinstance(value, Mapping):
        if value.get("kind") == "ternary":
            return Ternary()
        if value.get("kind") == "binary":
            return Binary()
        if value.get("kind") == "graded":
            try:
                return Graded(value.get("largest"))  # type: ignore[arg-type]
            except LevelsError as error:
                raise _damaged(path, f"spike {value!r}") from error
    raise _damaged(path, f"spike {value!r}")


def _window_in(path: str | Path, value: object) -> Window | None:
    if value is None:
        return None
    if isinstance(value, Mapping) and value.keys() == {"start", "least"}:
        start, least = value["start"], value["least"]
        if type(start) is int and type(least) is int and 0 <= start <= LONGEST and 1 <= least <= LONGEST:
            return Window(start, least)
    raise _damaged(path, f"window {value!r}")


def _encoding_out(encoding: Encoding) -> dict[str, Any]:
    return {"kind": "spikes"} if isinstance(encoding, Spikes) else {"kind": "analog", "bits": encoding.bits}


def _encoding_in(path: str | Path, value: object) -> Encoding:
    if isinstance(value, Mapping):
        if value.get("kind") == "spikes":
            return Spikes()
        if value.get("kind") == "analog":
            try:
                return Analog(value.get("bits"))  # type: ignore[arg-type]
            except LevelsError as error:
                raise _damaged(path, f"encoding {value!r}") from error
    raise _damaged(path, f"encoding {value!r}")


def _damaged(path: str | Path, got: str) -> FileError:
    return FileError(
        where=str(path),
        got=got if len(got) <= 80 else got[:77] + "...",
        known="a network file that `spikemorph.save` wrote",
        do="make the file again; it is damaged or of another origin",
    )
