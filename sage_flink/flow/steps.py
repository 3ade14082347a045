"""What one step does to one record: pure, and the same on every target."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar
from zlib import crc32

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Failed, Record, derived_id
from sage_flink.flow.graph import PRIORITIES, Call, FlatMap
from sage_flink.flow.ports import emits_deletes, supports_deletes

T = TypeVar("T")
#: Headers of a record that the pool is told as they are.
OWN = ("sage-tenant", "sage-priority", "sage-session", "traceparent")
#: As many as Flink's default of key groups: more than a model has replicas.
KEY_GROUPS = 128


def flat_map(node: FlatMap, record: Record) -> list[Record]:
    """The records that ``node`` makes of ``record``, all of them or an exception.

    Materialised on purpose: a function that raises after its third value must not leave three
    records in the sink and their parent in the dead-letter topic. A delete is forwarded when the
    function does not support deletes.

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


def question(record: Record, request: Callable[[Record], bytes]) -> bytes:
    """The body that ``request`` makes of ``record``; empty when the call has no request to send.

    No request is sent for a delete: the call forwards it in its place.
    """
    return b"" if record.kind == "delete" else request(record)


def request_id(job: str, node: Call, record: Record) -> str:
    """The id of this call: the same whenever this job asks this step about this record.

    It depends on nothing else: not on the attempt, the subtask, the order, the record's value, nor
    on which submission of the job asks. Two jobs share none unless one's name is the other's and a
    part of a step's, with a ``/`` between.
    """
    return derived_id(record.id, f"{job}/{node.name}", 0)


def call_headers(job: str, node: Call, record: Record) -> dict[str, str]:
    """What the pool is told about this call besides its body: HTTP headers, names in lower case.

    ``x-request-id`` and ``idempotency-key`` are the request id, ``x-sage-job`` is the job's name.
    ``x-sage-tenant`` and ``x-sage-priority`` are the record's own headers ``sage-tenant`` and
    ``sage-priority``, else the step's. ``x-sage-deadline-ms`` (since the epoch) stands here only
    where the record has its own, ``sage-deadline-ms``; else the target adds it when a call begins.
    ``traceparent`` is the record's own, else an unsampled one made of the request id, so that logs
    can be joined. ``x-session-id`` is the record's own ``sage-session``, and ``x-key-group`` a
    number made of its key, the same at every parallelism: a pool that routes by one of them asks
    the replica that answered the session, or the key, before.

    Source: W3C Trace Context, section 3.2.
    """
    asked = request_id(job, node, record)
    own = {name: _own(record, name) for name in OWN}
    deadline_ms = _own(record, "sage-deadline-ms")
    headers = {
        "x-request-id": asked,
        "idempotency-key": asked,
        "x-sage-tenant": own["sage-tenant"] or node.tenant,
        "x-sage-job": re.sub("[^ -~]", "_", job)[:200],
        "x-sage-priority": own["sage-priority"] if own["sage-priority"] in PRIORITIES else "",
        "x-sage-deadline-ms": deadline_ms if re.fullmatch("[0-9]{1,15}", deadline_ms) else "",
        "traceparent": own["traceparent"] or f"00-{asked}-{asked[:16]}-00",
        "x-session-id": own["sage-session"],
        "x-key-group": "" if record.key is None else str(crc32(record.key) % KEY_GROUPS),
    }
    headers["x-sage-priority"] = headers["x-sage-priority"] or node.priority
    return {name: value for name, value in headers.items() if value}


def _own(record: Record, name: str) -> str:
    """The record's header as one line of ASCII; empty where it has none that can be sent on."""
    value = record.headers.get(name, b"")
    text = value.decode("ascii", "replace")[:200]
    return text if text.isascii() and text.isprintable() else ""


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
