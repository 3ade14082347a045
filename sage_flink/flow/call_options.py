"""Options of a call: retries, batches of embeddings, admission to the pool."""

import math
import re
from dataclasses import dataclass
from typing import Any

from sage_flink.common.validation import require, require_whole_number

#: Priority classes of the model pool, the most urgent first.
PRIORITIES = ("interactive", "high", "normal", "low", "background")
PRIORITY = "normal"


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
    ``timeout_s``). See :func:`~sage_flink.flow.steps.call_headers`.
    """

    tenant: str = ""
    priority: str = PRIORITY
    slack_s: float | None = None

    def __post_init__(self) -> None:
        token = isinstance(self.tenant, str) and _is_token(self.tenant)
        require(
            token, "admission", "tenant", "at most 100 letters, digits, '.', '_', '-'", self.tenant
        )
        classes = f"one of {', '.join(PRIORITIES)}"
        require(self.priority in PRIORITIES, "admission", "priority", classes, self.priority)
        slack = self.slack_s is None or is_above_zero(self.slack_s)
        require(slack, "admission", "slack_s", "more than 0 seconds, or None", self.slack_s)


def is_above_zero(got: Any) -> bool:
    """Whether ``got`` is a finite number greater than 0."""
    number = isinstance(got, int | float) and not isinstance(got, bool)
    return number and math.isfinite(got) and got > 0


def _is_token(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9._-]{0,100}", text))
