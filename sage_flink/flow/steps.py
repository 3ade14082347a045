"""The effect of one step on one record: pure, and the same on every target."""

import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar
from zlib import crc32

from sage_flink.common.errors import Rejected
from sage_flink.common.records import FailedRecord, Record, derived_id
from sage_flink.flow.author_code import code_of
from sage_flink.flow.call_options import PRIORITIES
from sage_flink.flow.graph import Call, FlatMap
from sage_flink.flow.ports import emits_deletes, supports_deletes

T = TypeVar("T")
#: Headers of a record that are sent to the pool unchanged.
PASSED_HEADERS = ("sage-tenant", "sage-priority", "sage-session", "traceparent")
#: As many as Flink's default of key groups: more than a model has replicas.
KEY_GROUPS = 128


def flat_map(node: FlatMap, record: Record) -> list[Record]:
    """The records that ``node`` makes from ``record``: all of them, or an exception.

    Materialised on purpose: a function that raises after its third value must not leave three
    records in the sink and their parent in the dead-letter topic. A delete bypasses a function
    that does not support deletes.

    Raises:
        Rejected: the function returned one value where it should return many, or a delete that it
            does not declare.
    """
    if record.kind == "delete" and not supports_deletes(node.function):
        return [record]
    made = node.function(record)
    if isinstance(made, str | bytes | Mapping | Record) or not isinstance(made, Iterable):
        kind = type(made).__name__
        raise Rejected(f"the function returned {kind}; return a list, or yield")
    records = [
        out if isinstance(out, Record) else record.child(node.name, ordinal, out)
        for ordinal, out in enumerate(made)
    ]
    if not emits_deletes(node.function) and any(out.kind == "delete" for out in records):
        raise Rejected("the function returned a delete; declare emits_deletes = True on it")
    return records


def request_body(record: Record, request: Callable[[Record], bytes]) -> bytes:
    """The body that ``request`` makes from ``record``; empty where no call is to be made.

    A delete makes no call: it passes in its place in the order, unchanged.
    """
    return b"" if record.kind == "delete" else request(record)


def request_id(job: str, node: Call, record: Record) -> str:
    """The id of the call that this job makes for this record in this step.

    It depends on the three names alone: not on the attempt, the subtask, the order, the record's
    value, or the submission of the job. Two jobs share an id only where one job's name is the
    other's with a part of a step's name, with a ``/`` between.
    """
    return derived_id(record.id, f"{job}/{node.name}", 0)


def call_headers(job: str, node: Call, record: Record) -> dict[str, str]:
    """The HTTP headers of this call, with names in lower case.

    ``x-request-id`` and ``idempotency-key`` are the request id, ``x-sage-job`` is the job's name.
    ``x-sage-tenant`` and ``x-sage-priority`` are the record's own headers ``sage-tenant`` and
    ``sage-priority``, else the step's. ``x-sage-deadline-ms`` (since the epoch) is here
    only where the record has its own, ``sage-deadline-ms``; otherwise the target adds it when the
    call starts. ``traceparent`` is the record's own, or an unsampled one derived from the request
    id, so that logs can be joined. ``x-session-id`` is the record's own ``sage-session``, and
    ``x-key-group`` a number derived from its key, the same at every parallelism: a pool that routes
    by one of them keeps a session, or a key, on one replica.

    Source: W3C Trace Context, section 3.2.
    """
    id_ = request_id(job, node, record)
    own = {name: _header(record, name) for name in PASSED_HEADERS}
    deadline_ms = _header(record, "sage-deadline-ms")
    headers = {
        "x-request-id": id_,
        "idempotency-key": id_,
        "x-sage-tenant": own["sage-tenant"] or node.admission.tenant,
        "x-sage-job": re.sub("[^ -~]", "_", job)[:200],
        "x-sage-priority": own["sage-priority"] if own["sage-priority"] in PRIORITIES else "",
        "x-sage-deadline-ms": deadline_ms if re.fullmatch("[0-9]{1,15}", deadline_ms) else "",
        "traceparent": own["traceparent"] or f"00-{id_}-{id_[:16]}-00",
        "x-session-id": own["sage-session"],
        "x-key-group": "" if record.key is None else str(crc32(record.key) % KEY_GROUPS),
    }
    headers["x-sage-priority"] = headers["x-sage-priority"] or node.admission.priority
    return {name: value for name, value in headers.items() if value}


def _header(record: Record, name: str) -> str:
    """The record's header as one line of ASCII; empty where it has no such header."""
    value = record.headers.get(name, b"")
    text = value.decode("ascii", "replace")[:200]
    return text if text.isascii() and text.isprintable() else ""


def catch_failure(
    step: str, record: Record, work: Callable[[], T], author: object = None
) -> T | FailedRecord:
    """What ``work`` returns, or the failed record when it raises.

    The reason names the line of ``author``, the step's own function, at which it happened.
    """
    try:
        return work()
    except Rejected as rejection:
        return FailedRecord(record, step, str(rejection))
    except Exception as error:
        return FailedRecord(record, step, _reason(error, author))


def _reason(error: Exception, author: object) -> str:
    return f"{type(error).__name__}: {error}"[:500] + _line(error, author)


def _line(error: Exception, author: object) -> str:
    """The last line of the traceback in the author's file, or else in any file."""
    code = code_of(author)
    places = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename != __file__
    ]
    own = [place for place in places if code and place[0] == code.co_filename]
    for filename, line in (own or places)[-1:]:
        return f" ({Path(filename).name}:{line})"
    return ""
