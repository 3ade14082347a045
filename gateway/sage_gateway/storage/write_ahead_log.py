"""What has to outlive ``kill -9`` before it is in a database: one write to the kernel, no waiting.

An entry is appended to a file beside the database by the event loop itself, and safe from then on.
A little later all that has gathered goes into the database together, on its thread. Asking the
thread for each answer instead costs two hand-overs of the interpreter's lock a time: more than
all else that a gateway does for an answer (B4).

The files are segments, ``NAME.journal-N`` with growing N; a segment goes once the database has it,
and what a dead process left is written by the next one before anything is read. They belong to one
process: whoever has the lock on ``NAME.lock``, which the kernel takes back from the dead. No
``fsync``: a power cut may cost the last seconds, as with ``synchronous=NORMAL``.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from sage_flink.common import StoreUnavailable
from sage_gateway.runtime.worker_thread import WorkerThread

log = logging.getLogger("sage.gateway")

E = TypeVar("E")

FLUSH_S = 0.2
RETRY_S = 1.0
BYTES_MAX = 64 << 20
#: Length of the entry, and its checksum.
_FRAME = struct.Struct("<II")
_SEED = 1  # or eight zero bytes, as a crash may leave them, would be an entry


@dataclass(slots=True)
class _Segment(Generic[E]):
    number: int
    path: Path
    fd: int
    entries: list[E] = field(default_factory=list)
    bytes: int = 0


class Journal(Generic[E]):
    """Entries of ``kind`` on their way into the database at ``path``.

    ``write`` puts the entries of one numbered segment into it, on ``thread``; it may be called
    again with a number that it has written, and must then do no harm. ``written`` is told on the
    loop what is in the database now.
    """

    def __init__(
        self,
        path: Path,
        kind: type[E],
        thread: WorkerThread,
        write: Callable[[int, Sequence[E]], None],
        written: Callable[[Sequence[E]], None] = lambda entries: None,
        *,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._path = path
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._thread = thread
        self._write = write
        self._written = written
        self._bytes_max = bytes_max
        self._number = 0
        self._open: _Segment[E] | None = None
        self._ended: deque[_Segment[E]] = deque()
        self._one_at_a_time = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._late = False
        self._recovered = False
        self._lock: int | None = None
        self.bytes_waiting = 0

    def recover(self, last: Callable[[], int] = lambda: 0) -> None:
        """Write what an earlier process left, on the thread, before the first entry.

        ``last`` is the number of the last segment that the database knows to be written.

        Raises:
            OSError, sqlite3.Error: some of it may be written, or another process has it; ask again.
        """
        if self._recovered:  # by another one that waited for the same: the files are ours now
            return
        self._hold()
        after = last()
        found = sorted(self._left())
        for number, path in found:
            self._write(number, list(self._read(path)))
            path.unlink()
        self._number = max([after, *(number for number, _ in found)])
        self._recovered = True

    def append(self, entry: E) -> None:
        """On return it outlives this process.

        Raises:
            StoreUnavailable: the disk takes no more, or too much waits for the database.
        """
        frame = self._encode(entry)
        data = _FRAME.pack(len(frame), zlib.crc32(frame, _SEED)) + frame
        if self.bytes_waiting + len(data) > self._bytes_max:
            waits = f"{self.bytes_waiting} bytes wait to be written"
            raise StoreUnavailable(f"{self._path}: {waits}, {len(data)} more do not fit")
        try:
            segment = self._open or self._begun()
            if os.write(segment.fd, data) < len(data):
                self._end()  # whoever reads it stops at the torn entry
                raise OSError("no room left on the device")
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error
        segment.entries.append(entry)
        segment.bytes += len(data)
        self.bytes_waiting += len(data)
        if self._timer is None:
            self._again(FLUSH_S)

    async def flush(self) -> None:
        """On return the database has all that was appended before.

        Raises:
            StoreUnavailable: it is locked, or the disk is full; the entries stay where they are.
        """
        self._end()
        async with self._one_at_a_time:
            while self._ended:
                segment = self._ended[0]
                await self._thread(self._put, segment)
                self._ended.popleft()
                self.bytes_waiting -= segment.bytes
                self._written(segment.entries)

    async def close(self) -> None:
        """Flush; what cannot be written now stays for the next process."""
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        await self._flushed()
        if self._timer is not None:
            self._timer.cancel()
        if self._lock is not None:
            os.close(self._lock)

    def _hold(self) -> None:
        if self._lock is not None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise OSError(
                f"{self._path} belongs to another gateway that runs; give this one a SAGE_HOME of "
                "its own, or let both share a Redis (`ledger` in pool.yaml)"
            ) from error
        self._lock = lock

    def _begun(self) -> _Segment[E]:
        number = self._number + 1
        path = self._path.with_name(f"{self._path.name}.journal-{number:012d}")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._number = number
        self._open = _Segment(number, path, fd)
        return self._open

    def _end(self) -> None:
        segment, self._open = self._open, None
        if segment is not None:
            os.close(segment.fd)
            self._ended.append(segment)

    def _put(self, segment: _Segment[E]) -> None:
        self._write(segment.number, segment.entries)
        segment.path.unlink(missing_ok=True)

    def _again(self, after_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(after_s, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flushed(), name="journal")

    async def _flushed(self) -> None:
        """As ``flush``; a database that does not answer is told of once, and asked again."""
        try:
            await self.flush()
        except StoreUnavailable as error:
            if not self._late:
                log.warning("%s; what is new waits in the journal beside it", error)
            self._late = True
        else:
            self._late = False
        if (self._ended or self._open) and self._timer is None:
            self._again(RETRY_S if self._late else FLUSH_S)

    def _left(self) -> Iterator[tuple[int, Path]]:
        start = f"{self._path.name}.journal-"
        for path in self._path.parent.glob(f"{start}*"):
            with contextlib.suppress(ValueError):
                yield int(path.name[len(start) :]), path

    def _read(self, path: Path) -> Iterator[E]:
        """The entries of a segment, as far as they are whole."""
        data, at = path.read_bytes(), 0
        while at + _FRAME.size <= len(data):
            size, checksum = _FRAME.unpack_from(data, at)
            frame = data[at + _FRAME.size : at + _FRAME.size + size]
            if len(frame) < size or zlib.crc32(frame, _SEED) != checksum:
                return
            try:
                yield self._decode(frame)
            except msgspec.MsgspecError as error:
                raise OSError(f"{path}: of another version ({error}); move it away") from error
            at += _FRAME.size + size
