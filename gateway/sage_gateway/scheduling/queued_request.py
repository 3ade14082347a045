"""A request that may have to wait: what its caller said of it, and what it is expected to cost."""

import math

import msgspec

from sage_gateway.requests.request import BACKGROUND, NORMAL

BYTES_A_TOKEN = 4
ANSWER_TOKENS = 256  # of a generation that names no limit; corrected once the engine has counted


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


def expected_tokens(body_bytes: int, answer_tokens_max: int) -> int:
    """A rough count from what is known before the call; 4 bytes a token of the prompt."""
    return max(1, body_bytes // BYTES_A_TOKEN + answer_tokens_max)
