"""Energy under named cost models: an estimate from counts, not a measurement of a chip.

Sources of the numbers:
    [H] M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, 45 nm at 0.9 V:
        float32 add 0.9 pJ, multiply 3.7 pJ; int8 multiply 0.2 pJ; int32 add 0.1 pJ; 64 bits from an SRAM of
        8 KB 10 pJ.
    [Y] Z. Yan, Z. Bai, K. Tang, W.-F. Wong, Reconsidering the energy efficiency of spiking neural networks,
        arXiv:2409.08290, setting "typical neuromorphic": 0.25 pJ a bit and hop for dense data, 3.0 pJ a bit
        and hop for spikes with their routing (from Loihi); a comparison costs as much as an addition.
    [B] Seed paper 2, arXiv:2409.03368: 77 fJ a synaptic operation, 12.5 pJ a floating-point operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import final

from spikemorph.measure.ledger import Operations
from spikemorph.units import Joules

PICO = 1e-12


@final
@dataclass(frozen=True, slots=True)
class Prices:
    """Picojoules of one of each thing that `Operations` counts; nothing for what is not named."""

    mac: float = 0.0
    accumulate: float = 0.0
    update: float = 0.0
    spike: float = 0.0
    event: float = 0.0
    weight_bit: float = 0.0
    accumulator_bit: float = 0.0
    state_bit: float = 0.0
    activation_bit: float = 0.0
    event_bit: float = 0.0

    def of(self, counted: Operations) -> Joules:
        """What these operations cost."""
        return Joules(sum(getattr(self, n) * getattr(counted, f"{n}s") for n in PRICED) * PICO)


PRICED: tuple[str, ...] = tuple(field.name for field in fields(Prices))


@final
@dataclass(frozen=True, slots=True)
class CostModel:
    """What the operations of each kind of network cost.

    Args:
        source: where the numbers are from, and what they leave out.
        float, qnn: None where the source has no price for such a network.
    """

    name: str
    source: str
    float: Prices | None
    qnn: Prices | None
    snn: Prices


FLOAT_ADD, FLOAT_MAC = 0.9, 3.7 + 0.9  # [H]
INTEGER_ADD, INTEGER_MAC = 0.1, 0.2 + 0.1  # [H]: 8-bit factors, 32-bit sums
SRAM_BIT = 10 / 64  # [H]
DENSE_HOP, SPIKE_HOP = 0.25, 3.0  # [Y]

HOROWITZ_45NM = CostModel(
    name="45nm",
    source="Horowitz, ISSCC 2014, 45 nm: int8 products, int32 sums; an update is an addition; no memory",
    float=Prices(mac=FLOAT_MAC, accumulate=FLOAT_ADD, update=FLOAT_ADD),
    qnn=Prices(mac=INTEGER_MAC, accumulate=INTEGER_ADD, update=INTEGER_ADD),
    snn=Prices(mac=INTEGER_MAC, accumulate=INTEGER_ADD, update=INTEGER_ADD),
)

_IN_FLOAT = Prices(mac=FLOAT_MAC, accumulate=FLOAT_ADD)
FLOAT_45NM = CostModel(
    name="45nm-float32",
    source="Horowitz, ISSCC 2014, 45 nm: all in float32, 4.6 pJ against 0.9 pJ, as most papers count;"
    " no price for integers, updates, memory",
    float=_IN_FLOAT,
    qnn=None,
    snn=_IN_FLOAT,
)

SEED_PAPER_2 = CostModel(
    name="2409.03368",
    source="arXiv:2409.03368: 77 fJ a synaptic operation, 12.5 pJ a floating-point operation, here a MAC;"
    " of two kinds of machine; no price for integers, updates, memory",
    float=Prices(mac=12.5),
    qnn=None,
    snn=Prices(mac=12.5, accumulate=0.077),
)

_STORED = {"weight_bit": SRAM_BIT, "state_bit": SRAM_BIT}
MEMORY = CostModel(
    name="memory",
    source="after arXiv:2409.08290: 45 nm arithmetic, weights and states in an SRAM of 8 KB (Horowitz), one"
    " hop of 0.25 pJ a bit for dense numbers and 3.0 pJ for an event of one bit (that paper, read in"
    " summaries); what arrives in a step is summed in a register",
    float=Prices(mac=FLOAT_MAC, accumulate=FLOAT_ADD, update=FLOAT_ADD, activation_bit=DENSE_HOP, **_STORED),
    qnn=Prices(
        mac=INTEGER_MAC, accumulate=INTEGER_ADD, update=INTEGER_ADD, activation_bit=DENSE_HOP, **_STORED
    ),
    snn=Prices(
        mac=INTEGER_MAC,
        accumulate=INTEGER_ADD,
        update=INTEGER_ADD,
        event=SPIKE_HOP,
        activation_bit=DENSE_HOP,
        **_STORED,
    ),
)

_MOVED = {"activation_bit": 2 * SRAM_BIT, "event_bit": 2 * SRAM_BIT, **_STORED}
MEMORY_EVENTS = CostModel(
    name="memory-events",
    source="Horowitz, ISSCC 2014, 45 nm: arithmetic, and everything in an SRAM of 8 KB; event by event: every"
    " operation reads and writes its accumulator; numbers and events are written once and read once",
    float=Prices(mac=FLOAT_MAC, accumulate=FLOAT_ADD, update=FLOAT_ADD, **_MOVED),
    qnn=Prices(mac=INTEGER_MAC, accumulate=INTEGER_ADD, update=INTEGER_ADD, **_MOVED),
    snn=Prices(
        mac=INTEGER_MAC,
        accumulate=INTEGER_ADD,
        update=INTEGER_ADD,
        accumulator_bit=SRAM_BIT,
        **_MOVED,
    ),
)

MODELS: tuple[CostModel, ...] = (HOROWITZ_45NM, FLOAT_45NM, SEED_PAPER_2, MEMORY, MEMORY_EVENTS)


@final
@dataclass(frozen=True, slots=True)
class Energies:
    """Joules a sample of the three networks under one model; None where the model has no price."""

    float: Joules | None
    qnn: Joules | None
    snn: Joules

    def to_dict(self) -> dict[str, Joules | None]:
        """Plain data for JSON."""
        return {"float": self.float, "qnn": self.qnn, "snn": self.snn}


def price(model: CostModel, dense: Operations, qnn: Operations, snn: Operations) -> Energies:
    """The three networks under one model; `dense` is the float network."""
    return Energies(
        None if model.float is None else model.float.of(dense),
        None if model.qnn is None else model.qnn.of(qnn),
        model.snn.of(snn),
    )


def verdict(energies: Mapping[str, Energies]) -> tuple[str, ...]:
    """One sentence a model, and one in all, that say whether the SNN costs more than its rivals."""
    lines = [f"{name}: the SNN costs {_against(each)}" for name, each in energies.items()]
    worse = [name for name, each in energies.items() if each.qnn is not None and each.snn >= each.qnn]
    priced = sum(each.qnn is not None for each in energies.values())
    if worse:
        said = f"The SNN costs more than the QNN of the same bits under {len(worse)} of {priced} models"
        return (*lines, f"{said}: {', '.join(worse)}.")
    return (*lines, f"The SNN costs less than the QNN of the same bits under all {priced} models.")


def _against(each: Energies) -> str:
    rivals = {"the QNN": each.qnn, "the float network": each.float}
    return ", ".join(_ratio(name, cost, each.snn) for name, cost in rivals.items())


def _ratio(name: str, cost: Joules | None, snn: Joules) -> str:
    if cost is None:
        return f"an unknown share of {name}, which this model has no price for"
    if not cost:
        return f"{snn:.3g} J where {name} costs nothing"
    word = "MORE than" if snn > cost else "as much as" if snn == cost else "less than"
    return f"{word} {name} ({snn / cost:.3g} times)"
