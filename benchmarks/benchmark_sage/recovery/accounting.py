"""Record accounting of a drill: the four counts that must be zero at its end.

>>> contents = SinkContents(rows={"a": ["sum:1"], "b": ["sum:2", "sum:2"]}, dead_letters=["c"])
>>> fed = {"a": "sum:1", "b": "sum:2", "c": "sum:3", "d": "sum:4"}
>>> counts = count_deliveries(fed, contents)
>>> counts.lost, counts.duplicated, counts.both, counts.wrong
(1, 1, 0, 0)
>>> counts.is_balanced
False
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SinkContents:
    """Contents of a sink by id, and the ids in the dead-letter topic."""

    rows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    dead_letters: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """The four counts of a drill over the ``ids`` that were fed.

    ``lost``: in neither the sink nor the dead letters. ``duplicated``: rows, or dead letters,
    beyond one for each copy of an id that was fed. ``both``: in the sink and in the dead letters.
    ``wrong``: a content that differs from the expected one, or an id that was never fed.
    """

    ids: int
    rows: int
    dead_letters: int
    lost: int
    duplicated: int
    both: int
    wrong: int

    @property
    def is_balanced(self) -> bool:
        """Whether no record was lost, duplicated, in both places or wrong."""
        return not (self.lost or self.duplicated or self.both or self.wrong)


def count_deliveries(
    fed: Mapping[str, str], contents: SinkContents, copies: Mapping[str, int] | None = None
) -> DeliveryCounts:
    """The counts of ``contents`` against ``fed``, the expected content by id.

    ``copies``: how often the source holds an id, if not once.
    """
    expected = Counter({id_: (copies or {}).get(id_, 1) for id_ in fed})
    rows = Counter({id_: len(found) for id_, found in contents.rows.items()})
    dead = Counter(contents.dead_letters)
    unknown = (set(rows) | set(dead)) - set(fed)
    allowed = expected + Counter(unknown)
    wrong = sum(
        content != fed[id_]
        for id_, found in contents.rows.items()
        if id_ in fed
        for content in found
    )
    return DeliveryCounts(
        ids=len(fed),
        rows=rows.total(),
        dead_letters=dead.total(),
        lost=(expected - rows - dead).total(),
        duplicated=(rows - allowed).total() + (dead - allowed).total(),
        both=sum(rows[id_] + dead[id_] > allowed[id_] for id_ in set(rows) & set(dead)),
        wrong=wrong + len(unknown),
    )
