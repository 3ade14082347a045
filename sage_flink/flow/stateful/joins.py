"""The node of a join of two streams by key and event time.

>>> Join("paid", "orders", "payments", (0, 3600)).after_ms
3600000
"""

from dataclasses import dataclass
from typing import Literal

from sage_flink.common.records import Record
from sage_flink.common.validation import require
from sage_flink.flow.stateful.keys import key_flaw
from sage_flink.flow.stateful.similar import Similar
from sage_flink.flow.stateful.windows import milliseconds, require_seconds
from sage_flink.flow.step_names import check_name

How = Literal["inner", "left", "full"]
#: Why a late record is a dead letter.
LATE_IN_JOIN = (
    "is late: the watermark of its input had passed the end of its interval; give event_time more "
    "out_of_order_s, or read such records with .late(name)"
)


@dataclass(frozen=True, slots=True)
class Join:
    """The pairs of records of one key whose event times are near: an interval join.

    A record of ``left`` at time t meets each record of ``right`` with its key and a time from
    ``t - before`` to ``t + after``, both included; ``within_s`` is ``(before, after)`` in seconds.
    The result of a pair is ``{"left": <value>, "right": <value>}`` with their key, the later of
    their times, the headers of both (of one name the left one's), and the left one's origin. Its
    id is ``step/left id~right id``, the same at any replay; where it would be longer than 200 bytes
    or ambiguous, ``step/sha256:<digits>`` of both ids.

    ``left`` and ``full`` also emit each record of ``left``, or of both, that met no other: once,
    with None in place of the other value. That is when the watermark is ``before + after`` ahead
    of its time: until then a record that is not late can still meet it.

    A record is ``late`` when the watermark of its own input has passed the end of its interval.
    So neither the results nor what is late depends on how far one input is ahead of the other: the
    results are those of a join of all records that are not late. Late records are dead letters, or
    dropped and counted, or the records of a Late step; their origin says from which input.

    With ``similar`` only records whose vectors are near meet: a similarity join in a window. Each
    record is compared with all of the other input's in its interval, so no pair is missed; the work
    grows with the records of a key in an interval.

    Each record is state until the watermark is ``before + after`` ahead of it. ``within_s``,
    ``how`` and ``similar`` may change with a savepoint, and then apply to what is kept. The
    watermark of the output is held back, so that no result is late for a window behind the join.
    """

    name: str
    left: str
    right: str
    within_s: tuple[float, float]
    how: How = "inner"
    late: Literal["dead_letter", "drop"] = "dead_letter"
    similar: Similar | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        step = f"step {self.name!r}"
        apart = "another step than left; put one, such as .filter, on one side"
        require(self.left != self.right, step, "right", apart, self.right)
        pair = isinstance(self.within_s, tuple) and len(self.within_s) == 2
        required = "(before, after), two numbers of seconds"
        require(pair, step, "within_s", required, self.within_s)
        for seconds in self.within_s:
            require_seconds(step, "within_s", seconds, 0)
        hows = ("inner", "left", "full")
        require(self.how in hows, step, "how", " or ".join(map(repr, hows)), self.how)
        ways = ("dead_letter", "drop")
        require(self.late in ways, step, "late", " or ".join(map(repr, ways)), self.late)
        known = self.similar is None or isinstance(self.similar, Similar)
        required = "Similar(threshold, dim), or None"
        require(known, step, "similar", required, self.similar)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The two steps read from."""
        return (self.left, self.right)

    @property
    def before_ms(self) -> int:
        """How much earlier than the left record the right one may be."""
        return milliseconds(self.within_s[0])

    @property
    def after_ms(self) -> int:
        """How much later than the left record the right one may be."""
        return milliseconds(self.within_s[1])

    @property
    def emitted_alone(self) -> tuple[str, ...]:
        """The inputs whose records are emitted when they met no other."""
        return {"inner": (), "left": ("left",), "full": ("left", "right")}[self.how]

    @property
    def output_delay_ms(self) -> int:
        """How far the watermark of the output is behind that of the inputs."""
        if self.how == "inner":
            return max(self.before_ms, self.after_ms)
        return self.before_ms + self.after_ms


def join_flaw(node: Join, record: Record) -> str:
    """Why the join cannot take the record; empty where it can."""
    if flaw := key_flaw(record):
        return flaw
    return node.similar.flaw(record) if node.similar else ""
