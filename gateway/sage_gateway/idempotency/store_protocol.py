"""Protocol of the idempotency stores: recorded answers, and claims of calls in flight.

``memory.py`` is the reference, ``sqlite.py`` the file of one gateway, ``redis.py`` what several
gateways share; ``tests/conformance/test_idempotency_stores.py`` tests them all.
"""

from typing import Protocol

import msgspec

#: Bytes counted for an answer in addition to its own; bounds the number of tiny ones.
ROW_BYTES = 128


class RecordedAnswer(msgspec.Struct, frozen=True, gc=False):
    """A complete answer and the digest of the request body that it answers.

    ``stream``: ``body`` is server-sent events, the last of them ``[DONE]``.
    """

    digest: bytes
    stream: bool
    body: bytes


class RunningCall(msgspec.Struct, frozen=True, gc=False):
    """A call in flight, for a request body of this digest."""

    digest: bytes


class IdempotencyStore(Protocol):
    """Bounded by bytes and by age; the oldest answer is evicted first.

    Every method but ``close`` may raise ``StoreUnavailable`` or ``TimeoutError``; the caller then
    continues without the store. Except for ``open`` and ``close`` they return within seconds. All
    are called on one event loop.
    """

    @property
    def bytes_held(self) -> int:
        """Bytes of all answers, ``ROW_BYTES`` added for each; exact within seconds."""
        ...

    @property
    def evictions(self) -> int:
        """How many answers this store has evicted, by size or age, since it was opened."""
        ...

    async def open(self) -> None:
        """Open the store. Answers recorded before a crash are found afterwards."""
        ...

    async def claim(self, key: bytes, digest: bytes) -> RecordedAnswer | RunningCall | None:
        """The answer or the call in flight of ``key``.

        None: the caller has now claimed the key, until ``record`` or ``release``. Claims of a
        process that died expire.
        """
        ...

    async def record(self, key: bytes, answer: RecordedAnswer) -> None:
        """Keep ``answer`` and end the claim. On return it survives ``kill -9`` of this process.

        A later answer to the same key is ignored.
        """
        ...

    async def release(self, key: bytes) -> None:
        """End the claim without an answer; the next caller can claim the key."""
        ...

    async def close(self) -> None:
        """Close the store; answers stay, claims end."""
        ...
