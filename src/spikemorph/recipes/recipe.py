"""A reproduced experiment: its training, its shipped network, its result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, final

from torch import nn

from spikemorph.convert.files import load, save
from spikemorph.convert.methods import convert
from spikemorph.convert.network import SpikingNetwork
from spikemorph.data import Split
from spikemorph.data.folders import cache
from spikemorph.errors import FileError
from spikemorph.files import atomic_text
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.recipes.result import Case, Labelled, Progress, Result
from spikemorph.recipes.training import Report

Kind = Literal["float", "qnn"]
"""Which of a recipe's two networks; part of its file name."""

UNREAD = ("num_batches_tracked", "bias_ih_l0", "bias_hh_l0")
"""Ends of names of weights that no graph keeps: of training, or folded into one."""


@final
@dataclass(frozen=True)
class Trained:
    """What a training leaves behind: the float network and its quantised network."""

    float_graph: Graph
    integer_graph: Graph
    notes: dict[str, Any]


@final
@dataclass(frozen=True)
class Recipe:
    """One experiment.

    Args:
        name: on the command line and of the shipped files.
        levels, weight_bits: of most layers, as reported.
        fit: trains in a folder, resuming what it finds there.
        measure: a case to its result; `full` asks for everything, however long.
        data: a part of its data set, as the network takes it.
        module: the float network as a torch module, untrained; None: only its graph is known.
        source: another recipe whose shipped float network this one starts from; None: its own is shipped.
        rebuild: from its notes to both networks, where nothing else is shipped.
    """

    name: str
    levels: int
    weight_bits: int
    fit: Callable[[Path, Report], Trained]
    measure: Callable[[Case, Progress, bool], Result]
    data: Callable[[Split], Labelled]
    module: Callable[[], nn.Module] | None = None
    source: str | None = None
    rebuild: Callable[[Mapping[str, Any]], Trained] | None = None

    @property
    def workplace(self) -> Path:
        """Where trainings go on that were given no folder."""
        return cache() / "recipes" / self.name

    def train(self, place: Path, report: Report) -> None:
        """Train, or go on where a killed training stopped, and write both networks into the folder."""
        place.mkdir(parents=True, exist_ok=True)
        report(f"{self.name}: checkpoints and networks in {place}")
        trained = self.fit(place, report)
        save(trained.float_graph, place / f"{self.name}.float.safetensors")
        save(trained.integer_graph, place / f"{self.name}.qnn.safetensors")
        atomic_text(place / f"{self.name}.notes.json", _json(trained.notes))

    def evaluate(self, folder: Path | None, progress: Progress, *, full: bool = False) -> Result:
        """Convert and verify the network of a folder, or the shipped one."""
        notes = self.notes(folder)
        if folder is None and self.rebuild is not None:
            made = self.rebuild(notes)
            float_graph, integer = made.float_graph, made.integer_graph
        else:
            float_graph, integer = self.graph(folder, "float"), self.graph(folder, "qnn")
        case = Case(self.name, float_graph, integer, convert(integer), self.levels, self.weight_bits, notes)
        return self.measure(case, progress, full)

    def graph(self, folder: Path | None, kind: Kind) -> Graph:
        """The float network or its quantised network, from a folder, or as shipped.

        Raises:
            FileError: not there, or not what it should be.
        """
        dialect = {"float": Dialect.FLOAT, "qnn": Dialect.INTEGER}[kind]
        file = f"{self.name}.{kind}.safetensors"
        graph: SpikingNetwork | Graph
        if folder is None and self.rebuild is not None:
            made = self.rebuild(self.notes(None))
            graph = made.float_graph if kind == "float" else made.integer_graph
        elif folder is not None:
            graph = load(folder / file)
        else:
            if kind == "float" and self.source is not None:
                file = f"{self.source}.{kind}.safetensors"
            with resources.as_file(resources.files("spikemorph.recipes") / "networks" / file) as path:
                graph = load(path)
        if not isinstance(graph, Graph) or graph.dialect is not dialect:
            raise FileError(
                where=file, got="another kind of network", known=f"a {dialect.value} graph", do="train again"
            )
        return graph

    def float_module(self, graph: Graph) -> nn.Module | None:
        """The float network as a torch module at rest with the weights of its graph; None: no module.

        For timing: recurrent biases, which a graph keeps folded, are not those of the training.

        Raises:
            FileError: the graph lacks weights of the module.
        """
        if self.module is None:
            return None
        module = self.module().eval()
        state = module.state_dict()
        known = {name: graph.tensors[name] for name in state if name in graph.tensors}
        try:
            found = module.load_state_dict(known, strict=False)
        except RuntimeError as error:
            raise self._unfit(str(error)) from error
        lacking = [name for name in found.missing_keys if not name.endswith(UNREAD)]
        if lacking:
            raise self._unfit(f"no weights for {', '.join(lacking[:4])}")
        return module

    def _unfit(self, got: str) -> FileError:
        return FileError(
            where=f"{self.name}.float.safetensors",
            got=got,
            known="the weights of the recipe's own module",
            do="train again: the architecture has changed since",
        )

    def notes(self, folder: Path | None) -> dict[str, Any]:
        """What the training of a folder's network, or of the shipped one, has written down."""
        return _notes(self._text(folder))

    def _text(self, folder: Path | None) -> str:
        file = f"{self.name}.notes.json"
        place = resources.files("spikemorph.recipes") / "networks" / file if folder is None else folder / file
        try:
            return place.read_text()
        except OSError as error:
            raise FileError(
                where=file,
                got=str(error),
                known="the notes of a training, beside its networks",
                do="train first, or leave the folder out for the shipped network",
            ) from error


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _notes(text: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(text)
    return read
