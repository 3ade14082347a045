"""The nodes of joins of two streams by key and event time.

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

    A window join, the pairs of one key in one tumbling window, is a join of all times by a key that
    holds the window, of any kind of join; here the window is a minute::

        def minute(record):
            return f"{record.value['user']} {record.timestamp_ms // 60_000}"

        left, right = (side.key_by(f"{side.name}-minute", minute) for side in (orders, payments))
        pairs = left.join("pairs", right, within_s=(60, 60), how="full")
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
        require_two_steps(step, self.left, self.right)
        pair = isinstance(self.within_s, tuple) and len(self.within_s) == 2
        required = "(before, after), two numbers of seconds"
        require(pair, step, "within_s", required, self.within_s)
        for seconds in self.within_s:
            require_seconds(step, "within_s", seconds, 0)
        require_choice(step, "how", ("inner", "left", "full"), self.how)
        require_choice(step, "late", ("dead_letter", "drop"), self.late)
        known = self.similar is None or isinstance(self.similar, Similar)
        require(known, step, "similar", "Similar(threshold, dim), or None", self.similar)

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


@dataclass(frozen=True, slots=True)
class TemporalJoin:
    """Each record of ``left`` with the version of its key that is valid at the record's time.

    ``right`` is a changelog: an upsert is a new version of its key from its event time on, and a
    delete ends the last one. Of two versions of one key and time the one that arrives later is
    valid; a delete is one of its record's key, as those of Kafka's tombstones are. This is Flink's
    event-time temporal join, and the AS OF join of databases.

    The result is the left record with its own id, time, key, headers and origin, and the value
    ``{"left": <value>, "right": <value of the version>}``. Where there is no version at its time,
    ``left`` emits it with None in place of the version, and ``inner`` does not emit it.

    A left record waits until the watermark of both inputs has passed its time. So while ``right``
    has no new records, results wait for up to the ``idle_s`` of its event_time; then they no longer
    wait for it. The left records that wait are state, and so are the newest version of each key and
    those that the watermark has not passed; a step that was an interval join cannot become this one
    with a savepoint.

    A record is ``late`` when the watermark of its own input has passed its time. So neither the
    results nor what is late depends on how far one input is ahead of the other: the results are
    those of an AS OF join of all records that are not late. While one input is idle, the watermark
    of the other one counts for both; then a version may come too late that says something about
    records to come: send it once more with a later time. Late records are dead letters, or dropped
    and counted, or the records of a Late step, where those of ``right`` may be deletes.
    """

    name: str
    left: str
    right: str
    how: Literal["inner", "left"] = "inner"
    late: Literal["dead_letter", "drop"] = "dead_letter"

    def __post_init__(self) -> None:
        check_name(self.name)
        step = f"step {self.name!r}"
        require_two_steps(step, self.left, self.right)
        require_choice(step, "how", ("inner", "left"), self.how)
        require_choice(step, "late", ("dead_letter", "drop"), self.late)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The two steps read from."""
        return (self.left, self.right)


#: A join by event time: its results, and what is late, follow from the watermarks of its inputs.
TimeJoin = Join | TemporalJoin


def late_in_join(node: TimeJoin) -> str:
    """Why a late record of the join is a dead letter."""
    passed = "the end of its interval" if isinstance(node, Join) else "its time"
    return (
        f"is late: the watermark of its input had passed {passed}; give event_time more "
        "out_of_order_s, or read such records with .late(name)"
    )


def require_two_steps(step: str, left: str, right: str) -> None:
    """Check that a join reads from two steps.

    Raises:
        PipelineError: it does not.
    """
    apart = "another step than left; put one, such as .filter, on one side"
    require(left != right, step, "right", apart, right)


def require_choice(step: str, field: str, choices: tuple[str, ...], got: object) -> None:
    """Check that ``got`` is one of these words.

    Raises:
        PipelineError: it is not.
    """
    require(got in choices, step, field, " or ".join(map(repr, choices)), got)


def join_flaw(node: TimeJoin, record: Record, side: Literal["left", "right"]) -> str:
    """Why the join cannot take the record from this side; empty where it can."""
    is_changelog = isinstance(node, TemporalJoin) and side == "right"
    if flaw := key_flaw(record, takes_deletes=is_changelog):
        return flaw
    return node.similar.flaw(record) if isinstance(node, Join) and node.similar else ""
