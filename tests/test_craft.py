"""CRAFT on rendered words: the scenes, the boxes, the network."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.data import Split
from spikemorph.data.words import APART, HEIGHT, MOST, WIDTH, Words, load_words
from spikemorph.errors import MissingData
from spikemorph.levels import Levels
from spikemorph.recipes.craft_network import Craft, craft
from spikemorph.recipes.text_boxes import boxes_of, shared

torch.set_num_threads(1)


# ---------------------------------------------------------------- scenes
def scenes(split: Split, samples: int) -> Words:
    try:
        return load_words(split, samples=samples)
    except MissingData as error:
        pytest.skip(str(error))


def test_scenes_are_the_same_every_time_and_differ_between_parts() -> None:
    one, more = scenes(Split.TEST, 3), scenes(Split.TEST, 5)
    assert torch.equal(one.x, more.x[:3])
    assert torch.equal(one.y, more.y[:3])
    assert not torch.equal(one.x, scenes(Split.VALIDATION, 3).x)
    assert len(more.first(2)) == 2


def test_words_lie_inside_and_apart_on_their_ground() -> None:
    made = scenes(Split.VALIDATION, 12)
    assert made.x.shape == (12, 3, HEIGHT, WIDTH)
    assert torch.equal((made.x * 255).round(), made.x * 255)
    assert made.y.shape == (12, MOST, 4)
    for picture, boxes in zip(made.x, made.y, strict=True):
        real = boxes[boxes[:, 0] >= 0]
        assert len(real)
        assert bool((real[:, :2] >= APART).all())
        assert bool((real[:, 2] <= WIDTH - APART).all())
        assert bool((real[:, 3] <= HEIGHT - APART).all())
        for i, (left, top, right, bottom) in enumerate(real.tolist()):
            inside = picture[:, top:bottom, left:right]
            assert float(inside.std()) > 0.08  # letters differ from their ground, which is nearly even
            for other in real[i + 1 :].tolist():
                clear = right + APART <= other[0] or other[2] + APART <= left
                assert clear or bottom + APART <= other[1] or other[3] + APART <= top


def test_no_words_to_train_on_and_no_drawing_without_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingData, match="training part"):
        load_words(Split.TRAIN)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingData, match="is not installed") as met:
        load_words(Split.TEST)
    assert "pip install" in met.value.do


# ---------------------------------------------------------------- boxes
def heat(*spots: tuple[int, slice, slice, float]) -> Tensor:
    made = torch.zeros(2, 20, 40)
    for head, rows, columns_, value in spots:
        made[head, rows, columns_] = value
    return made


def test_boxes_are_those_of_components_and_grow_with_their_thickness() -> None:
    pytest.importorskip("scipy")
    found = boxes_of(heat((0, slice(5, 9), slice(10, 26), 0.9)))
    # 4 x 16 pixels: grows by sqrt(64 * 4 / 64) = 2 on each side; twice as large in the picture.
    assert found.tolist() == [[16, 6, 56, 22]]


def test_affinity_joins_characters_without_making_the_box_larger() -> None:
    pytest.importorskip("scipy")
    left, right = (0, slice(5, 9), slice(4, 10), 0.9), (0, slice(5, 9), slice(16, 22), 0.9)
    assert len(boxes_of(heat(left, right))) == 2
    (box,) = boxes_of(heat(left, right, (1, slice(3, 12), slice(8, 18), 0.8)))
    more = round((48 * 4 / (18 * 4)) ** 0.5)
    assert box.tolist() == [2 * (4 - more), 2 * (5 - more), 2 * (22 + more), 2 * (9 + more)]


def test_faint_and_tiny_components_are_dropped() -> None:
    pytest.importorskip("scipy")
    place = slice(5, 9), slice(10, 26)
    assert len(boxes_of(heat((0, *place, 0.69)))) == 0
    assert len(boxes_of(heat((1, *place, 0.9)))) == 0
    assert len(boxes_of(heat((0, slice(5, 8), slice(10, 13), 0.9)))) == 0
    assert boxes_of(torch.zeros(2, 8, 8)).shape == (0, 4)
    assert boxes_of(heat((0, slice(0, 20), slice(0, 40), 0.9))).tolist() == [[0, 0, 80, 40]]


def boxes(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)


def test_shared_boxes_have_one_partner_each() -> None:
    pytest.importorskip("torchvision")
    a, far = [0, 0, 10, 10], [50, 50, 60, 60]
    assert shared([boxes(a, far)], [boxes(far, a)]) == 100
    assert shared([boxes(a)], [boxes(far)]) == 0
    assert shared([boxes(a, a)], [boxes(a)]) == pytest.approx(200 / 3)
    assert shared([boxes([0, 0, 10, 20])], [boxes(a)]) == 100  # half of the union
    assert shared([boxes([0, 0, 10, 21])], [boxes(a)]) == 0
    assert shared([boxes(a), boxes()], [boxes(), boxes(a)]) == 0
    assert shared([boxes(a), boxes(a)], [boxes(a), boxes()]) == pytest.approx(200 / 3)
    assert shared([boxes()], [boxes()]) == 100
    # The best pair first: [0,0,10,11] goes to its nearest, and the other two remain for each other.
    assert shared([boxes([0, 0, 10, 11], [0, 0, 10, 15])], [boxes(a, [0, 0, 10, 12])]) == 100


# ---------------------------------------------------------------- network
def pretrained() -> Craft:
    try:
        return craft()
    except MissingData as error:
        pytest.skip(str(error))


def test_the_weights_fit_and_the_words_are_found() -> None:
    model = pretrained()
    assert not any(module.training for module in model.modules())
    data = scenes(Split.TEST, 4)
    with torch.inference_mode():
        maps = model(data.x)
    assert maps.shape == (4, 2, HEIGHT // 2, WIDTH // 2)
    truth = [each[each[:, 0] >= 0] for each in data.y]
    assert shared([boxes_of(each) for each in maps], truth) > 80
    inside = torch.zeros(4, HEIGHT // 2, WIDTH // 2, dtype=torch.bool)
    for mask, each in zip(inside, truth, strict=True):
        for left, top, right, bottom in (each // 2).tolist():
            mask[top:bottom, left:right] = True
    assert float(maps[:, 0][inside].mean()) > 10 * float(maps[:, 0][~inside].mean())


def test_the_whole_detector_is_captured_and_lossless() -> None:
    """Pools and dilated convolutions on signed values, linear behind linear, upsampling, at 16 x 32."""
    torch.manual_seed(0)
    model = Craft().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.01, 0.1)
    x = torch.rand(3, 3, 16, 32)
    graph = sm.capture(model, x[:1])
    torch.testing.assert_close(sm.evaluate(graph, x), model(x), rtol=1e-3, atol=1e-3)
    integer = sm.quantise(graph, x, Levels(activation=3))
    certificate = sm.verify(sm.convert(integer), integer, x[:1])
    assert certificate.lossless
    assert certificate.neurons_different == 0
