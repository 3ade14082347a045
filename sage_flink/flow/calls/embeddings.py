"""Request and response bodies of ``POST /v1/embeddings``: texts in, checked vectors out.

Vectors travel as base64 of little-endian float32, a quarter of the size of decimal text; an
endpoint that ignores ``encoding_format`` and answers with numbers is read as well.

Source: OpenAI API reference, POST /v1/embeddings.
"""

import binascii
import math
from array import array
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sage_flink.common.errors import PoolError
from sage_flink.flow.call_ports import Pool
from sage_flink.flow.calls.classification import classify

PATH = "/v1/embeddings"
_FLOAT_BYTES = 4


class _Row(msgspec.Struct):
    index: int
    embedding: str | list[float | None]


class _Page(msgspec.Struct):
    data: list[_Row]


_PAGE = msgspec.json.Decoder(_Page)


async def embed(
    pool: Pool, model: str, texts: Sequence[str], headers: Mapping[str, str] | None = None
) -> list[bytes]:
    """One vector per text, in the order given: little-endian float32 bytes. One request.

    Raises:
        PoolError: the pool replied with an error, or without one good vector for each text.
    """
    tried = classify(await pool.post(PATH, request(model, texts), headers or {}))
    if tried.error is not None:
        raise tried.error
    slots = of_one_size(read(model, tried.body, len(texts)), Counter())
    for slot in slots:
        if isinstance(slot, PoolError):
            raise slot
    return [slot for slot in slots if isinstance(slot, bytes)]


def request(model: str, texts: Sequence[str]) -> bytes:
    """The request for the vectors of ``texts``, in order."""
    fields: dict[str, Any] = {"model": model, "input": texts, "encoding_format": "base64"}
    return msgspec.json.encode(fields)


def read(model: str, body: bytes, count: int) -> list[bytes | PoolError]:
    """For each of the ``count`` texts its vector, or the error in that one vector.

    A vector is wrong when it is missing, repeated, or has a number that is not finite.

    Raises:
        PoolError: no position in the response can be trusted: the body is not a page of
            embeddings, has an index out of range, or has too few vectors and numbers them without
            a gap.

    >>> read("m", b'{"data": [{"index": 1, "embedding": [0, 1]}]}', 2)[1].hex()
    '000000000000803f'
    """
    try:
        rows = _PAGE.decode(body).data
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PoolError(f"{model}: not a page of embeddings: {error}", status=200) from error
    found: list[bytes | PoolError | None] = [None] * count
    for row in rows:
        if not 0 <= row.index < count:
            raise PoolError(
                f"{model}: asked for {count} vectors, got one of index {row.index}", status=200
            )
        twice = found[row.index] is not None
        found[row.index] = _wrong("two embeddings of this text") if twice else _vector(row)
    gapless = max((row.index for row in rows), default=-1) + 1 == len(rows)
    if len(rows) < count and gapless and count > 1:
        raise PoolError(f"{model}: asked for {count} vectors, got {len(rows)}", status=200)
    missing = _wrong(f"no embedding of this text: asked for {count}, got {len(rows)}")
    return [missing if slot is None else slot for slot in found]


def of_one_size(
    slots: Sequence[bytes | PoolError], seen: Counter[int], dim: int = 0
) -> list[bytes | PoolError]:
    """The same slots, with an error in place of each vector of another size.

    The size is ``dim`` numbers; where that is 0, the most frequent one in ``seen``, to which these
    vectors are added first.
    """
    seen.update(len(slot) for slot in slots if isinstance(slot, bytes))
    if not seen:
        return list(slots)
    right = dim * _FLOAT_BYTES or seen.most_common(1)[0][0]
    return [
        slot
        if isinstance(slot, PoolError) or len(slot) == right
        else _wrong(
            f"an embedding of dimension {len(slot) // _FLOAT_BYTES}, not {right // _FLOAT_BYTES}"
        )
        for slot in slots
    ]


def _vector(row: _Row) -> bytes | PoolError:
    if isinstance(row.embedding, str):
        try:
            packed = b64decode(row.embedding, validate=True)
        except binascii.Error:
            return _wrong("an embedding that is not base64")
    else:  # JSON writers put null in place of NaN
        packed = array("f", (math.nan if n is None else n for n in row.embedding)).tobytes()
    if not packed or len(packed) % _FLOAT_BYTES:
        return _wrong(f"an embedding of {len(packed)} bytes, which are no float32s")
    if not all(map(math.isfinite, array("f", packed))):
        return _wrong("an embedding with a number that is not finite")
    return packed


def _wrong(what: str) -> PoolError:
    return PoolError(f"the answer has {what}", status=200)
