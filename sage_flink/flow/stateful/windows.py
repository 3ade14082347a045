"""The kinds of windows: which windows the event time of a record is in, and when they emit.

>>> Tumbling(60).starts_ms(90_000)
[60000]
>>> Sliding(60, 30).starts_ms(90_000)
[90000, 60000]
>>> Early(every_s=10).due_ms(12_345, watermark_ms=None)
19999
"""

from dataclasses import dataclass

from sage_flink.common.validation import require, require_whole_number

#: A record may be in this many sliding windows; each of them keeps it.
WINDOWS_MAX = 1_000


def milliseconds(seconds: float) -> int:
    """The time in whole milliseconds."""
    return round(seconds * 1000)


def require_seconds(where: str, field: str, got: object, least_ms: int = 1) -> None:
    """Check that ``got`` is a number of seconds, at least ``least_ms`` milliseconds.

    Raises:
        PipelineError: it is not.
    """
    number = isinstance(got, int | float) and not isinstance(got, bool)
    fits = number and least_ms <= got * 1000 < 2**53  # type: ignore[operator]  # a number
    required = "a number of seconds, 0.001 or more" if least_ms else "0 or more seconds"
    require(bool(fits), where, field, required, got)


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows of ``size_s`` seconds, one after the other, from the epoch on."""

    size_s: float

    def __post_init__(self) -> None:
        require_seconds("tumbling window", "size_s", self.size_s)

    def starts_ms(self, timestamp_ms: int) -> list[int]:
        """The start of the window that the time is in."""
        return [timestamp_ms - timestamp_ms % milliseconds(self.size_s)]


@dataclass(frozen=True, slots=True)
class Sliding:
    """Windows of ``size_s`` seconds, one every ``every_s`` seconds: a record is in several."""

    size_s: float
    every_s: float

    def __post_init__(self) -> None:
        require_seconds("sliding window", "size_s", self.size_s)
        require_seconds("sliding window", "every_s", self.every_s)
        fits = self.every_s <= self.size_s <= WINDOWS_MAX * self.every_s
        required = f"at most size_s, and at least a {WINDOWS_MAX}th of it"
        require(fits, "sliding window", "every_s", required, self.every_s)

    def starts_ms(self, timestamp_ms: int) -> list[int]:
        """The starts of the windows that the time is in, the latest first."""
        every, size = milliseconds(self.every_s), milliseconds(self.size_s)
        latest = timestamp_ms - timestamp_ms % every
        return list(range(latest, timestamp_ms - size, -every))


@dataclass(frozen=True, slots=True)
class Session:
    """Windows that end when a key has had no record for ``gap_s`` seconds."""

    gap_s: float

    def __post_init__(self) -> None:
        require_seconds("session window", "gap_s", self.gap_s)


@dataclass(frozen=True, slots=True)
class CountTumbling:
    """Windows of ``records`` records of a key each, one after the other, as they arrive.

    They need no event time, and no record is late. Each is emitted with its last record; at the end
    of a bounded input, that of each key with what it holds. The records of a key arrive in the
    order of their partition; with several, the interleaving decides which window a record is in.
    How many windows a key had is kept for as long as the job lives: 8 bytes and the key.
    """

    records: int

    def __post_init__(self) -> None:
        require_whole_number("count window", "records", self.records)


@dataclass(frozen=True, slots=True)
class Global:
    """One window for each key, which ends with the input: its early results are running aggregates.

    It needs event time for ``Early(every_s=...)`` only. No record is late, and the state of a key
    is kept for as long as the job lives.
    """


@dataclass(frozen=True, slots=True)
class Early:
    """Results of a window before its end: what it holds so far, under the id of its last result.

    Exactly one of the two is set. With ``every_s`` a window emits when the watermark passes a
    multiple of ``every_s``: the first one behind the time of a record that is in no result yet.
    A window without such a record emits nothing, and a watermark that passes several multiples, or
    the end too, makes it emit once. With ``every_records`` it emits each time that it
    has taken this many records.

    Neither depends on the clock, so that the same records in the same order make the same results.
    Records that arrive in another order make other early results, and the same last one.
    """

    every_s: float | None = None
    every_records: int | None = None

    def __post_init__(self) -> None:
        one = (self.every_s is None) != (self.every_records is None)
        got = (self.every_s, self.every_records)
        require(one, "early", "every_s, every_records", "set, one of the two", got)
        if self.every_s is not None:
            require_seconds("early", "every_s", self.every_s)
        else:
            require_whole_number("early", "every_records", self.every_records)

    def due_ms(self, timestamp_ms: int, watermark_ms: int | None) -> int:
        """The watermark at which a record of this time is in an early result, with ``every_s``."""
        assert self.every_s is not None
        every = milliseconds(self.every_s)
        least = timestamp_ms if watermark_ms is None else max(timestamp_ms, watermark_ms + 1)
        return least - least % every + every - 1


Windows = Tumbling | Sliding | Session | CountTumbling | Global
