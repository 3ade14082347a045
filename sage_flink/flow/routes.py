"""The branches of ``Stream.split``: the predicate of each, composed for a filter.

Each branch asks the predicates before its own too, so that a record is in one branch only. They
run apart, maybe in other processes, and agree because a predicate depends on its record alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sage_flink.common.errors import PipelineError, Rejected
from sage_flink.common.records import FailedRecord, Record
from sage_flink.common.validation import require
from sage_flink.flow.author_code import asynchronous, lost_state, place_of
from sage_flink.flow.lifecycle import close, open_copy, open_flaws
from sage_flink.flow.ports import OpenContext
from sage_flink.flow.steps import catch_failure

Predicate = Callable[[Record], Any]


@dataclass
class FirstMatch:
    """Whether ``own`` is the first predicate that is true; without ``own`` whether none is.

    A record at which a predicate raises is a dead letter of that predicate's branch, and in no
    branch after it.
    """

    own: Predicate | None
    earlier: tuple[Predicate, ...] = ()
    _predicates: tuple[Predicate, ...] = field(default=(), init=False, repr=False, compare=False)

    def open(self, context: OpenContext) -> None:
        """Open the predicates that have an open."""
        own = () if self.own is None else (self.own,)
        opened: list[Predicate] = []
        for predicate in (*self.earlier, *own):
            opened.append(open_copy(predicate, context))
            self._predicates = tuple(opened)

    def close(self) -> None:
        """Close the predicates that have a close."""
        for predicate in self._predicates:
            close(predicate)

    def __call__(self, record: Record) -> bool:
        """Whether the record is in this branch."""
        earlier = self._predicates[: len(self.earlier)]
        for predicate in earlier:
            if catch_failure("", record, lambda p=predicate: bool(p(record))) is not False:  # type: ignore[misc]
                return False
        if self.own is None:
            return True
        own = self._predicates[-1]
        found = catch_failure("", record, lambda: bool(own(record)), own)
        if isinstance(found, FailedRecord):
            raise Rejected(found.reason)
        return found


def branches(
    name: str, predicates: Mapping[str, Predicate], rest: str | None
) -> dict[str, FirstMatch]:
    """The predicate of each branch, by the branch's name, in order; ``rest`` last.

    Raises:
        PipelineError: there is no predicate, ``rest`` is the name of one, or one cannot be used.
    """
    where = f"step {name!r}"
    given = isinstance(predicates, Mapping) and bool(predicates)
    require(given, where, "predicates", "functions of a record by branch", predicates)
    require(rest not in predicates, where, "rest", "a name of its own", rest)
    found, earlier = dict[str, FirstMatch](), tuple[Predicate, ...]()
    for branch, predicate in predicates.items():
        _check(f"{where}: branch {branch!r}", predicate)
        found[branch] = FirstMatch(predicate, earlier)
        earlier = (*earlier, predicate)
    return found if rest is None else {**found, rest: FirstMatch(None, earlier)}


def _check(where: str, predicate: Any) -> None:
    usable = callable(predicate) and not isinstance(predicate, type)
    require(usable, where, "the predicate", "a callable taking a Record", predicate)
    if kind := asynchronous(predicate):
        raise PipelineError(f"{where}: must be a plain function, got {kind}{place_of(predicate)}")
    for flaw in open_flaws(predicate):
        raise PipelineError(f"{where}: {flaw}")
    for state in lost_state(predicate):
        raise PipelineError(
            f"{where}: its predicate{place_of(predicate)} keeps state: {state}; the branches ask "
            "it apart, so it must depend on the record alone"
        )
