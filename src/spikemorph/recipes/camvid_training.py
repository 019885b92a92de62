"""Training of the segmentation network: from MobileNetV2's weights, on photos zoomed and mirrored."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikemorph.data import Split
from spikemorph.data.camvid import CLASSES, VOID, load_camvid
from spikemorph.data.pretrained import MOBILENET_V2
from spikemorph.recipes.camvid_network import Scores
from spikemorph.recipes.training import Report, Schedule, train

SCHEDULE = Schedule(epochs=70, rate=2e-3, batch=8, decay=0.02, seed=1)
ZOOM = (0.9, 2.2)
"""Of a training photo, drawn evenly on a logarithmic scale."""
RARITY = 1.10
"""Weights of classes are 1 / ln(this + share of pixels), after A. Paszke et al., ENet, 2016 (there 1.02)."""


def train_float(folder: Path, report: Report) -> nn.Module:
    """The float network, trained or resumed in `folder`, at rest."""
    torch.manual_seed(0)
    data = load_camvid(Split.TRAIN)
    whole = Scores(len(CLASSES))
    model = whole.fcn
    own = model.state_dict()
    pretrained = {f"backbone.{name}": each for name, each in MOBILENET_V2.state_dict().items()}
    model.load_state_dict(own | {name: each for name, each in pretrained.items() if name in own})
    model.to(memory_format=torch.channels_last).train()
    weights = class_weights(data.y)

    def loss(scenes: Tensor, _: Tensor) -> Tensor:
        x, y = scenes[:, :3], scenes[:, 3].long()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = model(x.contiguous(memory_format=torch.channels_last))["out"]
        return F.cross_entropy(scores.float(), y, weights, ignore_index=VOID)

    train(
        model,
        loss,
        (torch.cat((data.x, data.y.unsqueeze(1)), 1), torch.zeros(len(data))),
        SCHEDULE,
        augment=zoom_and_flip,
        checkpoint=folder / "float.pt",
        report=lambda line: report(f"float {line}"),
    )
    return whole.to(memory_format=torch.contiguous_format).eval()


def class_weights(labels: Tensor) -> Tensor:
    """[11]: larger for rarer classes; labels in 0..11."""
    share = torch.bincount(labels.flatten(), minlength=VOID + 1)[:VOID] / (labels != VOID).sum()
    return 1 / torch.log(RARITY + share)


def zoom_and_flip(scenes: Tensor, generator: torch.Generator) -> Tensor:
    """Each scene zoomed, moved within its frame, mirrored with probability 1/2, brighter or darker.

    Args:
        scenes: [n, 4, height, width], labels as the fourth channel, so that they move with the photo.
    """
    n = len(scenes)
    lo, hi = torch.tensor(ZOOM).log()
    zoom = torch.exp(lo + (hi - lo) * torch.rand(n, generator=generator))
    room = 1 - 1 / zoom
    across, down = room * (2 * torch.rand((2, n), generator=generator) - 1)
    mirror = 1 - 2 * (torch.rand(n, generator=generator) < 0.5).float()
    nothing = torch.zeros(n)
    rows = torch.stack((mirror / zoom, nothing, across, nothing, 1 / zoom, down), 1)
    places = F.affine_grid(rows.reshape(n, 2, 3), list(scenes.shape), align_corners=False)
    photos = F.grid_sample(scenes[:, :3], places, align_corners=False)
    light = torch.exp(0.3 * torch.randn((n, 1, 1, 1), generator=generator))
    tint = 0.15 * torch.randn((n, 3, 1, 1), generator=generator)
    labels = F.grid_sample(scenes[:, 3:] - VOID, places, mode="nearest", align_corners=False) + VOID
    return torch.cat((photos * light + tint, labels.round()), 1)
