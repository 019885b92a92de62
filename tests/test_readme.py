"""The README's Python runs as it stands."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

from spikemorph.ir import ops

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks in order, each goes on where the one before ended."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    script = tmp_path / "readme.py"
    script.write_text("\n".join(BLOCK.findall(README.read_text())))
    seen = runpy.run_path(str(script))
    assert seen["certificate"].neurons_different == 0
    neurons = [node.op for node in seen["qgraph"].neurons if isinstance(node.op, ops.Neuron)]
    assert {each.hi for each in neurons} == {3}
    assert (tmp_path / "net.safetensors").exists()
