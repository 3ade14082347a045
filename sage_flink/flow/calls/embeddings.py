"""The bodies of ``POST /v1/embeddings``: texts in, vectors out, each placed and checked.

Vectors travel as base64 of little-endian float32, a quarter of the size of decimal text; an
endpoint that ignores ``encoding_format`` and answers with numbers is read as well.

Source: OpenAI API reference, POST /v1/embeddings.
"""

import binascii
import math
from array import array
from base64 import b64decode
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from sage_flink.common.errors import PoolError

PATH = "/v1/embeddings"
_FLOAT_BYTES = 4


class _Row(msgspec.Struct):
    index: int
    embedding: str | list[float | None]


class _Page(msgspec.Struct):
    data: list[_Row]


_PAGE = msgspec.json.Decoder(_Page)


def request(model: str, texts: Sequence[str]) -> bytes:
    """The request for the vectors of ``texts``, in order."""
    asked: dict[str, Any] = {"model": model, "input": texts, "encoding_format": "base64"}
    return msgspec.json.encode(asked)


def read(model: str, body: bytes, asked: int) -> list[bytes | PoolError]:
    """For each text its vector, or what is wrong with that one vector.

    Wrong with one: there is none, there are two, or it has a number that is not finite.

    Raises:
        PoolError: nothing in the answer can be trusted to stand where it says: it is no page of
            embeddings, names a text that was not asked about, or has too few of them and numbers
            those without a gap.

    >>> read("m", b'{"data": [{"index": 1, "embedding": [0, 1]}]}', 2)[1].hex()
    '000000000000803f'
    """
    try:
        rows = _PAGE.decode(body).data
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PoolError(f"{model}: not a page of embeddings: {error}", status=200) from error
    found: list[bytes | PoolError | None] = [None] * asked
    for row in rows:
        if not 0 <= row.index < asked:
            raise PoolError(
                f"{model}: asked for {asked} vectors, got one of index {row.index}", status=200
            )
        twice = found[row.index] is not None
        found[row.index] = _wrong("two embeddings of this text") if twice else _vector(row)
    gapless = max((row.index for row in rows), default=-1) + 1 == len(rows)
    if len(rows) < asked and gapless and asked > 1:
        raise PoolError(f"{model}: asked for {asked} vectors, got {len(rows)}", status=200)
    none = _wrong(f"no embedding of this text: asked for {asked}, got {len(rows)}")
    return [none if slot is None else slot for slot in found]


def of_one_size(
    slots: Sequence[bytes | PoolError], seen: Counter[int], dim: int = 0
) -> list[bytes | PoolError]:
    """The same, where vectors of another size than the call's are wrong.

    The size is ``dim`` numbers; where that is 0, that of most vectors in ``seen``, which is told
    of these first.
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
    else:  # null is how a JSON writer says NaN
        packed = array("f", (math.nan if n is None else n for n in row.embedding)).tobytes()
    if not packed or len(packed) % _FLOAT_BYTES:
        return _wrong(f"an embedding of {len(packed)} bytes, which are no float32s")
    if not all(map(math.isfinite, array("f", packed))):
        return _wrong("an embedding with a number that is not finite")
    return packed


def _wrong(what: str) -> PoolError:
    return PoolError(f"the answer has {what}", status=200)
