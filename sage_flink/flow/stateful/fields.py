"""Fields of a record's value, named by their path.

>>> read_field({"order": {"total": 3}}, "order.total")
3
>>> read_field({"order": "x"}, "order.total") is None
True
"""

from typing import Any

from sage_flink.common.validation import require


def read_field(value: Any, path: str) -> Any:
    """The value at ``path``; None where it is missing, or below something other than a map.

    The empty path is the value itself.
    """
    for name in path.split(".") if path else ():
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def require_path(where: str, name: str, got: object, *, may_be_empty: bool = False) -> None:
    """Check that ``got`` is a path: names joined by dots.

    Raises:
        PipelineError: it is not.
    """
    is_text = isinstance(got, str)
    names = str(got).split(".")
    fits = is_text and (all(names) or (may_be_empty and got == ""))
    require(fits, where, name, "the path of a field, such as 'order.total'", got)
