"""Places and values of a filter: what they may be, how they are found in a row and compared.

Source: JSON pointer (RFC 6901) for places.
"""

import keyword
import math
import operator
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from sage_flink.common.errors import Rejected
from sage_flink.db.json_fields import is_unicode
from sage_flink.db.vectors import LABELS_BYTES_MAX

Scalar = str | int | float | bool
#: The name of a field, and the keys and indexes that lead into its value.
Place = tuple[str | int, ...]

TEXT_BYTES_MAX = 65_535
#: What is at a place where a row has nothing; null is a value.
ABSENT: Any = object()
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
#: Words of the text form; a field of such a name is written ``field("in")``.
RESERVED = frozenset({"true", "false"})


def check_place(place: Place) -> None:
    """Raise Rejected where no row can have a value there."""
    name, *keys = place
    if not isinstance(name, str) or not name or not is_unicode(name):
        raise Rejected(f"filter: a field's name must be text, got {name!r:.100}")
    if name == "vector":
        raise Rejected("filter: 'vector' is searched for, not compared")
    if keys and (name == "id" or name in LABELS_BYTES_MAX):
        raise Rejected(f"filter: {name!r} is text, it has no place {keys[0]!r:.100}")
    for key in keys:
        index = isinstance(key, int) and not isinstance(key, bool) and 0 <= key < 2**31
        if not index and not (isinstance(key, str) and is_unicode(key)):
            raise Rejected(f"filter: a place must be a name or an index from 0, got {key!r:.100}")


def check_value(value: object, what: str) -> None:
    """Raise Rejected where no field of a row can have the value."""
    if isinstance(value, str):
        if not is_unicode(value):
            raise Rejected(f"filter: {what}: the value is not Unicode text: {value!r:.100}")
        if (size := len(value.encode())) > TEXT_BYTES_MAX:
            raise Rejected(f"filter: {what}: at most {TEXT_BYTES_MAX} bytes of text, got {size}")
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise Rejected(f"filter: {what}: a whole number has 64 bits, got {value!r:.100}")
    elif not isinstance(value, float):
        got = "null" if value is None else type(value).__name__
        raise Rejected(f"filter: {what}: a value is text, a number, true or false, got {got}")
    elif not math.isfinite(value):
        raise Rejected(f"filter: {what}: a number must be finite, got {value}")


def value_at(row: Mapping[str, Any], place: Place) -> Any:
    """The value at a place of a row, or ABSENT.

    >>> value_at({"tags": ["a", "b"]}, ("tags", 1)), value_at({"tags": "ab"}, ("tags", 1)) is ABSENT
    ('b', True)
    """
    name, *keys = place
    found = row.get(str(name), ABSENT)
    if found == "" and name in LABELS_BYTES_MAX:
        return ABSENT
    for key in keys:
        if isinstance(found, Mapping):
            found = found.get(str(key), ABSENT)
        elif isinstance(found, list | tuple) and _is_index(key) and int(key) < len(found):
            found = found[int(key)]
        else:
            return ABSENT
    return found


def compare(found: object, symbol: str, value: Scalar) -> bool:
    """Whether two values of one type compare so; a whole number and another one as 64-bit floats.

    >>> compare(1, "==", 1.0), compare(1, "==", True), compare("a", "<", "b")
    (True, False, True)
    """
    if not same_type(found, value):
        return False
    if type(found) is not type(value):
        found, value = float(found), float(value)  # type: ignore[arg-type]
    return bool(OPERATORS[symbol](found, value))


def same_type(found: object, value: Scalar) -> bool:
    """Whether the two can be compared: both text, both numbers, or both true or false."""
    if isinstance(value, str):
        return isinstance(found, str)
    if isinstance(value, bool):
        return isinstance(found, bool)
    return isinstance(found, int | float) and not isinstance(found, bool)


def place_text(place: Place) -> str:
    """A place in the text form.

    >>> place_text(("meta", "first name", 0)), place_text(("in",))
    ('meta["first name"][0]', 'field("in")')
    """
    name, *keys = place
    plain = is_plain(str(name))
    start = str(name) if plain else f"field({value_text(str(name))})"
    return start + "".join(f"[{value_text(key)}]" for key in keys)


def is_plain(name: str) -> bool:
    """Whether the text form can have the name as it is; Python changes some letters of names."""
    reserved = keyword.iskeyword(name) or name in RESERVED
    return name.isidentifier() and not reserved and unicodedata.normalize("NFKC", name) == name


def value_text(value: Scalar) -> str:
    """A value in the text form, which is JSON."""
    return orjson.dumps(value).decode()


def pattern_parts(pattern: str) -> list[str]:
    r"""A LIKE pattern in pieces: plain text, and its wildcards ``%`` and ``_`` as themselves.

    Plain text that is one of them keeps its backslash.

    >>> pattern_parts(r"a%50\%_")
    ['a', '%', '50', '\\%', '_']
    """
    return re.findall(r"\\[\s\S]|\\$|[%_]|[^\\%_]+", pattern)


def plain_text(part: str) -> str:
    """What a piece of a pattern means, without its backslash."""
    return part[1:] if part.startswith("\\") and len(part) > 1 else part


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """The regular expression of a LIKE pattern.

    Of each ``%`` the shortest text is taken that what follows allows, and never another one, so
    that the time is bounded; only after the last ``%`` the end decides.
    """
    pieces = [""]
    for part in pattern_parts(pattern):
        if part == "%":
            pieces.append("")
        else:
            pieces[-1] += "." if part == "_" else re.escape(plain_text(part))
    first, *others = pieces
    if not others:
        return re.compile(first, re.DOTALL)
    *middle, last = others
    atomic = "".join(f"(?>.*?{piece})" for piece in middle)
    return re.compile(f"{first}{atomic}.*{last}", re.DOTALL)


def _is_index(key: str | int) -> bool:
    if isinstance(key, int):
        return True
    return len(key) < 10 and key.isdecimal() and str(int(key)) == key
