"""What the ledger decides, as pure functions: whose call this is, what to do, what may be kept.

**Scope of an id.** A ticket's key is a hash of the API key as it was shown, ``x-sage-tenant``, the
path and the id; an id never reaches the answers of another key, tenant or route.

* ``x-request-id`` alone, or beside an equal ``idempotency-key`` (as a Flink call sends them), names
  one call of one step about one record. Its key takes in the body too: the same id with another
  body is another call, asked anew. It may not be refused: a changed prompt, or a passage that the
  index holds since the last run, gives the same record another body, and the job would put it
  into the dead-letter topic. Tracing proxies also hand one id on to several calls. Only an id that
  is nobody's constant is taken: 32 hex digits, or a UUID; any other is passed on for the logs.
* ``idempotency-key`` by itself is what the caller chose to name one request, in any spelling: the
  same key with another body is a 422, code ``idempotency_key_reused``. Nobody is told an answer to
  another body.

Source: draft-ietf-httpapi-idempotency-key-header-07, sections 2.2 and 2.6 (422 on reuse with
another payload; a concurrent repeat, a 409 there, joins the running call here).
"""

import re
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from hashlib import blake2b

import msgspec

from sage_gateway.idempotency.store_protocol import Recorded, Running

_NOBODYS_CONSTANT = re.compile(
    rb"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
)


class Ticket(msgspec.Struct, frozen=True, gc=False):
    """One call that is answered once: where its answer is kept, and the body it belongs to."""

    key: bytes
    digest: bytes


class Step(Enum):
    """What to do with a call, given what is known of its key."""

    ASK = auto()
    WAIT = auto()
    REPLAY = auto()
    REFUSE = auto()


def issued(path: str, found: Mapping[bytes, bytes], body: bytes) -> Ticket | None:
    """The ticket of a request with these headers, None where it names no id to be answered once."""
    traced, chosen = found.get(b"x-request-id", b""), found.get(b"idempotency-key", b"")
    by_body = traced and chosen in (b"", traced) and _NOBODYS_CONSTANT.fullmatch(traced)
    if not by_body and not chosen:
        return None
    digest = blake2b(body, digest_size=16).digest()
    whose = found.get(b"authorization", b""), found.get(b"x-sage-tenant", b"")
    scope = (*whose, path.encode(), traced, digest) if by_body else (*whose, path.encode(), chosen)
    return Ticket(_hashed(scope), digest)


def step_for(ticket: Ticket, known: Recorded | Running | None) -> Step:
    """Ask when nothing is known, never answer one body with another's answer."""
    if known is None:
        return Step.ASK
    if known.digest != ticket.digest:
        return Step.REFUSE
    return Step.REPLAY if isinstance(known, Recorded) else Step.WAIT


def goes_on(*, orphans: int, orphans_max: int, grace_s: float, kept: bool) -> bool:
    """Whether a call whose last listener left goes on for its grace.

    ``kept``: its answer can still be recorded; without that nobody would have anything of it.
    """
    return kept and grace_s > 0 and orphans < orphans_max


def _hashed(parts: Iterable[bytes]) -> bytes:
    """16 bytes; each part with its length before it, so that no two scopes read alike."""
    whole = b"".join([b"%d:%b" % (len(part), part) for part in parts])
    return blake2b(whole, digest_size=16).digest()
