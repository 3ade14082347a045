"""A request that may have to wait: what its caller said of it, and what it is expected to cost."""

import math
from collections.abc import Iterable

import msgspec

from sage_flink.flow.call_options import PRIORITIES, PRIORITY

Headers = Iterable[tuple[bytes, bytes]]

NORMAL = PRIORITIES.index(PRIORITY)
BACKGROUND = PRIORITIES.index("background")

BYTES_A_TOKEN = 4
ANSWER_TOKENS = 256  # of a generation that names no limit; corrected once the engine has counted
TENANT_CHARS_MAX = 100
JOB_CHARS_MAX = 200

_TENANT, _PRIORITY, _DEADLINE = b"x-sage-tenant", b"x-sage-priority", b"x-sage-deadline-ms"
_BACKGROUND, _JOB = b"x-background", b"x-sage-job"
_READ = frozenset({_TENANT, _PRIORITY, _DEADLINE, _BACKGROUND, _JOB})
_CLASSES = {name.encode(): i for i, name in enumerate(PRIORITIES)}


class Wishes(msgspec.Struct, frozen=True, gc=False):
    """What a caller says of a request. ``priority``: its place in PRIORITIES, 0 first.

    ``deadline_s`` is of the epoch; infinite where none is named. ``job``: the Flink job that asks.
    """

    tenant: str = ""
    priority: int = NORMAL
    deadline_s: float = math.inf
    job: str = ""

    @property
    def background(self) -> bool:
        """Whether it may wait for ever, and give way to others when it runs."""
        return self.priority == BACKGROUND


PLAIN = Wishes()


class Ticket(msgspec.Struct, frozen=True, gc=False):
    """One request that waits. Times are of the monotonic clock; numbers rise with the arrivals.

    ``tokens``: how many it is expected to cost, prompt and answer, at least 1. ``work_s``: how long
    an engine is expected to take over it. ``returned``: it was let go once, and lost its replica.
    ``resumed``: it was let go once, and gave way to others.
    """

    number: int
    arrived_s: float
    tenant: str = ""
    priority: int = NORMAL
    deadline_s: float = math.inf
    tokens: int = 1
    work_s: float = 0.0
    returned: bool = False
    resumed: bool = False

    @property
    def background(self) -> bool:
        """Whether it may wait for ever."""
        return self.priority == BACKGROUND


def wished(headers: Headers, tenant: str = "") -> Wishes:
    """The wishes in a request's headers, whose names are in lower case; the last of a name counts.

    ``tenant`` is the caller's, where a key has told it; else ``x-sage-tenant`` is believed. That,
    ``x-sage-priority`` (one of PRIORITIES), ``x-sage-deadline-ms`` (since the epoch) and
    ``x-sage-job`` are those of a Flink call; ``x-background: 1`` is the class ``background``. A
    value that cannot be read is as none: a request is not refused for how it asks to be treated.
    """
    found = {name: value for name, value in headers if name in _READ}
    if not found:
        return Wishes(tenant=tenant) if tenant else PLAIN
    late = found.get(_DEADLINE, b"")
    named = _CLASSES.get(found.get(_PRIORITY, b""), NORMAL)
    return Wishes(
        tenant=tenant or found.get(_TENANT, b"").decode("latin-1")[:TENANT_CHARS_MAX],
        priority=BACKGROUND if found.get(_BACKGROUND) == b"1" else named,
        deadline_s=int(late) / 1000 if late.isdigit() and len(late) <= 15 else math.inf,
        job=found.get(_JOB, b"").decode("latin-1")[:JOB_CHARS_MAX],
    )


def expected_tokens(body_bytes: int, answer_tokens_max: int) -> int:
    """A rough count from what is known before the call; 4 bytes a token of the prompt."""
    return max(1, body_bytes // BYTES_A_TOKEN + answer_tokens_max)
