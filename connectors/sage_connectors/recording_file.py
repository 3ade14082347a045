"""The file of a recorded topic: messages with their arrival, compressed, readable while it grows.

It is gzip of frames, each the length of a MessagePack value in four bytes and the value: a
:class:`Recording`, then :class:`RecordedMessage` by arrival. It is written as messages come, so the
file of a recorder that was killed has all but the last second, and is found incomplete when read.
"""

import gzip
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from sage_flink.common.errors import ConfigError

MAGIC, VERSION = "sage topic recording", 1
FRAME_BYTES_MAX = 256 << 20
COMPRESSION_LEVEL = 3
FLUSH_S = 1.0


class Recording(msgspec.Struct, array_like=True, frozen=True):
    """The head of a recording."""

    magic: str
    version: int
    topic: str
    partitions: int
    started_ms: int


class RecordedMessage(msgspec.Struct, array_like=True, frozen=True):
    """A message. ``arrival_us`` since the epoch; ``timestamp_ms`` is -1 where it has none."""

    partition: int
    offset: int
    arrival_us: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


@dataclass(slots=True)
class RecordingWriter:
    """Writes a recording, which may be read while it grows.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """

    path: Path
    head: Recording
    messages: int = 0
    _file: Any = field(init=False, repr=False)
    _flushed_s: float = field(init=False, default=0.0)

    def __enter__(self) -> Self:
        try:
            self._file = gzip.GzipFile(self.path, "xb", COMPRESSION_LEVEL)
        except FileExistsError:
            raise ConfigError(f"{self.path} exists; give another name, or delete it") from None
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from error
        self._frame(self.head)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, message: RecordedMessage) -> None:
        """Append a message."""
        self._frame(message)
        self.messages += 1

    def flush(self) -> None:
        """What was written is in the file; at most once a second."""
        if time.monotonic() - self._flushed_s >= FLUSH_S:
            self._file.flush()
            self._flushed_s = time.monotonic()

    def _frame(self, value: msgspec.Struct) -> None:
        data = msgspec.msgpack.encode(value)
        self._file.write(len(data).to_bytes(4, "big") + data)


@dataclass(slots=True)
class RecordingReader:
    """Reads a recording; ``complete`` is false behind the last message of one that was cut short.

    Raises:
        ConfigError: the file cannot be read, or is no recording.
    """

    path: Path
    head: Recording = field(init=False)
    complete: bool = field(init=False, default=True)
    _file: Any = field(init=False, repr=False)

    def __enter__(self) -> Self:
        try:
            self._file = gzip.open(self.path, "rb")
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}") from error
        try:
            self.head = msgspec.msgpack.decode(self._frame() or b"", type=Recording)
        except (msgspec.DecodeError, OSError) as error:
            self._file.close()
            raise self._no_recording() from error
        if (self.head.magic, self.head.version) != (MAGIC, VERSION):
            self._file.close()
            raise self._no_recording()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[RecordedMessage]:
        decode = msgspec.msgpack.Decoder(RecordedMessage).decode
        while (data := self._frame()) is not None:
            try:
                yield decode(data)
            except msgspec.DecodeError as error:
                raise self._no_recording() from error

    def _frame(self) -> bytes | None:
        """The next value; None at the end."""
        try:
            if not (head := self._read(4)):
                return None
            if (size := int.from_bytes(head, "big")) > FRAME_BYTES_MAX:
                raise self._no_recording()
            return self._read(size)
        except (EOFError, zlib.error):
            self.complete = False
            return None

    def _read(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        if data and len(data) < size:
            raise EOFError
        return data

    def _no_recording(self) -> ConfigError:
        return ConfigError(
            f"{self.path} is not a recording, or was changed; "
            "make one with `sage topics record TOPIC FILE`"
        )
