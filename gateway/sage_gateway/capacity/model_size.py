"""Model size on disk, and KV-cache bytes per token, from ``config.json`` or GGUF metadata.

A folder in Hugging Face's layout has ``config.json``, a GGUF file its metadata (source: the GGUF
specification, ggml/docs/gguf.md). Without either it is 0: what is not known is not counted.
"""

import json
import struct
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

KV_BYTES = 2 * 2  # keys and values, 16 bits
PAIRS_MAX = FILES_MAX = 4096
TEXT_BYTES_MAX = 1 << 20
_NUMBERS: Mapping[int, str] = dict(
    enumerate(("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?", "", "", "<Q", "<q", "<d"))
)
_TEXT, _ARRAY = 8, 9


def size_bytes(source: Path) -> int:
    """The size of a file, or of the first ``FILES_MAX`` files in a folder."""
    if source.is_dir():
        files = islice(source.rglob("*"), FILES_MAX)
        return sum(file.stat().st_size for file in files if file.is_file())
    return source.stat().st_size


def kv_bytes(source: Path) -> int:
    """The KV cache of one token, 0 if it is not known."""
    try:
        if source.is_dir():
            return _kv_bytes_in_config(json.loads((source / "config.json").read_bytes()))
        with source.open("rb") as file:
            return _kv_bytes_in_gguf(metadata(file))
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return 0


def _kv_bytes_in_config(page: Mapping[str, Any]) -> int:
    heads = page["num_attention_heads"]
    size = page.get("head_dim") or page["hidden_size"] // heads
    return int(page["num_hidden_layers"] * (page.get("num_key_value_heads") or heads) * size) * (
        KV_BYTES
    )


def _kv_bytes_in_gguf(found: Mapping[str, Any]) -> int:
    kind = found["general.architecture"]
    heads = found[f"{kind}.attention.head_count"]
    size = found.get(f"{kind}.attention.key_length") or found[f"{kind}.embedding_length"] // heads
    kv_heads = found.get(f"{kind}.attention.head_count_kv") or heads
    return int(found[f"{kind}.block_count"] * kv_heads * size) * KV_BYTES


def metadata(file: BinaryIO) -> dict[str, Any]:
    """The numbers and texts of a GGUF file's header; lists are left out.

    Raises:
        ValueError, struct.error: it is not a GGUF file.
    """
    if file.read(4) != b"GGUF":
        raise ValueError("no GGUF file")
    _, _, count = struct.unpack("<IQQ", file.read(20))
    if count > PAIRS_MAX:
        raise ValueError(f"{count} pairs")
    found = {}
    for _ in range(count):
        name = _text(file)
        found[name] = _value(file, _number(file, "<I"))
    return found


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _TEXT:
        return _text(file)
    if kind != _ARRAY:
        return _number(file, _NUMBERS[kind])
    inner, length = _number(file, "<I"), _number(file, "<Q")
    if inner == _TEXT:
        for _ in range(length):
            file.seek(_number(file, "<Q"), 1)
    else:
        file.seek(struct.calcsize(_NUMBERS[inner]) * length, 1)
    return None


def _text(file: BinaryIO) -> str:
    length = _number(file, "<Q")
    if length > TEXT_BYTES_MAX:
        raise ValueError(f"a text of {length} bytes")
    return file.read(length).decode("utf-8", "replace")


def _number(file: BinaryIO, shape: str) -> Any:
    return struct.unpack(shape, file.read(struct.calcsize(shape)))[0]
