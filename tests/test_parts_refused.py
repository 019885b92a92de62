"""Parts that cannot be taken out are refused, whatever the images show; the model stays as it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.errors import CaptureError, DataError, UsageError
from spikemorph.parts import Part
from spikemorph.parts.standins import Held
from test_parts import FAST, Backbone, anchors, detection, faster, photos, retinanet, small

torch.set_num_threads(1)


def with_backbone(backbone: nn.Module) -> nn.Module:
    model = retinanet()
    model.backbone = backbone.eval()
    return model


def modes(model: nn.Module) -> dict[str, bool]:
    return {path: module.training for path, module in model.named_modules()}


class Plain(nn.Module):
    """A backbone of one map and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.backbone(x))


# ---------------------------------------------------------------- readers of what is inside
class Gated(detection.RetinaNet):  # type: ignore[misc, name-defined]
    """Weighs its scores by the mean of a map that only the heads should read."""

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        kept: list[Tensor] = []
        hook = self.backbone.register_forward_hook(lambda m, a, out: kept.append(next(iter(out.values()))))
        try:
            found = super().forward(images, targets)
        finally:
            hook.remove()
        gate = kept[0].mean().sigmoid()
        return [{key: each[one["scores"] * gate > 0.3] for key, each in one.items()} for one in found]


def gated() -> nn.Module:
    torch.manual_seed(0)
    size = {"min_size": 16, "max_size": 24, "size_divisible": 8}
    model = Gated(Backbone(), 2, anchor_generator=anchors(), **size).eval()
    for weight in model.head.parameters():
        nn.init.normal_(weight, std=0.15)
    nn.init.constant_(model.head.classification_head.cls_logits.bias, -3.0)
    return model


def test_a_second_reader_is_named_though_there_are_no_boxes() -> None:
    model, grey = gated(), [torch.full((3, 16, 24), 0.485)] * 3
    with torch.no_grad():
        assert [len(each["boxes"]) for each in model(grey)] == [0, 0, 0]
    with pytest.raises(CaptureError) as caught:
        Part(model).capture(grey)
    met = caught.value
    assert met.where == "module backbone of Gated"
    assert met.got.startswith("its results are read by Gated.forward (test_parts_refused.py:")
    assert met.got.endswith(", by aten.mean.default")
    assert met.known.startswith("results that only module head reads")
    assert met.do.startswith("let the part end there: Part(model, modules=('backbone',))")
    bright = [6 * each for each in photos()]
    part = Part(model, ("backbone",))
    placed = part.place(part.capture(grey))(bright)
    with torch.no_grad():
        wanted = model(bright)
    assert [len(each["boxes"]) for each in placed] == [len(each["boxes"]) for each in wanted]
    assert min(len(each["boxes"]) for each in placed) > 0


def test_a_placed_model_that_reads_what_is_inside_later_is_refused_then() -> None:
    class Late(Plain):
        def forward(self, x: Tensor) -> Any:
            inside = self.backbone(x)
            out = self.head(inside)
            return out + inside.mean() if x.max() > 1 else out

    part, x = Part(Late().eval()), torch.rand(2, 3, 8, 8)
    placed = part.place(part.capture(x))
    assert placed(x).shape == (2, 2, 8, 8)
    with pytest.raises(CaptureError, match=r"read by .*Late\.forward"):
        placed(2 * x)


def test_a_part_may_end_at_the_module_that_is_read() -> None:
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Any:
            inside = self.b(self.a(x))
            return self.c(inside), inside.amax()

    model, x = Three().eval(), torch.rand(2, 3, 8, 8)
    with pytest.raises(CaptureError, match=r"module b of Three: (.|\n)*modules=\('a', 'b'\)"):
        Part(model, ("a", "b", "c")).capture(x)
    part = Part(model, ("a", "b"))
    for given, wanted in zip(part.place(part.capture(x))(x), model(x), strict=True):
        assert torch.allclose(given, wanted, atol=1e-5)


def held() -> Held:
    def refuse(reader: str) -> CaptureError:
        return CaptureError(where="", got=reader, known="", do="")

    return Held.of(torch.rand(2, 3, 4, 5), (), refuse)


def test_shapes_types_and_devices_are_free_to_all() -> None:
    x = held()
    assert (x.shape, x.size(2), x.dim(), len(x), x.numel()) == ((2, 3, 4, 5), 4, 4, 2, 120)
    assert (x.dtype, x.device, x.is_floating_point()) == (torch.float32, torch.device("cpu"), True)
    for made in (torch.zeros_like(x), x.new_ones(2), torch.full_like(x, 3)):
        assert type(made) is Tensor
    assert repr(x) == "Held([2, 3, 4, 5], torch.float32)"
    assert f"{x}" == repr(x)
    assert x in [x]


READING: list[Callable[[Tensor], object]] = [
    lambda x: x.mean(),
    lambda x: x[0],
    lambda x: x + 1,
    lambda x: torch.cat([torch.zeros(2, 3, 4, 5), x]),
    nn.Conv2d(3, 2, 1),
    lambda x: x.numpy(),
    lambda x: x.__array__(),
    lambda x: x.tolist(),
    lambda x: x.data_ptr(),
    lambda x: x.untyped_storage(),
    lambda x: x.detach(),
    lambda x: x.relu_(),
    lambda x: torch.zeros(2, 3, 4, 5).copy_(x),
    list,
]


@pytest.mark.parametrize("read", READING)
def test_numbers_are_for_nobody(read: Callable[[Tensor], object]) -> None:
    with pytest.raises(CaptureError, match=r" \(test_parts_refused\.py:\d+\), by "):
        read(held())


def test_a_hook_on_a_module_of_the_part_is_refused() -> None:
    model, seen = Plain().eval(), []
    handle = model.head.register_forward_hook(lambda m, a, out: seen.append(out))
    with pytest.raises(CaptureError, match=r"module head of Plain: a forward hook on head"):
        Part(model).capture(torch.rand(2, 3, 8, 8))
    handle.remove()
    Part(model).capture(torch.rand(2, 3, 8, 8))


def test_a_module_called_by_another_name_is_not_taken_out() -> None:
    class Listed(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.stages = {"tail": (self.backbone, self.head)}

        def forward(self, x: Tensor) -> Any:
            first, second = self.stages["tail"]
            return second(first(x))

    for modules in (("backbone", "head"), ("backbone",)):
        with pytest.raises(CaptureError, match=r"not the module that the model calls(.|\n)*as self\."):
            Part(Listed().eval(), modules).capture(torch.rand(2, 3, 8, 8))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_scripted_modules_are_left_around_a_part_and_refused_in_it() -> None:
    class Behind(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.behind = torch.jit.script(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU()))

        def forward(self, x: Tensor) -> Any:
            return self.behind(super().forward(x))

    model, x = Behind().eval(), torch.rand(2, 3, 8, 8)
    part = Part(model)
    graph = part.capture(x)
    assert torch.allclose(part.place(graph).train()(x), model(x), atol=1e-5)
    assert not any(modes(model).values())
    for call in ("inputs", "module", "capture"):
        with pytest.raises(CaptureError, match="behind of Behind: a scripted module"):
            getattr(Part(model, ("behind",)), call)(x)


def test_a_part_that_writes_into_its_input_is_refused() -> None:
    model = nn.Sequential(OrderedDict(first=nn.ReLU(inplace=True), last=nn.Conv2d(3, 2, 1))).eval()
    with pytest.raises(CaptureError, match=r"module first of Sequential: writes into what it is called with"):
        Part(model, ("first", "last")).capture(torch.randn(2, 3, 8, 8))


def test_what_the_model_does_to_the_input_afterwards_is_not_seen() -> None:
    class Reused(Plain):
        def forward(self, x: Tensor) -> Any:
            x = x + 1
            inside = self.backbone(x)
            x.zero_()
            return self.head(inside)

    model, x = Reused().eval(), torch.rand(2, 3, 8, 8)
    part = Part(model)
    with torch.no_grad():
        wanted = model(x)
    assert torch.allclose(part.place(part.capture(x))(x), wanted, atol=1e-5)


def test_outputs_of_the_part_are_compared_where_results_say_nothing() -> None:
    class Drifting(Plain):
        calls = 0

        def forward(self, x: Tensor) -> Any:
            self.calls += 1
            self.head(self.backbone(x * self.calls))
            return []

    with pytest.raises(CaptureError, match="head of Drifting: other outputs in its place"):
        Part(Drifting().eval()).capture(torch.rand(2, 3, 8, 8))


def test_results_are_compared_too() -> None:
    class Counting(Plain):
        calls = 0

        def forward(self, x: Tensor) -> Any:
            self.calls += 1
            return super().forward(x) * self.calls

    with pytest.raises(CaptureError, match="head of Counting: not the only reader"):
        Part(Counting().eval()).capture(torch.rand(2, 3, 8, 8))


# ---------------------------------------------------------------- every failure names its module
class Branching(Backbone):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return super().forward(2 * x if x.sum() > 0 else x)


class ThroughNumpy(Backbone):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = super().forward(x)
        return OrderedDict([("0", torch.from_numpy(maps["0"].detach().numpy())), ("1", maps["1"])])


@pytest.mark.parametrize("backbone", [Branching, ThroughNumpy])
def test_a_backbone_that_torch_cannot_export(backbone: type[nn.Module]) -> None:
    with pytest.raises(CaptureError) as caught:
        Part(with_backbone(backbone())).capture(photos())
    met = caught.value
    assert met.where == "module backbone of RetinaNet"
    assert met.got.startswith("torch.export: ")
    assert met.do.startswith("name what can be: Part(model, modules=('backbone.deep',));")


def test_a_head_that_torch_cannot_export() -> None:
    class Branched(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.head = Halved()

    class Halved(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(CaptureError, match=r"module head of Branched: torch\.export") as caught:
        Part(Branched().eval()).capture(torch.rand(2, 3, 8, 8))
    assert caught.value.do.startswith("name what can be: Part(model, modules=('backbone',));")
    model = Plain().eval()
    nn.init.constant_(model.head.bias, float("nan"))  # type: ignore[arg-type]
    with pytest.raises(CaptureError, match=r"module head of Plain: head\.bias: 2 of 2 values are NaN"):
        Part(model).capture(torch.rand(2, 3, 8, 8))


def test_tensors_made_inside_of_a_backbone() -> None:
    class Ramped(Backbone):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            maps = super().forward(x)
            maps["0"] = maps["0"] + torch.linspace(0, 1, maps["0"].shape[-1])
            return maps

    part = Part(with_backbone(Ramped()))
    boxes = part.place(part.capture(photos()))(photos(1))[0]["boxes"]
    with torch.no_grad():
        wanted = part.model(photos(1))[0]["boxes"]
    assert torch.allclose(boxes, wanted, atol=1e-3)


def test_changes_in_place_between_two_modules() -> None:
    class Between(Plain):
        def forward(self, x: Tensor) -> Any:
            return self.head(self.backbone(x).relu_())

    with pytest.raises(CaptureError, match=r"backbone of Between: .*Between\.forward .*, by aten\.relu_"):
        Part(Between().eval()).capture(torch.rand(2, 3, 8, 8))


def test_a_model_that_fails_without_the_modules_of_its_part() -> None:
    class Reaching(Plain):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) + self.head.bias.sum()

    with pytest.raises(CaptureError, match=r"head of Reaching: not to be taken out: AttributeError"):
        Part(Reaching().eval()).capture(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("call", ["inputs", "module", "capture"])
def test_training_mode_and_no_images_in_every_method(call: str) -> None:
    model = retinanet()
    with pytest.raises(DataError, match=r"images: \[\]"):
        getattr(Part(model), call)([])
    with pytest.raises(DataError, match=r"images: shape \[0, 3, 16, 24\]"):
        getattr(Part(model), call)(torch.rand(0, 3, 16, 24))
    model.transform.train()  # type: ignore[operator, union-attr]
    with pytest.raises(CaptureError, match=r"transform: training mode"):
        getattr(Part(model), call)(photos())
    model.train()
    with pytest.raises(CaptureError, match=r"call model\.eval\(\)"):
        getattr(Part(model), call)(photos())


def test_a_first_module_that_takes_a_list() -> None:
    for call in ("inputs", "capture"):
        with pytest.raises(CaptureError, match=r"head of RetinaNet: called with something else than tensors"):
            getattr(Part(retinanet(), ("head",)), call)(photos())


def test_networks_and_outputs_of_another_part() -> None:
    part, x = Part(Plain().eval()), torch.rand(2, 3, 8, 8)
    part.capture(x)
    other = sm.capture(nn.Conv2d(3, 5, 1).eval(), x)
    network = sm.convert(sm.quantise(other, torch.rand(40, 3, 8, 8), FAST))
    for call in (lambda: part.place(network)(x), lambda: part.finish(x, torch.zeros(2, 5, 8, 8))):
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.where == "module head of Plain"
        assert caught.value.got == "outputs [2, 5, 8, 8] in place of [2, 2, 8, 8]"
        assert "graph = part.capture(images)" in caught.value.do
    with pytest.raises(UsageError, match=r"outputs \['a'\] \[2, 2, 8, 8\] in place of \[2, 2, 8, 8\]"):
        part.finish(x, {"a": torch.zeros(2, 2, 8, 8)})


# ---------------------------------------------------------------- advice
class Normed(Backbone):
    """Refused for its norm; with a large module that is never called and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(512, 512), nn.GroupNorm(4, 32)
        self.shared, self.late = nn.Conv2d(32, 32, 7, padding=3), nn.Conv2d(32, 32, 5, padding=2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.stem(x)
        return OrderedDict([
            ("0", fine),
            ("1", self.late(self.norm(self.shared(self.shared(self.deep(fine)))))),
        ])


def test_only_modules_that_are_called_once_in_front_of_the_fault_are_advised() -> None:
    model = with_backbone(Normed())
    with pytest.raises(CaptureError, match="group_norm") as caught:
        Part(model).capture(photos())
    assert "modules=('backbone.deep',)" in caught.value.do
    Part(model, ("backbone.deep",)).capture(photos())
    with pytest.raises(CaptureError, match="called 2 times") as caught:
        Part(model, ("backbone.shared",)).capture(photos())
    assert caught.value.do == "name other modules: Part(model, modules=(...,))"


def test_modules_called_with_more_than_tensors_are_not_advised() -> None:
    class Scaled(nn.Conv2d):
        def forward(self, x: Tensor, scale: float) -> Tensor:  # type: ignore[override]
            return super().forward(x) * scale

    class Inner(Backbone):
        def __init__(self) -> None:
            super().__init__()
            self.deep, self.norm = Scaled(32, 32, 3, 2, 1), nn.GroupNorm(4, 32)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            fine = self.stem(x)
            return OrderedDict([("0", fine), ("1", self.norm(self.deep(fine, 2.0)))])

    with pytest.raises(CaptureError, match="group_norm") as caught:
        Part(with_backbone(Inner())).capture(photos())
    assert "modules=('backbone.stem',)" in caught.value.do


def test_the_layers_in_front_of_the_norm_of_ssd_are_advised() -> None:
    model = small(detection.ssd300_vgg16)
    model.transform.fixed_size = (64, 64)  # type: ignore[union-attr, assignment]
    for last in (3, 4):  # smaller than their kernels here
        model.backbone.extra[last] = nn.Identity().eval()  # type: ignore[index, operator, union-attr]
    with pytest.raises(CaptureError, match="norm") as caught:
        Part(model, ("backbone",)).capture([torch.rand(3, 64, 64)])
    assert "modules=('backbone.features',)" in caught.value.do


# ---------------------------------------------------------------- the model stays as it is
def test_what_is_placed_shares_no_mode_with_the_model() -> None:
    model = faster()
    part = Part(model, ("backbone",))
    graph = part.capture(photos())
    rest = modes(model)
    part.place(graph).train()
    part.module(photos()).train()
    assert modes(model) == rest
    model.train()
    training = modes(model)
    spiking = part.place(graph)
    assert modes(model) == training
    assert not any(modes(spiking).values())
    assert len(spiking(photos())) == 3


def test_what_a_part_keeps_on_itself_is_kept_from_the_model() -> None:
    class Keeping(Backbone):
        kept: Tensor | None = None

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            if self.kept is None:
                self.kept = torch.ones(1)
            return super().forward(x * self.kept)

    model = with_backbone(Keeping())
    part = Part(model)
    graph = part.capture(photos())
    model.backbone.kept = None  # type: ignore[union-attr, assignment]
    part.place(graph)(photos())
    assert model.backbone.kept is None  # type: ignore[union-attr]
    with torch.inference_mode():
        assert len(part.place(graph)(photos())) == 3


# ---------------------------------------------------------------- one size
def test_another_size_says_how_to_get_one() -> None:
    part = Part(retinanet())
    placed = part.place(part.capture(photos()))
    with pytest.raises(DataError) as caught:
        placed(photos(2, 16, 16))
    met = caught.value
    assert met.where == "module backbone of RetinaNet"
    assert met.got == "called with inputs of shape [2, 3, 16, 16]"
    assert met.known == "[batch, 3, 16, 24], the one size that was captured"
    assert met.do == (
        "give the model images that come to this size, such as all padded to one square, or let it resize "
        "them: model.transform.fixed_size = (24, 16)"
    )
    part.model.transform.fixed_size = (24, 16)  # type: ignore[union-attr, assignment]
    assert len(part.place(part.capture(photos()))(photos(2, 16, 16))) == 2
    inner = Part(faster(), ("backbone.deep",))
    with pytest.raises(DataError, match=r"captured\n.*padded to one square$"):
        inner.place(inner.capture(photos()))(photos(2, 16, 16))
