"""Every stage has a rule, or a stated reason, for every op it may meet: what fails here is the to-do list."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import spikemorph
from spikemorph.ir.table import ALL_TABLES

for module in pkgutil.walk_packages(spikemorph.__path__, "spikemorph."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)


def test_there_are_tables():
    assert {"shapes", "evaluate integers"} <= {table.stage for table in ALL_TABLES}


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.stage)
def test_every_op_has_a_rule_or_a_reason(table):
    assert table.missing() == frozenset()


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.stage)
def test_gaps_are_gaps(table):
    """A reason stands for an op of the stage, and for one without a rule."""
    assert table.gaps.keys() <= table.ops
    assert not [kind.__name__ for kind in table.gaps if kind in table]
