"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spikemorph.errors import FileError
from spikemorph.files import atomic_text, atomic_write


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def test_a_new_file(tmp_path):
    atomic_text(tmp_path / "a.txt", "grün\n")
    assert (tmp_path / "a.txt").read_bytes() == b"gr\xc3\xbcn\n"
    assert names(tmp_path) == {"a.txt"}


def test_an_old_file_is_replaced_and_keeps_its_mode(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old and longer")
    path.chmod(0o640)
    atomic_text(str(path), "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_new_file_has_the_usual_mode(tmp_path):
    atomic_text(tmp_path / "a.txt", "")
    (tmp_path / "b.txt").touch()
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_a_writer_that_makes_a_private_file_leaves_the_usual_mode(tmp_path):
    def write(temporary: Path) -> None:
        temporary.unlink()
        temporary.write_text("mine")
        temporary.chmod(0o600)

    atomic_write(tmp_path / "a.txt", write)
    (tmp_path / "b.txt").touch()
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_a_link_keeps_pointing_at_the_file(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.txt", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    atomic_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("old", [None, "old"])
def test_a_failure_in_the_middle_changes_nothing(tmp_path, error, old):
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        assert temporary.parent == tmp_path
        raise error

    with pytest.raises(type(error)):
        atomic_write(path, write)
    assert names(tmp_path) == (set() if old is None else {"a.txt"})
    assert old is None or path.read_text() == old


def test_a_full_disk_is_a_file_error(tmp_path):
    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(FileError, match="refuses to write it: No space left on device") as caught:
        atomic_write(tmp_path / "a.txt", write)
    assert caught.value.where == f"file {tmp_path / 'a.txt'}"
    assert names(tmp_path) == set()


def test_a_replacement_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def refuse(*paths: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(FileError, match="Permission denied"):
        atomic_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == {"a.txt"}
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileError) as caught:
        atomic_text(tmp_path / "no" / "a.txt", "")
    assert str(caught.value) == (
        f"file {tmp_path / 'no' / 'a.txt'}: there is no folder {tmp_path / 'no'}\n"
        "  known: files are written into folders that exist\n"
        "  do:    create the folder, or correct the path"
    )


def test_a_folder_and_a_device_are_not_replaced(tmp_path):
    with pytest.raises(FileError, match="a folder"):
        atomic_text(tmp_path, "")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="a device or pipe"):
        atomic_text(tmp_path / "pipe", "")
    assert names(tmp_path) == {"pipe"}
