"""What JSON can say, exactly: the fields of a row are stored as JSON.

>>> json_flaw({"price": 20.5, "tags": ["a"]}), json_flaw({"price": float("nan")})
('', "field 'price' is nan; JSON has no such number")
"""

import math
from collections.abc import Mapping
from typing import Any

from sage_flink.common.value_encoding import short_repr

DEPTH_MAX = 32


def json_flaw(fields: Mapping[str, Any]) -> str:
    """Why the fields are not JSON, naming the field; empty where they are. Whole numbers: 64 bits.

    What libraries write in its place differs: NaN as null or as the word, a time as text or not at
    all; and a store that answers with an error to one row would keep its batch.
    """
    for name, value in fields.items():
        if reason := _name_flaw(name):
            return reason
        if reason := _flaw(value, 1):
            return f"field {name!r} {reason}"
    return ""


def _flaw(value: object, depth: int) -> str:
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, str):
        return "" if is_unicode(value) else "is not Unicode text"
    if isinstance(value, int):
        fits = -(2**63) <= value < 2**63
        return "" if fits else "is a whole number of more than 64 bits"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"is {value}; JSON has no such number"
    if not isinstance(value, Mapping | list | tuple):
        return f"is not JSON but {type(value).__name__}"
    if depth > DEPTH_MAX:
        return f"is nested more than {DEPTH_MAX} deep"
    if isinstance(value, Mapping):
        if reason := next(filter(None, map(_name_flaw, value)), ""):
            return f"holds a {reason}"
        value = tuple(value.values())
    return next(filter(None, (_flaw(item, depth + 1) for item in value)), "")


def _name_flaw(name: object) -> str:
    if not isinstance(name, str):
        return f"name that must be text, got {short_repr(name)}"
    return "" if is_unicode(name) else f"name that is not Unicode text: {name!r:.100}"


def is_unicode(text: str) -> bool:
    """Whether the text has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
