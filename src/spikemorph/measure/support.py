"""Whether a module converts, and how far the conversion can be trusted: one row a module."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, final

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.func import functional_call

from spikemorph.capture import capture
from spikemorph.capture.check import difference
from spikemorph.convert.methods import convert
from spikemorph.errors import Offence, UnsupportedOps
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.passes.levels import Levels
from spikemorph.quantise import quantise
from spikemorph.run.default import Engine
from spikemorph.verify.certificate import Certificate, verify

EXAMPLES = 2
"""Samples to capture with; the graph is compared with the module on others."""


@final
@dataclass(frozen=True)
class Taken:
    """A module that converts.

    Args:
        parameters: numbers that training moves.
        shape: of one sample.
        levels, weight_bits: asked for.
        operations: of the captured graph.
        capture_error: largest difference of graph and module in float64, relative to the module's largest
            output, on samples that it was not captured with.
        neurons: max-pools and identity neurons included.
        identities: identity neurons, and the places where they stand.
        samples: compared, to quiescence.
        lossless: the certificate's verdict.
        seconds: of processor time, by stage.
    """

    parameters: int
    shape: tuple[int, ...]
    levels: int
    weight_bits: int
    operations: int
    capture_error: float
    neurons: int
    identities: tuple[int, int]
    samples: int
    neurons_compared: int
    neurons_different: int
    outputs_compared: int
    outputs_different: int
    lossless: bool
    steps_max: int
    steps_bound: int
    spikes_per_neuron: float
    integer_type: str
    engine: str
    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"taken": True, **asdict(self)}


@final
@dataclass(frozen=True)
class Refused:
    """A module that does not convert, and why not: every operation in its way, the same ones together.

    Args:
        parameters: numbers that training moves.
        shape: of one sample.
        offences: got, known, do, how many of them, and where the first stands.
    """

    parameters: int
    shape: tuple[int, ...]
    offences: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"taken": False, **asdict(self)}


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[name] = round(time.process_time() - start, 2)


def support(
    module: Callable[[], nn.Module],
    x: Tensor,
    levels: Levels,
    *,
    samples: int = 2,
    engine: Engine | None = None,
) -> Taken | Refused:
    """Capture, quantise, convert and verify a module.

    Args:
        module: makes it, in eval mode; it is let go of once its outputs are known.
        x: [batch, *shape], more than EXAMPLES samples; all of them calibrate.
        samples: the last so many are compared.

    Raises:
        CaptureError: it cannot be exported, or its graph computes something else.
    """
    clock, made = _Clock(), module()
    parameters = sum(each.numel() for each in made.parameters())
    shape = tuple(x.shape[1:])
    try:
        with clock.stage("capture"):
            graph = capture(made, x[:EXAMPLES])
    except UnsupportedOps as error:
        return Refused(parameters, shape, tuple(_counted(error.offences)))
    gap = capture_error(graph, made, x[EXAMPLES:])
    operations = len(graph.nodes)
    del made  # the largest networks hardly fit twice
    with clock.stage("quantise"):
        integer = quantise(graph, x, levels)
    del graph
    with clock.stage("verify"):
        certificate = verify(convert(integer), integer, x[-samples:], engine=engine)
    return Taken(
        parameters=parameters,
        shape=shape,
        levels=levels.activation,
        weight_bits=levels.weight_bits,
        operations=operations,
        capture_error=gap,
        identities=identities(integer),
        seconds=clock.seconds,
        **_certified(certificate),
    )


def capture_error(graph: Graph, module: nn.Module, x: Tensor) -> float:
    """Largest difference of any output in float64, relative to the largest value of it in the module."""
    x = x.double()
    state = {name: _in_float64(each) for name, each in module.state_dict().items()}
    with torch.no_grad():
        wanted = pytree.tree_leaves(functional_call(module, state, (x,)))
    values = evaluate_float(graph, (x,), keep=False)
    return max(difference(values[name], each) for name, each in zip(graph.outputs, wanted, strict=True))


def _in_float64(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def identities(graph: Graph) -> tuple[int, int]:
    """Identity neurons of an integer graph, and the places where they stand."""
    found = [
        torch.Size(node.shape).numel()
        for node in graph.nodes
        if isinstance(node.op, ops.Neuron) and node.op.identity
    ]
    return sum(found), len(found)


def _certified(certificate: Certificate) -> dict[str, Any]:
    names = (
        "neurons samples neurons_compared neurons_different outputs_compared outputs_different lossless "
        "steps_max steps_bound integer_type engine"
    )
    found = {name: getattr(certificate, name) for name in names.split()}
    return {**found, "spikes_per_neuron": round(certificate.spikes_per_neuron, 4)}


def _counted(offences: tuple[Offence, ...]) -> Iterator[Mapping[str, Any]]:
    kinds = Counter((each.got, each.known, each.do) for each in offences)
    for (got, known, do), count in kinds.items():
        first = next(each.where for each in offences if (each.got, each.known, each.do) == (got, known, do))
        yield {"got": got, "known": known, "do": do, "count": count, "where": first}
