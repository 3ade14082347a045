"""Vectors as bytes and as numbers, and what is wrong with one. Pure.

>>> numbers(pack([1.0, 2.0]))
(1.0, 2.0)
>>> flaw(pack([1.0, float("nan")]), dim=2)
'vector holds a number that is not finite'
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from sage_flink.common.errors import Rejected

#: What one search may ask for; Milvus's own limit.
TOP_K_MAX = 16_384
#: In how many of the best rows a search by document looks for documents.
GROUPED_ROWS_MAX = 4_096
#: The fields that rows are deleted by.
LABELS_BYTES_MAX = {"doc": 4096, "version": 256}


def pack(vector: Sequence[float]) -> bytes:
    """The vector as little-endian float32."""
    return struct.pack(f"<{len(vector)}f", *vector)


def numbers(vector: bytes) -> tuple[float, ...]:
    """The numbers of a vector of little-endian float32."""
    return struct.unpack(f"<{len(vector) // 4}f", vector)


def flaw(vector: bytes, *, dim: int) -> str:
    """Why a collection of ``dim`` cannot hold the vector; empty when it can."""
    if len(vector) != 4 * dim:
        return f"vector must be {dim} float32 ({4 * dim} bytes), got {len(vector)} bytes"
    values = numbers(vector)
    if not all(map(math.isfinite, values)):
        return "vector holds a number that is not finite"
    if not any(values):
        return "vector is all zeros, and cosine similarity needs a direction"
    return ""


def labels_flaw(fields: Mapping[str, Any]) -> str:
    """Why rows cannot be deleted by these ``doc`` and ``version``; empty when they can."""
    for name, bytes_max in LABELS_BYTES_MAX.items():
        got = fields.get(name, "")
        if not isinstance(got, str):
            return f"field {name!r} must be text, got {type(got).__name__}"
        try:
            size = len(got.encode())
        except UnicodeEncodeError:
            return f"field {name!r} is not Unicode text: {got!r:.100}"
        if size > bytes_max:
            return f"field {name!r} must have at most {bytes_max} bytes, got {size}"
    return ""


def require_top_k(top_k: int) -> None:
    """Check that one search may ask for this many rows.

    Raises:
        Rejected: it may not.
    """
    if not 1 <= top_k <= TOP_K_MAX:
        raise Rejected(f"search: top_k must be 1 to {TOP_K_MAX}, got {top_k}")


def query_vector(vector: Sequence[float], top_k: int, *, dim: int) -> bytes:
    """The packed vector to search for.

    Raises:
        Rejected: it does not fit the collection, or ``top_k`` is out of range.
    """
    require_top_k(top_k)
    if len(vector) != dim:
        raise Rejected(f"search: vector must have {dim} numbers, got {len(vector)}")
    try:
        data = pack(vector)
    except (struct.error, OverflowError) as error:
        raise Rejected(f"search: vector does not fit float32: {error}") from error
    if reason := flaw(data, dim=dim):
        raise Rejected(f"search: {reason}")
    return data
