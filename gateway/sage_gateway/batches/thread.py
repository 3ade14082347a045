"""The one thread that asks SQLite, as the event loop sees it."""

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
    """Runs what it is called with, one after another, in the order of the calls."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def __call__(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> Awaitable[T]:
        """What ``work`` returns. It is under way once this has returned, awaited or not.

        Raises:
            StoreUnavailable: the disk or the database fails.
        """
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._executor, partial(_told, work, *args, **named))

    def close(self) -> None:
        """Wait for what is under way."""
        self._executor.shutdown()


def _told(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    try:
        return work(*args, **named)
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"files and batches: {error}") from error
