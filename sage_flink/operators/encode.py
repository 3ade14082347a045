"""Values into bytes for a topic."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from sage_flink.common.records import Record


@dataclass(frozen=True, slots=True)
class EncodeJson:
    """The value as JSON, UTF-8; the record's id becomes the message's key."""

    def __call__(self, record: Record) -> Iterable[Record]:
        """The message."""
        return (record.replace(value=msgspec.json.encode(record.value), key=record.id.encode()),)
