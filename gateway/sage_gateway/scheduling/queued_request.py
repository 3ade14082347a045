"""A queued request: its scheduling hints and its expected cost in tokens."""

import math

import msgspec

from sage_gateway.requests.request import BACKGROUND, NORMAL

BYTES_A_TOKEN = 4
ANSWER_TOKENS = 256  # of a generation without a limit; corrected once the engine has counted


class RequestHints(msgspec.Struct, frozen=True, gc=False):
    """Scheduling hints of a caller. ``priority``: an index into PRIORITIES, 0 first.

    ``deadline_s``: seconds of the epoch, infinite without a deadline. ``job``: the calling Flink
    job. ``soft_deadline_s``: when the answer is wanted; a request that misses it is served all the
    same.
    """

    tenant: str = ""
    priority: int = NORMAL
    deadline_s: float = math.inf
    job: str = ""
    soft_deadline_s: float = math.inf

    @property
    def background(self) -> bool:
        """Whether it may wait without limit, and be preempted when it runs."""
        return self.priority == BACKGROUND


DEFAULT_HINTS = RequestHints()


class QueuedRequest(msgspec.Struct, frozen=True, gc=False):
    """One request of a queue. Times are of the monotonic clock; numbers rise with the arrivals.

    ``tokens``: its expected cost, prompt and answer together, at least 1. ``work_s``: how long an
    engine is expected to take, in proportion to ``tokens``; 0 until one has been measured.
    ``retry``: its replica was lost. ``preempted``: it was preempted.
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
    soft_deadline_s: float = math.inf

    @property
    def background(self) -> bool:
        """Whether it may wait without limit."""
        return self.priority == BACKGROUND


def expected_tokens(body_bytes: int, answer_tokens_max: int) -> int:
    """An estimate from what is known before the call; 4 bytes per token of the prompt."""
    return max(1, body_bytes // BYTES_A_TOKEN + answer_tokens_max)
