"""Post-training quantisation that moves weights and biases: closer to the float network, on its grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.data.dataset import Split
from spikemorph.data.loading import load
from spikemorph.errors import UsageError
from spikemorph.ir import functions as fn
from spikemorph.ir import ops
from spikemorph.ir.graph import Node
from spikemorph.levels import Levels, PerChannel, PerTensor
from spikemorph.passes import plan
from spikemorph.quantise import Nearest, Reconstruction, reconstructed
from spikemorph.quantise.fit import PULLS, Live, fit, live_range
from spikemorph.quantise.rounding import round_in_turn
from spikemorph.quantise.samples import Samples, inputs_at, outputs_at, places
from spikemorph.recipes.digits import PlainNet, ResidualNet
from test_quantise import drawn


# ---------------------------------------------------------------- places
@settings(max_examples=25)
@given(
    groups=st.sampled_from([1, 2, 4]),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_what_is_read_at_a_place_gives_the_sum_there(
    groups: int, stride: int, padding: int, dilation: int, seed: int
) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(4, 8, (3, 2), stride, padding, dilation, groups, bias=False)
    x = torch.randn(3, 4, 9, 7)
    with torch.no_grad():
        y = conv(x)
    op = ops.Conv("w", None, (stride,) * 2, (padding,) * 2, (dilation,) * 2, groups)
    node = Node("y", op, ("x",), tuple(y.shape[1:]))
    at = places(node, 24 // groups, 3, torch.Generator().manual_seed(seed))
    read = inputs_at(node, (3, 2), x, at)
    sums = read @ conv.weight.detach().reshape(groups, 8 // groups, -1).transpose(1, 2)
    wanted = outputs_at(node, y, at).unflatten(1, (groups, -1)).transpose(0, 1)
    assert len(at) == at.unique().numel()
    torch.testing.assert_close(sums, wanted, rtol=1e-4, atol=1e-5)


def test_places_of_a_linear_layer_are_all_axes_but_the_last() -> None:
    node = Node("y", ops.Linear("w", None), ("x",), (5, 4))
    x, weight = torch.randn(2, 5, 3), torch.randn(4, 3)
    at = places(node, 3, 2, torch.Generator().manual_seed(0))
    read = inputs_at(node, (), x, at)
    torch.testing.assert_close((read @ weight.T)[0], outputs_at(node, x @ weight.T, at))


# ---------------------------------------------------------------- fitting
def problem(seed: int, *, beside: bool = False) -> tuple[Samples, Tensor, Tensor]:
    """A float layer and its inputs on a coarse grid; two groups."""
    torch.manual_seed(seed)
    x = torch.randn(2, 400, 6) @ torch.randn(2, 6, 6)
    weight, bias = torch.randn(2, 6, 5).double(), torch.randn(2, 1, 5).double()
    other = torch.randn(2, 400, 5)
    target = x @ weight.float() + bias.float()
    coarse = torch.round(x * 0.7).clamp(-2, 1) / 0.7
    if not beside:
        return Samples(coarse, target, None), weight, bias
    return Samples(coarse, target + other, torch.round(other)), weight, bias


def error_seen(samples: Samples, weight: Tensor, bias: Tensor, live: Live) -> float:
    """Squared error of the sums where the activation is not flat."""
    sums = samples.x @ weight.float() + bias.float()
    sums = sums if samples.beside is None else sums + samples.beside
    return float((live.clamped(samples.target, sums) - sums).square().mean())


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**4),
    function=st.sampled_from([fn.Relu(), fn.Clamp(0.0, 2.0), fn.HardSwish(), fn.Tanh()]),
    weights=st.booleans(),
    beside=st.booleans(),
)
def test_a_fitted_layer_is_never_further_from_the_float_one(
    seed: int, function: fn.Function, weights: bool, beside: bool
) -> None:
    samples, weight, bias = problem(seed, beside=beside)
    live = live_range(function)
    fitted = fit(samples, (weight, bias), live, weights=weights)
    before = error_seen(samples, weight, bias, live)
    after = error_seen(samples, fitted.weight, fitted.bias, live)
    assert after <= before * (1 + 1e-5)
    assert torch.equal(fitted.weight, weight) or weights


def test_a_fit_of_weights_helps_on_data_it_has_not_seen() -> None:
    gains = []
    for seed in range(10):
        samples, weight, bias = problem(seed)
        half, rest = (
            Samples(samples.x[:, part], samples.target[:, part], None)
            for part in (slice(200), slice(200, 400))
        )
        fitted = fit(half, (weight, bias), Live(), weights=True)
        gains.append(
            error_seen(rest, fitted.weight, fitted.bias, Live()) / error_seen(rest, weight, bias, Live())
        )
    assert sum(gains) / len(gains) < 0.8


@pytest.mark.parametrize("beside", [False, True])
def test_the_mean_error_of_every_sum_is_zero(beside: bool) -> None:
    samples, weight, bias = problem(0, beside=beside)
    fitted = fit(samples, (weight, bias), Live(), weights=False)
    sums = samples.x @ fitted.weight.float() + fitted.bias.float()
    sums = sums if samples.beside is None else sums + samples.beside
    before = (samples.x @ weight.float() + bias.float() - samples.target).mean(1)
    assert float(before.abs().max()) > 0.05
    assert float((sums - samples.target).mean(1).abs().max()) < 1e-5


def test_other_weights_keep_the_means() -> None:
    samples, weight, bias = problem(1)
    fitted = fit(samples, (weight, bias), Live(), weights=False)
    rounded = fitted.with_weight(fitted.weight.round())
    sums = samples.x @ rounded.weight.float() + rounded.bias.float()
    assert float((sums - samples.target).mean(1).abs().max()) < 1e-5


def test_noise_moves_no_weights() -> None:
    """Errors that have nothing to do with the inputs: one half of the samples says so to the other."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 60, 40), torch.randn(1, 40, 3).double()
    target = x @ weight.float() + torch.randn(1, 60, 3)
    fitted = fit(Samples(x, target, None), (weight, torch.zeros(1, 1, 3).double()), Live(), weights=True)
    pulled = float((fitted.weight - weight).square().mean())
    free = torch.linalg.lstsq(x[0], target[0]).solution - weight[0].float()
    assert pulled < 0.2 * float(free.square().mean())
    assert max(PULLS) > 100


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_next_to_no_samples_move_biases_alone(samples: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, samples, 4), torch.randn(1, 4, 3).double()
    made = fit(
        Samples(x, torch.randn(1, samples, 3), None),
        (weight, torch.zeros(1, 1, 3).double()),
        Live(),
        weights=True,
    )
    assert torch.equal(made.weight, weight)
    assert bool(made.bias.isfinite().all())


def test_inputs_that_are_always_zero_keep_their_weights() -> None:
    samples, weight, bias = problem(2)
    x = samples.x.clone()
    x[:, :, 3] = 0
    fitted = fit(Samples(x, samples.target, None), (weight, bias), Live(), weights=True)
    torch.testing.assert_close(fitted.weight[:, 3], weight[:, 3])
    assert not torch.equal(fitted.weight, weight)


# ---------------------------------------------------------------- rounding
@settings(max_examples=25)
@given(seed=st.integers(0, 10**4), bits=st.integers(2, 8))
def test_rounding_in_turn_stays_on_the_grid(seed: int, bits: int) -> None:
    torch.manual_seed(seed)
    largest = 2 ** (bits - 1) - 1
    x = torch.randn(3, 50, 7).double()
    x[0, :, 2] = 0
    integers = round_in_turn(torch.randn(3, 4, 7).double() * largest, x.transpose(1, 2) @ x / 50, largest)
    assert torch.equal(integers, integers.round())
    assert float(integers.abs().max()) <= largest


def test_rounding_in_turn_is_closer_than_to_the_nearest() -> None:
    torch.manual_seed(0)
    x = (torch.randn(1, 500, 20) @ torch.randn(1, 20, 20)).double()
    x = x - x.mean(1, keepdim=True)
    scaled = torch.randn(1, 30, 20).double() * 4
    moments = x.transpose(1, 2) @ x / 500
    errors = [
        float(((scaled - integers) @ x.transpose(1, 2)).square().mean())
        for integers in (round_in_turn(scaled, moments, 7), scaled.round().clamp(-7, 7))
    ]
    assert errors[0] < 0.7 * errors[1]


# ---------------------------------------------------------------- whole networks
@settings(max_examples=15)
@given(seed=st.integers(0, 10**5), p=st.sampled_from([3, 15]), per_channel=st.booleans())
def test_random_graphs_stay_lossless(seed: int, p: int, per_channel: bool) -> None:
    graph, x = drawn(seed)
    levels = Levels(p, granularity=PerChannel() if per_channel else PerTensor())
    integer = sm.quantise(graph, x, levels, Reconstruction())
    certificate = sm.verify(sm.convert(integer), integer, tuple(each[:4] for each in x))
    assert certificate.lossless, certificate.first_difference


@pytest.mark.parametrize("model", [PlainNet, ResidualNet])
def test_reconstruction_is_closer_on_data_it_has_not_seen(model: type[nn.Module]) -> None:
    torch.manual_seed(0)
    data = load("digits", Split.TRAIN)
    graph = sm.capture(model().eval(), data.x[:2])
    wanted = sm.evaluate(graph, data.x[256:512])
    methods = Nearest(), Reconstruction(weights=False, rounding=False), Reconstruction()
    networks = [sm.quantise(graph, data.x[:256], Levels(7, 4), method) for method in methods]
    errors = [float((sm.evaluate(each, data.x[256:512]) - wanted).square().mean()) for each in networks]
    assert errors[1] < errors[0]
    assert errors[2] < 0.8 * errors[1]


def test_reconstruction_is_the_same_every_time() -> None:
    data = load("digits", Split.TRAIN)
    graph = sm.capture(ResidualNet().eval(), data.x[:2])
    one, two = (sm.quantise(graph, data.x[:64], Levels(7), Reconstruction()) for _ in range(2))
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


def test_the_reconstructed_module_and_its_integer_graph_agree() -> None:
    data = load("digits", Split.TRAIN)
    graph = sm.capture(ResidualNet().eval(), data.x[:2])
    network = reconstructed(graph, data.x[:64], Levels(15), Reconstruction())
    with torch.no_grad():
        got = network(data.x[64:128])
    torch.testing.assert_close(got, sm.evaluate(sm.freeze(network), data.x[64:128]), rtol=1e-3, atol=1e-3)


def test_a_method_of_another_kind_is_refused() -> None:
    graph = sm.capture(PlainNet().eval(), torch.zeros(2, 1, 8, 8))
    with pytest.raises(UsageError, match="Reconstruction"):
        sm.quantise(graph, torch.rand(4, 1, 8, 8), Levels(7), "best")  # type: ignore[arg-type]


# ---------------------------------------------------------------- units of identity neurons
class Bottleneck(nn.Module):
    """Linear follows linear, and a sum of both."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(64, 8, 1)
        self.wide = nn.Conv2d(8, 64, 1)
        self.again = nn.Conv2d(64, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.narrow(torch.relu(x))
        x = x + self.again(torch.relu(self.wide(x)))
        return torch.relu(self.wide(x))


def test_identity_neurons_have_a_unit_for_each_channel_where_absorbed() -> None:
    graph = sm.capture(Bottleneck().eval(), torch.zeros(2, 64, 4, 4))
    for granularity, wide in ((PerTensor(), False), (PerChannel(), True)):
        planned = plan(graph, Levels(31, granularity=granularity))
        found = [
            node.op for node in planned.nodes if isinstance(node.op, ops.Quantiser) and not node.op.chain
        ]
        assert found
        assert all(op.per_channel is wide for op in found)
