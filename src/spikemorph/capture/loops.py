"""Loops over time that torch.export has written out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from torch import fx
from torch.export import ExportedProgram

from spikemorph.capture.naming import origin_of, packet
from spikemorph.errors import Offence, UnsupportedOps

LONGEST = 128
"""How many elements a loop that is written out may have."""

_CELLS = (
    "use torch.nn.RNN(nonlinearity='relu') or 'tanh': its elements run one after another on the same neurons"
)
_WHOLE = "call the recurrent layer once, on the whole sequence, which runs element by element anyway"
_DIAGONAL = f"{_CELLS}; with a diagonal weight_hh every unit sees its own state alone"
_CONVOLVED = (
    "use torch.nn.RNN over the whole sequence, behind convolutions that see one element, or a shorter loop"
)
_TOGETHER = (
    "call it once, on all elements: linear layers take [batch, elements, ...], convolutions frames that are "
    "folded into the batch, with x.flatten(0, 1) in front and .unflatten(0, (x.shape[0], -1)) behind"
)

_WEIGHTS: dict[str, tuple[tuple[int, ...], str]] = {
    "linear": ((1,), _CELLS),
    "addmm": ((2,), _CELLS),
    "mm": ((1,), _CELLS),
    "matmul": ((1,), _CELLS),
    "rnn_relu_cell": ((3,), _CELLS),
    "rnn_tanh_cell": ((3,), _CELLS),
    "rnn_relu": ((2,), _WHOLE),
    "rnn_tanh": ((2,), _WHOLE),
    "mul": ((0, 1), _DIAGONAL),
    **dict.fromkeys(
        ("conv1d", "conv2d", "convolution", "conv_transpose1d", "conv_transpose2d"), ((1,), _CONVOLVED)
    ),
}
"""Which arguments may be the weight, of a cell the one that the state goes through; what to do instead."""

_STATE_WEIGHT = 1
"""Where the weight that the state goes through is among those of a recurrent layer."""

_SAME_WEIGHT = frozenset((
    "t",
    "numpy_T",
    "mT",
    "transpose",
    "permute",
    "view",
    "unsqueeze",
    "expand",
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
        for weight in _weights(node):
            if weight.name in names:
                uses[str(names[weight.name])].append(node)
    offences = tuple(_offence(name, each) for name, each in uses.items() if len(each) > LONGEST)
    if offences:
        raise UnsupportedOps(offences)


def _weights(node: fx.Node) -> Iterator[fx.Node]:
    """What an operation multiplies with, behind views of it."""
    if node.op != "call_function":
        return
    places, _ = _WEIGHTS.get(packet(node.target), ((), ""))
    for place in places:
        found = node.args[place]
        if isinstance(found, list | tuple):
            found = found[_STATE_WEIGHT]
        while isinstance(found, fx.Node) and packet(found.target) in _SAME_WEIGHT:
            found = found.args[0]
        if isinstance(found, fx.Node):
            yield found


def _offence(weight: str, uses: list[fx.Node]) -> Offence:
    origin = origin_of(uses[0])
    _, instead = _WEIGHTS[packet(uses[0].target)]
    return Offence(
        where=str(origin),
        got=f"{origin.call} {len(uses)} times with the weight {weight!r}: a loop, written out",
        known=f"loops of at most {LONGEST} elements, whose elements have neurons of their own",
        do=instead if _follows(uses[-1], uses[0]) else _TOGETHER,
    )


def _follows(last: fx.Node, first: fx.Node) -> bool:
    """Whether what comes out of the first goes into the last, as the state of a loop does."""
    seen: set[fx.Node] = set()
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node is first:
            return True
        if node not in seen:
            seen.add(node)
            waiting += node.all_input_nodes
    return False
