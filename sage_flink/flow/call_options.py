"""Options of a call: retries, batches of embeddings, admission to the pool."""

import math
import re
from dataclasses import dataclass
from typing import Any

from sage_flink.common.validation import require, require_whole_number
from sage_flink.flow.stateful.fields import require_path
from sage_flink.flow.stateful.windows import require_seconds

#: Priority classes of the model pool, the most urgent first.
PRIORITIES = ("interactive", "high", "normal", "low", "background")
PRIORITY = "normal"
#: Three years.
CACHE_TTL_S_MAX = 99_999_999


@dataclass(frozen=True, slots=True)
class Retry:
    """At most ``attempts_max`` attempts that reached the pool, within the call's ``timeout_s``."""

    attempts_max: int = 4

    def __post_init__(self) -> None:
        require_whole_number("retry", "attempts_max", self.attempts_max)


@dataclass(frozen=True, slots=True)
class Batching:
    """How texts of many records become one embedding request.

    A request holds at most ``items_max`` texts of about ``tokens_max`` tokens in all (four bytes
    each), and its oldest text waits at most ``linger_s`` for the others.
    """

    items_max: int = 32
    tokens_max: int = 16_384
    linger_s: float = 0.005

    def __post_init__(self) -> None:
        require_whole_number("batching", "items_max", self.items_max)
        require_whole_number("batching", "tokens_max", self.tokens_max)
        lingers = self.linger_s == 0 or is_above_zero(self.linger_s)
        require(lingers, "batching", "linger_s", "0 seconds or more", self.linger_s)


@dataclass(frozen=True, slots=True)
class Admission:
    """The input of the pool's admission and scheduling.

    ``tenant`` and ``priority`` (one of PRIORITIES) are the step's; a record's own headers take
    precedence. The deadline is the record's arrival at the call plus ``slack_s`` (None: the call's
    ``timeout_s``). With ``freshness_s`` the answer is wanted this many seconds after the record's
    event time: under a pool's policy ``slo`` a stream that lags is served before those that do not,
    until it has caught up, and never refused for it. A record without a time has no such wish. See
    :func:`~sage_flink.flow.call_requests.call_headers`.
    """

    tenant: str = ""
    priority: str = PRIORITY
    slack_s: float | None = None
    freshness_s: float | None = None

    def __post_init__(self) -> None:
        token = isinstance(self.tenant, str) and _is_token(self.tenant)
        require(
            token, "admission", "tenant", "at most 100 letters, digits, '.', '_', '-'", self.tenant
        )
        classes = f"one of {', '.join(PRIORITIES)}"
        require(self.priority in PRIORITIES, "admission", "priority", classes, self.priority)
        for name in ("slack_s", "freshness_s"):
            seconds = getattr(self, name)
            known = seconds is None or is_above_zero(seconds)
            require(known, "admission", name, "more than 0 seconds, or None", seconds)


@dataclass(frozen=True, slots=True)
class Merging:
    """Near-equal requests of a call share one request to the pool, and its answer.

    A request shares the answer of one that was sent at most ``within_s`` seconds of the clock
    before, also one that is still in flight, where both have the same tenant, priority and record
    key (no key is one key), the same words that count in the field ``text`` (see
    :mod:`~sage_flink.flow.merging.words`: another number, name or "not" keeps them apart), and
    vectors in the field ``vector`` whose cosine similarity is at least ``threshold``. Nothing else
    of the requests is compared: where a history or a language matters, make it a part of the key.

    Each record gets the answer under its own id, as if it had asked. Where the request that it
    waits for fails, it is sent itself, with what is left of its ``timeout_s``. At most
    ``answers_max`` answers, of 64 MiB together, are kept by each subtask, and none over a restart:
    then requests whose answer was not in the checkpoint are asked again.

    Requests that wait for an answer are in flight: they take a place in ``capacity``, are in the
    checkpoint, and lose nothing when the leader's answer never arrives. Considered instead, and
    rejected: a keyed operator in front of the call that holds followers until the leader's answer
    returns. It needs a second input behind the call, state with answers in it, and a way back
    into the call for followers of a leader that failed, which Flink does not have.

    Of 600 requests with vectors of all-MiniLM-L6-v2, 240 of them rewordings, a threshold of 0.85
    saved 196 calls without a wrong answer; vectors alone saved 358, of which 190 were wrong. Of 544
    marked pairs 0 of 274 that ask for something else merge, and 218 of 270 that ask for the same.
    """

    threshold: float
    within_s: float
    text: str = "text"
    vector: str = "vector"
    answers_max: int = 10_000

    def __post_init__(self) -> None:
        number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        fits = number and 0 < self.threshold <= 1
        required = "a cosine similarity above 0, at most 1, such as 0.9"
        require(fits, "merging", "threshold", required, self.threshold)
        require_seconds("merging", "within_s", self.within_s)
        require_path("merging", "text", self.text, may_be_empty=True)
        require_path("merging", "vector", self.vector)
        require_whole_number("merging", "answers_max", self.answers_max)


def require_call_limits(where: str, capacity: object, timeout_s: object, ttl_s: object) -> None:
    """Check the numbers of a call.

    Raises:
        PipelineError: one is of another type, or out of range.
    """
    require_whole_number(where, "capacity", capacity)
    require(is_above_zero(timeout_s), where, "timeout_s", "more than 0 seconds", timeout_s)
    require_whole_number(where, "cache_ttl_s", ttl_s, least=0)
    fits = isinstance(ttl_s, int) and ttl_s <= CACHE_TTL_S_MAX
    require(fits, where, "cache_ttl_s", f"at most {CACHE_TTL_S_MAX} seconds", ttl_s)


def is_above_zero(got: Any) -> bool:
    """Whether ``got`` is a finite number greater than 0."""
    number = isinstance(got, int | float) and not isinstance(got, bool)
    return number and math.isfinite(got) and got > 0


def _is_token(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9._-]{0,100}", text))
