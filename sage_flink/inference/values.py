"""The fields of a record's value."""

from collections.abc import Mapping
from typing import Any

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record


def fields_of(record: Record) -> Mapping[str, Any]:
    """The record's value as named fields.

    Raises:
        Rejected: the value is not a mapping.
    """
    if not isinstance(record.value, Mapping):
        raise Rejected(f"the value must be named fields, got {type(record.value).__name__}")
    return record.value
