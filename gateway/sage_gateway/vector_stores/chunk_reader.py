"""Process that reads the file on its input and writes its chunks to its output, a JSON text a line.

``argv``: the file's name, the tokens of a chunk, those that neighbours share, the tokenizer. With
exit code ``REFUSED`` the output is one line: a ``LastError``. The output is written after the whole
file is read, so that a file is split as a whole or not at all.
"""

import json
import os
import resource
import sys
from collections.abc import Iterator

from sage_connectors.documents import SUFFIXES, FilePart, documents
from sage_connectors.documents.parts import suffix_of
from sage_flink.common import ConfigError, Record, Rejected
from sage_flink.operators import Chunk
from sage_gateway.vector_stores.reader_limits import (
    CPU_S_MAX,
    MEMORY_BYTES_MAX,
    NICENESS,
    REFUSED,
    TOKENS_MAX,
)


def main() -> None:
    """Read, split and write."""
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    # At the second limit the signal is SIGKILL, which has many other causes.
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX + 10))
    name, tokens_max, overlap, tokenizer = sys.argv[1:]
    split = Chunk(int(tokens_max), int(overlap), tokenizer)
    try:
        lines = list(chunk_lines(name, sys.stdin.buffer.read(), split))
        if not lines:
            raise Rejected(f"{name}: the file holds no text")
    except Rejected as error:
        known = suffix_of(name) in SUFFIXES
        _refuse("invalid_file" if known else "unsupported_file", str(error))
    except MemoryError:
        _refuse("invalid_file", f"{name}: needs more than {MEMORY_BYTES_MAX >> 30} GiB to be read")
    except ConfigError as error:
        _refuse("server_error", str(error))
    else:
        sys.stdout.buffer.writelines(lines)


def chunk_lines(name: str, data: bytes, split: Chunk) -> Iterator[bytes]:
    """The lines of the chunks, in the order of the text.

    Raises:
        Rejected: the file or a part of it cannot be read, or it is too long.
        ConfigError: the tokenizer or a package is missing.
    """
    tokens = 0
    for document in documents(name, data):
        if isinstance(document, FilePart):
            raise Rejected(document.reason)
        fields = {"doc": document["id"], "title": document["title"], "text": document["text"]}
        for chunk in split(Record(document["id"], fields)):
            if isinstance(chunk, Record):  # the delete of other versions, which the caller does
                continue
            tokens += chunk["tokens"]
            if tokens > TOKENS_MAX:
                raise Rejected(f"{name}: more than {TOKENS_MAX:,} tokens; attach it in parts")
            yield json.dumps({"title": chunk["title"], "text": chunk["text"]}).encode() + b"\n"


def _refuse(code: str, message: str) -> None:
    print(json.dumps({"code": code, "message": message}))
    sys.exit(REFUSED)


if __name__ == "__main__":
    main()
