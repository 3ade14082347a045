"""The events of a remote engine, in the form in which engines of the pool send them.

Servers differ in what the standard leaves open: events may end with CRLF or CR, the last one with a
single line end, and some streams end without ``[DONE]``. Source: HTML standard, server-sent events.
"""

import re
from typing import Protocol

DONE = b"data: [DONE]"
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
#: Enough of the last chunk to find the above where two chunks meet.
_OVERLAP_BYTES = 64


class Content(Protocol):
    """The body of an answer."""

    async def readany(self) -> bytes:
        """The bytes that have arrived, at least one; empty at the end."""
        ...


class RemoteEvents:
    """Reads ``content``; lines end with LF, and a finished answer with a whole ``[DONE]``."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._has_cr = False
        self._tail = b""
        self._finished = self._ended = False

    async def readany(self) -> bytes:
        """The bytes that have arrived, at least one; empty at the end."""
        while not self._ended:
            chunk = await self._content.readany()
            found = self._add(chunk) if chunk else self._end()
            if found:
                return found
        return b""

    def _add(self, chunk: bytes) -> bytes:
        if self._has_cr or b"\r" in chunk:
            chunk = b"\r" * self._has_cr + chunk
            self._has_cr = chunk.endswith(b"\r")  # its LF may follow
            chunk = chunk.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        seen = self._tail + chunk
        self._finished = self._finished or _FINISHED.search(seen) is not None
        self._tail = seen[-_OVERLAP_BYTES:]
        return chunk

    def _end(self) -> bytes:
        self._ended = True
        tail = self._tail + b"\n" * self._has_cr
        more = b"\n" * self._has_cr
        if not self._finished and not tail.rstrip().endswith(DONE):
            return more
        last = tail.rstrip(b"\n")
        more += b"\n" * max(0, 2 - (len(tail) - len(last)))
        return more if last.endswith(DONE) else more + DONE + b"\n\n"
