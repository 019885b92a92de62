"""What the segmentation network starts from and learns on."""

from __future__ import annotations

import pytest
import torch

from spikemorph.data.camvid import CLASSES, VOID
from spikemorph.recipes.camvid_network import LATERAL, Scores, Skips
from spikemorph.recipes.camvid_training import class_weights, zoom_and_flip

torch.set_num_threads(1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_labels_move_with_their_photo() -> None:
    labels = torch.randint(VOID, (16, 1, 6, 8), generator=generator(5)).float()
    labels = labels.repeat_interleave(10, 2).repeat_interleave(10, 3)
    scenes = torch.cat((labels.expand(-1, 3, -1, -1), labels), 1)
    for scene in zoom_and_flip(scenes, generator(0)):
        shade, label = scene[0], scene[3]
        assert torch.equal(label, label.round())
        inside = label != VOID
        # Light and tint are one line from label to shade; only borders of cells are blended.
        assert torch.corrcoef(torch.stack((shade[inside], label[inside])))[0, 1] > 0.95
        assert inside.float().mean() > 0.75


def test_scenes_are_zoomed_moved_and_mirrored() -> None:
    column = torch.arange(12).clamp(max=10).repeat_interleave(10).float()
    scenes = column.expand(64, 4, 50, 120).clone()
    found = zoom_and_flip(scenes, generator(1))[:, 3, 25]
    rising = (found[:, -20:].mean(1) > found[:, :20].mean(1)).float().mean()
    assert 0.3 < rising < 0.7
    kinds = torch.tensor([len(row.unique()) for row in found])
    assert kinds.min() <= 7
    assert kinds.max() >= 10


def test_scenes_are_drawn_by_the_generator_alone() -> None:
    scenes = torch.rand(2, 4, 20, 20).round()
    assert torch.equal(zoom_and_flip(scenes, generator(3)), zoom_and_flip(scenes, generator(3)))
    assert not torch.equal(zoom_and_flip(scenes, generator(3)), zoom_and_flip(scenes, generator(4)))


def test_rare_classes_weigh_more_and_void_counts_for_nothing() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10 + [VOID] * 500)
    weights = class_weights(labels)
    assert weights.shape == (len(CLASSES),)
    assert weights[2] > weights[1] > weights[0]
    assert torch.equal(weights, class_weights(labels[:100]))


def test_the_network_sees_every_stage_at_stride_four() -> None:
    pytest.importorskip("torchvision")
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        assert Skips().eval()(x)["out"].shape == (1, sum(width for _, width in LATERAL), 24, 16)
        assert Scores(len(CLASSES)).eval()(x).shape == (1, len(CLASSES), 96, 64)
