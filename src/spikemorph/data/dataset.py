"""A part of a data set as a value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import final

import torch
from torch import Tensor

from spikemorph.errors import DataError


@final
class Split(Enum):
    """Which part of a data set: choices are made on validation data, results are reported on test data."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Samples and labels.

    Args:
        x: float32 [n, *shape].
        y: int64 [n], each the index of a class.
        classes: their names.

    Raises:
        DataError: another dtype, or another number of labels than of samples.
    """

    x: Tensor
    y: Tensor
    name: str
    split: Split
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.x.dtype == torch.float32 and self.y.dtype == torch.int64 and self.y.shape == self.x.shape[:1]:
            return
        raise DataError(
            where=f"data set {self.name}, {self.split.value}",
            got=f"x {self.x.dtype} {list(self.x.shape)}, y {self.y.dtype} {list(self.y.shape)}",
            known="x float32 [n, ...], y int64 [n]",
            do="convert both, and give one label a sample",
        )

    def first(self, samples: int) -> Dataset:
        """The first samples, in their own order."""
        return replace(self, x=self.x[:samples], y=self.y[:samples])

    def __len__(self) -> int:
        return len(self.x)
