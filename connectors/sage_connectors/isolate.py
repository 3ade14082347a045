"""Bisects a refused batch: writes the good items and finds the poison items.

For a server that refuses a batch as a whole: each half is written again until a poison item is
alone. k of n cost about 2 k log2 n requests. Only for idempotent writes, since an item may be sent
several times.

>>> def write(items):
...     if 3 in items:
...         raise BatchRefused("three is too many")
>>> isolate(range(8), write)
[(3, 'three is too many')]
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class BatchRefused(Exception):  # noqa: N818 - always caught by isolate
    """The server refuses these items permanently; the message is its reason."""


def isolate(items: Sequence[T], write: Callable[[Sequence[T]], object]) -> list[tuple[T, str]]:
    """Write all items that can be written; return the others, each with the reason.

    ``write`` raises BatchRefused when it refuses its items, whether or not it stored some of them;
    any other exception ends the work.
    """
    pending, refused = [items], list[tuple[T, str]]()
    while pending:
        part = pending.pop()
        if not part:
            continue
        try:
            write(part)
        except BatchRefused as refusal:
            if len(part) == 1:
                refused.append((part[0], str(refusal)))
            else:
                middle = len(part) // 2
                pending += [part[middle:], part[:middle]]
    return refused
