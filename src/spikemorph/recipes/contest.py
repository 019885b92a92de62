"""Methods of conversion without training, each with the settings that calibration data chooses for every T.

All candidates of a family run on calibration samples without labels. For every number of steps T, that
candidate and that share of the steps left out of the readout win whose outputs are closest to those of the
float network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from spikemorph.convert.balance import LeastSquaresIn, LocalThresholdBalancing
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.methods import convert
from spikemorph.convert.network import Binary, Spike, SpikingNetwork, Ternary, Window
from spikemorph.convert.rate import Rate
from spikemorph.convert.training_free import Delayed, TrainingFree
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Graph
from spikemorph.measure.over_steps import over_steps
from spikemorph.passes.levels import Levels, Max, Percentile, PerChannel
from spikemorph.quantise import quantise
from spikemorph.quantise.methods import Reconstruction
from spikemorph.recipes.over_steps import FULL, QUIESCENT, Way

STARTS = (0.0, 0.25, 0.5, 0.625, 0.75)
"""Shares of the steps that the readout of a rate network may leave out."""
AT_ONCE = 20
"""Samples."""

Outputs = Mapping[int, Any]
"""Outputs of all samples after so many steps, of rate networks the mean over all of them."""
Error = Callable[[Any, Any], float]
"""How far outputs are from those of the float network."""


@final
@dataclass(frozen=True)
class Source:
    """What is converted: a float graph, and calibration samples [n, *shape]."""

    graph: Graph
    calibration: Tensor


@final
class Quantised:
    """Quantised networks of one source, a unit a channel, reconstructed; each made once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._made: dict[tuple[int, int], Graph] = {}

    def keep(self, graph: Graph, levels: int, identity: int | None = None) -> None:
        """A network that is there already."""
        self._made[_key(levels, identity)] = graph

    def __call__(self, levels: int, identity: int | None = None) -> Graph:
        """On so many levels; identity neurons carry signed sums: twice as many, if not said."""
        key = _key(levels, identity)
        if key not in self._made:
            how = Levels(levels, identity=key[1], granularity=PerChannel())
            made = quantise(self.source.graph, self.source.calibration, how, Reconstruction())
            self._made[key] = made
        return self._made[key]


def _key(levels: int, identity: int | None) -> tuple[int, int]:
    return levels, 2 * levels + 1 if identity is None else identity


@final
@dataclass(frozen=True)
class Candidate:
    """One way to convert.

    Args:
        build: the network; windows do not matter.
        steps: at which it may win, None for all; a lossless network may win at rest, besides.
    """

    build: Callable[[Source], SpikingNetwork]
    steps: tuple[int, ...] | None = None


Family = Mapping[str, Candidate]
"""Candidates of one method, by the words for their settings."""


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """What won.

    Args:
        candidate: of the family.
        start: steps that the readout leaves out.
        error: on calibration samples; squared error of scores relative to their own squares, if nothing
            else was asked for.
    """

    candidate: str
    start: int
    error: float

    def to_json(self) -> list[Any]:
        """Plain data."""
        return [self.candidate, self.start, self.error]


Choices = Mapping[str, Choice]
"""By "8", "16", ... steps or "quiescent"."""


@final
@dataclass(frozen=True, slots=True)
class Setting:
    """Of a lossless network.

    Args:
        levels: of activations.
        ramp: steps.
        identity: levels of identity neurons, None: twice as many.
        steps: at which it may win, None for all; at rest it always may.
    """

    levels: int
    ramp: int
    identity: int | None = None
    steps: tuple[int, ...] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        identities = "" if self.identity is None else f"{self.identity} of identities, "
        return f"{self.levels} levels, {identities}ramp of {self.ramp}"


def lossless(made: Quantised, settings: tuple[Setting, ...], spike: Spike) -> Family:
    """Neurons that track the counts of quantised networks."""

    def candidate(setting: Setting) -> Candidate:
        method = Lossless(spike, ramp=setting.ramp)
        return Candidate(
            lambda source: convert(made(setting.levels, setting.identity), method), setting.steps
        )

    return {str(setting): candidate(setting) for setting in settings}


def balanced(tried: Mapping[int, tuple[int, ...]], batch: int) -> Family:
    """Thresholds of local threshold balancing, by iterations, and the steps at which each may win."""
    return {
        f"{n} iterations": free(LocalThresholdBalancing(n, batch), Binary(), steps)
        for n, steps in tried.items()
    }


def fitted(steps: tuple[int, ...] = FULL) -> Family:
    """Thresholds of least squares, each for its own number of steps."""
    return {f"in {n}": free(LeastSquaresIn(n), Ternary(), (n,)) for n in steps}


def classic(*percents: float) -> Family:
    """Thresholds at percentiles of activations."""
    return {f"percentile {each}": read_off(Percentile(each)) for each in percents}


def read_off(threshold: Max | Percentile) -> Candidate:
    """The classic baseline."""
    return Candidate(lambda source: convert(source.graph, Rate(threshold), source.calibration))


def free(
    balancing: LocalThresholdBalancing | LeastSquaresIn, spike: Spike, steps: tuple[int, ...] | None = None
) -> Candidate:
    """Integrate-and-fire neurons with thresholds found on the calibration samples."""
    method = TrainingFree(balancing, Delayed(0), spike)
    return Candidate(lambda source: convert(source.graph, method, source.calibration), steps)


def recorded(notes: Mapping[str, Any], steps: tuple[int, ...]) -> dict[str, Choices]:
    """The choices in a recipe's notes, by family, for these steps and at rest."""
    kept = {*map(str, steps), QUIESCENT}
    return {
        name: {key: Choice(*each) for key, each in won.items() if key in kept}
        for name, won in notes["chosen"].items()
    }


def choose(
    source: Source,
    family: Family,
    shown: Tensor,
    steps: tuple[int, ...],
    *,
    error: Error | None = None,
    batch: int = AT_ONCE,
) -> Choices:
    """The winners of one family.

    Args:
        shown: [n, *shape], on which candidates are compared.
        steps: rising.
        error: of the outputs, `relative_error` by default.
        batch: samples at once.
    """
    distance = relative_error if error is None else error
    wanted = evaluate(source.graph, shown)
    best: dict[str, Choice] = {}
    for name, candidate in family.items():
        network, able = candidate.build(source), steps if candidate.steps is None else candidate.steps
        for key, start, outputs in readouts(network, shown, able, batch):
            far = distance(outputs, wanted)
            if key not in best or far < best[key].error:
                best[key] = Choice(name, start, far)
    return {key: best[key] for key in (*map(str, steps), QUIESCENT) if key in best}


def readouts(
    network: SpikingNetwork, x: Tensor, steps: tuple[int, ...], batch: int = AT_ONCE
) -> Iterator[tuple[str, int, Any]]:
    """(key, start, outputs averaged from there on) for every readout that is allowed, from one run.

    At rest a lossless network shows what its quantised network computes.
    """
    rests = network.window is None
    starts = {n: sorted({int(n * share) for share in ((0.0,) if rests else STARTS)}) for n in steps}
    marks = sorted({*steps, *(start for each in starts.values() for start in each)} - {0})
    free = network if rests else replace(network, window=Window(0))
    found: dict[int, list[Any]] = {}
    for reached in over_steps(free, x, tuple(marks), quiescent=False, batch=batch) if marks else ():
        for mark, output in reached.outputs.items():
            found.setdefault(mark, []).append(output)
    outputs = {mark: pytree.tree_map(_joined, *each) for mark, each in found.items()}
    for n in steps:
        for start in starts[n]:
            yield str(n), start, averaged(outputs, start, n)
    if rests:
        yield QUIESCENT, 0, evaluate(network.graph, x)


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def averaged(outputs: Outputs, start: int, steps: int) -> Any:
    """The mean output of steps start + 1..steps, from the means over all steps until then."""
    if start == 0:
        return outputs[steps]

    def mean(late: Tensor, early: Tensor) -> Tensor:
        return (late * steps - early * start) / (steps - start)

    return pytree.tree_map(mean, outputs[steps], outputs[start])


def relative_error(scores: Tensor, wanted: Tensor) -> float:
    """Squared error of scores [n, classes] relative to what is wanted, both without the mean of their row."""
    ours, theirs = (each.double() - each.double().mean(1, keepdim=True) for each in (scores, wanted))
    return float((ours - theirs).square().sum() / theirs.square().sum())


def ways(source: Source, method: str, family: Family, choices: Choices) -> Iterator[Way]:
    """The winners, each network and window once."""
    built: dict[str, SpikingNetwork] = {}
    for name, start in dict.fromkeys((each.candidate, each.start) for each in choices.values()):
        won = [key for key, each in choices.items() if (each.candidate, each.start) == (name, start)]
        if name not in built:
            built[name] = family[name].build(source)
        network = built[name]
        if network.window is not None:
            network = replace(network, window=Window(start, 1))
        steps = tuple(int(key) for key in won if key != QUIESCENT)
        yield Way(method, network, steps, QUIESCENT in won)


def closest(chosen: Mapping[str, Choices]) -> dict[str, str]:
    """Steps or "quiescent" -> the family whose winner is closest to the float network."""
    keys = dict.fromkeys(key for won in chosen.values() for key in won)
    return {
        key: min(
            (name for name, won in chosen.items() if key in won), key=lambda name: chosen[name][key].error
        )
        for key in keys
    }
