"""Where data sets are looked for on this machine."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from spikemorph.data.named import DataFile, Fetched
from spikemorph.errors import DataError


def roots() -> tuple[Path, ...]:
    """Folders that may hold data sets, first choice first; the last one is the cache."""
    own, shared = os.environ.get("SPIKEMORPH_DATA"), os.environ.get("SPIKEMORPH_SHARED")
    named = ([Path(own)] if own else []) + ([Path(shared, "data")] if shared else [])
    return (*named, Path("..", "shared", "data"), cache())


def cache() -> Path:
    """Where fetched files are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spikemorph"


def candidates(source: Fetched) -> tuple[Path, ...]:
    """Every folder in which the files of a set may lie."""
    below = [root / folder for root in roots() for folder in source.folders]
    return (*below, *source.installed)


def find(source: Fetched) -> Path | None:
    """The first folder with all files of the set, plain or as .gz; `read` checks what is in them."""
    for folder in candidates(source):
        if all(located(folder, file) is not None for file in source.files):
            return folder
    return None


def located(folder: Path, file: DataFile) -> Path | None:
    """The file or its .gz in a folder."""
    for path in (folder / file.name, folder / f"{file.name}.gz"):
        if path.is_file():
            return path
    return None


def read(folder: Path, file: DataFile) -> bytes:
    """The unpacked bytes, which have the checksum that they should have.

    Raises:
        DataError: not there, not readable, not a gzip file, or other bytes.
    """
    path = located(folder, file)
    if path is None:
        raise _not_it(folder / file.name, "no such file", file)
    try:
        content = _unpack(path, file.size) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _not_it(path, f"not readable: {error}", file) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise _not_it(path, f"{len(content)} bytes or more with sha256 {digest}", file)
    return content


def _unpack(path: Path, size: int) -> bytes:
    with gzip.open(path) as stream:
        return stream.read(size + 1)


def _not_it(path: Path, got: str, file: DataFile) -> DataError:
    return DataError(
        where=str(path),
        got=got,
        known=f"{file.name}, {file.size} bytes, sha256 {file.sha256} (unpacked)",
        do="delete the file; the data set is fetched again when it is loaded",
    )
