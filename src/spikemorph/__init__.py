"""Any trained PyTorch network becomes a spiking network, bit for bit.

graph  = capture(model, example_inputs)
qgraph = quantise(graph, calibration, Levels(activation=15))
snn    = convert(qgraph, Lossless())
run    = simulate(snn, x)
assert verify(snn, qgraph, x).lossless
"""

from spikemorph import levels, thresholds
from spikemorph.capture import capture
from spikemorph.convert.files import load, save
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.methods import convert
from spikemorph.convert.network import Binary, Graded, Ternary
from spikemorph.convert.rate import Rate
from spikemorph.convert.training_free import TrainingFree
from spikemorph.errors import SpikemorphError
from spikemorph.evaluate.integers import evaluate, evaluate_integers
from spikemorph.ir.encoding import Analog, Spikes
from spikemorph.passes.inspection import inspect
from spikemorph.passes.levels import Levels
from spikemorph.quantise import freeze, quantise, trainable
from spikemorph.run.dense import Dense
from spikemorph.run.event import Event
from spikemorph.run.handover import Delta, Fresh
from spikemorph.run.record import Everything, LayerSpikes, Outputs, SpikeCounts
from spikemorph.run.reference import Reference
from spikemorph.run.simulate import simulate
from spikemorph.run.stream import stream
from spikemorph.verify.certificate import verify

__all__ = [
    "Analog",
    "Binary",
    "capture",
    "convert",
    "Delta",
    "Dense",
    "evaluate",
    "evaluate_integers",
    "Event",
    "Everything",
    "freeze",
    "Fresh",
    "Graded",
    "inspect",
    "LayerSpikes",
    "Levels",
    "levels",
    "load",
    "Lossless",
    "Outputs",
    "quantise",
    "Rate",
    "Reference",
    "save",
    "simulate",
    "SpikeCounts",
    "SpikemorphError",
    "Spikes",
    "stream",
    "Ternary",
    "thresholds",
    "trainable",
    "TrainingFree",
    "verify",
]
