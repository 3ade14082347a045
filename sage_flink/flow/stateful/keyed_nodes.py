"""The nodes that keep state for each key, apart from windows."""

import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from sage_flink.common.errors import PipelineError
from sage_flink.common.records import Record
from sage_flink.common.validation import require, require_whole_number
from sage_flink.flow.author_code import asynchronous, place_of
from sage_flink.flow.stateful.fields import require_path
from sage_flink.flow.stateful.windows import require_seconds
from sage_flink.flow.step_names import check_name

#: State and record -> new state and outputs.
FoldFunction = Callable[[Any, Record], tuple[Any, Iterable[Any]]]
#: 10 MB: the state of one key is one value in Flink's state, and is copied for each bundle.
STATE_BYTES_MAX = 10_000_000
#: Why a record that reaches a rate limit too late is a dead letter.
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
    one passed this many seconds of the clock before; without it the last value of each key is kept
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


@dataclass(frozen=True, slots=True)
class Fold:
    """``function(state, record)`` returns the new state of the record's key, and outputs.

    The state of a key that has none is ``initial``. A state is anything MessagePack can say, up to
    10 MB; the function gets it as MessagePack gives it back, a tuple or a set as a list. Outputs
    are values or records, as those of a flat_map. State and outputs of a record are one: where the
    function raises, or makes a state or an output that cannot be, the record is a dead letter, its
    outputs are not emitted, and the state is as before. It survives a restart, a savepoint and a
    rescale; it expires when its key has had no record for ``ttl_s`` seconds of the clock, and is
    kept for as long as the job lives without, in process for one run. A record without a key is a
    dead letter. Where there is a new ``initial`` after a savepoint, keys whose state was as the old
    one begin with the new one: such a state takes no room.

    A fold has no timers. What is to happen when a key has had no record for a while is a session
    window: ``.window("silent", Session(1800), {"last": Last("state")})`` makes a record then.

    On Flink the state is that of a native operator, and the function runs in a Python worker. The
    operator sends a key's state along with the key's first record of a bundle and takes the last
    one back at the end, with the outputs, so a state crosses twice for each bundle. A record that
    ends its worker is one dead letter and changes no state. With PyFlink's own keyed functions it
    could not be: they write states before it is known that the worker survives the bundle, so
    running the bundle again would count other records twice.
    """

    name: str
    input: str
    function: FoldFunction
    initial: Any
    ttl_s: float | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        step = f"step {self.name!r}"
        known = callable(self.function) and not isinstance(self.function, type)
        required = "a callable taking a state and a Record"
        require(known, step, "function", required, self.function)
        if kind := asynchronous(self.function):
            raise PipelineError(
                f"{step}: function must be a plain function, got {kind}{place_of(self.function)}"
            )
        require(_takes_two(self.function), step, "function", required, self.function)
        if self.ttl_s is not None:
            require_seconds(step, "ttl_s", self.ttl_s)
        require(_fits(self.initial), step, "initial", "what MessagePack can say", self.initial)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


def _takes_two(function: FoldFunction) -> bool:
    with suppress(ValueError):  # a callable without a signature, such as one written in C
        try:
            inspect.signature(function).bind(None, None)
        except TypeError:
            return False
    return True


def _fits(state: Any) -> bool:
    try:
        return len(msgspec.msgpack.encode(state)) <= STATE_BYTES_MAX
    except Exception:  # the author's classes are asked for their fields
        return False
