"""What of a record is compared with the requests before it."""

import struct
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record
from sage_flink.flow.call_options import Merging
from sage_flink.flow.merging.words import counted_words
from sage_flink.flow.stateful.fields import read_field
from sage_flink.flow.vectors import unit_vector

#: Whose answers are never shared: two tenants, or an urgent request that would wait for another.
_APART = ("x-sage-tenant", "x-sage-priority")


class MergeKey(NamedTuple):
    """Requests of one ``group`` whose unit vectors (float32) are near share an answer."""

    group: bytes
    vector: bytes


def merge_key(merging: Merging, record: Record, headers: Mapping[str, str]) -> MergeKey:
    """The key of a request with these headers.

    Raises:
        Rejected: the record has no text or no vector.
    """
    text = read_field(record.value, merging.text)
    if not isinstance(text, str):
        raise Rejected(f"its field {merging.text!r} must be text: requests are merged by it")
    try:
        vector = unit_vector(read_field(record.value, merging.vector))
    except Rejected as flaw:
        raise Rejected(f"its field {merging.vector!r} {flaw}; embed it before the call") from flaw
    apart = [headers.get(name, "") for name in _APART]
    # Not of the vector's length alone: two lengths cannot be compared.
    parts = (*apart, record.key, len(vector), *counted_words(text))
    group = blake2b(msgspec.msgpack.encode(parts), digest_size=16).digest()
    return MergeKey(group, struct.pack(f"<{len(vector)}f", *vector))
