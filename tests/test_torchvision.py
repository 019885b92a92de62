"""Small networks of every family of torchvision convert exactly; docs/zoo.md says what was measured."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spikemorph.errors import UsageError
from spikemorph.levels import Levels
from spikemorph.measure.support import Refused, Taken, support
from spikemorph.recipes import torchvision_zoo as zoo
from spikemorph.recipes.torchvision_table import document

models = pytest.importorskip("torchvision.models", reason="torchvision is missing: pip install '.[vision]'")

ROOT = Path(__file__).parents[1]
HELD = ROOT / "results" / "zoo.json"
REFUSED = {
    "taken": False,
    "parameters": 7,
    "shape": [3, 8, 8],
    "offences": [{"got": "a", "known": "k", "count": 2}, {"got": "b", "known": "k", "count": 1}],
}


def _alexnet() -> nn.Module:
    with torch.device("meta"):  # its linear layers of 4,096 units are not to be
        made = models.AlexNet()
    made.features, made.classifier = models.AlexNet(num_classes=10).features, _classifier(256 * 36)
    return made


def _vgg(*, norm: bool) -> nn.Module:
    with torch.device("meta"):
        made = models.VGG(nn.Identity())
    made.features = models.vgg.make_layers([8, "M", 16, "M", 16, 16, "M", 32, "M", 32, "M"], batch_norm=norm)
    made.classifier = _classifier(32 * 49)
    return made


def _classifier(features: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(True), nn.Dropout(),
        nn.Linear(32, 10),
    )  # fmt: skip


def _wide() -> nn.Module:
    made = models.ResNet(models.resnet.Bottleneck, [2, 1, 1, 1], num_classes=10, width_per_group=128)
    made.layer3, made.layer4, made.fc = nn.Identity(), nn.Identity(), nn.Linear(512, 10)
    return made


def _mobilenet_v3() -> nn.Module:
    block = models.mobilenetv3.InvertedResidualConfig
    blocks = [
        block(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
        block(16, 5, 40, 24, False, "HS", 2, 1, 1.0),
        block(24, 5, 48, 24, True, "HS", 1, 2, 1.0),
    ]
    return models.MobileNetV3(blocks, last_channel=32, num_classes=10)


def _efficientnet() -> nn.Module:
    block = models.efficientnet.MBConvConfig
    return models.EfficientNet([block(1, 3, 1, 16, 8, 1), block(6, 5, 2, 8, 16, 2)], 0.2, num_classes=10)


def _efficientnet_v2() -> nn.Module:
    fused, block = models.efficientnet.FusedMBConvConfig, models.efficientnet.MBConvConfig
    blocks = [fused(1, 3, 1, 16, 16, 2), fused(4, 3, 2, 16, 24, 1), block(4, 3, 2, 24, 32, 2)]
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    return models.EfficientNet(blocks, 0.2, num_classes=10, norm_layer=norm, last_channel=64)


def _regnet(gates: float | None) -> nn.Module:
    blocks = models.regnet.BlockParams.from_init_params(
        depth=5, w_0=24, w_a=24.0, w_m=2.5, group_width=8, se_ratio=gates
    )
    return models.RegNet(blocks, num_classes=10)


def _resnet(block: str, **more: int) -> nn.Module:
    return models.ResNet(getattr(models.resnet, block), [1, 1, 1, 1], num_classes=10, **more)


NETWORKS: dict[str, tuple[str, int, Callable[[], nn.Module]]] = {
    "alexnet": ("AlexNet", 64, _alexnet),
    "vgg": ("VGG", 32, partial(_vgg, norm=False)),
    "vgg with norms": ("VGG", 32, partial(_vgg, norm=True)),
    "resnet": ("ResNet", 32, partial(_resnet, "BasicBlock")),
    "resnext": ("ResNeXt", 32, partial(_resnet, "Bottleneck", groups=32, width_per_group=2)),
    "wide resnet": ("Wide ResNet", 32, _wide),
    "densenet": ("DenseNet", 32, lambda: models.DenseNet(8, (2, 2, 2, 2), 16, num_classes=10)),
    "googlenet": (
        "GoogLeNet",
        32,
        lambda: models.GoogLeNet(10, aux_logits=True, transform_input=True, init_weights=False),
    ),
    "inception": (
        "Inception v3",
        75,
        lambda: models.Inception3(10, aux_logits=False, transform_input=True, init_weights=False),
    ),
    "squeezenet": ("SqueezeNet", 40, lambda: models.SqueezeNet("1_1", num_classes=10)),
    "shufflenet": ("ShuffleNet v2", 32, lambda: models.ShuffleNetV2([2, 2, 1], [8, 16, 32, 64, 64], 10)),
    "mnasnet": ("MNASNet", 32, lambda: models.MNASNet(0.2, num_classes=10)),
    "mobilenet v2": (
        "MobileNetV2",
        32,
        lambda: models.MobileNetV2(10, 0.35, [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]),
    ),
    "mobilenet v3": ("MobileNetV3", 32, _mobilenet_v3),
    "efficientnet": ("EfficientNet", 32, _efficientnet),
    "efficientnet v2": ("EfficientNetV2", 32, _efficientnet_v2),
    "regnet x": ("RegNetX", 32, partial(_regnet, None)),
    "regnet y": ("RegNetY", 32, partial(_regnet, 0.25)),
}
"""Family, side of the image, and a network as narrow and shallow as the family's constructor lets it be."""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_small_network_of_every_family_is_lossless(name: str) -> None:
    _, side, module = NETWORKS[name]
    x = torch.randn(6, 3, side, side)
    found = support(lambda: zoo.settled(module(), x), x, Levels(activation=3), samples=1)
    assert isinstance(found, Taken)
    assert found.lossless
    assert found.neurons_different == found.outputs_different == 0
    assert found.neurons_compared == found.neurons > 1000
    assert found.outputs_compared == 10
    assert found.capture_error <= 1e-9
    assert found.spikes_per_neuron > 0.1
    assert found.engine == "event"


def test_every_family_has_a_small_network_or_rows_of_its_own() -> None:
    tested = {each for each, *_ in NETWORKS.values()}
    assert set(zoo.FAMILIES) - tested == {"ConvNeXt", "ViT", "Swin", "MaxViT", *zoo.SEGMENTATION}


def _convnext() -> nn.Module:
    return models.ConvNeXt([models.convnext.CNBlockConfig(8, None, 2)], num_classes=10)


def test_what_is_refused_is_counted_by_kind() -> None:
    x = torch.randn(4, 3, 32, 32)
    found = support(lambda: _convnext().eval(), x, Levels(activation=3))
    assert isinstance(found, Refused)
    (kind,) = found.offences
    assert (kind["got"], kind["count"]) == ("aten.layer_norm.default", 4)
    assert kind["where"].startswith("features.0.1 (convnext.py:")
    assert "divides by a statistic of the activations" in kind["known"]


def test_the_page_says_what_was_measured() -> None:
    made = json.loads(HELD.read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8") == document(made)
    for name, row in made["rows"].items():
        assert zoo.family(name)
        if row["taken"]:
            assert row["lossless"], name
            assert row["neurons_compared"] == row["samples"] * row["neurons"] > 0, name
            assert row["neurons_different"] == row["outputs_different"] == 0, name
            assert row["capture_error"] <= 1e-9, name
        else:
            assert all(each["known"] and each["do"] and each["count"] > 0 for each in row["offences"]), name


@pytest.mark.parametrize("name", ["mnasnet0_5"])
def test_rows_of_the_page_can_be_made_again(name: str) -> None:
    kept = json.loads(HELD.read_text())["rows"][name]
    made = json.loads(json.dumps(zoo.row(name).to_dict()))
    same = ("taken", "parameters", "shape", "levels", "neurons", "neurons_compared", "outputs_compared")
    assert {key: made[key] for key in same} == {key: kept[key] for key in same}
    assert made["lossless"]
    assert made["neurons_different"] == made["outputs_different"] == 0


def test_the_page_has_rows_of_every_family() -> None:
    made = json.loads(HELD.read_text(encoding="utf-8"))
    assert {zoo.family(name) for name in made["rows"]} == set(zoo.FAMILIES)
    if version("torchvision") == made["versions"]["torchvision"]:
        assert set(made["rows"]) <= set(zoo.names())


def _drawn(place: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, Any]:
    """What the script leaves behind; the result of main as "code"."""
    held, page = place / "zoo.json", place / "zoo.md"
    monkeypatch.setattr(sys, "argv", ["draw-zoo", "--json", str(held), "--doc", str(page), *more])
    code = runpy.run_path(str(ROOT / "scripts" / "draw-zoo"))["main"]()
    made: dict[str, Any] = json.loads(held.read_text(encoding="utf-8"))
    assert page.read_text(encoding="utf-8") == document(made)
    return {"code": code, **made["rows"]}


def test_rows_that_are_there_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script goes on where it was killed, makes anew what it is told to, and a failure ends nothing."""
    (tmp_path / "zoo.json").write_text(json.dumps({"rows": {"vit_b_16": REFUSED}}), encoding="utf-8")
    found = {"convnext_tiny": {**REFUSED, "parameters": 1}, "vit_b_16": {**REFUSED, "parameters": 2}}

    def ran(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        name = command[-1]
        return subprocess.CompletedProcess(command, int(name not in found), json.dumps(found.get(name)))

    monkeypatch.setattr(subprocess, "run", ran)
    made = _drawn(tmp_path, monkeypatch, "alexnet", "vit_b_16", "convnext_tiny")
    assert made == {"code": 1, "convnext_tiny": found["convnext_tiny"], "vit_b_16": REFUSED}
    made = _drawn(tmp_path, monkeypatch, "--again", "vit_b_16")
    assert made == {"code": 0, **found}


def test_a_network_is_drawn_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _drawn(tmp_path, monkeypatch, "convnext_tiny")
    assert made["convnext_tiny"]["offences"][0]["count"] == 23


def test_the_page_counts_what_differs_and_says_why_others_are_refused() -> None:
    row: dict[str, Any] = dict.fromkeys(
        ("parameters", "neurons", "steps_max", "steps_bound", "neurons_compared"), 12_345
    )
    row |= {"taken": True, "shape": [3, 8, 8], "levels": 7, "capture_error": 2e-15, "identities": [64, 2]}
    row |= {"spikes_per_neuron": 1.5, "neurons_different": 3, "lossless": False}
    versions = {"torch": "1", "torchvision": "2"}
    page = document({"versions": versions, "rows": {"vit_b_16": REFUSED, "vgg11": row, "lraspp_x": row}})
    line = (
        "12,345 | 8 x 8 | 7 | 2e-15 | 12,345 | 64 (2) | 12345 / 12345 | 1.50 | 12,345 | 3 **not lossless** |"
    )
    assert f"| vgg11 | {line}" in page
    assert page.index("| vgg11 |") < page.index("## Segmentation") < page.index("| lraspp_x |")
    assert "| vit_b_16 | 7 | 8 x 8 | 2 of `a`; 1 of `b` | k |" in page
    assert "2 of 3 networks convert; 24,690 counts were compared, 6 differ." in page


def test_norms_get_statistics_of_the_data_and_gains_of_both_signs() -> None:
    module = nn.Sequential(nn.Conv2d(3, 64, 1), nn.BatchNorm2d(64), nn.BatchNorm2d(64, affine=False))
    x = 5 + 2 * torch.randn(8, 3, 16, 16)
    made = zoo.settled(module, x)
    assert not any(each.training for each in made.modules())
    gains = made[1].weight
    assert (gains < 0).any()
    assert (gains > 0).any()
    torch.testing.assert_close(made(x).mean((0, 2, 3)), torch.zeros(64), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(made(x).std((0, 2, 3)), torch.ones(64), atol=1e-2, rtol=0.0)


def test_names_that_are_no_network_are_refused() -> None:
    with pytest.raises(UsageError, match="known: alexnet, "):
        zoo.row("resnet19")
    with pytest.raises(UsageError, match="AlexNet, VGG"):
        zoo.family("mlp")
