"""Idempotency decisions, as pure functions: which call is a repeat, and what to do with it.

**Scope of an id.** The name of an :class:`IdempotencyKey` is a hash of ``Authorization``,
``x-sage-tenant``, the path and the id. So an id never reaches the answers of another API key,
tenant or route.

* ``x-request-id`` alone, or with an equal ``idempotency-key`` (as a Flink call sends them), names
  one call of one step about one record. Its hash includes the body: the same id with another body
  is another call, sent to an engine. It must not be refused: a changed prompt, or a passage added
  to the index since the last run, gives the same record another body, and the job would write it
  to the dead-letter topic. Tracing proxies also forward one id with several calls. Only an id that
  cannot be a constant metrics: 32 hex digits, or a UUID; any other is for the logs only.
* ``idempotency-key`` by itself, in any spelling, is the client's name for one request. The same key
  with another body is a 422, code ``idempotency_key_reused``. A client never gets the answer to
  another body.

Source: draft-ietf-httpapi-idempotency-key-header-07, sections 2.2 and 2.6 (422 on reuse with
another payload; a concurrent repeat, a 409 there, joins the running call here).
"""

import re
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from hashlib import blake2b

import msgspec

from sage_gateway.idempotency.store_protocol import RecordedAnswer, RunningCall

_UNIQUE_ID = re.compile(rb"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class IdempotencyKey(msgspec.Struct, frozen=True, gc=False):
    """Identity of a call: ``name``, its key in the store, and the digest of its body."""

    name: bytes
    digest: bytes


class NextStep(Enum):
    """What to do with a call, given what the store has under its key."""

    DISPATCH = auto()
    WAIT = auto()
    REPLAY = auto()
    REFUSE = auto()


def idempotency_key(
    path: str, headers: Mapping[bytes, bytes], body: bytes
) -> IdempotencyKey | None:
    """The key of a request; None if its headers have no id that makes it idempotent."""
    request_id, chosen = headers.get(b"x-request-id", b""), headers.get(b"idempotency-key", b"")
    by_body = request_id and chosen in (b"", request_id) and _UNIQUE_ID.fullmatch(request_id)
    if not by_body and not chosen:
        return None
    digest = blake2b(body, digest_size=16).digest()
    scope = headers.get(b"authorization", b""), headers.get(b"x-sage-tenant", b""), path.encode()
    parts = (*scope, request_id, digest) if by_body else (*scope, chosen)
    return IdempotencyKey(_hash(parts), digest)


def step_for(key: IdempotencyKey, known: RecordedAnswer | RunningCall | None) -> NextStep:
    """The next step; a call with another body never gets the recorded answer."""
    if known is None:
        return NextStep.DISPATCH
    if known.digest != key.digest:
        return NextStep.REFUSE
    return NextStep.REPLAY if isinstance(known, RecordedAnswer) else NextStep.WAIT


def may_detach(*, detached: int, detached_max: int, grace_s: float, recordable: bool) -> bool:
    """Whether a call continues for its grace time after its last client has disconnected.

    ``recordable``: its answer can still be recorded; otherwise continuing would be of no use.
    """
    return recordable and grace_s > 0 and detached < detached_max


def _hash(parts: Iterable[bytes]) -> bytes:
    """16 bytes; each part is preceded by its length, so different scopes never hash alike."""
    whole = b"".join([b"%d:%b" % (len(part), part) for part in parts])
    return blake2b(whole, digest_size=16).digest()
