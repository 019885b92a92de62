"""The search for levels, spike kind and method: bounds on samples held out, trade-off, resuming, commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.cli import main
from spikemorph.convert.files import load_network
from spikemorph.convert.network import Binary, Graded, Spike, Ternary
from spikemorph.convert.training_free import TrainingFree
from spikemorph.errors import DataError, GraphError, LevelsError, UsageError
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.ir.store import graph_hash
from spikemorph.quantise.methods import Nearest, Reconstruction
from spikemorph.tune import Counts, Point, Prefer, Search, Tuned, tune
from spikemorph.tune.draw import svg, text
from spikemorph.tune.judge import Reading, held_out, lost_at_rest
from spikemorph.tune.search import first_lowered
from spikemorph.tune.tuned import front

torch.set_num_threads(1)
SAMPLES = 120


@pytest.fixture(scope="module")
def case() -> tuple[Graph, Tensor, Tensor]:
    """A small network, samples, and classes that are the network's own."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, 6, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(*sizes, bias=False) for sizes in ((6, 12), (12, 12), (12, 4))]
    net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).eval()
    return sm.capture(net, x[:2]), x, net(x).argmax(1)


SMALL = Search(
    max_loss=20.0, levels=(15, 7, 3, 1), spikes=(Ternary(),), rates=(), rounding=Nearest(), costed=4
)
RATES = replace(SMALL, max_steps=8, rates=(TrainingFree(spike=Binary()),), levels=(15, 3))


@pytest.fixture(scope="module")
def found(case: tuple[Graph, Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuned, Path]:
    """One whole search, and its journal."""
    journal = tmp_path_factory.mktemp("tune") / "journal.jsonl"
    graph, x, y = case
    return tune(graph, x, SMALL, y, journal=journal), journal


# ---------------------------------------------------------------- what is chosen
def test_samples_that_judge_may_be_given_and_all_others_calibrate(case: tuple[Graph, Tensor, Tensor]) -> None:
    graph, x, y = case
    search = replace(SMALL, levels=(3,), rounds=0)
    wrong = (y[:30] + 1) % 4
    tuned = tune(graph, x[30:], search, y[30:], judges=(x[:30], wrong))
    assert (tuned.calibrated, tuned.held_out, tuned.apart) == (90, 30, True)
    assert tuned.float_value == 0  # their labels judge
    assert not tune(graph, x, search, y).apart
    with pytest.raises(DataError, match="29 for 30 samples") as met:
        tune(graph, x, search, y, judges=(x[:30], wrong[1:]))
    assert "judges" in met.value.where


@pytest.mark.parametrize("kind", [Binary(), Ternary(), Graded(4)], ids=str)
def test_nothing_but_the_spikes_asked_for_is_tried(kind: Spike) -> None:
    made = Search(max_loss=1, levels=(7, 3), spikes=(kind,)).candidates()
    assert {each.method.spike for each in made} == {kind}
    assert any(isinstance(each, Counts) for each in made) == (kind != Binary())


def test_to_be_right_by_luck_is_worth_nothing() -> None:
    search = Search(max_steps=8)
    lucky = Point(Counts(3, Ternary()), replace(reading(-2.0, 8, 1.0), error=0.4))
    close = Point(Counts(15, Ternary()), replace(reading(0.0, 8, 9.0), error=0.1))
    assert min((lucky, close), key=lambda point: point.worth(search)) is close


def test_where_nothing_rests_in_time_layers_are_lowered_all_the_same() -> None:
    bench = SimpleNamespace(search=Search(max_loss=1.0, max_steps=8), notes=[])
    after = partial(replace, steps=8)
    cheap, dear = (Point(Counts(p, Ternary()), after(reading(0.5, 8, float(p)))) for p in (7, 15))
    lossy = Point(Counts(3, Ternary()), after(reading(2.0, 8, 1.0)))
    late = Point(Counts(31, Ternary()), reading(0.0, 20, 5.0))
    assert first_lowered(bench, [lossy, dear, cheap, late]) is cheap
    assert "layers are lowered by what they lose at rest" in bench.notes[0]
    bench.notes.clear()
    resting = Point(Counts(15, Ternary()), reading(0.5, 6, 30.0))
    assert first_lowered(bench, [cheap, resting, late]) is resting
    assert first_lowered(bench, [lossy, late]) is None
    assert not bench.notes


def test_the_chosen_network_keeps_to_the_bound_on_samples_that_did_not_calibrate(
    case: tuple[Graph, Tensor, Tensor], found: tuple[Tuned, Path]
) -> None:
    _, x, y = case
    tuned, _ = found
    assert tuned.chosen is not None
    assert tuned.network is not None
    assert (tuned.calibrated, tuned.held_out) == (60, 60)
    judges = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0))[:60]
    run = sm.simulate(tuned.network, x[judges])
    accuracy = 100 * float((run.output.argmax(1) == y[judges]).double().mean())
    assert tuned.float_value == 100
    assert tuned.chosen.reading.loss == pytest.approx(100 - accuracy)
    assert tuned.chosen.reading.loss <= 20
    assert tuned.chosen.reading.steps is None or tuned.chosen.reading.steps < int(run.sample_steps.max())


def test_nothing_within_the_bound_is_cheaper(found: tuple[Tuned, Path]) -> None:
    tuned, _ = found
    assert tuned.chosen is not None
    fit = [point.reading.joules for point in tuned.points if point.reading.loss <= 20]
    assert tuned.chosen.reading.joules == min(fit)
    assert any(point.reading.loss > 20 for point in tuned.points)


def test_layers_are_lowered_one_by_one_within_the_bound(found: tuple[Tuned, Path]) -> None:
    tuned, _ = found
    mixed = [
        point for point in tuned.points if isinstance(point.candidate, Counts) and point.candidate.lowered
    ]
    assert mixed
    at_rest = [point for point in mixed if point.reading.steps is None]
    assert all(point.reading.loss <= 20 for point in at_rest)
    for point in at_rest:
        assert isinstance(point.candidate, Counts)
        assert all(p < point.candidate.levels for p in point.candidate.lowered.values())
        assert set(point.candidate.lowered) <= {"1", "3"}


def test_layers_that_cross_the_bound_together_are_not_both_lowered(
    case: tuple[Graph, Tensor, Tensor],
) -> None:
    graph, x, y = case
    tuned = tune(graph, x, replace(SMALL, max_loss=25.0, levels=(3, 1)), y)
    lost = {
        json.dumps(point.candidate.to_dict()["lowered"]): point.reading.loss
        for point in tuned.points
        if isinstance(point.candidate, Counts) and point.candidate.levels == 3 and point.reading.steps is None
    }
    assert set(lost) == {"{}", '{"1": 1}'}
    assert max(lost.values()) <= 25
    assert (
        max(point.reading.loss for point in tuned.points if str(point.candidate).startswith("lossless, 1"))
        > 25
    )


def test_a_point_at_rest_loses_what_the_quantised_network_loses(
    case: tuple[Graph, Tensor, Tensor], found: tuple[Tuned, Path]
) -> None:
    graph, x, y = case
    judges = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0))
    held, rest = judges[:60].sort().values, judges[60:].sort().values
    levels = sm.Levels(3, granularity=sm.levels.PerChannel())
    lost = lost_at_rest(sm.quantise(graph, x[rest], levels), held_out(graph, (x[held],), y[held]))
    point = next(
        each
        for each in found[0].points
        if each.candidate == Counts(3, Ternary()) and each.reading.steps is None
    )
    assert (point.reading.loss, point.reading.error) == pytest.approx((lost.loss, lost.error))


def test_more_levels_cost_more_and_err_less(found: tuple[Tuned, Path]) -> None:
    rest = {
        each.candidate.levels: each.reading
        for each in found[0].points
        if isinstance(each.candidate, Counts)
        and each.reading.steps is None
        and each.candidate.ramp == 1
        and not each.candidate.lowered
    }
    assert list(rest) == [15, 7, 3, 1]
    for more, fewer in ((15, 7), (7, 3), (3, 1)):
        assert rest[more].error < rest[fewer].error
        assert rest[more].spikes_per_neuron > rest[fewer].spikes_per_neuron
        assert rest[more].joules > rest[fewer].joules


def test_steps_are_kept_and_rate_networks_stop_there(case: tuple[Graph, Tensor, Tensor]) -> None:
    graph, x, y = case
    tuned = tune(graph, x, replace(RATES, max_loss=None), y)
    assert tuned.chosen is not None
    assert tuned.chosen.reading.steps_max <= 8
    fit = [point.reading.loss for point in tuned.points if point.reading.steps_max <= 8]
    assert tuned.chosen.reading.loss == min(fit)
    rates = [point for point in tuned.points if point.candidate.family == "training-free"]
    assert [point.reading.steps for point in rates] == [4, 8]
    assert all(point.reading.steps_max == point.reading.steps for point in rates)
    fewest = tune(graph, x, replace(RATES, prefer=Prefer.STEPS), y).chosen
    assert fewest is not None
    within = [point.reading.steps_max for point in tuned.points if point.reading.loss <= 20]
    assert fewest.reading.steps_max <= min(within)


def test_without_labels_top_classes_are_compared(case: tuple[Graph, Tensor, Tensor]) -> None:
    graph, x, y = case
    search = replace(SMALL, levels=(7,), rounds=0)
    plain, labelled = tune(graph, x, search), tune(graph, x, search, y)
    assert (plain.measure, labelled.measure) == ("agreement", "accuracy")
    assert [each.reading for each in plain.points] == [each.reading for each in labelled.points]


def test_other_outputs_are_judged_by_their_squared_error(case: tuple[Graph, Tensor, Tensor]) -> None:
    x = case[1]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
    graph = sm.capture(net, x[:2])
    tuned = tune(graph, x, replace(SMALL, max_loss=0.01, levels=(7,), rounds=0))
    judges = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0))
    held, rest = judges[:60].sort().values, judges[60:].sort().values
    qnn = sm.quantise(graph, x[rest], sm.Levels(7, granularity=sm.levels.PerChannel()))
    wanted = net(x[held]).detach().double()
    error = ((sm.evaluate(qnn, x[held]).double() - wanted) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum()
    assert tuned.measure == "squared error"
    assert tuned.chosen is None
    assert tuned.network is None
    assert tuned.nearest.reading.loss > 0.01
    assert any(point.reading.loss == pytest.approx(100 * float(error), rel=1e-4) for point in tuned.points)


# ---------------------------------------------------------------- the trade-off
def reading(loss: float, steps: int, joules: float) -> Reading:
    return Reading(None, loss, 0.0, steps, float(steps), 1.0, 1.0, 1.0, joules)


def test_the_front_holds_what_nothing_beats() -> None:
    way = Counts(3, Ternary())
    points = [
        Point(way, reading(*row)) for row in ((1, 9, 2.0), (2, 4, 1.0), (2, 5, 1.0), (3, 9, 0.5), (3, 9, 3))
    ]
    assert front(points) == (points[0], points[1], points[3])


def test_drawings_show_every_point_and_ring_the_chosen_one(found: tuple[Tuned, Path]) -> None:
    tuned, _ = found
    drawn = svg(tuned)
    assert drawn.count("<title>") == 2 * len(tuned.points)
    assert drawn.count('r="8"') == 2
    assert drawn.count("stroke-dasharray") == 2
    assert "@" in text(tuned).split("chosen")[0]


# ---------------------------------------------------------------- resuming
class StoppedError(Exception):
    pass


def test_an_interrupted_search_goes_on_and_judges_nothing_again(
    case: tuple[Graph, Tensor, Tensor], found: tuple[Tuned, Path], tmp_path: Path
) -> None:
    graph, x, y = case
    whole, journal = found
    part = tmp_path / "part.jsonl"

    def stop(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        tune(graph, x, SMALL, y, journal=part, watch=stop)
    assert len(part.read_text().splitlines()) == 3
    again = tune(graph, x, SMALL, y, journal=part)
    assert (again.recalled - whole.recalled, again.judged) == (3, whole.judged - 3)
    assert again.points == whole.points
    assert again.chosen == whole.chosen
    assert part.read_text() == journal.read_text()


def test_a_damaged_line_is_judged_again_and_noted(
    case: tuple[Graph, Tensor, Tensor], found: tuple[Tuned, Path], tmp_path: Path
) -> None:
    graph, x, y = case
    whole, journal = found
    lines = journal.read_text().splitlines()
    cut = tmp_path / "cut.jsonl"
    wrong = {**json.loads(lines[1]), "answer": [{"loss": "none"}]}
    cut.write_text("\n".join([lines[0], json.dumps(wrong), *lines[2:-1], lines[-1][:40]]))
    again = tune(graph, x, SMALL, y, journal=cut)
    assert again.judged == 2
    assert again.points == whole.points
    assert again.notes == (f"{cut}, line {len(lines)} is damaged and was left out",)
    assert tune(graph, x, SMALL, y, journal=cut).judged == 0


def test_a_journal_of_other_code_is_not_read_on(
    case: tuple[Graph, Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, x, y = case
    search, journal = replace(SMALL, levels=(3,), rounds=0), tmp_path / "journal.jsonl"
    first = tune(graph, x, search, y, journal=journal)
    assert tune(graph, x, search, y, journal=journal).judged == 0
    monkeypatch.setattr("spikemorph.tune.search.code_digest", lambda: "another quantiser")
    assert tune(graph, x, search, y, journal=journal).judged == first.judged > 0


def test_other_data_is_judged_anew_in_the_same_journal(
    case: tuple[Graph, Tensor, Tensor], found: tuple[Tuned, Path], tmp_path: Path
) -> None:
    graph, x, y = case
    copy = tmp_path / "copy.jsonl"
    copy.write_text(found[1].read_text())
    search = replace(SMALL, levels=(3,), rounds=0)
    assert tune(graph, x, search, y, journal=copy).judged == 0
    assert tune(graph, x + 0.125, search, y, journal=copy).judged == 2


# ---------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"max_loss": -0.1}, "Search(max_loss)"),
        ({"max_loss": float("nan")}, "Search(max_loss)"),
        ({"max_steps": 0}, "Search(max_steps)"),
        ({"max_loss": 1.0, "held_out": 1.0}, "Search(held_out)"),
        ({"max_loss": 1.0, "levels": (3, 7)}, "Search(levels)"),
        ({"max_loss": 1.0, "levels": ()}, "Search(levels)"),
        ({"max_loss": 1.0, "costed": 0}, "Search(costed)"),
        ({"max_loss": 1.0, "rounds": -1}, "Search(rounds)"),
    ],
)
def test_searches_out_of_range_are_refused(given: dict[str, Any], where: str) -> None:
    with pytest.raises(LevelsError) as error:
        Search(**given)
    assert error.value.where == where


def test_a_search_without_bounds_is_refused() -> None:
    with pytest.raises(UsageError, match="no bound"):
        Search()


def test_samples_that_cannot_judge_are_refused(case: tuple[Graph, Tensor, Tensor]) -> None:
    graph, x, y = case
    with pytest.raises(DataError, match="to be held out"):
        tune(graph, x[:2], SMALL)
    with pytest.raises(
        DataError, match=r"0\.5 points on 60 samples(.|\n)*1\.6667 points(.|\n)*at least 400 samples"
    ):
        tune(graph, x, replace(SMALL, max_loss=0.5), y)
    with pytest.raises(DataError, match="3 for 120 samples"):
        tune(graph, x, SMALL, y[:3])
    with pytest.raises(GraphError, match="dialect integer"):
        tune(sm.quantise(graph, x, sm.Levels(3)), x, SMALL)


def test_recurrent_networks_are_refused() -> None:
    net = nn.RNN(3, 4, nonlinearity="relu", batch_first=True).eval()
    x = torch.randn(8, 5, 3)
    with pytest.raises(GraphError, match="a recurrent network"):
        tune(sm.capture(net, x[:2]), x, SMALL)


# ---------------------------------------------------------------- the command line
Command = Callable[..., tuple[int, str, str]]
NET = "cli_models:Small"
FEW = ("--data", "digits", "--samples", "40")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `spikemorph ARGUMENTS` in this process: exit code, stdout, stderr."""
    pytest.importorskip("sklearn")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spikemorph", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0), *capsys.readouterr()

    return call


def test_tune_writes_network_and_plot_and_convert_reads_the_same_journal(
    command: Command, tmp_path: Path
) -> None:
    out, plot = tmp_path / "net.safetensors", tmp_path / "tradeoff.svg"
    bound = ("--max-loss", "30", "--max-steps", "8")
    words = ("tune", NET, *FEW, *bound, "--levels", "7", "--rounds", "0", "--out", out, "--plot", plot)
    code, said, _ = command(*words, "--json")
    found = json.loads(said)
    assert code == 0
    assert found["file"] == str(out)
    assert found["held_out_samples"] == found["calibration_samples"] == 40
    assert found["judges_given"]
    assert found["chosen"]["name"] in found["front"]
    assert found["chosen"]["steps_max"] <= 8
    assert {"lossless", "training-free", "rate"} == {point["method"] for point in found["points"]}
    assert plot.read_text().startswith("<svg")
    network = load_network(out)
    assert (network.window is None) == (found["chosen"]["method"] == "lossless")
    code, said, _ = command(*words)
    assert code == 0
    assert "what no other way beats" in said
    assert "chosen: " in said
    assert len((tmp_path / "net.safetensors.tune.jsonl").read_text().splitlines()) == found["judged"]


def test_convert_within_a_bound_writes_the_network(
    command: Command, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(
        "spikemorph.cli.tune.Search",
        lambda max_loss, max_steps: replace(SMALL, max_loss=max_loss, max_steps=max_steps),
    )
    out = tmp_path / "net.safetensors"
    code, said, _ = command("convert", NET, *FEW, "--max-loss", "30", "--out", out, "--float", "--json")
    assert code == 0
    assert json.loads(said)["chosen"]["loss"] <= 30
    assert load_network(out).graph.dialect is Dialect.INTEGER
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_tune_exits_with_1_and_names_the_nearest(command: Command, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        "spikemorph.cli.tune.Search",
        lambda max_loss, max_steps, **_: replace(
            SMALL, max_loss=max_loss, max_steps=max_steps, levels=(1,), rates=()
        ),
    )
    out, data = tmp_path / "net.safetensors", tmp_path / "x.npz"
    rng = np.random.default_rng(0)
    np.savez(data, x=(rng.normal(size=(40, 1, 8, 8)) * 64).astype(np.float32))
    code, said, _ = command("tune", NET, "--data", data, "--max-loss", "5", "--max-steps", "1", "--out", out)
    assert code == 1
    assert "nothing keeps to the bounds; nearest: lossless, 1 levels" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tune", NET, *FEW), "no bound"),
        (("tune", NET, *FEW, "--max-loss", "1"), "anything finer cannot be told"),
        (("tune", NET, *FEW, "--max-loss", "1"), "(--held-out 0.5)"),
        (("tune", NET, *FEW, "--max-loss", "5", "--levels", "a"), "--levels: 'a'"),
        (("tune", NET, *FEW, "--max-loss", "5", "--levels", "3,7"), "--levels: (3, 7)"),
        (("tune", NET, *FEW, "--max-loss", "5", "--levels", "3,7"), "try --levels 31,15,7,3, or"),
        (("tune", NET, *FEW, "--max-loss", "-5"), "try --max-loss 0.5, or"),
        (("tune", NET, *FEW, "--max-loss", "5", "--spikes", "ternary,x"), "--spike: 'x'"),
        (("tune", NET, *FEW, "--max-loss", "5", "--judge", "nowhere"), "--data nowhere"),
        (("tune", NET, *FEW, "--max-loss", "5", "--judge", "digits", "--held-out", "0.3"), "--held-out: g"),
        (("tune", NET, *FEW, "--max-loss", "5", "--cost-model", "x"), "--cost-model: 'x'"),
        (("tune", NET, *FEW, "--max-loss", "5", "--out", "x", "--plot", "x"), "one file for two things"),
        (
            ("convert", NET, *FEW, "--out", "x", "--max-loss", "5", "--levels", "3"),
            "--levels: given together",
        ),
        (("convert", NET, *FEW, "--out", "x", "--method", "rate", "--ramp", "3"), "--ramp: given together"),
        (("convert", NET, *FEW, "--out", "x", "--method", "magic"), "--method: 'magic'"),
        (("convert", NET, *FEW, "--out", "x", "--spike", "binary"), "binary with --method lossless"),
    ],
)
def test_bad_input_is_one_block_and_exit_code_2(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_rate_networks_are_converted_and_run_for_so_many_steps(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "rate.safetensors"
    for method, spike in (("rate", "binary"), ("training-free", "graded:4")):
        code, said, _ = command(
            "convert", NET, *FEW, "--out", out, "--method", method, "--spike", spike, "--json"
        )
        made = json.loads(said)
        assert code == 0
        assert made["spike_kind"] == spike.replace(":4", "(4)")
        assert made["steps_room"] >= 64
        assert "steps_bound" not in made
    code, _, err = command("run", out, *FEW)
    assert code == 2
    assert "rate networks never come to rest" in err
    code, said, _ = command("run", out, *FEW, "--steps", 4, "--json")
    assert code == 0
    assert json.loads(said)["samples"] == 40
    assert command("energy", out, *FEW)[0] == 2
    counted = [
        json.loads(command("energy", out, *FEW, "--steps", steps, "--json")[1])["operations"]
        for steps in (4, 8)
    ]
    assert counted[0]["snn"] != counted[1]["snn"]
    assert counted[0]["qnn"] == counted[1]["qnn"]


def test_a_ramp_is_kept_in_the_file(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    code, said, _ = command("convert", NET, *FEW, "--out", out, "--levels", 3, "--ramp", 3, "--json")
    assert (code, json.loads(said)["ramp"], load_network(out).ramp) == (0, 3, 3)


def test_reconstruction_makes_another_network(command: Command, tmp_path: Path) -> None:
    plain, moved = tmp_path / "plain.safetensors", tmp_path / "moved.safetensors"
    assert command("convert", NET, *FEW, "--out", plain, "--levels", 3, "--json")[0] == 0
    assert command("convert", NET, *FEW, "--out", moved, "--levels", 3, "--reconstruct", "--json")[0] == 0
    assert graph_hash(load_network(plain).graph) != graph_hash(load_network(moved).graph)
    code, _, err = command("convert", NET, *FEW, "--out", tmp_path / "x", "--method", "rate", "--reconstruct")
    assert code == 2
    assert "--reconstruct: given together" in err


def test_levels_are_quantised_as_asked_for(case: tuple[Graph, Tensor, Tensor]) -> None:
    graph, x, y = case
    only = replace(SMALL, levels=(3,), rounds=0)
    moved, plain = (tune(graph, x, replace(only, rounding=way), y) for way in (Reconstruction(), Nearest()))
    assert moved.points[-1].reading.error < plain.points[-1].reading.error
    with pytest.raises(LevelsError, match="rounding"):
        replace(SMALL, rounding="nearest")


# ---------------------------------------------------------------- what labels say, and unfit arguments
def test_real_valued_labels_say_that_outputs_are_values(case: tuple[Graph, Tensor, Tensor]) -> None:
    graph, x, _ = case
    held = held_out(graph, (x,), torch.randn(SAMPLES, 4))
    assert (held.measure, held.float_value) == ("squared error", 0)
    tuned = tune(graph, x, replace(SMALL, max_loss=3.0, rounds=0), torch.randn(SAMPLES, 4))
    assert tuned.measure == "squared error"
    assert tuned.chosen is not None
    assert tuned.chosen.reading.loss == pytest.approx(100 * tuned.chosen.reading.error)


@pytest.mark.parametrize(
    "labels", [torch.full((SAMPLES,), 4), torch.full((SAMPLES,), -1), torch.zeros(SAMPLES, 1).long()]
)
def test_labels_that_are_no_classes_are_refused(case: tuple[Graph, Tensor, Tensor], labels: Tensor) -> None:
    graph, x, _ = case
    with pytest.raises(DataError, match=r"tune\(labels\)"):
        tune(graph, x, SMALL, labels)


@pytest.mark.parametrize(
    "unfit",
    [{"prefer": "steps"}, {"spikes": ()}, {"spikes": (3,)}, {"rates": (3,)}, {"weight_bits": 40}],
)
def test_a_search_takes_values_of_its_kinds_alone(unfit: dict[str, Any]) -> None:
    with pytest.raises(LevelsError, match=next(iter(unfit))):
        replace(SMALL, **unfit)


def test_arguments_of_other_kinds_are_refused(case: tuple[Graph, Tensor, Tensor]) -> None:
    graph, x, y = case
    with pytest.raises(UsageError, match="labels"):
        tune(graph, x, SMALL, y.tolist())
    with pytest.raises(UsageError, match="journal"):
        tune(graph, x, SMALL, y, journal="a.jsonl")  # type: ignore[arg-type]


def test_a_network_without_neurons_is_searched(tmp_path: Path) -> None:
    x = torch.randn(40, 6)
    graph = sm.capture(nn.Linear(6, 4).eval(), x[:2])
    tuned = tune(graph, x, replace(SMALL, rates=(TrainingFree(),), levels=(15,)))
    assert tuned.chosen is not None
    assert any("room for 1 steps" in note for note in tuned.notes)


def test_thresholds_are_chosen_on_the_command_line(command: Command, tmp_path: Path) -> None:
    made = []
    for method, thresholds in (
        ("training-free", "balanced:1"),
        ("training-free", "least-squares:8"),
        ("rate", "max"),
        ("rate", "percentile:90"),
    ):
        out = tmp_path / f"{len(made)}.safetensors"
        words = ("convert", NET, *FEW, "--out", out, "--method", method, "--thresholds", thresholds)
        assert command(*words)[0] == 0
        made.append(graph_hash(load_network(out).graph))
    assert len(set(made)) == 4
    for method, thresholds in (
        ("training-free", "max"),
        ("rate", "balanced"),
        ("training-free", "balanced:x"),
    ):
        words = (
            "convert",
            NET,
            *FEW,
            "--out",
            tmp_path / "x",
            "--method",
            method,
            "--thresholds",
            thresholds,
        )
        code, _, err = command(*words)
        assert code == 2
        assert "--thresholds" in err
    code, _, err = command("convert", NET, *FEW, "--out", tmp_path / "x", "--thresholds", "max")
    assert code == 2
    assert "--thresholds: given together with --method lossless" in err
    out = tmp_path / "0.safetensors"
    assert command("run", out, *FEW, "--over", "2,4", "--against", NET)[0] == 0
