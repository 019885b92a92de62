"""The float network that a network file is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from torch import Tensor

from spikemorph.capture import capture
from spikemorph.cli.models import load_model, placed
from spikemorph.cli.output import guest
from spikemorph.convert.files import load
from spikemorph.errors import FileError, UsageError
from spikemorph.ir.graph import Dialect, Graph

SUFFIX = ".safetensors"
HOW = "give the model again, --against package.module:factory --weights FILE, or convert it with --float"


def float_file(network: Path) -> Path:
    """Where `convert --float` puts the float network of a network file."""
    return network.with_name(f"{network.name.removesuffix(SUFFIX)}.float{SUFFIX}")


@final
@dataclass(frozen=True, slots=True)
class Against:
    """Where the float network comes from, as typed.

    Args:
        reference: package.module:factory, a .pt2 file, or a float network that `convert --float` wrote; None:
            the one beside the network file, if any.
    """

    reference: str | None = None
    weights: Path | None = None
    batch_axis: int = 0

    def graph(self, network: Path, x: Tensor) -> Graph | None:
        """The float graph; None: none was named, and none lies beside the network.

        Args:
            x: samples, two of which the model is captured with.

        Raises:
            UsageError: weights without a model.
            FileError: the file holds something else.
        """
        if self.reference is None:
            if self.weights is not None:
                raise UsageError(
                    where="--weights",
                    got=f"{self.weights}, without --against",
                    known="weights of the model that --against names",
                    do="add --against package.module:factory",
                )
            beside = float_file(network)
            return _read(beside) if beside.is_file() else None
        if self.reference.endswith(SUFFIX):
            return _read(Path(self.reference))
        model = load_model(self.reference, self.weights)
        with guest():
            return capture(model, placed(x[:2], self.batch_axis), batch_axis=self.batch_axis)


def _read(path: Path) -> Graph:
    graph = load(path)
    if not isinstance(graph, Graph) or graph.dialect is not Dialect.FLOAT:
        raise FileError(
            where=str(path),
            got="no float network",
            known="what convert --float wrote, or a model: package.module:factory",
            do="name that with --against",
        )
    return graph
