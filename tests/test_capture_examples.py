"""Example inputs: few samples are enough, however they lie in memory; unfit ones are told what is wrong."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm
from sequences import Fn, captured, kinds, noise
from spikemorph.capture import export as exporting
from spikemorph.errors import CaptureError, DataError


def rnn(features: int = 3, **how: object) -> nn.RNN:
    torch.manual_seed(0)
    return nn.RNN(features, 4, batch_first=True, **how).eval()  # type: ignore[arg-type]


PARTS: dict[str, nn.Module] = {
    "first features": Fn(lambda s, x: s.r(x[..., :3])[0], r=rnn()),
    "every other element": Fn(lambda s, x: s.r(x[:, ::2])[0], r=rnn(6)),
    "two halves": Fn(
        lambda s, x: sum(r(each)[0] for r, each in zip((s.r, s.q), x.chunk(2, -1), strict=True)),
        r=rnn(),
        q=rnn(),
    ),
    "both directions": Fn(lambda s, x: s.r(x[..., 1:4])[0], r=rnn(bidirectional=True, num_layers=2)),
}


@pytest.mark.parametrize("samples", [1, 2, 3, 13])
@pytest.mark.parametrize("name", PARTS)
def test_recurrent_layers_read_parts_of_the_input(name: str, samples: int) -> None:
    """Where they copy a part of two samples, torch takes the batch for a constant."""
    graph = sm.capture(PARTS[name].eval(), noise(samples, 8, 6))
    x = noise(5, 8, 6, seed=2)
    with torch.no_grad():
        torch.testing.assert_close(sm.evaluate(graph, x), PARTS[name](x))


def test_time_may_come_first_where_a_part_is_read() -> None:
    model = Fn(lambda s, x: s.r(x[..., :3])[0], r=nn.RNN(3, 4))
    assert kinds(captured(model, (8, 6), batch_axis=1, outputs=1)) == ["Slice", "Linear", "Recurrence"]


def test_inspect_reads_parts_too() -> None:
    assert sm.inspect(PARTS["first features"].eval(), torch.zeros(2, 8, 6)).convertible


def test_a_program_whose_batch_torch_fixes_is_refused_in_four_parts() -> None:
    batch = torch.export.Dim("batch", min=1, max=2**20)
    shapes = (({0: batch},),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        two, three = (
            torch.export.export(
                PARTS["first features"], (noise(samples, 8, 6),), dynamic_shapes=shapes, strict=False
            )
            for samples in (2, 3)
        )
    with pytest.raises(CaptureError) as caught:
        sm.capture(two)
    assert caught.value.where == "torch.export"
    assert caught.value.got.startswith("a batch that torch took for a constant: ")
    assert caught.value.do.endswith("with three or more samples in x")
    assert sm.capture(three).outputs


def test_the_batch_that_helps_is_not_the_one_that_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large network runs on the samples that it was given."""
    sizes: list[int] = []
    run = exporting._module_outputs

    def watched(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        sizes.append(len(inputs[0]))
        return run(model, inputs)

    monkeypatch.setattr(exporting, "_module_outputs", watched)
    sm.capture(PARTS["first features"], noise(1, 8, 6))
    assert sizes == [2]


def test_examples_may_lie_in_memory_as_they_like() -> None:
    model = Fn(lambda s, x, h: s.r(x, h)[0], r=rnn(num_layers=2)).eval()
    x, states = noise(32, 5, 3), noise(2, 32, 4)
    assert not states[:, :2].is_contiguous()
    graph = sm.capture(model, (x[:2], states[:, :2]), batch_axis=(0, 1))
    with torch.no_grad():
        torch.testing.assert_close(sm.evaluate(graph, (x, states.transpose(0, 1))), model(x, states))


@pytest.mark.parametrize(
    ("shape", "axis", "got", "do"),
    [
        (
            (2, 0, 3),
            0,
            "axis 1, of every sample, has size 0",
            "samples with at least one number along axis 1",
        ),
        (
            (4, 2, 0),
            1,
            "axis 2, of every sample, has size 0",
            "samples with at least one number along axis 2",
        ),
        ((0, 4, 3), 0, "axis 0, the batch, has size 0", "pass at least one sample, [batch, ...]"),
        ((4, 0, 3), 1, "axis 1, the batch, has size 0", "pass at least one sample, [batch, ...]"),
    ],
)
def test_empty_examples_name_the_axis(shape: tuple[int, ...], axis: int, got: str, do: str) -> None:
    with pytest.raises(DataError) as caught:
        sm.capture(rnn(), torch.zeros(shape), batch_axis=axis)
    assert caught.value.got == f"a tensor of shape {list(shape)}: {got}"
    assert do in caught.value.do
