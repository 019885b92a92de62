"""Loops over time that torch.export has written out."""

from __future__ import annotations

from collections import defaultdict

from torch import fx
from torch.export import ExportedProgram

from spikemorph.capture.naming import origin_of, packet
from spikemorph.errors import Offence, UnsupportedOps

LONGEST = 128
"""How many elements a loop that is written out may have."""

_WEIGHTS = {
    "linear": 1,
    "addmm": 2,
    "mm": 1,
    "matmul": 1,
    "rnn_relu_cell": 3,
    "rnn_tanh_cell": 3,
}
"""Which argument is the weight; of a cell the one that the state goes through."""
_SAME_WEIGHT = frozenset((
    "t",
    "numpy_T",
    "mT",
    "transpose",
    "permute",
    "view",
    "detach",
    "alias",
    "to",
    "clone",
))


def check_loops(program: ExportedProgram) -> None:
    """Refuse loops of more than `LONGEST` elements, which are recognised by one weight for all of them.

    Raises:
        UnsupportedOps: one offence for each such weight.
    """
    names = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target}
    uses: dict[str, list[fx.Node]] = defaultdict(list)
    for node in program.graph.nodes:
        weight = _weight(node)
        if weight is not None and weight.name in names:
            uses[str(names[weight.name])].append(node)
    offences = tuple(_offence(name, each) for name, each in uses.items() if len(each) > LONGEST)
    if offences:
        raise UnsupportedOps(offences)


def _weight(node: fx.Node) -> fx.Node | None:
    """What a linear operation multiplies with, behind views of it."""
    place = _WEIGHTS.get(packet(node.target))
    if node.op != "call_function" or place is None:
        return None
    found = node.args[place]
    while isinstance(found, fx.Node) and packet(found.target) in _SAME_WEIGHT:
        found = found.args[0]
    return found if isinstance(found, fx.Node) else None


def _offence(weight: str, uses: list[fx.Node]) -> Offence:
    origin = origin_of(uses[0])
    return Offence(
        where=str(origin),
        got=f"{origin.call} {len(uses)} times with the weight {weight!r}: a loop, written out",
        known=f"loops of at most {LONGEST} elements, whose elements have neurons of their own",
        do="use torch.nn.RNN(nonlinearity='relu') or 'tanh': its elements run one after another on the same "
        "neurons",
    )
