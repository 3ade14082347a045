"""A queued request: the hints in its headers and its expected cost in tokens."""

import math
from collections.abc import Iterable

import msgspec

from sage_flink.flow.graph import PRIORITIES, PRIORITY

Headers = Iterable[tuple[bytes, bytes]]

NORMAL = PRIORITIES.index(PRIORITY)
BACKGROUND = PRIORITIES.index("background")

BYTES_A_TOKEN = 4
ANSWER_TOKENS = 256  # of a generation without a limit; corrected once the engine has counted
TENANT_CHARS_MAX = 100
JOB_CHARS_MAX = 200

_TENANT, _PRIORITY, _DEADLINE = b"x-sage-tenant", b"x-sage-priority", b"x-sage-deadline-ms"
_BACKGROUND, _JOB = b"x-background", b"x-sage-job"
_READ = frozenset({_TENANT, _PRIORITY, _DEADLINE, _BACKGROUND, _JOB})
_CLASSES = {name.encode(): i for i, name in enumerate(PRIORITIES)}


class RequestHints(msgspec.Struct, frozen=True, gc=False):
    """Scheduling hints of a caller. ``priority``: an index into PRIORITIES, 0 first.

    ``deadline_s``: seconds of the epoch, infinite without a deadline. ``job``: the calling Flink
    job.
    """

    tenant: str = ""
    priority: int = NORMAL
    deadline_s: float = math.inf
    job: str = ""

    @property
    def background(self) -> bool:
        """Whether it may wait without limit, and be preempted when it runs."""
        return self.priority == BACKGROUND


DEFAULT_HINTS = RequestHints()


class QueuedRequest(msgspec.Struct, frozen=True, gc=False):
    """One request of a queue. Times are of the monotonic clock; numbers rise with the arrivals.

    ``tokens``: its expected cost, prompt and answer, at least 1. ``work_s``: how long an engine is
    expected to take. ``retry``: its replica was lost. ``preempted``: it was preempted.
    """

    number: int
    arrived_s: float
    tenant: str = ""
    priority: int = NORMAL
    deadline_s: float = math.inf
    tokens: int = 1
    work_s: float = 0.0
    retry: bool = False
    preempted: bool = False

    @property
    def background(self) -> bool:
        """Whether it may wait without limit."""
        return self.priority == BACKGROUND


def read_hints(headers: Headers, tenant: str = "") -> RequestHints:
    """The hints in a request's headers (names in lower case); the last of equal names counts.

    ``tenant``: the tenant of the caller's key; without one the header ``x-sage-tenant`` is used. A
    Flink call sends that, ``x-sage-priority`` (one of PRIORITIES), ``x-sage-deadline-ms`` (since
    the epoch) and ``x-sage-job``; ``x-background: 1`` is the class ``background``. An unreadable
    value is ignored: a request is never refused for its hints.
    """
    found = {name: value for name, value in headers if name in _READ}
    if not found:
        return RequestHints(tenant=tenant) if tenant else DEFAULT_HINTS
    deadline_ms = found.get(_DEADLINE, b"")
    priority = _CLASSES.get(found.get(_PRIORITY, b""), NORMAL)
    valid = deadline_ms.isdigit() and len(deadline_ms) <= 15
    return RequestHints(
        tenant=tenant or found.get(_TENANT, b"").decode("latin-1")[:TENANT_CHARS_MAX],
        priority=BACKGROUND if found.get(_BACKGROUND) == b"1" else priority,
        deadline_s=int(deadline_ms) / 1000 if valid else math.inf,
        job=found.get(_JOB, b"").decode("latin-1")[:JOB_CHARS_MAX],
    )


def expected_tokens(body_bytes: int, answer_tokens_max: int) -> int:
    """An estimate from what is known before the call; 4 bytes per token of the prompt."""
    return max(1, body_bytes // BYTES_A_TOKEN + answer_tokens_max)
