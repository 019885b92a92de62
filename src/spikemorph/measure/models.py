"""Cost models of the user's own, as a small JSON or TOML file.

name = "my-chip"
source = "data sheet 1.2, table 3"
[snn]                 # picojoules; what is not named costs nothing
accumulate = 0.077
event = 3.0
[qnn]                 # optional, like [float]
mac = 0.3
weight_bit = 0.16
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from spikemorph.errors import FileError
from spikemorph.measure.energy import MODELS, PRICED, CostModel, Prices

LARGEST = 2**16
"""Bytes of a file."""

DEAREST = 1e12
"""A joule."""

NETWORKS = ("float", "qnn", "snn")


def load_model(path: Path) -> CostModel:
    """The cost model in a file, checked in full.

    Raises:
        FileError: unreadable, or anything in it is missing, unknown or no price.
    """
    read = _parse(path)
    unknown = sorted(set(read) - {"name", "source", *NETWORKS})
    if unknown:
        raise FileError(
            where=str(path),
            got=f"unknown entries {', '.join(unknown)}",
            known=f"name, source and tables of prices: {', '.join(NETWORKS)}",
            do="correct or remove these",
        )
    name, source = (_text(path, read, key) for key in ("name", "source"))
    if name in {model.name for model in MODELS}:
        raise FileError(
            where=f"{path}: name",
            got=repr(name),
            known=f"a name besides {', '.join(model.name for model in MODELS)}",
            do="give your model a name of its own",
        )
    dense, qnn, snn = (_prices(path, key, read[key]) if key in read else None for key in NETWORKS)
    if snn is None or (dense is None and qnn is None):
        raise FileError(
            where=str(path),
            got=f"prices of {', '.join(key for key in NETWORKS if key in read) or 'nothing'}",
            known="a table [snn], and one of a rival: [qnn], [float] or both",
            do="add the missing table; prices are in picojoules",
        )
    return CostModel(name, source, dense, qnn, snn)


def _parse(path: Path) -> dict[str, Any]:
    known = "a cost model in .json or .toml"
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        text = data.decode()
        read = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(
            where=str(path), got=str(error), known=known, do="docs/why/energy.md shows one"
        ) from error
    if not isinstance(read, dict):
        raise FileError(
            where=str(path),
            got=f"a {type(read).__name__}",
            known="an object with name, source and prices",
            do="docs/why/energy.md shows one",
        )
    return read


def _text(path: Path, read: dict[str, Any], key: str) -> str:
    value = read.get(key)
    if not isinstance(value, str) or not value.strip():
        raise FileError(
            where=f"{path}: {key}",
            got="nothing" if value is None else repr(value),
            known="a text; every model has a name and says where its numbers are from",
            do=f'add {key} = "..."',
        )
    return value.strip()


def _prices(path: Path, key: str, read: Any) -> Prices:
    where = f"{path}: {key}"
    if not isinstance(read, dict) or not read:
        raise FileError(
            where=where,
            got=repr(read),
            known=f"a table with some of {', '.join(PRICED)}",
            do="name at least one price, in picojoules",
        )
    for name, value in read.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name not in PRICED:
            raise FileError(
                where=where, got=f"unknown price {name}", known=", ".join(PRICED), do="use one of these names"
            )
        if not number or not 0 <= value <= DEAREST:  # which no NaN passes
            raise FileError(
                where=f"{where}.{name}",
                got=repr(value),
                known=f"picojoules, a number from 0 to {DEAREST:.0e}",
                do="correct the price",
            )
    return Prices(**{name: float(value) for name, value in read.items()})
