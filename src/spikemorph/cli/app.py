"""The commands. Errors of the library leave as one readable block and exit code 2, failed checks as 1."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spikemorph.cli import bench as benches
from spikemorph.cli import energy as energy_command
from spikemorph.cli import run as run_command
from spikemorph.cli import tune as tuning
from spikemorph.cli import work
from spikemorph.cli.against import Against, float_file
from spikemorph.cli.methods import OF_LOSSLESS, OF_RATES, SEARCHED, refuse, typed
from spikemorph.cli.output import say
from spikemorph.data import Split
from spikemorph.errors import SpikemorphError
from spikemorph.measure.energy import MEMORY_EVENTS
from spikemorph.measure.layers import THRESHOLD
from spikemorph.tune import Prefer

app = typer.Typer(
    name="spikemorph",
    help="Any trained PyTorch network becomes a spiking network, bit for bit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Model = Annotated[str, typer.Argument(help="package.module:factory, or a .pt2 file of torch.export.")]
Weights = Annotated[Path | None, typer.Option(help="State dict: .safetensors, or .pth with tensors only.")]
Data = Annotated[
    str, typer.Option("--data", help="A registered name, a .npz file with x and y, or a folder.")
]
Part = Annotated[Split, typer.Option(help="Part of a registered data set.")]
HandoverName = Annotated[
    str, typer.Option("--handover", help="Between elements of a sequence: fresh or delta; both are exact.")
]
Samples = Annotated[int | None, typer.Option(help="Use only the first N samples.")]
Net = Annotated[Path, typer.Argument(help="A network file that convert wrote.")]
Engine = Annotated[str, typer.Option(help="dense, or reference (the slow oracle).")]
LevelCount = Annotated[
    int, typer.Option("--levels", help="p, levels of an activation above zero; 2-bit is 3.")
]
Bits = Annotated[int, typer.Option("--weight-bits", help="2..8.")]
Calibrating = Annotated[int, typer.Option("--samples", help="Calibration samples.")]
MaxLoss = Annotated[
    float | None,
    typer.Option(help="Points of accuracy that may be lost; without labels, percent that may differ."),
]
MaxSteps = Annotated[int | None, typer.Option(help="Steps that a run may take.")]
BatchAxis = Annotated[
    int,
    typer.Option(
        min=0, help="Of what forward takes: 1 for [elements, batch, ...]. Data is [batch, ...] always."
    ),
]


@app.command()
def demo(json: Json = False) -> None:
    """Train, convert, run and verify three networks on scikit-learn's digits."""
    raise typer.Exit(work.demo(as_json=json))


@app.command()
def inspect(
    model: Model,
    weights: Weights = None,
    data: Annotated[str | None, typer.Option(help="Take the example input from this data.")] = None,
    shape: Annotated[str | None, typer.Option(help="Shape of one sample, such as 1,28,28.")] = None,
    levels: LevelCount = 15,
    weight_bits: Bits = 8,
    batch_axis: BatchAxis = 0,
    json: Json = False,
) -> None:
    """Every operation of a model, what becomes of it, and why. Exits with 1 where something is refused."""
    settings = work.Settings(levels=levels, weight_bits=weight_bits, batch_axis=batch_axis)
    raise typer.Exit(work.inspect(model, weights, work.Example(data, shape), settings, as_json=json))


@app.command()
def convert(
    context: typer.Context,
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="The network file to write.")],
    weights: Weights = None,
    method: Annotated[str, typer.Option(help="lossless, training-free or rate.")] = "lossless",
    levels: LevelCount = 15,
    weight_bits: Bits = 8,
    spike: Annotated[
        str | None,
        typer.Option(help="ternary or graded:M; binary, too, of rates. Default: ternary; of rates binary."),
    ] = None,
    ramp: Annotated[
        int, typer.Option(help="Steps over which inputs and biases enter: deep networks settle sooner.")
    ] = 1,
    thresholds: Annotated[
        str | None,
        typer.Option(
            help="training-free: balanced[:ITERATIONS] or least-squares:STEPS; rate: percentile:P or max."
        ),
    ] = None,
    per_channel: Annotated[
        bool | None,
        typer.Option("--per-channel/--per-layer", help="A unit a channel, where absorbed, or one a layer."),
    ] = None,
    observer: Annotated[
        str, typer.Option(help="least-squares, max, or a percentile such as 99.9.")
    ] = "least-squares",
    reconstruct: Annotated[
        bool,
        typer.Option("--reconstruct", help="Move biases and weights, layer by layer, to stay close: slower."),
    ] = False,
    spike_input: Annotated[
        bool, typer.Option("--spike-input", help="Send the input as a spike train.")
    ] = False,
    samples: Calibrating = 512,
    max_loss: MaxLoss = None,
    max_steps: MaxSteps = None,
    batch_axis: BatchAxis = 0,
    qnn: Annotated[Path | None, typer.Option(help="Write the quantised network (QNN) here, too.")] = None,
    with_float: Annotated[
        bool, typer.Option("--float", help="Write the float network beside it, for run --layers.")
    ] = False,
    json: Json = False,
) -> None:
    """Capture, quantise and convert a trained model; with a bound, as the search of `tune` finds best."""
    given, beside = typed(context), float_file(out) if with_float else None
    if max_loss is not None or max_steps is not None:
        refuse(given, SEARCHED, "a bound, within which a search decides")
        search = tuning.parse_search(spike, max_loss=max_loss, max_steps=max_steps)
        asked, files = tuning.Asked(model, weights, data, samples), tuning.Files(out, float_network=beside)
        raise typer.Exit(tuning.convert(asked, search, files, as_json=json))
    refuse(given, OF_LOSSLESS if method != "lossless" else OF_RATES, f"--method {method}")
    kind = method, ramp, reconstruct, thresholds
    settings = work.Settings(
        levels, weight_bits, spike, per_channel, observer, spike_input, batch_axis, *kind
    )
    targets = work.Targets(out, qnn, beside)
    raise typer.Exit(work.convert(model, weights, (data, samples), settings, targets, as_json=json))


@app.command()
def tune(
    context: typer.Context,
    model: Model,
    data: Data,
    weights: Weights = None,
    max_loss: MaxLoss = None,
    max_steps: MaxSteps = None,
    prefer: Annotated[Prefer, typer.Option(help="What is to be least within max-loss.")] = Prefer.JOULES,
    levels: Annotated[str, typer.Option(help="Tried by the lossless way, falling.")] = "63,31,15,7,3",
    spikes: Annotated[str, typer.Option(help="That may be sent.")] = "binary,ternary,graded:4",
    samples: Calibrating = 512,
    judge: Annotated[
        str | None,
        typer.Option(help="Data that judges; default: the validation part of a registered name."),
    ] = None,
    held_out: Annotated[float, typer.Option(help="Part of the samples that judges, of other data.")] = 0.5,
    rounds: Annotated[int, typer.Option(min=0, help="Of lowering layer by layer; 0 for none.")] = 2,
    cost_model: Annotated[str, typer.Option(help="Prices the operations.")] = MEMORY_EVENTS.name,
    out: Annotated[Path | None, typer.Option(help="Write the chosen network here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the trade-off here, as SVG.")] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Judgements, from which a search resumes; default: beside --out.")
    ] = None,
    json: Json = False,
) -> None:
    """Search levels per layer, spike kind and method. Exits with 1 where nothing keeps to the bounds."""
    search = tuning.parse_search(
        spikes,
        max_loss=max_loss,
        max_steps=max_steps,
        prefer=prefer,
        levels=tuning.parse_ladder(levels),
        held_out=held_out,
        rounds=rounds,
        model=tuning.cost_model(cost_model),
    )
    if judge is not None:
        refuse(typed(context), ("held_out",), "--judge, which names the samples that judge")
    asked = tuning.Asked(model, weights, data, samples, judge, parted="held_out" in typed(context))
    raise typer.Exit(tuning.run(asked, search, tuning.Files(out, plot, journal), as_json=json))


@app.command()
def verify(
    network: Net,
    data: Data,
    split: Part = Split.TEST,
    samples: Samples = None,
    qnn: Annotated[Path | None, typer.Option(help="Compare with this quantised network.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="Write the certificate here.")] = None,
    recheck: Annotated[Path | None, typer.Option(help="Check this certificate again.")] = None,
    engine: Engine = "event",
    handover: HandoverName = "fresh",
    json: Json = False,
) -> None:
    """Compare every neuron of every sample with the quantised network. Exits with 1 where they differ."""
    chosen = work.Chosen(network, data, split, samples, engine, handover)
    raise typer.Exit(work.verify(chosen, qnn, certificate, recheck, as_json=json))


@app.command()
def run(
    context: typer.Context,
    network: Net,
    data: Data,
    split: Part = Split.TEST,
    samples: Samples = None,
    steps: Annotated[
        int | None, typer.Option(help="Exactly so many steps (an element); default: until quiescent.")
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Spikes and errors of every layer, and which one breaks first.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(help="Float network to compare with: a model, or what convert --float wrote."),
    ] = None,
    weights: Weights = None,
    batch_axis: BatchAxis = 0,
    threshold: Annotated[
        float, typer.Option(help="Relative error that a layer may add before it is called broken.")
    ] = THRESHOLD,
    over: Annotated[
        str | None,
        typer.Option(help="Errors of the outputs against the float network after these steps: 1,2,4,8."),
    ] = None,
    engine: Engine = "event",
    handover: HandoverName = "fresh",
    json: Json = False,
) -> None:
    """Simulate a network and print accuracy, steps, spikes and operations."""
    chosen = work.Chosen(network, data, split, samples, engine, handover)
    compared = Against(against, weights, batch_axis)
    if not layers:
        unfit = ("threshold",) if over is not None else ("threshold", "against", "weights", "batch_axis")
        refuse(typed(context), unfit, "neither --layers nor --over" if over is None else "no --layers")
    most = run_command.check_threshold(threshold)
    wanted = run_command.Wanted(steps, layers, compared, most, run_command.parse_steps(over))
    raise typer.Exit(run_command.run(chosen, wanted, as_json=json))


@app.command()
def energy(
    network: Annotated[str, typer.Argument(help="A network file that convert wrote, or a recipe.")],
    data: Annotated[
        str | None, typer.Option(help="As for run; a recipe has its own. A recipe takes 100 samples.")
    ] = None,
    split: Part = Split.TEST,
    samples: Samples = None,
    handover: HandoverName = "fresh",
    model: Annotated[
        Path | None, typer.Option(help="A cost model of your own, .json or .toml, besides the named ones.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Of a run; default: until quiescent. Rate networks need it.")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Operations of every layer.")] = False,
    json: Json = False,
) -> None:
    """Operations, memory traffic and energy beside the float network and the QNN, with a verdict."""
    passed_on = work.Chosen(Path(network), data or "", split, samples, "event", handover).passed_on()
    asked = energy_command.Asked(network, data, split, samples, passed_on, model, steps)
    raise typer.Exit(energy_command.energy(asked, layers=layers, as_json=json))


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="A recipe, such as fashion-mnist.")],
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Use the shipped network, do not train.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Everything, however long it takes.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Checkpoints and results of a training.")] = None,
    json: Json = False,
) -> None:
    """Reproduce a recipe: train (resumes after a kill), convert, verify; or evaluate the shipped network."""
    raise typer.Exit(work.reproduce(name, folder, evaluate=evaluate, full=full, as_json=json))


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="A recipe, such as fashion-mnist.")],
    repeats: Annotated[int, typer.Option(help="Of every engine, interleaved.")] = 20,
    threads: Annotated[int, typer.Option(help="Of every engine.")] = 1,
    grow: Annotated[
        bool, typer.Option("--growth/--no-growth", help="Time against spikes, batch, steps, length, threads.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Write the JSON here, too.")] = None,
    json: Json = False,
) -> None:
    """Time the shipped network against its float network, its QNN and other simulators.

    Exits with 1 where outputs differ.
    """
    raise typer.Exit(benches.bench(name, benches.Wanted(repeats, threads, grow, out), as_json=json))


@app.command()
def data(
    fetch: Annotated[str | None, typer.Option(help="Bring this data set to this machine.")] = None,
    json: Json = False,
) -> None:
    """List the registered data sets: where they come from, whether they are here."""
    raise typer.Exit(work.data(fetch, as_json=json))


def main() -> None:
    """The entry point: library errors become one block on stderr and exit code 2."""
    try:
        app()
    except SpikemorphError as error:
        say(f"spikemorph: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("spikemorph: interrupted; nothing was written halfway")
        sys.exit(130)
