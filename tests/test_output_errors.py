"""Decoded outputs against the float network over steps: numbers checked by hand, structures, bad input."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.convert.methods import convert
from spikemorph.convert.network import SpikingNetwork
from spikemorph.convert.rate import Rate
from spikemorph.data import Split
from spikemorph.errors import DataError, GraphError, MissingData, RunError
from spikemorph.ir.graph import Graph
from spikemorph.levels import Levels, Max
from spikemorph.measure.errors import OutputErrors, output_errors
from spikemorph.recipes import RECIPES
from test_rates import case

torch.set_num_threads(1)


def converted(model: nn.Module, x: Tensor, p: int = 15) -> tuple[SpikingNetwork, Graph]:
    graph = sm.capture(model.eval(), x[:2])
    return sm.convert(sm.quantise(graph, x, Levels(activation=p))), graph


def of(made: OutputErrors, output: str) -> dict[int | None, Any]:
    return {row.steps: row for row in made.rows if row.output == output}


class Heads(nn.Module):
    """A dense map, and a dict of a number and scores inside a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.map = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 2, 1)
        self.number, self.scores = nn.Linear(6, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = torch.relu(self.conv(x))
        z = y.mean((2, 3))
        return {"heat": self.map(y), "more": (self.number(z), self.scores(z))}


@pytest.fixture(scope="module")
def heads() -> tuple[SpikingNetwork, Graph, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(24, 1, 6, 6)
    return *converted(Heads(), x), x


def test_every_number_is_the_one_by_hand(heads: tuple[SpikingNetwork, Graph, Tensor]) -> None:
    network, graph, x = heads
    target = torch.randn(24, 1, generator=torch.Generator().manual_seed(1))
    labels = {"heat": None, "more": (target, torch.arange(24) % 3)}
    made = output_errors(network, x, graph, steps=(1, 2, 8), labels=labels)
    assert [(row.output, row.steps) for row in made.rows] == [
        (output, steps) for output in ("heat", "more.0", "more.1") for steps in (1, 2, 8, None)
    ]
    wanted = sm.evaluate(graph, x)
    for steps in (1, 2, 8, None):
        got = sm.simulate(network, x, steps=steps).output
        for name, a, b in (
            ("heat", got["heat"], wanted["heat"]),
            ("more.0", got["more"][0], wanted["more"][0]),
            ("more.1", got["more"][1], wanted["more"][1]),
        ):
            row = of(made, name)[steps]
            a, b = a.double().numpy().ravel(), b.double().numpy().ravel()
            assert row.mean_absolute == pytest.approx(np.abs(a - b).mean())
            assert row.largest == pytest.approx(np.abs(a - b).max())
            assert row.relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b))
            assert row.r2 == pytest.approx(1 - ((a - b) ** 2).sum() / ((b - b.mean()) ** 2).sum())
            assert row.correlation == pytest.approx(np.corrcoef(a, b)[0, 1])
        number = got["more"][0].double() - target
        assert of(made, "more.0")[steps].to_labels == pytest.approx(float(number.square().mean()))
        right = got["more"][1].argmax(1) == torch.arange(24) % 3
        assert of(made, "more.1")[steps].accuracy == pytest.approx(100 * float(right.double().mean()))
        assert of(made, "heat")[steps].to_labels is None
        assert of(made, "more.1")[steps].to_labels is None
    float_error = (wanted["more"][0].double() - target).square().mean()
    assert made.float_to_labels == {"more.0": pytest.approx(float(float_error))}
    assert made.float_accuracy.keys() == {"more.1"}
    assert json.loads(json.dumps(made.to_dict(), allow_nan=False))["samples"] == 24


def test_batches_do_not_matter(heads: tuple[SpikingNetwork, Graph, Tensor]) -> None:
    network, graph, x = heads
    labels = {"heat": None, "more": (torch.ones(24), None)}
    whole = output_errors(network, x, graph, steps=(4,), labels=labels).to_dict()
    parts = output_errors(network, [x[:7], x[7:]], graph, steps=(4,), labels=labels).to_dict()
    for one, other in zip(whole["rows"], parts["rows"], strict=True):
        assert other == pytest.approx(one)


def test_a_constant_output_has_no_correlation() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(2, 1)
            nn.init.zeros_(self.b.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x)))

    torch.manual_seed(0)
    x = torch.rand(12, 3)
    network, graph = converted(Constant(), x)
    (row,) = output_errors(network, x, graph, steps=()).rows
    assert (row.r2, row.correlation) == (None, None)
    assert row.relative < 1e-6
    assert row.output == "output"


def test_more_steps_are_closer_and_rest_is_closest() -> None:
    torch.manual_seed(0)
    x = torch.rand(24, 1, 6, 6)
    network, graph = converted(Heads(), x, p=31)
    heat = of(output_errors(network, x, graph, steps=(2, 8, 32)), "heat")
    assert heat[2].relative > heat[8].relative > heat[32].relative >= heat[None].relative
    assert heat[None].r2 > 0.99


def test_a_recurrent_regression_runs_its_steps_in_every_element() -> None:
    """The shipped network that steers by lidar: a number for each of 32 frames."""
    recipe = RECIPES["lidar"]
    try:
        data = recipe.data(Split.TEST)
    except MissingData as error:
        pytest.skip(str(error))
    network = sm.convert(recipe.graph(None, "qnn"))
    x, y = data.x[:6], data.y[:6]
    made = output_errors(network, x, recipe.graph(None, "float"), steps=(1, 4), labels=y)
    rows = of(made, "output")
    assert rows[1].relative > rows[4].relative
    assert rows[None].correlation > 0.97
    assert rows[None].to_labels == pytest.approx(
        float((sm.simulate(network, x).output - y).double().square().mean())
    )
    assert made.float_to_labels["output"] < rows[1].to_labels


def test_rates_have_no_rest() -> None:
    _, graph, x = case()
    network = convert(graph, Rate(Max()), x)
    made = output_errors(network, x[:12], graph, steps=(8, 64, 256))
    assert [row.steps for row in made.rows] == [8, 64, 256]
    assert made.rows[0].relative > made.rows[1].relative > made.rows[2].relative
    assert made.rows[2].correlation is not None
    assert made.rows[2].correlation > 0.99
    got, wanted = sm.simulate(network, x[:12], steps=64).output, sm.evaluate(graph, x[:12])
    assert made.rows[1].largest == pytest.approx(float((got - wanted).abs().max()))
    with pytest.raises(RunError):
        output_errors(network, x[:2], graph, steps=(10**6,))
    with pytest.raises(RunError):
        output_errors(network, x[:2], graph, steps=())


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize("steps", [(0,), (2, 1), (1, 1), (1.5,), (True,)])
def test_steps_rise_from_one(heads: tuple[SpikingNetwork, Graph, Tensor], steps: Any) -> None:
    network, graph, x = heads
    with pytest.raises(RunError, match="rising"):
        output_errors(network, x, graph, steps=steps)
    with pytest.raises(RunError):
        output_errors(network, x, graph, steps=(), quiescent=False)


def test_another_float_network_is_refused(heads: tuple[SpikingNetwork, Graph, Tensor]) -> None:
    network, _, x = heads
    torch.manual_seed(1)
    other = sm.capture(nn.Sequential(nn.Conv2d(1, 2, 1)).eval(), x[:2])
    for each in (other, network.graph):
        with pytest.raises(GraphError, match="the float network"):
            output_errors(network, x, each)


@pytest.mark.parametrize(
    "labels",
    [
        torch.ones(24, 1),
        {"heat": torch.ones(24, 2, 6, 6)},
        {"heat": torch.ones(24, 2, 6), "more": (None, None)},
        {"heat": "x", "more": (None, None)},
        {"heat": None, "more": (None, torch.full((24,), 3))},
        {"heat": None, "more": (torch.ones(23), None)},
        {"heat": None, "more": (None, torch.zeros(24, dtype=torch.int32))},
    ],
)
def test_labels_that_do_not_fit_are_refused(heads: tuple[SpikingNetwork, Graph, Tensor], labels: Any) -> None:
    network, graph, x = heads
    with pytest.raises(DataError, match="labels"):
        output_errors(network, x, graph, steps=(1,), labels=labels)


def test_class_numbers_have_no_errors() -> None:
    class Class(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x).argmax(1)

    torch.manual_seed(0)
    x = torch.rand(12, 3)
    network, graph = converted(Class(), x)
    with pytest.raises(DataError, match="class numbers alone"):
        output_errors(network, x, graph)
