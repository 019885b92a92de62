"""`spikemorph energy`: what a spiking network costs beside its rivals, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import Tensor

from spikemorph.cli import output
from spikemorph.cli.models import load_samples
from spikemorph.convert.files import load_network
from spikemorph.convert.methods import convert
from spikemorph.convert.network import Spikes, SpikingNetwork
from spikemorph.data import Split
from spikemorph.errors import UsageError
from spikemorph.ir.graph import Graph
from spikemorph.measure.compare import Books, Comparison
from spikemorph.measure.energy import MODELS, CostModel, verdict
from spikemorph.measure.ledger import COUNTED, Ledger
from spikemorph.measure.models import load_model
from spikemorph.recipes import RECIPES
from spikemorph.run.handover import Handover
from spikemorph.run.simulate import simulate
from spikemorph.verify.certificate import analog_inputs, spike_kind

CHUNK = 100
FIRST = 100
"""Samples of a recipe, where no number is given."""

NETWORKS = {"float": "float32", "qnn": "QNN", "snn": "SNN"}
NOTES = (
    "Estimates from counts, not measurements of a chip. QNN: the same integers evaluated once, at rest.",
    "The QNN multiplies zeros, too; neither network keeps a weight for the next position.",
    "SNN updates: neurons x steps until rest, as a clocked machine does them; on events there are fewer.",
    "Products are priced as 8 bit whatever their bits. Taps in padding are counted nowhere.",
)
RATES = "A rate network has no QNN: in its place its integers, evaluated once, with room for all steps."
ANALOG = (
    "The analog input of the SNN is counted as multiply-accumulates: every non-zero number times its fan-out."
)


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """What to measure, as typed."""

    network: str
    data: str | None
    split: Split
    samples: int | None
    handover: Handover
    model: Path | None
    steps: int | None = None

    def load(self) -> tuple[SpikingNetwork, Graph | None, Tensor]:
        """The spiking network, its float network where it is known, and samples.

        Raises:
            UsageError: a file without data, or neither a file nor a recipe.
        """
        recipe = RECIPES.get(self.network)
        if recipe is None:
            if self.data is None:
                raise UsageError(
                    where=f"energy {self.network}",
                    got="no recipe, and no --data",
                    known=f"NETWORK.safetensors --data NAME, or a recipe: {', '.join(sorted(RECIPES))}",
                    do="name the data that the network is to run on",
                )
            network = load_network(Path(self.network))
            return network, None, load_samples(self.data, self.split, self.samples)[0]
        network = convert(recipe.graph(None, "qnn"))
        samples = FIRST if self.samples is None else self.samples
        if self.data is not None:
            x = load_samples(self.data, self.split, samples)[0]
        elif samples < 1:
            raise UsageError(where="--samples", got=str(samples), known="at least 1", do="leave it out")
        else:
            x = recipe.data(self.split).x[:samples]
        return network, recipe.graph(None, "float"), x


def energy(asked: Asked, *, layers: bool, as_json: bool) -> int:
    """Run, count, price and compare."""
    models = MODELS if asked.model is None else (*MODELS, load_model(asked.model))
    network, dense, x = asked.load()
    books = Books(network)
    with output.Bars() as bars:
        bar = bars.bar("samples")
        size = network.graph.samples_at_once(CHUNK)
        for start in range(0, len(x), size):
            part = x[start : start + size]
            books.add(simulate(network, part, steps=asked.steps, handover=asked.handover))
            bar(books.samples, len(x))
    compared = books.compare(dense)
    notes = _notes(network, dense)
    if as_json:
        output.emit_json(_summary(asked.network, network, compared, models, notes, len(x)))
    else:
        _show(asked.network, compared, models, notes, layers=layers)
    return 0


def _notes(network: SpikingNetwork, dense: Graph | None) -> tuple[str, ...]:
    analog = () if isinstance(network.encoding, Spikes) else (ANALOG,)
    same = () if dense is not None else ("float32: the layers of the QNN in float32.",)
    rates = () if network.window is None else (RATES,)
    return (*NOTES, *analog, *same, *rates)


def _summary(
    name: str,
    network: SpikingNetwork,
    compared: Comparison,
    models: tuple[CostModel, ...],
    notes: tuple[str, ...],
    samples: int,
) -> dict[str, Any]:
    energies = compared.energies(models)
    return {
        "network": name,
        "samples": samples,
        "spike_kind": spike_kind(network),
        "analog_inputs": analog_inputs(network),
        "operations": {key: _ledger(compared, key).to_dict() for key in NETWORKS},
        "energy": {model: each.to_dict() for model, each in energies.items()},
        "models": {model.name: model.source for model in models},
        "verdict": list(verdict(energies)),
        "notes": list(notes),
    }


def _ledger(compared: Comparison, key: str) -> Ledger:
    found: Ledger = getattr(compared, key)
    return found


def _show(
    name: str,
    compared: Comparison,
    models: tuple[CostModel, ...],
    notes: tuple[str, ...],
    *,
    layers: bool,
) -> None:
    totals = {key: _ledger(compared, key).total.to_dict() for key in NETWORKS}
    rows = [[_words(count), *(f"{each[count]:,.0f}" for each in totals.values())] for count in COUNTED]
    output.table(f"{name}: a sample", ["", *NETWORKS.values()], rows)
    if layers:
        for key, words in NETWORKS.items():
            _show_layers(words, _ledger(compared, key))
    energies = compared.energies(models)
    priced = [
        [model, *("no price" if cost is None else f"{cost * 1e6:.4g}" for cost in each.to_dict().values())]
        for model, each in energies.items()
    ]
    output.table("microjoules a sample", ["model", *NETWORKS.values()], priced)
    for model in models:
        output.show(f"{model.name}: {model.source}")
    for line in (*notes, "", *verdict(energies)):
        output.show(line)


def _show_layers(words: str, ledger: Ledger) -> None:
    counts, bits = (
        [count for count in COUNTED if count.endswith("_bits") is stored] for stored in (False, True)
    )
    rows = []
    for layer, each in ledger.layers.items():
        counted = each.to_dict()
        numbers = [*(counted[count] for count in counts), sum(counted[count] for count in bits)]
        rows.append([layer, *(f"{number:,.0f}" for number in numbers)])
    output.table(
        f"{words}, layer by layer", ["layer", *(_words(count) for count in counts), "all bits"], rows
    )


def _words(count: str) -> str:
    return {"macs": "MACs"}.get(count, count.replace("_", " "))
