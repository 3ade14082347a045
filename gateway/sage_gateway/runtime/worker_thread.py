"""Worker thread of a SQLite file: calls from the event loop run on it, one after another."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from sage_flink.common import StoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")


class WorkerThread:
    """A single thread that runs calls in the order in which they were made.

    ``on_error`` runs on the thread after an error of the disk or of the database.
    """

    def __init__(
        self, name: str, on_error: Callable[[Exception], None] = lambda error: None
    ) -> None:
        self._name = name
        self._on_error = on_error
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name.replace(" ", "-"))

    def __call__(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> Awaitable[T]:
        """The result of ``work``, which is queued when this returns, awaited or not.

        Raises:
            StoreUnavailable: the disk or the database fails.
        """
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._executor, partial(self._run, work, *args, **named))

    async def close(self) -> None:
        """Wait for the calls in progress and end the thread."""
        await asyncio.to_thread(self._executor.shutdown)

    def _run(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        try:
            return work(*args, **named)
        except (sqlite3.Error, OSError) as error:
            self._on_error(error)
            raise StoreUnavailable(f"{self._name}: {error}") from error
