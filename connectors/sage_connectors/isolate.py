"""Which items of a refused batch are to blame, found by halves.

A server that answers one "no" for a whole batch is asked again about each half until the guilty
stand alone: k of n cost about 2 k log2 n requests. Only for idempotent writes, since an item may
be sent several times.

>>> def write(items):
...     if 3 in items:
...         raise NotTaken("three is too many")
>>> isolate(range(8), write)
[(3, 'three is too many')]
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class NotTaken(Exception):  # noqa: N818 - a verdict of the server, always caught by isolate
    """The server refused what it was sent, for good; the message says why."""


def isolate(items: Sequence[T], write: Callable[[Sequence[T]], object]) -> list[tuple[T, str]]:
    """Write all items that can be written; those that cannot come back with the reason.

    ``write`` raises NotTaken when it refuses its items, whether or not it stored some of them;
    any other exception ends the work.
    """
    pending, guilty = [items], list[tuple[T, str]]()
    while pending:
        part = pending.pop()
        if not part:
            continue
        try:
            write(part)
        except NotTaken as verdict:
            if len(part) == 1:
                guilty.append((part[0], str(verdict)))
            else:
                middle = len(part) // 2
                pending += [part[middle:], part[:middle]]
    return guilty
