"""The request of a call for one record, and its HTTP headers: pure, the same on every target."""

import re
from collections.abc import Callable
from zlib import crc32

import msgspec

from sage_flink.common.errors import Rejected
from sage_flink.common.records import RECORD_BYTES_MAX, Record, derived_id, encode
from sage_flink.flow.call_options import PRIORITIES
from sage_flink.flow.graph import Call
from sage_flink.flow.merging.requests import merge_key

#: Headers of a record that are sent to the pool unchanged.
PASSED_HEADERS = ("sage-tenant", "sage-priority", "sage-session", "traceparent")
#: As many as Flink's default of key groups: more than a model has replicas.
KEY_GROUPS = 128


def request_body(record: Record, request: Callable[[Record], bytes]) -> bytes:
    """The body that ``request`` makes from ``record``; empty where no call is to be made.

    A delete makes no call: it passes in its place in the order, unchanged.

    Raises:
        Rejected: ``request`` returned another type, or too much.
    """
    body = b"" if record.kind == "delete" else request(record)
    if not isinstance(body, bytes):
        raise Rejected(f"the request must be bytes, got {type(body).__name__}")
    if len(body) > RECORD_BYTES_MAX:
        raise Rejected(f"the request has {len(body)} bytes, at most {RECORD_BYTES_MAX} can be sent")
    return body


def call_request(job: str, node: Call, record: Record, request: Callable[[Record], bytes]) -> bytes:
    """The call request of ``record``, the input of the native call: [record, id, body, headers].

    Where requests are merged it has two more fields: [..., group, vector].
    """
    body, headers = request_body(record, request), call_headers(job, node, record)
    merged = merge_key(node.merging, record, headers) if node.merging and body else ()
    return msgspec.msgpack.encode((encode(record), headers["x-request-id"], body, headers, *merged))


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
    call starts. ``x-sage-soft-deadline-ms`` is the record's time plus the step's ``freshness_s``.
    ``x-sage-cache`` is the step's ``cache_ttl_s``. ``traceparent`` is the record's own, or an
    unsampled one derived from the request id, so that logs can be joined. ``x-session-id`` is the
    record's own ``sage-session``, and ``x-key-group`` a number derived from its key, the same at
    every parallelism: a pool that routes by one of them keeps a session, or a key, on one replica.

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
        "x-sage-soft-deadline-ms": _soft_deadline(node, record),
        "traceparent": own["traceparent"] or f"00-{id_}-{id_[:16]}-00",
        "x-session-id": own["sage-session"],
        "x-sage-cache": f"ttl={node.cache_ttl_s}" if node.cache_ttl_s else "",
        "x-key-group": "" if record.key is None else str(crc32(record.key) % KEY_GROUPS),
    }
    headers["x-sage-priority"] = headers["x-sage-priority"] or node.admission.priority
    return {name: value for name, value in headers.items() if value}


def _soft_deadline(node: Call, record: Record) -> str:
    fresh_s = node.admission.freshness_s
    if fresh_s is None or not record.timestamp_ms:
        return ""
    return str(min(max(0, record.timestamp_ms + round(fresh_s * 1000)), 10**15 - 1))


def _header(record: Record, name: str) -> str:
    """The record's header as one line of ASCII; empty where it has no such header."""
    value = record.headers.get(name, b"")
    text = value.decode("ascii", "replace")[:200]
    return text if text.isascii() and text.isprintable() else ""
