"""What one step does to one record: pure, and the same on every target."""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Failed, Record, derived_id
from sage_flink.common.removal import goes_past, removal
from sage_flink.flow.graph import Call, FlatMap

T = TypeVar("T")


def flat_map(node: FlatMap, record: Record) -> list[Record]:
    """The records that ``node`` makes of ``record``, all of them or an exception.

    Materialised on purpose: a function that raises after its third value must not leave three
    records in the sink and their parent in the dead-letter topic. A removal goes past a function
    that does not take it.

    Raises:
        Rejected: the function returned one value where it should return many.
    """
    if goes_past(node.function, record):
        return [record]
    made = node.function(record)
    if isinstance(made, str | bytes | Mapping | Record) or not isinstance(made, Iterable):
        kind = type(made).__name__
        raise Rejected(f"the function returned {kind}; return a list, or yield")
    return [
        out if isinstance(out, Record) else record.child(node.name, ordinal, out)
        for ordinal, out in enumerate(made)
    ]


def question(record: Record, request: Callable[[Record], bytes]) -> bytes:
    """The body that ``request`` makes of ``record``; empty when there is nothing to ask.

    A removal is never asked about: it goes through the call in its place, unanswered.
    """
    return b"" if removal(record) else request(record)


def request_id(job: str, node: Call, record: Record) -> str:
    """The id of this call: the same whenever this job asks this step about this record."""
    return derived_id(record.id, f"{job}/{node.name}", 0)


def guarded(step: str, record: Record, work: Callable[[], T]) -> T | Failed:
    """What ``work`` returns, or the dead-letter envelope of ``record`` when it raises."""
    try:
        return work()
    except Rejected as verdict:
        return Failed.of(record, step, str(verdict))
    except Exception as error:
        return Failed.of(record, step, _reason(error))


def _reason(error: Exception) -> str:
    trace = sys.exc_info()[2]
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        code = trace.tb_frame.f_code
        place = f" ({code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno})"
    return f"{type(error).__name__}: {error}"[:500] + place
