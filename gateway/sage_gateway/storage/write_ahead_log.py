"""Write-ahead log in front of a SQLite file: an entry survives ``kill -9`` after one write().

The event loop appends an entry to a file next to the database; from then on the kernel has it.
Every ``FLUSH_S`` the worker thread commits the new entries to the database together. A trip to the
thread for each answer instead costs two hand-overs of the interpreter's lock: more than everything
else that a gateway does for an answer (B4).

The files are segments, ``NAME.journal-N`` with growing N; a segment is deleted once the database
has it. Segments of a dead process are committed by the next process before it reads anything. They
belong to one process: the one that holds the lock on ``NAME.lock``, which the kernel releases when
the process dies. Without ``fsync`` a power cut may lose the last seconds, as with SQLite's
``synchronous=NORMAL``.

**Why not LMDB**, with one commit per answer on the loop and no worker thread. Measured with 5,000
answers/s of 2 KiB, evicting, MDB_NOSYNC, on a loop that also computes (two shared cores, mean of
two runs); microseconds of the loop per answer, and of CPU of the whole process:

====================  ====  ====  =====  =======  ===
store                  p50   p99  p99.9  average  CPU
====================  ====  ====  =====  =======  ===
this log and SQLite     16   180  7,200       49   93
LMDB, key = sequence    35   185  1,400       45   89
LMDB, key = hash        56   200  2,300       70  107
====================  ====  ====  =====  =======  ===

LMDB is about as fast on the whole, and safe from ``kill -9`` too. But without sync a power cut may
corrupt the whole LMDB file, where SQLite loses the last seconds; a truncated LMDB file ends the
process with SIGBUS, where SQLite reports an error that the gateway can handle.
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
_SEED = 1  # with 0, eight zero bytes, as a crash may leave them, would be a valid entry


@dataclass(slots=True)
class _Segment(Generic[E]):
    number: int
    path: Path
    fd: int
    entries: list[E] = field(default_factory=list)
    bytes: int = 0


class WriteAheadLog(Generic[E]):
    """Entries of type ``entry_type`` that the database at ``path`` does not have yet.

    ``write`` commits the entries of one numbered segment, on ``thread``. It may be called again
    with a number that it has committed, and must then change nothing. ``on_written`` is called on
    the loop with the entries that the database now has.
    """

    def __init__(
        self,
        path: Path,
        entry_type: type[E],
        thread: WorkerThread,
        write: Callable[[int, Sequence[E]], None],
        on_written: Callable[[Sequence[E]], None] = lambda entries: None,
        *,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._path = path
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(entry_type).decode
        self._thread = thread
        self._write = write
        self._on_written = on_written
        self._bytes_max = bytes_max
        self._number = 0
        self._active: _Segment[E] | None = None
        self._sealed: deque[_Segment[E]] = deque()
        self._flush_lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._failing = False
        self._recovered = False
        self._lock: int | None = None
        self.bytes_waiting = 0

    def recover(self, last_written: Callable[[], int] = lambda: 0) -> None:
        """Commit the segments of an earlier process. Runs on the thread, before the first entry.

        ``last_written`` is the number of the last segment that the database knows to have.

        Raises:
            OSError, sqlite3.Error: some may be committed, or another process has the lock; call
                it again.
        """
        if self._recovered:  # by a concurrent call: the files are this process's by now
            return
        self._acquire_lock()
        after = last_written()
        found = sorted(self._leftover_segments())
        for number, path in found:
            self._write(number, list(self._read(path)))
            path.unlink()
        self._number = max([after, *(number for number, _ in found)])
        self._recovered = True

    def append(self, entry: E) -> None:
        """Add an entry. On return it survives ``kill -9`` of this process.

        Raises:
            StoreUnavailable: the disk is full, or too many bytes wait for the database.
        """
        frame = self._encode(entry)
        data = _FRAME.pack(len(frame), zlib.crc32(frame, _SEED)) + frame
        if self.bytes_waiting + len(data) > self._bytes_max:
            waiting = f"{self.bytes_waiting} bytes wait to be written"
            raise StoreUnavailable(f"{self._path}: {waiting}, {len(data)} more do not fit")
        try:
            segment = self._active or self._new_segment()
            if os.write(segment.fd, data) < len(data):
                self._seal()  # recovery stops at the torn entry
                raise OSError("no room left on the device")
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error
        segment.entries.append(entry)
        segment.bytes += len(data)
        self.bytes_waiting += len(data)
        if self._timer is None:
            self._schedule(FLUSH_S)

    async def flush(self) -> None:
        """Commit all entries. On return the database has those that were appended before.

        Raises:
            StoreUnavailable: it is locked, or the disk is full; the entries stay in the log.
        """
        self._seal()
        async with self._flush_lock:
            while self._sealed:
                segment = self._sealed[0]
                await self._thread(self._commit, segment)
                self._sealed.popleft()
                self.bytes_waiting -= segment.bytes
                self._on_written(segment.entries)

    async def close(self) -> None:
        """Flush; entries that cannot be committed now are left to the next process."""
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        await self._try_flush()
        if self._timer is not None:
            self._timer.cancel()
        if self._lock is not None:
            os.close(self._lock)

    def _acquire_lock(self) -> None:
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

    def _new_segment(self) -> _Segment[E]:
        number = self._number + 1
        path = self._path.with_name(f"{self._path.name}.journal-{number:012d}")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._number = number
        self._active = _Segment(number, path, fd)
        return self._active

    def _seal(self) -> None:
        segment, self._active = self._active, None
        if segment is not None:
            os.close(segment.fd)
            self._sealed.append(segment)

    def _commit(self, segment: _Segment[E]) -> None:
        self._write(segment.number, segment.entries)
        segment.path.unlink(missing_ok=True)

    def _schedule(self, after_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(after_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._try_flush(), name="write-ahead log")

    async def _try_flush(self) -> None:
        """Flush; log the first of several failures, and schedule a retry."""
        try:
            await self.flush()
        except StoreUnavailable as error:
            if not self._failing:
                log.warning("%s; new entries wait in its write-ahead log", error)
            self._failing = True
        else:
            self._failing = False
        if (self._sealed or self._active) and self._timer is None:
            self._schedule(RETRY_S if self._failing else FLUSH_S)

    def _leftover_segments(self) -> Iterator[tuple[int, Path]]:
        prefix = f"{self._path.name}.journal-"
        for path in self._path.parent.glob(f"{prefix}*"):
            with contextlib.suppress(ValueError):
                yield int(path.name[len(prefix) :]), path

    def _read(self, path: Path) -> Iterator[E]:
        """The entries of a segment, up to the first incomplete one."""
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
