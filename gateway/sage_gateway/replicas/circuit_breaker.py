"""A replica's circuit as pure functions: what calls came to goes in, its trust comes out.

::

    CLOSED ── RUN_MAX failures in a row, or SHARE_MAX of the last WINDOW calls ──► OPEN
    OPEN ── a call, once its pause is over ──► HALF_OPEN
    HALF_OPEN ── TRIALS calls answered ──► CLOSED
    HALF_OPEN ── one failed ──► OPEN, with twice the pause

Health checks ask whether an engine is there; this asks whether it answers. A call belongs to the
``epoch`` it was sent in: what an older one came to says nothing about now. Times are of the
monotonic clock.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

RUN_MAX = 5
WINDOW = 20
SHARE_MAX = 0.5
TRIALS = 2
PAUSE_FIRST_S = 1.0
PAUSE_MAX_S = 30.0

_RUN = (1 << RUN_MAX) - 1
_WINDOW = (1 << WINDOW) - 1


class Circuit(StrEnum):
    """Where a breaker stands; OPEN is asked only where there is nobody else."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of a replica's answers.

    ``marks``: a bit for each of the last calls, 1 for a failure, the newest lowest; ``count`` of
    them. ``opened``: how often in a row, ``trials``: calls sent since it is half open.
    """

    circuit: Circuit = Circuit.CLOSED
    epoch: int = 0
    marks: int = 0
    count: int = 0
    opened: int = 0
    retry_at_s: float = 0.0
    trials: int = 0
    passed: int = 0


def trusted(breaker: Breaker, now_s: float) -> bool:
    """Whether the replica may be chosen before others."""
    if breaker.circuit is Circuit.CLOSED:
        return True
    if breaker.circuit is Circuit.OPEN:
        return now_s >= breaker.retry_at_s
    return breaker.trials < TRIALS


def sent(breaker: Breaker, now_s: float) -> Breaker:
    """A call goes out; its epoch is that of the breaker returned."""
    if breaker.circuit is Circuit.OPEN and now_s >= breaker.retry_at_s:
        epoch = breaker.epoch + 1
        return replace(breaker, circuit=Circuit.HALF_OPEN, epoch=epoch, trials=1, passed=0)
    if breaker.circuit is Circuit.HALF_OPEN:
        return replace(breaker, trials=breaker.trials + 1)
    return breaker


def answered(breaker: Breaker, epoch: int) -> Breaker:
    """A call of ``epoch`` was answered; an error of the caller's making is an answer too."""
    if epoch != breaker.epoch:
        return breaker
    if breaker.circuit is Circuit.CLOSED:
        return _marked(breaker, 0)
    if breaker.circuit is Circuit.OPEN:
        return breaker
    if breaker.passed + 1 >= TRIALS:
        return renewed(breaker)
    return replace(breaker, passed=breaker.passed + 1)


def failed(breaker: Breaker, epoch: int, now_s: float) -> Breaker:
    """A call of ``epoch`` got no answer, or one that is the engine's own failure."""
    if epoch != breaker.epoch or breaker.circuit is Circuit.OPEN:
        return breaker
    if breaker.circuit is Circuit.HALF_OPEN:
        return _opened(breaker, now_s)
    marked = _marked(breaker, 1)
    share = marked.marks.bit_count() / WINDOW
    if marked.marks & _RUN == _RUN or (marked.count == WINDOW and share >= SHARE_MAX):
        return _opened(marked, now_s)
    return marked


def left(breaker: Breaker, epoch: int) -> Breaker:
    """A call of ``epoch`` ended with its caller: it says nothing, and another may be the trial."""
    if epoch != breaker.epoch or breaker.circuit is not Circuit.HALF_OPEN:
        return breaker
    return replace(breaker, trials=breaker.trials - 1)


def renewed(breaker: Breaker) -> Breaker:
    """The breaker of a replica without a past: it has recovered, or its process is a new one."""
    return Breaker(epoch=breaker.epoch + 1)


def _marked(breaker: Breaker, mark: int) -> Breaker:
    marks = (breaker.marks << 1 | mark) & _WINDOW
    count = min(breaker.count + 1, WINDOW)
    if marks == breaker.marks and count == breaker.count:
        return breaker
    return replace(breaker, marks=marks, count=count)


def _opened(breaker: Breaker, now_s: float) -> Breaker:
    pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** min(breaker.opened, 30))
    return Breaker(
        circuit=Circuit.OPEN,
        epoch=breaker.epoch + 1,
        opened=breaker.opened + 1,
        retry_at_s=now_s + pause_s,
    )
