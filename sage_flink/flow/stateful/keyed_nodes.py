"""The nodes that keep state for each key, besides windows."""

from dataclasses import dataclass
from typing import Literal

from sage_flink.common.validation import require, require_whole_number
from sage_flink.flow.stateful.fields import require_path
from sage_flink.flow.stateful.windows import require_seconds
from sage_flink.flow.step_names import check_name

#: Why a record that comes to a rate limit too late is a dead letter.
RATE_LATE = (
    "is late: the watermark had passed the end of the time in which it would have counted; give "
    "event_time more out_of_order_s"
)


@dataclass(frozen=True, slots=True)
class ChangesOnly:
    """Of each key the records whose value differs from that of the last record that passed.

    With ``field`` only that field of the value is compared; a field that is missing is as one that
    is null. Values are equal where their MessagePack is: 1 and 1.0 differ, and so do maps whose
    fields come in another order. With ``ttl_s`` the next record passes in any case when the last
    one passed so many seconds of the clock before; without it the last value of each key is kept
    for as long as the job lives. A record without a key is a dead letter. The others are dropped,
    and counted as such.
    """

    name: str
    input: str
    field: str = ""
    ttl_s: float | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        step = f"step {self.name!r}"
        require_path(step, "field", self.field, may_be_empty=True)
        if self.ttl_s is not None:
            require_seconds(step, "ttl_s", self.ttl_s)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``records_max`` records of each key in every ``per_s`` seconds of event time.

    The time is divided into windows of ``per_s``, one after the other, from the epoch on; a record
    counts in the window of its own time. So how many pass does not depend on when and in which
    order they arrive, nor on a restart. Sliding limits, whose choice depends on the order, would
    keep the time of every record that passed; the price is that twice as many may pass around the
    border of two windows. What is over the limit is dropped and counted, or a dead letter, as
    ``over`` says; and so is a record whose window the watermark has passed, because its count is
    no longer kept. A record without a key is a dead letter.
    """

    name: str
    input: str
    records_max: int
    per_s: float
    over: Literal["drop", "dead_letter"] = "drop"

    def __post_init__(self) -> None:
        check_name(self.name)
        step = f"step {self.name!r}"
        require_whole_number(step, "records_max", self.records_max)
        require_seconds(step, "per_s", self.per_s)
        ways = ("drop", "dead_letter")
        require(self.over in ways, step, "over", " or ".join(map(repr, ways)), self.over)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)

    @property
    def reason(self) -> str:
        """Why a record over the limit is a dead letter."""
        return (
            f"is over the limit: {self.records_max} records of its key have passed in the same "
            f"{self.per_s:g} s"
        )
