"""Chunks of an uploaded file, read by a process of its own.

A broken or hostile file may take its reader minutes or all memory, or crash it; and a reader in the
gateway's own process would stop every request while it holds the interpreter.
"""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from sage_gateway.engines.process import tether_command
from sage_gateway.vector_stores.reader_limits import CPU_S_MAX, REFUSED
from sage_gateway.vector_stores.schema import ErrorCode, LastError

#: A busy machine gives a process of low priority a part of its time.
READ_S_MAX = 2.0 * CPU_S_MAX
#: Those of a machine that is stopped or out of memory; a crash has others.
FOREIGN_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
#: Of one request for vectors.
BATCH_TEXTS, BATCH_BYTES = 64, 1 << 20
TITLE_CHARS_MAX = 200
#: A reader of files that tenants upload has no secrets in its environment.
ENVIRONMENT = ("PATH", "PYTHONPATH", "HOME", "TMPDIR", "LANG", "SAGE_HOME", "SAGE_CACHE")


class FileFailed(Exception):  # noqa: N818 - named by what happened
    """A file that cannot be indexed; ``reason`` is for its owner."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.reason = LastError(code=code, message=message)


@dataclass(frozen=True, slots=True)
class Split:
    """How a file is split, in tokens of ``tokenizer``: a folder of the folder ``models``."""

    tokens_max: int
    overlap: int
    tokenizer: str
    models: Path


class FileChunk(msgspec.Struct, frozen=True):
    """A piece of a document's text, and the title of the document."""

    title: str
    text: str

    @property
    def embedding_text(self) -> str:
        """The text that is embedded: with the title a chunk from the middle keeps its topic."""
        return f"{self.title[:TITLE_CHARS_MAX]}\n{self.text}"


_CHUNK = msgspec.json.Decoder(FileChunk)


async def read_chunks(source: Path, name: str, split: Split, folder: Path) -> BinaryIO:
    """The chunks of the file ``source``, called ``name``, as lines of a temporary file.

    The caller closes it. It lies in ``folder``, without a name, so that no crash leaves it there.

    Raises:
        FileFailed: the file cannot be read.
        OSError: it is not there, or no process can be started.
        RuntimeError: the process was ended from outside; the same call may succeed later.
    """
    lines = _temporary_file(folder)
    try:
        code = await _run(source, "".join(filter(str.isprintable, name)), split, lines)
        lines.seek(0)
        require_success(code, lines)
    except BaseException:
        lines.close()
        raise
    return lines


def batches(lines: BinaryIO) -> Iterator[list[FileChunk]]:
    """The chunks in batches for one request each; the same for the same lines."""
    batch: list[FileChunk] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == BATCH_TEXTS or size + len(line) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(_CHUNK.decode(line))
        size += len(line)
    if batch:
        yield batch


def require_success(code: int, output: BinaryIO) -> None:
    """Check the exit code of the reader; its output has the reason of a refusal.

    Raises:
        FileFailed, RuntimeError: as :func:`read_chunks`.
    """
    if code == REFUSED:
        reason = LastError.model_validate_json(output.readline())
        raise FileFailed(reason.code, reason.message)
    if -code in FOREIGN_SIGNALS:
        raise RuntimeError(f"the reader of a file was ended by signal {-code}")
    if code == -signal.SIGXCPU:
        raise FileFailed("invalid_file", f"reading the file takes more than {CPU_S_MAX} s")
    if code:
        crashed = code < 0
        message = f"the reader of this file ended with exit code {code}"
        raise FileFailed("invalid_file" if crashed else "server_error", message)


async def _run(source: Path, name: str, split: Split, output: BinaryIO) -> int:
    """The exit code of the reader; its messages go to the gateway's log."""
    line = [sys.executable, "-m", "sage_gateway.vector_stores.chunk_reader", name]
    line = tether_command([*line, str(split.tokens_max), str(split.overlap), split.tokenizer])
    env = {key: os.environ[key] for key in ENVIRONMENT if key in os.environ}
    # Else its tokenizer would start a thread for each core.
    env |= {"SAGE_MODELS": str(split.models), "RAYON_NUM_THREADS": "1"}
    with _open(source) as file:
        process = await asyncio.create_subprocess_exec(*line, stdin=file, stdout=output, env=env)
    try:
        async with asyncio.timeout(READ_S_MAX):
            return await process.wait()
    except TimeoutError as error:
        message = f"reading the file takes more than {READ_S_MAX:g} s"
        raise FileFailed("invalid_file", message) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _temporary_file(folder: Path) -> BinaryIO:
    return tempfile.TemporaryFile(dir=folder)


def _open(source: Path) -> BinaryIO:
    return source.open("rb")
