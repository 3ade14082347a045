"""What became of N ids that went in: the four counts that every drill must find to be zero.

>>> seen = Seen(rows={"a": ["sum:1"], "b": ["sum:2", "sum:2"]}, letters=["c"])
>>> told = account({"a": "sum:1", "b": "sum:2", "c": "sum:3", "d": "sum:4"}, seen)
>>> told.lost, told.duplicated, told.both, told.wrong
(1, 1, 0, 0)
>>> told.closes
False
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Seen:
    """What a sink holds: the contents of its rows by id, and the ids in the dead-letter topic."""

    rows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    letters: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """The four counts over ``ids`` ids that went in.

    ``lost``: in neither sink nor dead letters. ``duplicated``: rows, or letters, above one for each
    copy of an id that went in. ``both``: in the sink and in the dead letters. ``wrong``: another
    content than the id's own, or an id that never went in.
    """

    ids: int
    rows: int
    letters: int
    lost: int
    duplicated: int
    both: int
    wrong: int

    @property
    def closes(self) -> bool:
        """Whether nothing was lost, doubled, in two places or changed."""
        return not (self.lost or self.duplicated or self.both or self.wrong)


def account(fed: Mapping[str, str], seen: Seen, copies: Mapping[str, int] | None = None) -> Account:
    """The account of ``fed``, the content expected of each id, against what was ``seen``.

    ``copies``: how often the source holds an id, where that is not once.
    """
    want = Counter({id_: (copies or {}).get(id_, 1) for id_ in fed})
    rows = Counter({id_: len(contents) for id_, contents in seen.rows.items()})
    letters = Counter(seen.letters)
    strange = (set(rows) | set(letters)) - set(fed)
    allowed = want + Counter(strange)
    wrong = sum(
        content != fed[id_]
        for id_, contents in seen.rows.items()
        if id_ in fed
        for content in contents
    )
    return Account(
        ids=len(fed),
        rows=rows.total(),
        letters=letters.total(),
        lost=(want - rows - letters).total(),
        duplicated=(rows - allowed).total() + (letters - allowed).total(),
        both=sum(rows[id_] + letters[id_] > allowed[id_] for id_ in set(rows) & set(letters)),
        wrong=wrong + len(strange),
    )
