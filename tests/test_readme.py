"""The README: its Python runs as it stands, its figures are those of the results."""

from __future__ import annotations

import json
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


LABELS = {
    "training-free-mobilenet-v2": ("MobileNetV2, ImageNet photos", "top-1"),
    "training-free-efficientnet-lite0": ("EfficientNet-Lite0, ImageNet photos", "top-1"),
    "training-free-cifar10-vgg": ("VGG, CIFAR-10", "accuracy"),
    "training-free-cifar10-resnet18": ("narrow ResNet-18, CIFAR-10", "accuracy"),
    "camvid": ("FCN on MobileNetV2, CamVid", "mIoU"),
    "bccd": ("RetinaNet on the first half of MobileNetV2, BCCD", "mAP@0.5"),
}


def row_of(name: str) -> str:
    """A row of the table of what is lost without training."""
    made = json.loads((README.parent / "results" / f"{name}.json").read_text())
    lost = [made["loss"].get(key) for key in ("8", "16", "32", "64", "quiescent")]
    lost += [made["loss_graded"].get(key) for key in ("8", "16", "32")]
    words = ["-" if each is None else f"{each:.1f}" if abs(each) >= 10 else f"{each:.2f}" for each in lost]
    label, measure = LABELS[name]
    return f"| {label} | {measure} | {made['samples']} | {made['float']:.2f} | {' | '.join(words)} |"


@pytest.mark.parametrize("name", LABELS)
def test_the_table_without_training_holds_what_was_measured(name: str) -> None:
    assert row_of(name) in README.read_text(encoding="utf-8").splitlines()


BALANCED = {
    "ours, binary": "local threshold balancing, binary",
    "ours, ternary": "local threshold balancing, ternary",
    "SpikingJelly, one pass": "SpikingJelly, one pass",
    "SpikingJelly, passes chosen on calibration data": "SpikingJelly, passes chosen on calibration data",
    "lossless, ternary": "lossless, ternary",
}


@pytest.mark.parametrize("method", BALANCED)
@pytest.mark.parametrize(("label", "name"), [("VGG", "vgg"), ("narrow ResNet-18", "resnet18")])
def test_the_table_beside_spikingjelly_holds_what_was_measured(label: str, name: str, method: str) -> None:
    file = README.parent / "results" / f"training-free-cifar10-{name}.json"
    made = json.loads(file.read_text())
    percents = " | ".join(
        f"{made['by_method'][BALANCED[method]][key]:.1f}" for key in ("8", "16", "32", "64")
    )
    row = f"| {label} ({made['float']:.1f}) | {method} | {percents} |"
    assert row in README.read_text(encoding="utf-8").splitlines()
