"""One training loop for all recipes: resumable, one-cycle schedule, progress through a callback."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from spikemorph.errors import FileError

Augment = Callable[[Tensor, torch.Generator], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
"""loss(x, y) of one batch of augmented inputs and their labels."""
Report = Callable[[str], None]


@final
@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Args:
        epochs: passes over the data.
        rate: the peak learning rate of the one-cycle schedule.
        batch: samples in one step.
        decay: decoupled weight decay, on tensors of two or more axes.
        seed: of shuffling and augmentation; epoch e of two runs is the same whether or not one was resumed.
    """

    epochs: int
    rate: float
    batch: int = 128
    decay: float = 0.05
    seed: int = 0


@final
@dataclass
class Progress:
    """What a checkpoint holds besides the module and the optimiser."""

    epoch: int = 0
    losses: list[float] = field(default_factory=list)


def train(
    module: nn.Module,
    loss: Loss,
    data: tuple[Tensor, Tensor],
    schedule: Schedule,
    *,
    augment: Augment,
    checkpoint: Path,
    report: Report,
) -> None:
    """Train `module` in place, from `checkpoint` where that exists; it is written after every epoch.

    Args:
        module: in the mode it is trained in.
        loss: of one batch, through `module`.
        data: inputs [n, ...] and labels [n].
        augment: a batch of inputs to a batch of inputs.
        checkpoint: a file; its folder is made.
        report: gets one line an epoch.

    Raises:
        FileError: a checkpoint of something else.
    """
    x, y = data
    steps = -(-len(x) // schedule.batch)
    optimiser = _optimiser(module, schedule)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=schedule.rate, total_steps=schedule.epochs * steps, pct_start=0.2
    )
    progress = _resume(module, optimiser, cycle, checkpoint)
    for epoch in range(progress.epoch, schedule.epochs):
        generator = torch.Generator().manual_seed(schedule.seed * 10_000 + epoch)
        total = 0.0
        for chosen in torch.randperm(len(x), generator=generator).split(schedule.batch):
            optimiser.zero_grad(set_to_none=True)
            value = loss(augment(x[chosen], generator), y[chosen])
            value.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimiser.step()
            cycle.step()
            total += float(value.detach()) * len(chosen)
        progress.epoch = epoch + 1
        progress.losses.append(total / len(x))
        _save(module, optimiser, cycle, progress, checkpoint)
        report(f"epoch {epoch + 1}/{schedule.epochs}: loss {progress.losses[-1]:.4f}")


def _optimiser(module: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    live = [each for each in module.parameters() if each.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [each for each in live if each.dim() > 1], "weight_decay": schedule.decay},
            {"params": [each for each in live if each.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=schedule.rate,
    )


def _save(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    cycle: torch.optim.lr_scheduler.LRScheduler,
    progress: Progress,
    path: Path,
) -> None:
    """Whole or not at all: a killed run finds the last finished epoch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "module": module.state_dict(),
        "optimiser": optimiser.state_dict(),
        "cycle": cycle.state_dict(),
        "epoch": progress.epoch,
        "losses": progress.losses,
    }
    draft = path.with_suffix(".part")
    torch.save(state, draft)
    os.replace(draft, path)


def _resume(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    cycle: torch.optim.lr_scheduler.LRScheduler,
    path: Path,
) -> Progress:
    if not path.exists():
        return Progress()
    try:
        state = torch.load(path, weights_only=True)
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        cycle.load_state_dict(state["cycle"])
        return Progress(state["epoch"], list(state["losses"]))
    except Exception as error:  # torch and pickle raise a dozen types on damaged or foreign files
        raise FileError(
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            known="the checkpoint of this training, by this version",
            do="delete it to train from the start, or choose another --folder",
        ) from error


def flip_and_shift(pixels: int) -> Augment:
    """Horizontal flips with probability 1/2, then `shift(pixels)`."""
    moved = shift(pixels)

    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        flip = torch.rand(len(x), generator=generator) < 0.5
        return moved(torch.where(flip[:, None, None, None], x.flip(3), x), generator)

    return augment


def shift(pixels: int) -> Augment:
    """Shifts of up to `pixels` both ways, zero padded, of images [batch, channels, height, width]."""

    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        n, channels, height, width = x.shape
        padded = nn.functional.pad(x, (pixels,) * 4)
        down, right = torch.randint(0, 2 * pixels + 1, (2, n), generator=generator)
        rows = (down[:, None] + torch.arange(height))[:, None, :, None]
        columns = (right[:, None] + torch.arange(width))[:, None, None, :]
        samples = torch.arange(n)[:, None, None, None]
        return padded[samples, torch.arange(channels)[None, :, None, None], rows, columns]

    return augment
