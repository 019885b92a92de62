"""Streams: element by element what the whole run gives, integer for integer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from recurrent_graphs import KINDS, How, Window, converted, hows
from spikemorph.convert.network import Encoding, Spike, SpikingNetwork
from spikemorph.errors import DataError, FileError, RunError, SpikemorphError
from spikemorph.measure.changes import changes
from spikemorph.run.stream import Answer


def small() -> tuple[SpikingNetwork, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 5)
    )
    x = torch.rand(12, 2, 8, 8)
    return sm.convert(sm.quantise(sm.capture(model.eval(), x[:3]), x, sm.Levels(activation=7))), x


class Reader(nn.Module):
    def __init__(self, *, every: bool = True) -> None:
        super().__init__()
        self.every = every
        self.rnn = nn.RNN(3, 6, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Any:
        states, last = self.rnn(x)
        out = self.head(states)
        return {"every": out, "last": last[0]} if self.every else last[0]


def reading(*, every: bool = True) -> tuple[SpikingNetwork, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(8, 10, 3)
    graph = sm.quantise(sm.capture(Reader(every=every).eval(), x[:3]), x, sm.Levels(activation=7))
    return sm.convert(graph), x


def test_frames_answer_as_if_each_ran_alone() -> None:
    net, x = small()
    session = sm.stream(net)
    for frame in x.split(1):
        answer = session.push(frame)
        assert torch.equal(answer.output, sm.simulate(net, frame).output)
        assert answer.updates == 1
    assert session.length is None


def test_what_does_not_change_costs_nothing_and_little_change_costs_little() -> None:
    net, x = small()
    session = sm.stream(net)
    fresh = session.push(x[:1])
    again = session.push(x[:1])
    assert fresh.spikes > 0
    assert (again.spikes, again.events, int(again.steps.sum())) == (0, 0, 0)
    moved = x[:1].clone()
    moved[0, 0, 3, 3] += 0.5
    little = session.push(moved)
    assert 0 < little.spikes < fresh.spikes / 3
    assert torch.equal(little.output, sm.simulate(net, moved).output)


def test_elements_answer_as_the_whole_sequence_does() -> None:
    net, x = reading()
    whole = sm.simulate(net, x[:2], handover=sm.Delta())
    session = sm.stream(net, batch=2)
    answers = [session.push(x[:2, n]) for n in range(10)]
    assert session.length == 10
    every = torch.cat([answer.output["every"] for answer in answers], 1)
    assert torch.equal(every, whole.output["every"])
    assert [answer.output["last"] is None for answer in answers] == [True] * 9 + [False]
    assert torch.equal(answers[-1].output["last"], whole.output["last"])
    assert sum(answer.spikes for answer in answers) == whole.spikes
    assert sum(answer.events for answer in answers) == whole.events
    assert torch.equal(sum((answer.steps for answer in answers), torch.zeros(2)).long(), whole.sample_steps)


def pushed(
    net: SpikingNetwork, counts: tuple[Tensor, ...], batch: int, *, forks: bool = False
) -> list[Answer]:
    """All elements of real inputs that stand for these counts; `forks`: each into a new copy."""
    graph, session = net.graph, sm.stream(net, batch=batch)
    length = session.length or 1
    answers = []
    for n in range(length):
        given: list[Tensor | None] = []
        for node, tensor in zip(graph.inputs, counts, strict=True):
            axis = node.element_axis
            unit = graph.tensors[node.op.unit]  # type: ignore[union-attr,index]
            if axis is None:
                given.append((tensor * unit).float() if n == 0 else None)
            elif n < node.shape[axis]:
                given.append((tensor.select(axis + 1, n) * unit).float())
            else:
                given.append(None)
        answers.append(session.push(tuple(given)))
        session = session.fork() if forks else session
    return answers


@settings(max_examples=25)
@given(how=hows(most=12), kind=st.sampled_from(KINDS), seed=st.integers(0, 10**6))
def test_any_sequence_is_the_same_in_a_stream(how: How, kind: tuple[Spike, Encoding], seed: int) -> None:
    net, counts = converted(how, kind, seed)
    whole = sm.Event(threads=1).run(net, counts, steps=None, record=(), handover=sm.Delta())
    answers = pushed(net, counts, len(counts[0]))
    assert sum(answer.spikes for answer in answers) == whole.spikes
    assert sum(answer.updates for answer in answers) == whole.elements
    assert torch.equal(torch.stack([answer.steps for answer in answers]).sum(0), whole.sample_steps)
    parts = [answer.output for answer in answers if answer.output is not None]
    axis = net.graph.by_name[net.graph.outputs[0]].element_axis
    got = parts[-1] if axis is None else torch.cat(parts, axis + 1)
    if axis is not None and how.both:
        return  # two directions answer from both ends
    assert torch.equal(got, whole.output)


def test_forks_and_saved_streams_go_on_alike(tmp_path: Path) -> None:
    net, x = reading()
    session = sm.stream(net)
    for n in range(4):
        session.push(x[:1, n])
    session.save(tmp_path / "s.safetensors")
    fork, back = session.fork(), sm.stream(net, saved=tmp_path / "s.safetensors")
    other = fork.push(x[1:2, 4])
    answers = [each.push(x[:1, 4]) for each in (session, back)]
    assert torch.equal(answers[0].output["every"], answers[1].output["every"])
    assert not torch.equal(other.output["every"], answers[0].output["every"])
    assert answers[0].spikes == answers[1].spikes


def test_frames_can_be_saved_too(tmp_path: Path) -> None:
    net, x = small()
    session = sm.stream(net)
    session.push(x[:1])
    session.save(tmp_path / "s.safetensors")
    back = sm.stream(net, saved=tmp_path / "s.safetensors")
    assert back.push(x[:1]).spikes == 0


def test_forks_go_on_from_their_last_element() -> None:
    """Padding makes the first and the last elements programs of their own."""
    net, counts = converted(How(front=(Window("conv", 3, padding=1),)), KINDS[0], 0)
    alone, forked = (pushed(net, counts, len(counts[0]), forks=forks) for forks in (False, True))
    assert [each.updates for each in forked] == [0, 1, 1, 1, 1, 1, 2]
    assert [each.spikes for each in forked] == [each.spikes for each in alone]


class Shares(nn.Module):
    """Scores that are shares of the whole sequence: only the last element can answer, for all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(3, 6, nonlinearity="relu", batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.head(self.rnn(x)[0]), 1)


def test_saved_streams_keep_what_no_answer_has_told_yet(tmp_path: Path) -> None:
    torch.manual_seed(1)
    x = torch.randn(8, 5, 3)
    net = sm.convert(sm.quantise(sm.capture(Shares().eval(), x[:3]), x, sm.Levels(activation=7)))
    wanted = sm.simulate(net, x[:1]).output
    for at in (1, 4):
        session = sm.stream(net)
        for n in range(at):
            assert session.push(x[:1, n]).output is None
        session.save(tmp_path / "s.safetensors")
        for each in (session.fork(), sm.stream(net, saved=tmp_path / "s.safetensors")):
            answers = [each.push(x[:1, n]) for n in range(at, 5)]
            assert torch.equal(answers[-1].output, wanted)


def fails(call: Any) -> SpikemorphError:
    with pytest.raises(SpikemorphError) as caught:
        call()
    assert caught.value.do
    return caught.value


def test_unfit_elements_are_refused() -> None:
    net, x = reading()
    session = sm.stream(net)
    assert isinstance(fails(lambda: session.push(x[:1])), DataError)
    assert "batch of 2" in str(fails(lambda: session.push(x[:2, 0])))
    assert "NaN" in str(fails(lambda: session.push(x[:1, 0] * float("nan"))))
    assert "2 tensor(s)" in str(fails(lambda: session.push((x[:1, 0], x[:1, 0]))))
    for n in range(10):
        session.push(x[:1, n])
    assert "10 elements" in str(fails(lambda: session.push(x[:1, 0])))


def test_unfit_streams_are_refused(tmp_path: Path) -> None:
    net, _ = reading()
    assert isinstance(fails(lambda: sm.stream(net, batch=0)), RunError)
    assert isinstance(fails(lambda: sm.stream(net.graph)), SpikemorphError)  # type: ignore[arg-type]
    assert isinstance(fails(lambda: sm.stream(net, saved=tmp_path / "none")), FileError)
    other, x = small()
    session = sm.stream(other)
    session.push(x[:1])
    session.save(tmp_path / "s.safetensors")
    assert "another network" in str(fails(lambda: sm.stream(net, saved=tmp_path / "s.safetensors")))
    two = fails(lambda: sm.stream(other, batch=2, saved=tmp_path / "s.safetensors"))
    assert "or batch" in str(two)
    (tmp_path / "s.safetensors").write_bytes(b"nonsense")
    assert isinstance(fails(lambda: sm.stream(other, saved=tmp_path / "s.safetensors")), FileError)


def test_the_cost_of_a_frame_follows_its_changes() -> None:
    net, x = small()
    points = changes(net, x[:4], fractions=(0.0, 0.1, 1.0), repeats=1)
    assert [each.fraction for each in points] == [0.0, 0.1, 1.0]
    assert points[0].spikes == points[0].steps == 0
    assert 0 < points[1].spikes < points[2].spikes
    assert isinstance(fails(lambda: changes(net, x[:1])), RunError)
    assert isinstance(fails(lambda: changes(reading()[0], x[:2])), RunError)
