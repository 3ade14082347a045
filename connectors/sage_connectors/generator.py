"""A source of made-up records at a steady rate, the same at every run: for demos and tests.

The source itself only counts, natively on Flink, with the next number in the checkpoint; the step
of its name makes the record of each number. So a restart and the other target have equal records,
and what ``make`` refuses is a dead letter of that step.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count as numbers_from
from random import Random
from typing import Any

from sage_flink.common.errors import ConfigError, Rejected
from sage_flink.common.records import FailedRecord, Record, is_timestamp_ms
from sage_flink.common.validation import require
from sage_flink.flow.formats import Decoder
from sage_flink.flow.steps import catch_failure

#: 2024-01-01T00:00:00Z.
START_MS = 1_704_067_200_000
#: The number of a record, and a source of random numbers of its own -> its value, or a Record.
Make = Callable[[int, Random], Any]
_DRAWS: dict[str, Callable[[Random, Any], Any]] = {
    "$choice": lambda random, items: random.choice(items),
    "$float": lambda random, ends: random.uniform(*ends),
    "$int": lambda random, ends: random.randint(*ends),
}
_DRAWS_TEXT = '{"$choice": [...]}, {"$int": [least, most]} or {"$float": [least, most]}'


@dataclass(frozen=True, slots=True)
class Generator:
    """Records ``name/0/0``, ``name/0/1``, ..., ``per_s`` a second; without ``count`` no end.

    ``make`` is a function of the number and a ``random.Random`` that depends on ``seed`` and the
    number alone, or a template: a value in which ``"$n"`` is the number and ``{"$choice": [...]}``,
    ``{"$int": [least, most]}`` and ``{"$float": [least, most]}`` are drawn for each record.

    Event time is ``start_ms`` plus the number divided by ``per_s``, less a random part of
    ``out_of_order_s``, and for ``late_share`` of the records less another ``late_s``. Arrival is
    even. Where it is not ``paced`` the same records come as fast as the pipeline takes them. What
    an outage delayed is not made up for.

    One subtask of Flink counts. In process an unbounded run ends when its task is cancelled, and
    its outcome has every record until then.
    """

    per_s: float
    count: int | None = None
    make: Any = field(default_factory=lambda: {"n": "$n"})
    seed: int = 0
    start_ms: int = START_MS
    out_of_order_s: float = 0.0
    late_share: float = 0.0
    late_s: float = 60.0
    paced: bool = True
    name: str = "generator"

    def __post_init__(self) -> None:
        def need(field: str, holds: bool, required: str) -> None:
            got = getattr(self, field)
            require(holds, f"generator {self.name!r:.100}", field, required, got, ConfigError)

        need("name", isinstance(self.name, str) and self.name != "", "a name")
        need("per_s", _is_number(self.per_s) and self.per_s > 0, "more than 0 records a second")
        endless = self.count is None
        whole = isinstance(self.count, int) and not isinstance(self.count, bool)
        need("count", endless or (whole and (self.count or 0) >= 1), "1 or more, or None: no end")
        need("seed", isinstance(self.seed, int), "a whole number")
        need("start_ms", is_timestamp_ms(self.start_ms), "milliseconds since 1970")
        for name in ("out_of_order_s", "late_s"):
            got = getattr(self, name)
            need(name, _is_number(got) and got >= 0, "0 seconds or more")
        share = self.late_share
        need("late_share", _is_number(share) and 0 <= share <= 1, "a share from 0 to 1")
        if not callable(self.make):
            _check_template(self.make)

    @property
    def format(self) -> "GeneratedRecords":
        """The function from a number to its record."""
        return GeneratedRecords(self)

    @property
    def messages(self) -> "Numbers":
        """The source that counts."""
        return Numbers(self.name, self.count, self.per_s if self.paced else 0.0)

    def records(self) -> Iterator[Record]:
        """All records, without a pause."""
        decode = self.format.decoder()
        return (record for number in self.messages.records() for record in decode(number))

    def flink_source(self, jvm: Any) -> Any:
        """The Java source of the numbers."""
        return self.messages.flink_source(jvm)


@dataclass(frozen=True, slots=True)
class GeneratedRecords:
    """The format of a :class:`Generator`: a number as its record."""

    spec: Generator
    emits_deletes: bool = False

    def decoder(self) -> Decoder:
        """Numbers into records."""
        spec, make = self.spec, self.spec.make

        def decode(number: Record) -> tuple[Record, ...]:
            n = int(number.value)
            random = Random((spec.seed << 64) + n)  # noqa: S311 - made-up data
            back_s = random.random() * spec.out_of_order_s
            back_s += (random.random() < spec.late_share) * spec.late_s
            due_ms = spec.start_ms + int(n * 1000 / spec.per_s)
            if callable(make):
                value = _author_value(make, n, random, number)
            else:
                value = _fill(make, n, random)
            record = number.replace(timestamp_ms=due_ms - round(back_s * 1000))
            return (value if isinstance(value, Record) else record.replace(value=value),)

        return decode


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers from 0 as records with digits as the value; ``per_s`` 0 is without a pause."""

    name: str
    count: int | None
    per_s: float
    #: Several subtasks would each count a range of their own.
    parallelism: int = 1

    def records(self) -> Iterator[Record]:
        """All of them; whoever reads in process makes the pauses."""
        numbers = numbers_from() if self.count is None else range(self.count)
        ids = ((n, f"{self.name}/0/{n}") for n in numbers)
        return (Record(id_, b"%d" % n, origin=id_) for n, id_ in ids)

    def flink_source(self, jvm: Any) -> Any:
        """The Java source; the next number is in its checkpoints."""
        count = -1 if self.count is None else self.count
        native = jvm.org.sage.flink.connector.NumberSource
        return native.source(self.name, count, float(self.per_s))


def generator(
    count: int | None = None,
    *,
    per_s: float,
    make: Make | Any = None,
    seed: int = 0,
    start_ms: int = START_MS,
    out_of_order_s: float = 0.0,
    late_share: float = 0.0,
    late_s: float = 60.0,
    paced: bool = True,
    name: str = "generator",
) -> Generator:
    """Made-up records, ``per_s`` a second; see :class:`Generator`.

    >>> template = {"n": "$n", "user": {"$choice": ["anna", "ben"]}}
    >>> [record.value for record in generator(2, per_s=10, make=template).records()]
    [{'n': 0, 'user': 'ben'}, {'n': 1, 'user': 'anna'}]

    Raises:
        ConfigError: an argument or the template is wrong; the message names it.
    """
    return Generator(
        per_s,
        count,
        {"n": "$n"} if make is None else make,
        seed,
        start_ms,
        out_of_order_s,
        late_share,
        late_s,
        paced,
        name,
    )


def _author_value(make: Make, n: int, random: Random, number: Record) -> Any:
    """What the author's function returns; the reason of a dead letter names its line."""
    made = catch_failure("", number, lambda: make(n, random), make)
    if isinstance(made, FailedRecord):
        raise Rejected(made.reason)
    return made


def _fill(template: Any, n: int, random: Random) -> Any:
    """The template with its places filled."""
    match template:
        case "$n":
            return n
        case dict() if _draw_of(template):
            [(word, argument)] = template.items()
            return _DRAWS[word](random, argument)
        case dict():
            return {name: _fill(item, n, random) for name, item in template.items()}
        case list() | tuple():
            return [_fill(item, n, random) for item in template]
        case _:
            return template


def _draw_of(template: Mapping[str, Any]) -> str:
    """The word of a place that is drawn; empty for any other mapping."""
    word = next(iter(template), "") if len(template) == 1 else ""
    return word if isinstance(word, str) and word.startswith("$") else ""


def _check_template(template: Any) -> None:
    if isinstance(template, list | tuple):
        for item in template:
            _check_template(item)
    if not isinstance(template, dict):
        return
    if not (word := _draw_of(template)):
        for item in template.values():
            _check_template(item)
        return
    try:
        _DRAWS[word](Random(0), template[word])  # noqa: S311 - made-up data
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(
            f"generator: make: a place in the template must be {_DRAWS_TEXT}, got {template!r:.200}"
        ) from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
