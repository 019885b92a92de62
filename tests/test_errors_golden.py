"""The exact words of the errors that users of the front door meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import spikemorph as sm
from graphs import network, product, two_layers
from spikemorph.errors import DataError, GraphError, LevelsError, RunError, SpikemorphError
from spikemorph.ir.graph import Graph
from spikemorph.levels import Override, Percentile

torch.set_num_threads(1)

FLAT = "choose a value inside the range; 2-bit activations are activation=3"


@cache
def captured() -> Graph:
    """Two float layers with paths `body.fc` and `head` on [n, 3]."""
    body = nn.Sequential()
    body.add_module("fc", nn.Linear(3, 4))
    model = nn.Sequential()
    model.add_module("body", body)
    model.add_module("act", nn.ReLU())
    model.add_module("head", nn.Linear(4, 2))
    return sm.capture(model.eval(), torch.randn(2, 3))


def says(error: type[SpikemorphError], call: Callable[[], object], *parts: str) -> None:
    """The call raises exactly this error, with these four parts and the message made of them."""
    with pytest.raises(SpikemorphError) as caught:
        call()
    met = caught.value
    assert type(met) is error
    assert (met.where, met.got, met.known, met.do) == parts
    where, got, known, do = parts
    assert str(met) == f"{where}: {got}\n  known: {known}\n  do:    {do}"


# ---------------------------------------------------------------- choices
NO_FLOATS = (
    "floating-point numbers, on the scale the network was trained on",
    "convert images with x.float() / 255, other data with x.float()",
)


@pytest.mark.parametrize("value", [0, 256, -1, 15.0, "15", True, None])
def test_levels_activation(value: Any) -> None:
    call = lambda: sm.Levels(activation=value)  # noqa: E731
    says(LevelsError, call, "Levels(activation)", repr(value), "a whole number in 1..255", FLAT)


@pytest.mark.parametrize("value", [1, 9, 8.0, False])
def test_levels_weight_bits(value: Any) -> None:
    call = lambda: sm.Levels(weight_bits=value)  # noqa: E731
    says(LevelsError, call, "Levels(weight_bits)", repr(value), "a whole number in 2..8", FLAT)


def test_other_levels() -> None:
    says(
        LevelsError, lambda: sm.Levels(identity=0), "Levels(identity)", "0", "a whole number in 1..255", FLAT
    )
    says(
        LevelsError, lambda: sm.Levels(skip_bits=3), "Levels(skip_bits)", "3", "a whole number in 4..15", FLAT
    )


def test_override() -> None:
    where = "Override(activation)"
    says(LevelsError, lambda: Override(activation=256), where, "256", "a whole number in 1..255", FLAT)
    where = "Override(weight_bits)"
    says(LevelsError, lambda: Override(weight_bits=1), where, "1", "a whole number in 2..8", FLAT)


@pytest.mark.parametrize("path", ["nowhere", "body.fc.weight", "bod", ""])
def test_unknown_override_path(path: str) -> None:
    levels = sm.Levels(overrides={path: Override(activation=3)})
    parts = (
        "Levels(overrides)",
        f"'{path}', which is no module of this network",
        "act, body.fc, head",
        "use the module path as `spikemorph inspect` prints it",
    )
    says(LevelsError, lambda: sm.quantise(captured(), torch.randn(4, 3), levels), *parts)
    says(LevelsError, lambda: sm.trainable(captured(), levels), *parts)


def test_a_path_that_covers_several_modules_is_known() -> None:
    levels = sm.Levels(overrides={"body": Override(weight_bits=2), "head": Override(weight_bits=3)})
    graph = sm.quantise(captured(), torch.randn(4, 3), levels)
    weights = [graph.tensors[node.op.weight] for node in graph.nodes if hasattr(node.op, "weight")]
    assert [int(weight.abs().max()) for weight in weights] == [1, 3]


@pytest.mark.parametrize("value", [0, -1, 100.5, float("nan"), "99", None, True])
def test_percentile(value: Any) -> None:
    parts = ("Percentile(percent)", repr(value), "a number in (0, 100]", "use 99.9 for activations")
    says(LevelsError, lambda: Percentile(value), *parts)


@pytest.mark.parametrize("value", [0, -2, 1.0, True, "4", None, 2**31])
def test_graded(value: Any) -> None:
    known = "a whole number in 1..2147483647"
    do = "use Graded(4) for spikes of up to 4 units, Ternary() for spikes of one"
    says(LevelsError, lambda: sm.Graded(value), "Graded(largest)", repr(value), known, do)


@pytest.mark.parametrize("value", [0, 17, 8.0, True, None])
def test_analog(value: Any) -> None:
    known = "a whole number in 1..16"
    says(LevelsError, lambda: sm.Analog(value), "Analog(bits)", repr(value), known, "use 8 for images")


# ---------------------------------------------------------------- stages in the wrong order
def test_convert_of_a_float_graph() -> None:
    known, do = "Lossless converts integer graphs", "quantise(graph, calibration, levels) first"
    says(GraphError, lambda: sm.convert(captured()), "the graph", "dialect float", known, do)


def test_verify_with_a_float_graph() -> None:
    known, do = "an integer graph, from quantise or freeze", "pass the graph that was converted"
    call = lambda: sm.verify(network(two_layers()), captured(), torch.zeros(1, 2))  # noqa: E731
    says(GraphError, call, "verify(graph)", "dialect float", known, do)


def test_quantise_of_an_integer_graph() -> None:
    known, do = "a captured float graph", "pass the result of capture(model, example_inputs)"
    for call in (
        lambda: sm.quantise(two_layers(), torch.zeros(1, 2), sm.Levels()),
        lambda: sm.trainable(two_layers(), sm.Levels()),
    ):
        says(GraphError, call, "the graph", "dialect integer", known, do)


@pytest.mark.parametrize(
    "data",
    [[], torch.zeros(0, 3), DataLoader(TensorDataset(torch.zeros(0, 3)))],
    ids=["list", "tensor", "loader"],
)
def test_quantise_with_nothing_to_calibrate_on(data: Iterable[Any]) -> None:
    known = "a tensor [batch, ...], a tuple of them, or a loader that yields batches"
    do = "pass a few hundred samples; labels are not needed"
    for call in (
        lambda: sm.quantise(captured(), data, sm.Levels()),
        lambda: sm.trainable(captured(), sm.Levels(), data),
    ):
        says(DataError, call, "calibration", "no samples", known, do)


def test_use_before_calibration() -> None:
    module = sm.trainable(captured(), sm.Levels())
    known = "units come from calibration data"
    do = "pass calibration to trainable(...), or call module.calibrate(samples) before training"
    for call in (lambda: sm.freeze(module), lambda: module(torch.zeros(1, 3))):
        says(DataError, call, "neuron 'input'", "no unit yet", known, do)
    module.calibrate(torch.randn(4, 3))
    assert sm.freeze(module).readouts


# ---------------------------------------------------------------- running
@pytest.mark.parametrize("steps", [0, -1, 1.0, True, "3"])
def test_simulate_steps(steps: Any) -> None:
    known, do = "a whole number of at least 1, or None", "use steps=None to run until quiescent"
    call = lambda: sm.simulate(network(two_layers()), torch.zeros(1, 2), steps=steps)  # noqa: E731
    says(RunError, call, "simulate(steps)", repr(steps), known, do)


SHAPED = "reshape the data, or capture with an example of this shape"
FIRST = "NaN or infinite values, first in sample"
BAD_INPUTS: list[tuple[Any, tuple[str, str, str, str]]] = [
    (
        torch.zeros(2, 3),
        ("input 'input0'", "shape (2, 3)", "[batch >= 1, 2]", SHAPED),
    ),
    (torch.zeros(2), ("input 'input0'", "shape (2,)", "[batch >= 1, 2]", SHAPED)),
    (torch.zeros(0, 2), ("input 'input0'", "shape (0, 2)", "[batch >= 1, 2]", SHAPED)),
    (torch.tensor(1.0), ("input 'input0'", "shape ()", "[batch >= 1, 2]", SHAPED)),
    (
        (torch.zeros(1, 2), torch.zeros(1, 2)),
        (
            "the input",
            "2 tensor(s)",
            "the network takes 1",
            "pass one tensor, or a tuple with one tensor for each argument",
        ),
    ),
    (
        torch.zeros(1, 2, dtype=torch.bool),
        ("input 'input0'", "dtype torch.bool", *NO_FLOATS),
    ),
    (
        torch.zeros(1, 2, dtype=torch.complex64),
        ("input 'input0'", "dtype torch.complex64", *NO_FLOATS),
    ),
    (
        torch.tensor([[0.0, 0.0], [0.0, torch.nan]]),
        ("input 'input0'", f"{FIRST} 1", "finite numbers", "clean the data before quantising or running"),
    ),
    (
        torch.tensor([[-torch.inf, 0.0]]),
        ("input 'input0'", f"{FIRST} 0", "finite numbers", "clean the data before quantising or running"),
    ),
    (
        [[1.0, 2.0]],
        ("input 'input0'", "list", "a torch tensor", "use torch.as_tensor(...)"),
    ),
    (
        torch.zeros(1, 2).numpy(),
        ("the input", "ndarray", "a torch tensor, or a tuple of them", "use torch.as_tensor(...)"),
    ),
    (None, ("the input", "NoneType", "a torch tensor, or a tuple of them", "use torch.as_tensor(...)")),
]


@pytest.mark.parametrize(("x", "parts"), BAD_INPUTS, ids=[parts[1] for _, parts in BAD_INPUTS])
def test_inputs_that_do_not_fit(x: Any, parts: tuple[str, str, str, str]) -> None:
    graph = two_layers()
    for call in (
        lambda: sm.evaluate(graph, x),
        lambda: sm.evaluate_integers(graph, x),
        lambda: sm.simulate(network(graph), x),
    ):
        says(DataError, call, *parts)


def test_inputs_of_several_batches() -> None:
    x: tuple[Tensor, ...] = (torch.zeros(2, 2, 3), torch.zeros(1, 3))
    known, do = "all inputs share one batch axis in front", "pass as many samples in every argument"
    says(DataError, lambda: sm.evaluate(product(), x), "the input", "batches of 2, 1", known, do)


def test_a_float_graph_checks_its_inputs_as_well() -> None:
    parts = ("input 'input'", "shape (2, 4)", "[batch >= 1, 3]", SHAPED)
    says(DataError, lambda: sm.evaluate(captured(), torch.zeros(2, 4)), *parts)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("observer", "max"),
        ("weight_observer", 3),
        ("granularity", "channel"),
        ("input", 8),
        ("overrides", None),
        ("overrides", {"0": 3}),
    ],
)
def test_levels_take_choices_not_words(field: str, value: object) -> None:
    with pytest.raises(LevelsError, match=rf"^Levels\({field}\)"):
        sm.Levels(**{field: value})  # type: ignore[arg-type]


def batches_as_a_tuple() -> object:
    return sm.verify(network(two_layers()), two_layers(), (torch.zeros(2, 1),) * 3)


@pytest.mark.parametrize(
    "slip",
    [
        lambda: sm.convert(two_layers(), sm.Ternary()),
        lambda: sm.convert(nn.Identity()),
        lambda: sm.Lossless(sm.Ternary),
        lambda: sm.Lossless(input="spikes"),
        lambda: sm.Lossless(input=sm.Spikes),
        lambda: sm.convert(two_layers(), sm.Lossless(input=sm.Analog(bits=1))),
        lambda: sm.simulate(two_layers(), torch.zeros(1, 1)),
        lambda: sm.simulate(network(two_layers()), torch.zeros(1, 1), engine="dense"),
        lambda: sm.simulate(network(two_layers()), torch.zeros(1, 1), engine=sm.Dense),
        lambda: sm.simulate(network(two_layers()), torch.zeros(1, 1), record="all"),
        lambda: sm.simulate(network(two_layers()), torch.zeros(1, 1), record=sm.Everything),
        lambda: sm.evaluate(network(two_layers()), torch.zeros(1, 1)),
        lambda: sm.verify(two_layers(), network(two_layers()), torch.zeros(1, 1)),
        lambda: sm.quantise(two_layers(), torch.zeros(1, 1), 15),
        lambda: sm.freeze(nn.Identity()),
        lambda: sm.save(3, "x.safetensors"),
        lambda: sm.load(3),
        lambda: sm.Dense("cudax"),
        lambda: sm.Dense("meta"),
        batches_as_a_tuple,
    ],
)
def test_slips_of_the_hand_are_refused_in_four_parts(slip: Callable[[], object]) -> None:
    with pytest.raises(SpikemorphError, match=r"\n  known: .*\n  do:    "):
        slip()


def diverged() -> Any:
    graph = sm.capture(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), torch.rand(2, 2))
    return sm.trainable(graph, sm.Levels(), torch.rand(9, 2))


@pytest.mark.parametrize("kind", ["log_steps", "log_units", "values"])
def test_a_training_that_diverged_is_named(kind: str) -> None:
    twin = diverged()
    parameter = next(each for name, each in twin.named_parameters() if name.startswith(kind))
    parameter.data.reshape(-1)[0] = torch.nan
    with pytest.raises(DataError, match=rf"^{kind} of '.+': NaN or infinite numbers"):
        sm.freeze(twin)


def test_a_calibration_of_zeros_is_refused() -> None:
    with pytest.raises(DataError, match="zeros alone"):
        diverged().calibrate(torch.zeros(4, 2))
