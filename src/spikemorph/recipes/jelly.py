"""SpikingJelly's local threshold balancing beside ours: as it is, and with its passes chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from spikemorph.data import Dataset
from spikemorph.measure.peers import Absent
from spikemorph.measure.peers.jelly_ltb import Balanced, balance
from spikemorph.recipes.contest import AT_ONCE, relative_error
from spikemorph.recipes.over_steps import hits
from spikemorph.recipes.result import Progress

AS_IT_IS = "SpikingJelly, one pass"
CHOSEN = "SpikingJelly, passes chosen on calibration data"
PASSES = (1, 4, 16, 64)
"""Of its loader through the calibration images."""


@final
@dataclass(frozen=True)
class Theirs:
    """What they need.

    Args:
        module: the float network at rest.
        batches: calibration samples, one pass.
        steps: at which the network is read out, by their own delayed readout.
    """

    module: nn.Module
    batches: Sequence[Tensor]
    steps: tuple[int, ...]

    def converted(self, passes: int) -> Balanced | Absent:
        """Their network; their thresholds grow once a batch."""
        layers = sum(isinstance(each, nn.ReLU | nn.ReLU6) for each in self.module.modules())
        return balance(self.module, [*self.batches] * passes, self.steps, layers)

    def choose(self, shown: Tensor, wanted: Tensor) -> dict[str, list[Any]]:
        """Steps -> [passes, error]: closest to wanted outputs [n, classes] on shown samples.

        Empty where SpikingJelly is absent.
        """
        best: dict[str, list[Any]] = {}
        for passes in PASSES:
            peer = self.converted(passes)
            if isinstance(peer, Absent):
                return {}
            for steps, scores in _outputs(peer, shown)[0].items():
                error = relative_error(scores, wanted)
                if str(steps) not in best or error < best[str(steps)][1]:
                    best[str(steps)] = [passes, error]
        return best

    def measured(
        self, data: Dataset, passes: Mapping[str, int], progress: Progress
    ) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
        """Method -> steps -> percent right, and what was run; no methods where SpikingJelly is absent.

        Args:
            passes: steps -> what was chosen.
        """
        score, facts = hits(data.y), dict[str, Any]()
        rows: dict[str, dict[str, float]] = {AS_IT_IS: {}, CHOSEN: {}}
        several = sorted({1, *passes.values()})
        for number, each in enumerate(several):
            peer = self.converted(each)
            if isinstance(peer, Absent):
                return {}, {"absent": peer.reason}
            tell = _shifted(progress, number * len(data.x), len(several) * len(data.x))
            start = time.perf_counter()
            outputs, spikes = _outputs(peer, data.x, tell)
            facts |= {
                "version": peer.version,
                f"starts, {each} passes": dict(peer.starts),
                f"spikes a sample, {each} passes": spikes,
                f"seconds a sample, {each} passes": (time.perf_counter() - start) / len(data.x),
            }
            for steps, scores in outputs.items():
                right = score(scores, slice(0, len(scores))) / len(scores)
                rows[AS_IT_IS] |= {str(steps): right} if each == 1 else {}
                rows[CHOSEN] |= {str(steps): right} if each == passes.get(str(steps)) else {}
        return {name: _rising(row) for name, row in rows.items() if row}, facts


def _rising(row: Mapping[str, float]) -> dict[str, float]:
    return {key: row[key] for key in sorted(row, key=int)}


def _shifted(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(before + done, total)


def _outputs(
    peer: Balanced, x: Tensor, tell: Callable[[int], None] = lambda done: None
) -> tuple[dict[int, Tensor], dict[int, float]]:
    """Steps -> outputs of all samples, and steps -> spikes a sample until then."""
    parts, spikes, done = [], dict.fromkeys(peer.starts, 0.0), 0
    for some in x.split(AT_ONCE):
        outputs, sent = peer.over_steps(some)
        parts.append(outputs)
        spikes = {steps: spikes[steps] + sent[steps] for steps in spikes}
        done += len(some)
        tell(done)
    joined = {steps: torch.cat([part[steps] for part in parts]) for steps in peer.starts}
    return joined, {steps: each / len(x) for steps, each in spikes.items()}
