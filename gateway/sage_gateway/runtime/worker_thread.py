"""The one thread that asks a SQLite file, as the event loop sees it."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from sage_flink.common import StoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")


class Thread:
    """Runs what it is called with, one after another, in the order of the calls.

    ``failed`` is told of an error of the disk or of the database, on the thread.
    """

    def __init__(self, name: str, failed: Callable[[Exception], None] = lambda error: None) -> None:
        self._name = name
        self._failed = failed
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name.replace(" ", "-"))

    def __call__(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> Awaitable[T]:
        """What ``work`` returns. It is under way once this has returned, awaited or not.

        Raises:
            StoreUnavailable: the disk or the database fails.
        """
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._executor, partial(self._told, work, *args, **named))

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.to_thread(self._executor.shutdown)

    def _told(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        try:
            return work(*args, **named)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            raise StoreUnavailable(f"{self._name}: {error}") from error
