"""The convolutional part of a larger model: taken out, spiking, put back; the rest as it was."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import CaptureError, DataError, UsageError
from spikemorph.ir.graph import Graph
from spikemorph.levels import Max
from spikemorph.parts import Part

detection = pytest.importorskip("torchvision.models.detection", reason="torchvision has the detectors")
torch.set_num_threads(1)

Seen = list[dict[str, Tensor]]
FAST = sm.Levels(activation=7, observer=Max(), weight_observer=Max())


class Backbone(nn.Module):
    """Two maps, strides 2 and 4."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.stem(x)
        return OrderedDict([("0", fine), ("1", self.deep(fine))])


def anchors() -> Any:
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    return AnchorGenerator(((8,), (16,)), ((1.0,), (1.0,)))


def retinanet() -> nn.Module:
    torch.manual_seed(0)
    size = {"min_size": 16, "max_size": 24, "size_divisible": 8}
    model = detection.RetinaNet(Backbone(), 2, anchor_generator=anchors(), score_thresh=0.0, **size)
    for weight in model.parameters():  # else every score is that of the bias
        nn.init.normal_(weight, std=0.1)
    return model.eval()


def photos(count: int = 3, height: int = 16, width: int = 24) -> list[Tensor]:
    return list(torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)))


@cache
def tiny() -> tuple[Part, Graph, Graph, SpikingNetwork]:
    """A part, its float graph, its quantised graph and its spiking network."""
    part = Part(retinanet())
    graph = part.capture(photos())
    integer = sm.quantise(graph, part.inputs(photos(8)), sm.Levels(activation=31))
    return part, graph, integer, sm.convert(integer)


def equal(a: Seen, b: Seen) -> bool:
    pairs = [(one[key], two[key]) for one, two in zip(a, b, strict=True) for key in one]
    return all(torch.equal(one, two) for one, two in pairs) and min(len(one["boxes"]) for one in a) > 0


def test_the_part_is_what_the_model_computes_between_its_transform_and_its_anchors() -> None:
    part, graph, _, _ = tiny()
    x = part.inputs(photos())
    assert isinstance(x, Tensor)
    assert x.shape == (3, 3, 16, 24)
    assert torch.allclose(x[0], part.model.transform.normalize(photos()[0]))  # type: ignore[union-attr, operator]
    outputs = sm.evaluate(graph, x)
    assert {name: tuple(each.shape) for name, each in outputs.items()} == {
        "cls_logits": (3, 12 * 8 + 6 * 4, 2),
        "bbox_regression": (3, 12 * 8 + 6 * 4, 4),
    }
    module = part.module(photos())
    assert set(module.state_dict()) == {name for name in part.model.state_dict() if "anchor" not in name}
    with torch.no_grad():
        assert torch.allclose(module(x)["cls_logits"], outputs["cls_logits"], atol=1e-4)
    assert {node.origin.module.split(".")[0] for node in graph.body} >= {"backbone", "head"}


def test_a_spiking_part_gives_the_boxes_of_the_quantised_one() -> None:
    part, _, integer, network = tiny()
    spiking = part.place(network)
    assert isinstance(spiking, detection.RetinaNet)
    assert equal(spiking(photos()), part.place(integer)(photos()))
    assert not equal(part.place(network, steps=1)(photos()), spiking(photos()))
    assert sm.verify(network, integer, part.inputs(photos())).lossless


def test_the_boxes_are_near_those_of_the_float_model_which_is_unchanged() -> None:
    part, graph, integer, _ = tiny()
    before = [name for name, _ in part.model.named_modules()]
    with torch.no_grad():
        original = part.model(photos())
    placed = part.place(graph)(photos())
    for found, wanted in zip(placed, original, strict=True):
        for key in wanted:
            assert torch.allclose(found[key].float(), wanted[key].float(), atol=1e-3)
    assert not equal(part.place(integer)(photos()), original)
    assert [name for name, _ in part.model.named_modules()] == before


def test_outputs_that_are_known_are_finished() -> None:
    part, _, _, network = tiny()
    run = sm.simulate(network, part.inputs(photos()), steps=6, record=sm.Outputs())
    assert run.outputs is not None
    early, late = (part.finish(photos(), run.outputs[t]) for t in (1, 5))
    assert equal(late, part.place(network, steps=6)(photos()))
    assert not equal(early, late)


def test_images_of_another_size_than_captured_are_refused() -> None:
    part, _, _, network = tiny()
    with pytest.raises(DataError):
        part.place(network)(photos(2, 16, 16))


def small(make: Callable[..., nn.Module], **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return make(weights=None, weights_backbone=None, num_classes=3, **options).eval()


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "ssdlite320_mobilenet_v3_large"])
def test_detectors_of_torchvision_convert_losslessly(name: str) -> None:
    sides = {"min_size": 32, "max_size": 32} if name.startswith("retinanet") else {}
    model = small(getattr(detection, name), **sides)
    model.score_thresh = 0.0  # type: ignore[assignment]
    if name.startswith("ssd"):
        model.transform.fixed_size = (32, 32)  # type: ignore[union-attr, assignment]
    part, images = Part(model), photos(2, 32, 32)
    x = part.inputs(images)
    integer = sm.quantise(part.capture(images), x, FAST)
    network = sm.convert(integer)
    certificate = sm.verify(network, integer, x[:1])
    assert certificate.lossless
    assert certificate.neurons_compared > 10_000
    assert equal(part.place(integer)(images[:1]), part.place(network)(images[:1]))


def faster() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"min_size": 16, "max_size": 24, "size_divisible": 8}
    return detection.FasterRCNN(Backbone(), 2, rpn_anchor_generator=anchors(), **sizes).eval()


def test_one_module_is_a_part_too() -> None:
    """The rest of a Faster R-CNN runs on the maps of a spiking backbone."""
    part = Part(faster(), ("backbone",))
    graph = part.capture(photos())
    network = sm.convert(sm.quantise(graph, part.inputs(photos()), sm.Levels(activation=15)))
    spiking = part.place(network)(photos())
    assert [sorted(each) for each in spiking] == [["boxes", "labels", "scores"]] * 3
    inner = Part(part.model, ("backbone.stem",))
    assert {node.origin.module for node in inner.capture(photos()).body} <= {
        "",
        "backbone.stem.0",
        "backbone.stem.1",
        "backbone.stem.2",
    }


def says(error: type[Exception], call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(error) as caught:
        call()
    met = caught.value
    assert (met.where, met.got, met.known, met.do) == parts  # type: ignore[attr-defined]


def test_a_module_that_is_not_there() -> None:
    says(
        UsageError,
        lambda: Part(faster()),
        "Part(modules)",
        "'head', which is no module of FasterRCNN",
        "a tuple of module paths; it consists of transform, backbone, rpn, roi_heads",
        "name the modules that turn images into maps: Part(model, modules=('backbone',))",
    )
    for modules in ((), "backbone"):
        with pytest.raises(UsageError, match="a tuple of module paths"):
            Part(faster(), modules)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="pass the detector itself"):
        Part(Backbone)  # type: ignore[arg-type]


def test_a_module_that_takes_something_else() -> None:
    says(
        CaptureError,
        lambda: Part(faster(), ("backbone", "rpn")).capture(photos()),
        "module rpn of FasterRCNN",
        "called with something else than what is in front of it gives",
        "tensors of the module in front, as they are; the model consists of transform, backbone, rpn, "
        "roi_heads",
        "name what can be: Part(model, modules=('backbone',)); everything behind it then runs as before",
    )


def test_a_head_that_cannot_be_captured() -> None:
    """FCOS of torchvision has GroupNorm in its heads."""
    torch.manual_seed(0)
    size = {"min_size": 16, "max_size": 24, "size_divisible": 8}
    model = detection.FCOS(Backbone(), 2, anchor_generator=anchors(), **size).eval()
    with pytest.raises(CaptureError) as caught:
        Part(model).capture(photos())
    met = caught.value
    assert met.where == "module head of FCOS"
    assert "aten.group_norm.default at head.classification_head.conv.1" in met.got
    assert "divides by a statistic" in met.known
    assert met.do.startswith("name what can be: Part(model, modules=('backbone',))")
    assert met.do.endswith("or train with BatchNorm1d or BatchNorm2d in its place")
    Part(model, ("backbone",)).capture(photos())


def test_a_backbone_that_cannot_be_captured_names_what_is_inside() -> None:
    """SSD of torchvision divides the first map by its norm; the layers in front of that capture."""

    class Divided(Backbone):
        def __init__(self) -> None:
            super().__init__()
            self.extra = nn.ModuleList([self.deep])

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            fine = self.stem(x)
            return OrderedDict([("0", nn.functional.normalize(fine)), ("1", self.extra[0](fine))])

    model = retinanet()
    model.backbone = Divided().eval()
    with pytest.raises(CaptureError, match=r"module backbone of RetinaNet.*norm") as caught:
        Part(model).capture(photos())
    assert "modules=('backbone.deep',)" in str(caught.value)
    del model.backbone.deep  # type: ignore[union-attr]
    with pytest.raises(CaptureError, match=r"backbone\.extra\.0"):
        Part(model).capture(photos())
    Part(model, ("backbone.extra.0",)).capture(photos())


def test_a_model_in_training_mode() -> None:
    with pytest.raises(CaptureError, match=r"call model\.eval\(\)"):
        Part(retinanet().train()).capture(photos())


class Twice(nn.Module):
    """Calls its head for each map, and reads the maps itself."""

    def __init__(self, *, apart: bool) -> None:
        super().__init__()
        self.apart = apart
        self.backbone, self.head, self.spare = Backbone(), nn.Conv2d(32, 2, 1), nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        fine, deep = self.backbone(images).values()
        if self.apart:
            return torch.cat([self.head(each).flatten(1) for each in (fine, deep)], 1)
        summed: Tensor = self.head(fine).flatten(1) + deep.mean()
        return summed


def test_parts_that_are_no_chain() -> None:
    images = torch.stack(photos())
    twice, leaking = (Part(Twice(apart=each).eval()) for each in (True, False))
    with pytest.raises(CaptureError, match="called 2 times"):
        twice.capture(images)
    with pytest.raises(
        CaptureError, match=r"backbone of Twice: its results are read by Twice\.forward .*, by aten\.mean"
    ):
        leaking.capture(images)
    unused = Part(twice.model, ("spare",))
    with pytest.raises(CaptureError, match="called 0 times"):
        unused.capture(images)
    with pytest.raises(CaptureError, match="never called"):
        unused.inputs(images)


def test_modules_called_with_keywords_are_named() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.backbone(input=x)

    part = Part(Model().eval(), ("backbone",))
    for call in (part.inputs, part.module, part.capture):
        with pytest.raises(CaptureError, match=r"backbone of Model: called with keywords: input"):
            call(torch.rand(2, 3, 4, 4))
    with pytest.raises(UsageError, match="'backbone'"):
        Part(Model().eval(), "backbone")  # type: ignore[arg-type]
