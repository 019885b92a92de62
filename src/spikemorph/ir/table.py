"""One table a stage: op type -> rule. A test demands a rule or a stated gap for every op of the dialect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from spikemorph.errors import GraphError

Rule = TypeVar("Rule", bound=Callable[..., object])

ALL_TABLES: list[OpTable[Callable[..., object]]] = []


class OpTable(Generic[Rule]):
    """Rules of one stage, looked up by the exact type of the op.

    Args:
        stage: name for error messages.
        ops: the op types the stage may meet.
        gaps: op types without a rule, each with the reason.
    """

    def __init__(self, stage: str, ops: frozenset[type], gaps: Mapping[type, str] | None = None) -> None:
        self.stage, self.ops, self.gaps = stage, ops, dict(gaps or {})
        self._rules: dict[type, Rule] = {}
        ALL_TABLES.append(self)  # type: ignore[arg-type]

    def rule(self, *types: type) -> Callable[[Rule], Rule]:
        """Decorator: register one rule for the given op types."""

        def register(function: Rule) -> Rule:
            for each in types:
                self._rules[each] = function
            return function

        return register

    def missing(self) -> frozenset[type]:
        """Op types with neither rule nor reason; the to-do list of a new op."""
        return self.ops - self._rules.keys() - self.gaps.keys()

    def __contains__(self, op_type: type) -> bool:
        return op_type in self._rules

    def __getitem__(self, op_type: type) -> Rule:
        if op_type in self._rules:
            return self._rules[op_type]
        raise GraphError(
            where=f"stage {self.stage}",
            got=f"op {op_type.__name__} without a rule: {self.gaps.get(op_type, 'not of this dialect')}",
            known=", ".join(sorted(each.__name__ for each in self._rules)),
            do="run the passes that lower this op first, or add a rule to the table",
        )
