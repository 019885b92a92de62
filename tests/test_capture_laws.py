"""Laws of the small parts of capture, for any numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from spikemorph.capture.context import per_sample
from spikemorph.capture.naming import _plain_path
from spikemorph.capture.rules_pool import _uniform_windows
from spikemorph.capture.values import BatchAt, Const, Folded, Form, Layout, Refused

sizes = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)


@given(constant=sizes, sample=sizes)
def test_a_constant_loses_its_batch_axis_or_is_refused(
    constant: tuple[int, ...], sample: tuple[int, ...]
) -> None:
    value = torch.randn(constant)
    batch = torch.randn(max(constant[0], 2), *sample)
    try:
        wanted = batch + value
    except RuntimeError:
        return
    try:
        part = per_sample(Const(value, value), Form(sample))
    except Refused:
        assert len(constant) > len(sample)
        assert constant[0] != 1 or len(constant) > len(sample) + 1
        return
    assert all(torch.equal(x + part, y) for x, y in zip(batch, wanted, strict=True))


@given(rows=st.integers(1, 3), even=st.booleans())
def test_a_constant_made_for_the_batch_must_be_the_same_for_all(rows: int, even: bool) -> None:
    three = torch.ones(3, rows) if even else torch.arange(3.0)[:, None].expand(3, rows)
    value = Const(three[:2], three)
    if even:
        assert torch.equal(per_sample(value, Form((rows,))), torch.ones(rows))
    else:
        with pytest.raises(Refused):
            per_sample(value, Form((rows,)))


layouts = st.one_of(st.builds(BatchAt, st.integers(0, 2)), st.just(Folded()))


@given(sample=sizes, layout=layouts, constant=sizes)
def test_a_constant_is_the_same_for_every_sample_wherever_the_batch_is(
    sample: tuple[int, ...], layout: Layout, constant: tuple[int, ...]
) -> None:
    assume(not isinstance(layout, BatchAt) or layout.axis <= len(sample))
    form, value = Form(sample, layout), torch.randn(constant)
    batch = torch.randn(form.sizes(5))
    try:
        wanted = batch + value
    except RuntimeError:
        return
    assume(wanted.shape == batch.shape)
    got = form.batch_first(batch) + per_sample(Const(value, value), form)
    assert torch.equal(got, form.batch_first(wanted))


@given(sample=sizes, layout=layouts)
def test_axes_are_those_of_torch_wherever_the_batch_is(sample: tuple[int, ...], layout: Layout) -> None:
    assume(not isinstance(layout, BatchAt) or layout.axis <= len(sample))
    form = Form(sample, layout)
    x = torch.randn(form.sizes(5))
    assert x.dim() == form.rank
    assert form.batch_first(x).shape == (5, *sample)
    for axis in range(form.rank):
        ours = form.axis(axis)
        assert form.axis(axis - form.rank) == ours
        if ours is None:
            assert x.shape[axis] % 5 == 0
        else:
            assert torch.equal(form.batch_first(x.flip(axis)), form.batch_first(x).flip(ours + 1))


@given(rows=st.integers(1, 3), even=st.booleans(), layout=st.sampled_from([BatchAt(1), Folded()]))
def test_a_constant_made_for_a_batch_elsewhere_must_be_the_same_for_all(
    rows: int, even: bool, layout: Layout
) -> None:
    sample = torch.arange(2.0 * rows).reshape(2, rows)
    form = Form((2, rows), layout)
    made = []
    for batch in (2, 3):
        samples = sample.expand(batch, 2, rows).clone()
        samples[-1] += not even
        folded = samples.reshape(form.sizes(batch))
        made.append(samples.movedim(0, 1) if isinstance(layout, BatchAt) else folded)
    value = Const(*made)
    if even:
        assert torch.equal(per_sample(value, form), sample)
    else:
        with pytest.raises(Refused):
            per_sample(value, form)


@given(size=st.integers(1, 40), out=st.integers(1, 40))
def test_adaptive_windows_are_those_of_torch_or_refused(size: int, out: int) -> None:
    x = torch.randn(1, 1, size)
    wanted = F.adaptive_max_pool1d(x, out)
    try:
        kernel, stride = _uniform_windows(size, out)
    except Refused:
        assert size % out
        return
    assert torch.equal(F.max_pool1d(x, kernel, stride), wanted)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("", ""),
        ("layer1.0.conv", "layer1.0.conv"),
        ("layer1.0.act@2", "layer1.0.act"),
        ("L['self'].conv", "conv"),
        ("L__self__", ""),
        ("getattr(L['fn'], '0').l[0]", "0.l.0"),
        ("getattr(getattr(L['fn'], '0').seq, '1')", "0.seq.1"),
        ("L['s'].d['a']", "d.a"),
        ("getattr", ""),
    ],
)
def test_paths_of_strict_exports_are_plain(written: str, path: str) -> None:
    assert _plain_path(written) == path
