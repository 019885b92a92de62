"""Training of the blood-cell detector: from MobileNetV2's weights, on images flipped and transposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikemorph.data.bccd import Boxed
from spikemorph.data.pretrained import MOBILENET_V2
from spikemorph.recipes.bccd_network import detector
from spikemorph.recipes.training import Report, Schedule, train

SCHEDULE = Schedule(epochs=30, rate=1e-3, batch=8, seed=1)


def train_float(data: Boxed, folder: Path, report: Report) -> nn.Module:
    """The detector at rest, trained or resumed in `folder`."""
    torch.manual_seed(0)
    model = detector()
    known = pretrained(MOBILENET_V2.state_dict())
    own = model.state_dict()
    model.load_state_dict(own | {name: each for name, each in known.items() if name in own})
    model.to(memory_format=torch.channels_last).train()

    def loss(turns: Tensor, chosen: Tensor) -> Tensor:
        numbers = chosen.tolist()
        images, boxes = turned(data.x[chosen], [data.boxes[i] for i in numbers], turns)
        targets = [{"boxes": box, "labels": data.labels[i]} for box, i in zip(boxes, numbers, strict=True)]
        return detection_loss(model, images, targets)

    numbers = torch.arange(len(data))
    train(
        model,
        loss,
        (numbers, numbers),
        SCHEDULE,
        augment=lambda chosen, generator: torch.randint(2, (len(chosen), 3), generator=generator),
        checkpoint=folder / "float.pt",
        report=lambda line: report(f"float {line}"),
    )
    return model.to(memory_format=torch.contiguous_format).eval()


def pretrained(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of torchvision's MobileNetV2 under the names that the detector has for its first blocks."""
    return {name.replace("features", "backbone.body", 1): each for name, each in weights.items()}


def detection_loss(model: Any, images: Tensor, targets: list[dict[str, Tensor]]) -> Tensor:
    """Focal loss and distance of boxes; convolutions in bfloat16, the rest in float32.

    Args:
        model: a RetinaNet.
        images: [n, 3, height, width] of one size, which the model neither resizes nor pads.
    """
    from torchvision.models.detection.image_list import ImageList

    x = torch.stack([model.transform.normalize(each) for each in images])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = list(model.backbone(x.contiguous(memory_format=torch.channels_last)).values())
        found = model.head(maps)
    sizes = [(images.shape[2], images.shape[3])] * len(images)
    parts = model.compute_loss(
        targets,
        {name: each.float() for name, each in found.items()},
        model.anchor_generator(ImageList(x, sizes), maps),
    )
    total: Tensor = parts["classification"] + parts["bbox_regression"]
    return total


def turned(images: Tensor, boxes: Sequence[Tensor], turns: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Images [n, 3, height, width] and their boxes [k, 4], flipped and transposed alike.

    Args:
        turns: [n, 3] of 0 and 1: mirrored, upside down, transposed. The last one is that of the first image
            for all of them: images of a batch have one shape.
    """
    sizes = torch.tensor([images.shape[3], images.shape[2]])
    made, moved = [], []
    for image, box, turn in zip(images, boxes, turns[:, :2].bool(), strict=True):
        made.append(image.flip([2 - axis for axis in range(2) if turn[axis]]))
        corners = box.reshape(-1, 2, 2)
        moved.append(torch.where(turn, (sizes - corners).flip(1), corners).reshape(-1, 4))
    if not bool(turns[0, 2]):
        return torch.stack(made), moved
    return torch.stack(made).transpose(2, 3), [box[:, [1, 0, 3, 2]] for box in moved]
