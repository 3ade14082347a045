"""Vectors in the fields of records: bytes of little-endian float32, or a list of numbers. Pure.

>>> similarity(unit_vector([3, 4]), unit_vector([6, 8]))
1.0
"""

import math
import struct
from collections.abc import Sequence
from operator import mul
from typing import Any

from sage_flink.common.errors import Rejected

#: Rounding of float32 unit vectors: a similarity this much below a threshold reaches it.
ROUNDING = 1e-6


def unit_vector(value: Any, dim: int = 0) -> tuple[float, ...]:
    """The vector with length 1; of ``dim`` numbers where that is not 0.

    Raises:
        Rejected: it is not one; the message says what is wrong, behind the name of the field.
    """
    numbers = _numbers(value)
    if dim and len(numbers) != dim:
        raise Rejected(f"must be a vector of {dim} numbers, got {len(numbers)}")
    length = math.sqrt(sum(number * number for number in numbers))
    if not math.isfinite(length) or not length:
        raise Rejected("must be a vector with a direction: finite numbers, not all of them 0")
    return tuple(number / length for number in numbers)


def similarity(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine similarity of two unit vectors of as many numbers."""
    return math.fsum(map(mul, one, other))


def _numbers(value: Any) -> Sequence[float]:
    if isinstance(value, bytes) and value and len(value) % 4 == 0:
        return struct.unpack(f"<{len(value) // 4}f", value)
    if isinstance(value, list) and value and all(map(_is_number, value)):
        return value
    raise Rejected("must be a vector: float32 bytes or a list of numbers")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
