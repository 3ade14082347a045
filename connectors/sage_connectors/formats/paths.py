"""Paths into a message: the singular queries of JSONPath (RFC 9535, section 2.3.5.1).

A path is ``$`` (the message) or ``@`` (the element of an exploded array, else the message), with
any number of ``.name``, ``['name']`` or ``[index]``; a negative index counts from the end. So a
path names one value at most. Wildcards, slices, ``..`` and filters are no part of it.

>>> path = Path.parse("$.order.lines[0]['unit price']")
>>> path.find({"order": {"lines": [{"unit price": 3}]}})
3
>>> path.find({"order": None}) is MISSING
True
"""

import re
from dataclasses import dataclass
from typing import Any

from sage_flink.common.errors import ConfigError

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING"})()
SYNTAX = "a path such as $.order.id, $['unit price'] or $.lines[0]; @ is an array's element"

_STEP = re.compile(
    r"""\.(?P<name>[^\W\d][\w]*)
      | \[\s*(?P<index>0|-?[1-9][0-9]*)\s*\]
      | \[\s*'(?P<single>(?:[^'\\]|\\.)*)'\s*\]
      | \[\s*"(?P<double>(?:[^"\\]|\\.)*)"\s*\]""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Path:
    """``of_element``: whether it starts with ``@``."""

    of_element: bool
    steps: tuple[str | int, ...]

    @classmethod
    def parse(cls, text: str) -> "Path":
        """The path that ``text`` spells.

        Raises:
            ConfigError: it is not a path.
        """
        if not isinstance(text, str) or text[:1] not in ("$", "@"):
            raise ConfigError(f"must be {SYNTAX}, got {text!r:.200}")
        steps: list[str | int] = []
        at = 1
        while at < len(text):
            found = _STEP.match(text, at)
            if found is None:
                raise ConfigError(f"must be {SYNTAX}; in {text!r:.200} {text[at:]!r} is none")
            steps.append(_step(found))
            at = found.end()
        return cls(text[0] == "@", tuple(steps))

    def find(self, root: Any) -> Any:
        """The value at this path below ``root``; MISSING where there is none."""
        found = root
        for step in self.steps:
            if isinstance(step, str):
                found = found.get(step, MISSING) if isinstance(found, dict) else MISSING
            else:
                in_list = isinstance(found, list) and -len(found) <= step < len(found)
                found = found[step] if in_list else MISSING
        return found


def _step(found: "re.Match[str]") -> str | int:
    if found["index"] is not None:
        return int(found["index"])
    if found["name"] is not None:
        return found["name"]
    quoted = found["single"] if found["single"] is not None else found["double"]
    return re.sub(r"\\(.)", r"\1", quoted)
