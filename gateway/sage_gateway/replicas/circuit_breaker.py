"""The circuit breaker of a replica, as pure functions from the outcome of a call to its state.

::

    CLOSED ── RUN_MAX failures in a row, or SHARE_MAX of the last WINDOW calls ──► OPEN
    OPEN ── a call, once its pause is over ──► HALF_OPEN
    HALF_OPEN ── TRIALS successful calls ──► CLOSED
    HALF_OPEN ── one failure ──► OPEN, with twice the pause

An error that the engine answers with may be the caller's fault, and must not close a replica to all
others: before such an error opens the circuit, the replica is asked for one token.

Health checks show whether an engine is running; the breaker shows whether it answers. A call
belongs to the ``epoch`` in which it was sent: the outcome of an older call is ignored. Times are of
the monotonic clock.
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
    """The state of a breaker; a replica with an OPEN circuit is used only as the last choice."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """The recent outcomes of a replica's calls.

    ``marks``: a bit for each of the last ``count`` calls, 1 for a failure, the newest lowest.
    ``openings``: how often it opened in a row; ``trials``: calls sent since it is half open.
    """

    circuit: Circuit = Circuit.CLOSED
    epoch: int = 0
    marks: int = 0
    count: int = 0
    openings: int = 0
    retry_at_s: float = 0.0
    trials: int = 0
    passed: int = 0


def is_trusted(breaker: Breaker, now_s: float) -> bool:
    """Whether routing may prefer the replica to a degraded one."""
    if breaker.circuit is Circuit.CLOSED:
        return True
    if breaker.circuit is Circuit.OPEN:
        return now_s >= breaker.retry_at_s
    return breaker.trials < TRIALS


def on_send(breaker: Breaker, now_s: float) -> Breaker:
    """After a call was sent; its epoch is that of the returned breaker."""
    if breaker.circuit is Circuit.OPEN and now_s >= breaker.retry_at_s:
        epoch = breaker.epoch + 1
        return replace(breaker, circuit=Circuit.HALF_OPEN, epoch=epoch, trials=1, passed=0)
    if breaker.circuit is Circuit.HALF_OPEN:
        return replace(breaker, trials=breaker.trials + 1)
    return breaker


def on_success(breaker: Breaker, epoch: int) -> Breaker:
    """After a response to a call of ``epoch``; an error caused by the caller is a success too."""
    if epoch != breaker.epoch:
        return breaker
    if breaker.circuit is Circuit.CLOSED:
        return _add_mark(breaker, 0)
    if breaker.circuit is Circuit.OPEN:
        return breaker
    if breaker.passed + 1 >= TRIALS:
        return reset(breaker)
    return replace(breaker, passed=breaker.passed + 1)


def on_failure(breaker: Breaker, epoch: int, now_s: float) -> Breaker:
    """After a call of ``epoch`` without a response, or with an error of the engine itself."""
    if epoch != breaker.epoch or breaker.circuit is Circuit.OPEN:
        return breaker
    if breaker.circuit is Circuit.HALF_OPEN:
        return _open(breaker, now_s)
    marked = _add_mark(breaker, 1)
    share = marked.marks.bit_count() / WINDOW
    if marked.marks & _RUN == _RUN or (marked.count == WINDOW and share >= SHARE_MAX):
        return _open(marked, now_s)
    return marked


def on_cancel(breaker: Breaker, epoch: int) -> Breaker:
    """After a call of ``epoch`` was cancelled: it proves neither, and frees its trial."""
    if epoch != breaker.epoch or breaker.circuit is not Circuit.HALF_OPEN:
        return breaker
    return replace(breaker, trials=breaker.trials - 1)


def opens(before: Breaker, after: Breaker) -> bool:
    """Whether a failure opened a closed circuit."""
    return before.circuit is Circuit.CLOSED and after.circuit is Circuit.OPEN


def on_verification(breaker: Breaker, *, serves: bool, now_s: float) -> Breaker:
    """After the replica was asked for one token because of its errors."""
    if breaker.circuit is not Circuit.CLOSED:
        return breaker
    return reset(breaker) if serves else _open(breaker, now_s)


def reset(breaker: Breaker) -> Breaker:
    """A breaker without history: the replica has recovered, or its process is new."""
    return Breaker(epoch=breaker.epoch + 1)


def _add_mark(breaker: Breaker, mark: int) -> Breaker:
    marks = (breaker.marks << 1 | mark) & _WINDOW
    count = min(breaker.count + 1, WINDOW)
    if marks == breaker.marks and count == breaker.count:
        return breaker
    return replace(breaker, marks=marks, count=count)


def _open(breaker: Breaker, now_s: float) -> Breaker:
    pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** min(breaker.openings, 30))
    return Breaker(
        circuit=Circuit.OPEN,
        epoch=breaker.epoch + 1,
        openings=breaker.openings + 1,
        retry_at_s=now_s + pause_s,
    )
