"""The port of the ledger: where finished answers are kept, and who is at work on which.

``memory.py`` is the fake that keeps the contract, ``sqlite.py`` one gateway's file, ``redis.py``
what several gateways share; ``tests/conformance/test_ledger.py`` holds all of them to it.
"""

from typing import Protocol

import msgspec

#: What an answer costs besides its bytes; bounds the count of tiny ones.
ROW_BYTES = 128


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """A finished answer and the digest of the body that it answers.

    ``stream``: ``body`` is server-sent events, the last of them ``[DONE]``.
    """

    digest: bytes
    stream: bool
    body: bytes


class Running(msgspec.Struct, frozen=True, gc=False):
    """Somebody is at work on it, for a body of this digest."""

    digest: bytes


class Store(Protocol):
    """Bounded by bytes and by age; the oldest goes first.

    Every method but ``close`` may raise ``StoreUnavailable`` or ``TimeoutError``, and nothing else
    that the caller has to know: the ledger then answers without it. But for ``open`` and ``close``
    none takes longer than some seconds. All are called on one event loop.
    """

    @property
    def bytes_held(self) -> int:
        """Bytes of all answers, ``ROW_BYTES`` for each added; right within seconds."""
        ...

    @property
    def evicted(self) -> int:
        """How many answers were dropped by size or age, by this store since it was opened."""
        ...

    async def open(self) -> None:
        """Make ready; after that what was recorded before a crash is found."""
        ...

    async def claim(self, key: bytes, digest: bytes) -> Recorded | Running | None:
        """What is known of ``key``; None makes it the caller's until ``record`` or ``release``.

        A claim of a process that died ends by itself.
        """
        ...

    async def record(self, key: bytes, answer: Recorded) -> None:
        """Keep ``answer``, and end the claim. On return it outlives ``kill -9`` of this process.

        The first answer of a key stays.
        """
        ...

    async def release(self, key: bytes) -> None:
        """End the claim without an answer; the next one to claim may ask."""
        ...

    async def close(self) -> None:
        """Let go of everything; answers stay, claims do not."""
        ...
