"""Rate-coded conversion: all engines agree, rates approach the float network, thresholds are balanced."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.convert.balance import LocalThresholdBalancing, balance, neurons
from spikemorph.convert.methods import convert
from spikemorph.convert.network import Binary, Graded, Spike, Ternary, Window
from spikemorph.convert.rate import Rate
from spikemorph.convert.rates import planned
from spikemorph.convert.training_free import Delayed, TrainingFree
from spikemorph.errors import GraphError, LevelsError, RunError, UsageError
from spikemorph.measure.over_steps import over_steps
from spikemorph.passes.levels import Max, Percentile

SPIKES: tuple[Spike, ...] = (Binary(), Ternary(), Graded(3))


class Mixed(nn.Module):
    """Negative gains, a pool, linear behind linear, a skip, ReLU and ReLU6, grouped channels."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        nn.init.uniform_(self.norm.weight, -1, 1)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.narrow, self.wide = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.first(x))), 2)
        y = nn.functional.relu6(self.grouped(x))
        z = torch.relu(self.wide(self.narrow(y)) + x)
        return self.head(z.mean((2, 3)))


def case(seed: int = 0) -> tuple[nn.Module, sm.ir.graph.Graph, torch.Tensor]:
    model = Mixed(seed).eval()
    x = torch.randn(48, 2, 8, 8, generator=torch.Generator().manual_seed(seed))
    return model, sm.capture(model, x[:2]), x


FEW = LocalThresholdBalancing(iterations=12, batch=16)


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 1000),
    spike=st.sampled_from(SPIKES),
    classic=st.booleans(),
    per_channel=st.booleans(),
    steps=st.integers(1, 40),
)
def test_engines_agree(seed: int, spike: Spike, classic: bool, per_channel: bool, steps: int) -> None:
    _, graph, x = case(seed)
    method = (
        Rate(spike=spike, per_channel=per_channel)
        if classic
        else TrainingFree(FEW, spike=spike, per_channel=per_channel)
    )
    network = convert(graph, method, x)
    record = (sm.Outputs(tuple(sorted({max(1, steps // 2), steps}))), sm.SpikeCounts())
    runs = [
        sm.simulate(network, x[:3], steps=steps, engine=engine, record=record)
        for engine in (sm.Reference(), sm.Dense(), sm.Event(threads=2))
    ]
    for one, other in pairwise(runs):
        assert all(torch.equal(one.raw[name], other.raw[name]) for name in one.raw)
        assert all(torch.equal(one.counts[name], other.counts[name]) for name in one.counts)
        assert all(torch.equal(a, b) for a, b in zip(one.outputs, other.outputs, strict=True))
        assert all(torch.equal(one.layer_events[name], other.layer_events[name]) for name in one.counts)
        assert all(torch.equal(one.arrivals[name], other.arrivals[name]) for name in one.arrivals)
        assert torch.equal(one.spikes_until, other.spikes_until)


@pytest.mark.parametrize("spike", SPIKES)
def test_rates_approach_the_float_network(spike: Spike) -> None:
    model, graph, x = case(3)
    network = convert(graph, Rate(Max(), spike=spike), x)
    with torch.no_grad():
        wanted = model(x[:8])
    errors = [float((sm.simulate(network, x[:8], steps=n).output - wanted).abs().mean()) for n in (4, 400)]
    assert errors[1] < 0.25 * errors[0]
    assert errors[1] < 0.02 * float(wanted.std())


def test_binary_neurons_behind_activations_never_take_a_spike_back() -> None:
    _, graph, x = case(1)
    network = convert(graph, TrainingFree(FEW), x)
    run = sm.simulate(network, x[:4], steps=12, record=sm.Everything())
    signed = {node.name for node in network.graph.neurons if getattr(node.op, "identity", False)}
    assert signed
    for name, spikes in run.trace.items():
        assert int(spikes.max()) <= 1
        assert int(spikes.min()) == (-1 if name in signed else 0) or name in signed


def test_the_membrane_loses_its_threshold_and_starts_at_half_of_it() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).eval()
    model[0].weight.data.fill_(1.0)
    x = torch.tensor([[1.0], [0.26], [-1.0]])
    network = convert(sm.capture(model, x[:2]), Rate(Max()), x)
    trace = sm.simulate(network, x, steps=8, record=sm.Everything()).trace
    (spikes,) = (each[:, :, 0] for each in trace.values())
    # v(0) = 1/2: a current of 0.26 fires at 0.5 + 2 * 0.26 >= 1, then every fourth step or so
    assert spikes[:, 0].tolist() == [1] * 8
    assert spikes[:, 1].tolist() == [0, 1, 0, 0, 0, 1, 0, 0]
    assert spikes[:, 2].tolist() == [0] * 8


def test_thresholds_grow_towards_the_largest_value() -> None:
    _, graph, x = case(2)
    plan = planned(graph, per_channel=True, weight_bits=8).graph
    few, many = (balance(plan, x, LocalThresholdBalancing(iterations=n, batch=48)) for n in (2, 400))
    first = next(iter(neurons(plan))).name
    largest = _largest(plan, x)[first]
    assert bool((few.thresholds[first] <= many.thresholds[first] + 1e-9).all())
    assert bool((many.thresholds[first] <= largest + 1e-6).all())
    live = largest > 0
    assert bool((many.thresholds[first][live] > 0.65 * largest[live]).all())
    assert balance(plan, x, LocalThresholdBalancing(400, 48, tolerance=0.01)).iterations < 400


def _largest(plan: sm.ir.graph.Graph, x: torch.Tensor) -> dict[str, torch.Tensor]:
    from spikemorph.evaluate.floats import evaluate_float

    values = evaluate_float(plan, (x,))
    return {node.name: values[node.name].movedim(1, 0).flatten(1).amax(1).double() for node in neurons(plan)}


def test_channels_that_never_fire_get_a_threshold_and_stay_silent() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1)).eval()
    model[0].weight.data.copy_(torch.tensor([1.0, 0.5, 0.0]).reshape(3, 1, 1, 1))
    model[0].bias.data.copy_(torch.tensor([0.0, 0.0, -1.0]))
    x = torch.rand(16, 1, 4, 4)
    graph = sm.capture(model, x[:2])
    found = balance(planned(graph, per_channel=True, weight_bits=8).graph, x, FEW)
    (thresholds,), (silent,) = found.thresholds.values(), found.silent.values()
    assert silent == 1
    assert float(thresholds[2]) == float(thresholds[:2].min()) > 0
    run = sm.simulate(convert(graph, TrainingFree(FEW), x), x[:2], steps=20, record=sm.SpikeCounts())
    (counts,) = run.counts.values()
    assert int(counts[:, 2].sum()) == 0 < int(counts[:, :2].sum())


@pytest.mark.parametrize("method", [TrainingFree(FEW), Rate()])
def test_weights_that_are_tiny_beside_their_bias_leave_room_for_steps(method: TrainingFree | Rate) -> None:
    """Channels that batch norm has all but switched off are found in pretrained networks."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.weight.data = torch.tensor([1.0, 1e-7, 1.0, 1e-6])
    norm.bias.data = torch.tensor([0.1, 1.0, 0.2, -1.0])
    layers = (
        nn.Conv2d(2, 4, 3),
        norm,
        nn.ReLU6(),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    model, x = nn.Sequential(*layers).eval(), torch.randn(40, 2, 8, 8)
    network = convert(sm.capture(model, x[:2]), method, x)
    assert network.room == 1024
    wanted, found = model(x).detach(), sm.simulate(network, x, steps=256).output
    assert float((found - wanted).norm() / wanted.norm()) < 0.3


@pytest.mark.parametrize(("size", "offset"), [(1e-4, 5.0), (1.0, 3e4), (1.0, 1e6), (1.0, 0.0)])
def test_a_head_may_add_whatever_it_likes(size: float, offset: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    with torch.no_grad():
        model[2].weight.mul_(size)
        model[2].bias.fill_(offset)
    x = torch.randn(60, 6)
    network = convert(sm.capture(model, x[:2]), TrainingFree(LocalThresholdBalancing(200, batch=20)), x)
    got, wanted = sm.simulate(network, x, steps=256).output, model(x).detach()
    spread = float((wanted - offset).abs().max())
    assert float((got - wanted).abs().max()) < 0.1 * spread + 1e-6 * abs(offset)


def test_a_window_leaves_the_first_steps_out() -> None:
    _, graph, x = case(5)
    network = convert(graph, TrainingFree(FEW, Delayed(start=6, least=4)), x)
    assert network.window == Window(6, 4)
    assert [network.window.first(n) for n in (2, 5, 9, 10, 30)] == [0, 1, 5, 6, 6]
    run = sm.simulate(network, x[:2], steps=20, record=sm.Outputs())
    (readout,) = run.raw
    op, tensors = network.graph.by_name[readout].op, network.graph.tensors
    wanted = (run.raws[19][readout] - run.raws[5][readout]).double() / 14 * tensors[op.scale]
    wanted = wanted if op.offset is None else wanted + tensors[op.offset]
    torch.testing.assert_close(run.output.double(), wanted, rtol=1e-6, atol=1e-9)
    assert torch.equal(run.output, sm.simulate(network, x[:2], steps=20).output)
    assert sm.simulate(network, x[:2], steps=20).outputs is None
    some = sm.simulate(network, x[:2], steps=20, record=sm.Outputs((7, 20)))
    assert [torch.equal(a, run.outputs[n - 1]) for a, n in zip(some.outputs, (7, 20), strict=True)] == [
        True,
        True,
    ]


def test_over_steps_gives_what_separate_runs_give() -> None:
    _, graph, x = case(6)
    lossless = sm.convert(sm.quantise(graph, x, sm.Levels(activation=7)))
    for network in (lossless, convert(graph, Rate(), x)):
        parts = list(over_steps(network, x[:5], (1, 3, 8), batch=3))
        assert [len(each.inputs[0]) for each in parts] == [3, 2]
        for steps in (1, 3, 8):
            alone = sm.simulate(network, x[:5], steps=steps)
            assert torch.equal(torch.cat([each.outputs[steps] for each in parts]), alone.output)
        spikes = torch.cat([each.spikes for each in parts], 1)
        assert int(spikes[2].sum()) == sm.simulate(network, x[:5], steps=8).spikes
    rest = torch.cat([each.quiescent for each in over_steps(lossless, x[:5], (1,))])
    assert torch.equal(rest, sm.simulate(lossless, x[:5]).output)


def test_rate_networks_are_saved(tmp_path) -> None:
    _, graph, x = case(7)
    for spike in SPIKES:
        network = convert(graph, TrainingFree(FEW, spike=spike), x)
        sm.save(network, tmp_path / "n.safetensors")
        again = sm.load(tmp_path / "n.safetensors")
        assert (again.spike, again.window, again.source) == (network.spike, network.window, network.source)
        assert torch.equal(
            sm.simulate(again, x[:2], steps=9).output, sm.simulate(network, x[:2], steps=9).output
        )


def test_what_rates_cannot_carry_is_refused() -> None:
    x = torch.randn(8, 4)
    for function, named in ((nn.Sigmoid(), "Sigmoid"), (nn.Hardswish(), "HardSwish")):
        graph = sm.capture(nn.Sequential(nn.Linear(4, 4), function, nn.Linear(4, 2)).eval(), x[:2])
        with pytest.raises(GraphError, match=named):
            convert(graph, TrainingFree(FEW), x)
    _, graph, images = case(0)
    with pytest.raises(GraphError, match="float graph"):
        convert(sm.quantise(graph, images, sm.Levels()), TrainingFree(FEW), images)
    network = convert(graph, TrainingFree(FEW), images)
    with pytest.raises(RunError, match="never comes to rest"):
        sm.simulate(network, images[:2])
    with pytest.raises(RunError, match="room"):
        sm.simulate(network, images[:2], steps=network.room + 1)
    with pytest.raises(GraphError, match="rate network"):
        sm.verify(network, sm.quantise(graph, images, sm.Levels()), images)
    with pytest.raises(RunError, match="rate network"):
        sm.stream(network)
    with pytest.raises(UsageError, match="none"):
        convert(graph, Rate())
    with pytest.raises(UsageError, match="does not use"):
        convert(sm.quantise(graph, images, sm.Levels()), sm.Lossless(), images)
    for wrong in (
        lambda: LocalThresholdBalancing(iterations=0),
        lambda: LocalThresholdBalancing(rate=2.0),
        lambda: Delayed(start=-1),
        lambda: Delayed(least=0),
        lambda: Rate(Percentile(0)),
    ):
        with pytest.raises(LevelsError):
            wrong()
    with pytest.raises(RunError, match="rising"):
        sm.Outputs((3, 2))


# ---------------------------------------------------------------- clamps, gains, pools, sums
class Falling(nn.Module):
    """A batch norm with gains of both signs and zero between two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6 * 36, 4)
        self.norm.weight.data = torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0, -0.3])
        self.norm.bias.data = torch.tensor([0.1, 0.5, -0.2, 0.3, -0.4, 0.6])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(torch.relu(self.conv(x)))).flatten(1))


class Vector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)
        self.norm.weight.data = torch.tensor([1.0, -1.0, 0.5, -0.1, 2.0, -0.3, 1.0, -2.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(torch.relu(self.first(x.flatten(1))))))


class PooledInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(nn.functional.max_pool2d(x, 2)))
        return self.head(nn.functional.max_pool2d(-y, 2).flatten(1))


class TwoMaps(nn.Module):
    """A sum of two maps of the input, each on a grid of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.head = nn.Linear(6 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.one(x) + self.other(x)).flatten(1))


@pytest.mark.parametrize("make", [Falling, Vector, PooledInput, TwoMaps])
@pytest.mark.parametrize("spike", [sm.Binary(), sm.Ternary(), sm.Graded(4)])
def test_any_relu_network_converts_and_comes_near(make: Callable[[], nn.Module], spike: Spike) -> None:
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(40, 3, 8, 8)
    wanted = model(x).detach()
    network = sm.convert(
        sm.capture(model, x[:2]), sm.TrainingFree(sm.thresholds.LeastSquaresIn(64), spike=spike), x
    )
    got = sm.simulate(network, x, steps=64).output
    assert float((got - wanted).square().sum() / (wanted - wanted.mean()).square().sum()) < 0.02
    runs = [sm.simulate(network, x[:3], steps=12, engine=each) for each in (sm.Reference(), sm.Event())]
    assert torch.equal(runs[0].output, runs[1].output)


@pytest.mark.parametrize("spike", [sm.Binary(), sm.Ternary(), sm.Graded(4)])
@pytest.mark.parametrize("steps", [8, 64])
def test_a_clamp_is_never_passed(spike: Spike, steps: int) -> None:
    conv = nn.Conv2d(1, 1, 1)
    nn.init.ones_(conv.weight)
    nn.init.zeros_(conv.bias)
    model = nn.Sequential(conv, nn.ReLU6()).eval()
    x = torch.linspace(-20, 40, 640).view(10, 1, 8, 8)
    graph = sm.capture(model, x[:2])
    methods = [
        sm.TrainingFree(sm.thresholds.LeastSquaresIn(steps), spike=spike),
        sm.TrainingFree(sm.thresholds.LocalThresholdBalancing(20), spike=spike),
        sm.Rate(spike=spike),
    ]
    for method in methods:
        output = sm.simulate(sm.convert(graph, method, x), x, steps=steps).output
        assert float(output.max()) <= 6.001
        assert float((output - model(x).detach()).abs().mean()) < 0.5


def test_samples_that_can_be_read_once_are_kept() -> None:
    model, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), torch.randn(50, 6)
    graph = sm.capture(model, x[:2])
    whole, parts = (sm.convert(graph, sm.TrainingFree(), each) for each in (x, iter([x[:25], x[25:]])))
    assert whole.window == parts.window
    assert all(torch.equal(each, parts.graph.tensors[name]) for name, each in whole.graph.tensors.items())


def test_spikes_with_sizes_use_up_room_faster() -> None:
    model, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), torch.randn(50, 6)
    network = sm.convert(sm.capture(model, x[:2]), sm.TrainingFree(spike=sm.Graded(4)), x)
    most = max(int(node.op.hi) for node in network.graph.neurons)  # type: ignore[union-attr]
    assert network.room == most // 4
    run = sm.simulate(network, 100 * x[:4], steps=network.room, record=sm.SpikeCounts())
    assert run.counts is not None
    assert max(int(each.max()) for each in run.counts.values()) == most
    with pytest.raises(RunError, match=f"room for {most // 4} steps"):
        sm.simulate(network, x[:4], steps=network.room + 1)
