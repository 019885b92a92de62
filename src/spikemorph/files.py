"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from spikemorph.errors import FileError


def atomic_write(path: Path | str, write: Callable[[Path], None]) -> None:
    """`path` holds what `write` wrote; if anything fails it is as it was before.

    Args:
        path: a new file, or an existing one that is replaced (a link keeps pointing at it).
        write: called once with the path of an empty file in the same folder.

    Raises:
        FileError: the folder is missing, the path is no plain file, or the system refuses.
    """
    target = check_target(path)
    try:
        _replace(target, write)
    except OSError as error:
        raise FileError(
            where=f"file {path}",
            got=f"the system refuses to write it: {error.strerror or error}",
            known="a folder that may be written to, with room on its disk",
            do="choose another folder, or make room; nothing was changed",
        ) from error


def check_target(path: Path | str) -> Path:
    """The plain file, new or existing, that writing to `path` would make; for checks before long work.

    Raises:
        FileError: the folder is missing, or the path is no plain file.
    """
    shown, path = path, Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise FileError(
            where=f"file {shown}",
            got=f"there is no folder {path.parent}",
            known="files are written into folders that exist",
            do="create the folder, or correct the path",
        )
    if path.exists() and not path.is_file():
        raise FileError(
            where=f"file {shown}",
            got="a folder" if path.is_dir() else "a device or pipe",
            known="the path of a plain file, new or to be replaced",
            do="add a file name to the path",
        )
    return path


def atomic_text(path: Path | str, text: str) -> None:
    """`path` holds `text` in UTF-8.

    Raises:
        FileError: see `atomic_write`.
    """

    def write(temporary: Path) -> None:
        temporary.write_bytes(text.encode())

    atomic_write(path, write)


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    temporary = path.with_name(f".spikemorph-{secrets.token_hex(8)}.part")
    try:
        temporary.open("xb").close()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        write(temporary)
        temporary.chmod(mode)  # writers such as safetensors put a private file of their own there
        if path.exists():
            shutil.copymode(path, temporary)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
