"""Choices of settings by calibration data, and the readouts they use."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikemorph as sm
from spikemorph.convert.balance import LocalThresholdBalancing
from spikemorph.convert.network import SpikingNetwork
from spikemorph.convert.training_free import Delayed, TrainingFree
from spikemorph.data import Dataset, Split
from spikemorph.errors import RunError
from spikemorph.measure.over_steps import over_steps
from spikemorph.measure.peers.jelly_ltb import Balanced
from spikemorph.recipes.contest import (
    Candidate,
    Choice,
    Source,
    choose,
    closest,
    readouts,
    recorded,
    relative_error,
    ways,
)
from spikemorph.recipes.jelly import AS_IT_IS, CHOSEN, Theirs
from spikemorph.recipes.over_steps import QUIESCENT
from spikemorph.recipes.result import accuracy

STEPS = (8, 32)


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def source(model: nn.Sequential) -> Source:
    x = torch.rand(40, 6, generator=torch.Generator().manual_seed(1))
    return Source(sm.capture(model, x[:2]), x)


def network(source: Source, iterations: int, start: int = 0) -> SpikingNetwork:
    how = TrainingFree(LocalThresholdBalancing(iterations, 10), Delayed(start, least=1))
    return sm.convert(source.graph, how, source.calibration)


def free(iterations: int, steps: tuple[int, ...] | None = None) -> Candidate:
    return Candidate(lambda source: network(source, iterations), steps)


def integer(source: Source, levels: int) -> sm.Graph:
    return sm.quantise(source.graph, source.calibration, sm.Levels(levels))


def lossless(levels: int) -> Candidate:
    return Candidate(lambda source: sm.convert(integer(source, levels)))


def test_readouts_made_of_two_means_are_those_of_delayed_networks(source: Source) -> None:
    found = {
        (key, start): scores for key, start, scores in readouts(network(source, 20), source.calibration, (8,))
    }
    assert [start for _, start in found] == [0, 2, 4, 5, 6]
    for (_, start), scores in found.items():
        delayed = network(source, 20, start)
        wanted = torch.cat([each.outputs[8] for each in over_steps(delayed, source.calibration, (8,))])
        assert torch.allclose(scores, wanted, atol=1e-5)
    assert not torch.allclose(found["8", 0], found["8", 4], atol=1e-3)


def test_the_closest_candidate_and_readout_win_at_every_number_of_steps(source: Source) -> None:
    family = {"one": free(1), "many": free(60), "same": free(60)}
    won = choose(source, family, source.calibration, STEPS)
    assert {key: each.candidate for key, each in won.items()} == {"8": "many", "32": "many"}
    wanted = sm.evaluate(source.graph, source.calibration)
    for key, each in won.items():
        errors = [
            relative_error(scores, wanted)
            for _, _, scores in readouts(network(source, 60), source.calibration, (int(key),))
        ]
        assert each.error == min(errors) < max(errors)


def test_a_candidate_wins_only_where_it_competes(source: Source) -> None:
    won = choose(source, {"one": free(1), "many": free(60, (32,))}, source.calibration, STEPS)
    assert {key: each.candidate for key, each in won.items()} == {"8": "one", "32": "many"}


def test_networks_that_come_to_rest_are_chosen_there_too_and_leave_no_steps_out(source: Source) -> None:
    family = {"3": lossless(3), "63": lossless(63)}
    won = choose(source, family, source.calibration, STEPS)
    assert won.keys() == {"8", "32", QUIESCENT}
    assert {each.start for each in won.values()} == {0}
    assert won[QUIESCENT].candidate == "63"


def test_winners_are_run_with_the_readouts_they_won_with(source: Source) -> None:
    choices = {"8": Choice("20", 2, 0.1), "16": Choice("20", 2, 0.1), "32": Choice("20", 8, 0.1)}
    made = list(ways(source, "free", {"20": free(20)}, choices))
    assert [(each.method, each.steps, each.network.window.first(99), each.rest) for each in made] == [
        ("free", (8, 16), 2, False),
        ("free", (32,), 8, False),
    ]
    (way,) = ways(source, "rest", {"63": lossless(63)}, {QUIESCENT: Choice("63", 0, 0.1)})
    assert (way.steps, way.rest) == ((), True)
    (reached,) = over_steps(way.network, source.calibration, way.steps, batch=40)
    assert torch.equal(reached.quiescent, sm.evaluate(integer(source, 63), source.calibration))
    assert (reached.outputs, reached.spikes.shape) == ({}, (0, 40))


def test_only_what_comes_to_rest_runs_without_steps(source: Source) -> None:
    for each, rest in ((network(source, 2), True), (sm.convert(integer(source, 3)), False)):
        with pytest.raises(RunError, match="no steps") as caught:
            list(over_steps(each, source.calibration, (), quiescent=rest))
        assert caught.value.do == "give steps, such as (8, 16, 32)"


def test_errors_are_relative_and_blind_to_what_all_scores_share() -> None:
    wanted = torch.tensor([[1.0, 3.0], [0.0, 2.0]])
    assert relative_error(wanted + torch.tensor([[5.0], [-1.0]]), wanted) == 0.0
    assert relative_error(torch.tensor([[1.0, 5.0], [0.0, 2.0]]), wanted) == 0.5


def test_the_method_of_each_number_of_steps_is_the_closest_family() -> None:
    chosen = {
        "a": {"8": Choice("x", 0, 0.2), "16": Choice("x", 0, 0.1)},
        "b": {"8": Choice("y", 0, 0.3), "16": Choice("y", 0, 0.05), QUIESCENT: Choice("y", 0, 0.1)},
    }
    assert closest(chosen) == {"8": "a", "16": "b", QUIESCENT: "b"}


@pytest.mark.filterwarnings("ignore")
def test_spikingjelly_is_measured_as_it_is_and_with_chosen_passes(
    model: nn.Sequential, source: Source
) -> None:
    pytest.importorskip("spikingjelly")
    x, wanted = source.calibration, sm.evaluate(source.graph, source.calibration)
    theirs = Theirs(model, x.split(10), (8, 128))
    won = theirs.choose(x, wanted)
    assert won["128"][0] > 1
    data = Dataset(x, wanted.argmax(1), "made", Split.TEST, ())
    passes = {key: n for key, (n, _) in won.items()}
    seen: list[tuple[int, int]] = []
    rows, facts = theirs.measured(data, passes, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (40 * len({1, *passes.values()}),) * 2
    assert rows.keys() == {AS_IT_IS, CHOSEN}
    for name, n in ((AS_IT_IS, 1), (CHOSEN, passes["128"])):
        peer = theirs.converted(n)
        assert isinstance(peer, Balanced)
        assert rows[name]["128"] == accuracy(peer.over_steps(x)[0][128], data.y)
    assert f"starts, {passes['128']} passes" in facts


def test_where_spikingjelly_refuses_a_network_the_reason_is_kept(source: Source) -> None:
    theirs = Theirs(nn.Sequential(nn.Linear(6, 4), nn.ReLU6()).eval(), [source.calibration], (8,))
    data = Dataset(source.calibration, torch.zeros(40).long(), "made", Split.TEST, ())
    assert theirs.choose(source.calibration, torch.zeros(40, 4)) == {}
    rows, facts = theirs.measured(data, {}, lambda done, total: None)
    assert rows == {}
    assert facts.keys() == {"absent"}


def test_choices_come_back_from_their_notes() -> None:
    won = {"8": ["5 levels", 0, 3.5], "256": ["63 levels", 0, 1.0], "quiescent": ["63 levels", 0, 1.0]}
    assert recorded({"chosen": {"a": won}}, (8,))["a"] == {
        "8": Choice("5 levels", 0, 3.5),
        "quiescent": Choice("63 levels", 0, 1.0),
    }
