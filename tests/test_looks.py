"""Samples without contrast and repeats are told from real data that has few values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot, pad

from spikemorph.data import Split, load
from spikemorph.quantise.looks import looks_of


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def flaw(*inputs: Tensor, batch: int = 32) -> str | None:
    return looks_of(zip(*(each.split(batch) for each in inputs), strict=True)).flaw


def greys(count: int = 40) -> Tensor:
    return torch.rand(count, 3, 1, 1).expand(-1, -1, 12, 16)


def noisy(x: Tensor) -> Tensor:
    return x + 1e-6 * torch.randn(x.shape)


FLAT = "40 samples without contrast: nothing differs from place to place"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: torch.full((40, 3, 12, 16), 0.5), FLAT),
        (lambda: torch.zeros(40, 3, 12, 16), FLAT),
        (lambda: noisy(torch.full((40, 3, 12, 16), 0.5)), FLAT),
        (lambda: noisy(greys()), FLAT),
        (lambda: greys() - 0.5, FLAT),
        (lambda: pad(greys(), (1, 1, 1, 1)), FLAT),
        (lambda: pad(greys(), (0, 6, 0, 4)), FLAT),
        (lambda: pad(greys(), (0, 0, 4, 4), value=114 / 255), FLAT),
        (lambda: pad(noisy(greys()), (0, 8)), FLAT),
        (lambda: interpolate(greys(), scale_factor=1.7, mode="bilinear"), FLAT),
        (lambda: noisy(torch.rand(40, 1).expand(-1, 9)), FLAT),
        (lambda: torch.randn(2, 3, 12, 16).repeat(20, 1, 1, 1), "40 samples, 2 of them different"),
        (lambda: torch.randn(2, 3, 12, 16).repeat_interleave(20, 0), "40 samples, 2 of them different"),
        (lambda: noisy(torch.randn(2, 3, 12, 16).repeat(20, 1, 1, 1)), "40 samples, 2 of them different"),
        (lambda: torch.randn(7, 9).repeat(20, 1), "140 samples, 7 of them different"),
        (lambda: torch.randn(2, 9).repeat(2, 1), "4 samples, 2 of them different"),
        (lambda: torch.randn(1, 9).repeat(40, 1), "40 samples, all alike"),
        (lambda: noisy(torch.randn(1, 9).repeat(40, 1)), "40 samples, all alike"),
        (lambda: torch.ones(40, 1), "40 samples, all alike"),
        (lambda: torch.ones(40), "40 samples, all alike"),
        (lambda: torch.randn(7, 9), "7 samples"),
    ],
)
@pytest.mark.parametrize("batch", [3, 64])
def test_poor_samples(made: Callable[[], Tensor], said: str, batch: int) -> None:
    assert flaw(made(), batch=batch) == said


def bars(count: int) -> Tensor:
    """A line each, at some height."""
    return torch.eye(8)[torch.arange(count) % 8].reshape(-1, 1, 8, 1).expand(-1, -1, -1, 8)


@pytest.mark.parametrize(
    "made",
    [
        lambda: torch.randn(8, 9),
        lambda: torch.randn(8, 3, 12, 16),
        lambda: pad(torch.rand(40, 3, 12, 16), (0, 2, 0, 2)),
        lambda: one_hot(torch.arange(40) % 10, 10).float(),
        lambda: one_hot(torch.arange(40) % 4, 4).float(),
        lambda: one_hot(torch.arange(40) % 4, 4).float() * torch.rand(40, 1),
        lambda: one_hot(torch.randint(5, (40, 6)), 5).float(),
        lambda: one_hot(torch.randint(144, (40,)), 144).float().reshape(40, 1, 12, 12),
        lambda: 1.0 * (torch.rand(40, 2, 12, 12) < 0.02),
        lambda: 1.0 * (torch.rand(40, 20, 6) < 0.1),
        lambda: torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 2).repeat(10, 1),
        lambda: bars(40),
        lambda: torch.cat([bars(40), 1 - bars(40)], 1),
        lambda: torch.randn(40, 784, 1),
        lambda: torch.arange(40.0),
        lambda: torch.cat([torch.full((40, 1), 1e6), torch.randn(40, 8)], 1),
        lambda: torch.cat([greys(39), torch.randn(1, 3, 12, 16)]),
        lambda: pad(greys(), (0, 16)),
    ],
)
@pytest.mark.parametrize("batch", [3, 64])
def test_good_samples(made: Callable[[], Tensor], batch: int) -> None:
    assert flaw(made(), batch=batch) is None


def test_digits_are_good_samples_however_they_are_prepared() -> None:
    x = load("digits", Split.TRAIN).x
    binary = (x > 8).float()
    mean, std = binary.mean((1, 2, 3), keepdim=True), binary.std((1, 2, 3), keepdim=True)
    for given in (
        x,
        x / 16,
        x / 16 - 0.5,
        binary,
        1 - binary,
        (binary - mean) / std,
        pad(binary, (4, 4, 4, 4)),
    ):
        for some in given.split(16):
            assert flaw(some) is None
        assert flaw(given.flatten(1)) is None
        assert flaw(interpolate(given, scale_factor=3.5)) is None


def test_of_several_inputs_one_is_enough() -> None:
    x, constant = torch.randn(40, 3, 12, 16), torch.zeros(40, 5, 4)
    assert flaw(x, constant) is None
    assert flaw(constant, x) is None
    assert flaw(greys(), constant) == FLAT
    assert flaw(greys(), torch.randn(40, 1)) is None
