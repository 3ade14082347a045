"""Waiting for a condition, with a time limit and a description for the failure message."""

import time
from collections.abc import Callable
from typing import TypeVar

import httpx
import psutil

from sage_flink.common import StackError, StoreUnavailable

T = TypeVar("T")
#: Of a server that does not answer now; a busy one may answer the next request.
NO_ANSWER = (StackError, StoreUnavailable, httpx.TransportError)


def wait_until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """The first true value of ``condition``; the test fails after ``seconds``.

    A condition that raises one of ``NO_ANSWER`` is tried again, and the last error is raised.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except NO_ANSWER as error:
            if time.monotonic() >= deadline:
                error.add_note(f"waited {seconds} s: {what}")
                raise
        assert time.monotonic() < deadline, f"waited {seconds} s: {what}"
        time.sleep(0.1)


def has_ended(pid: int) -> bool:
    """Whether a process has ended; a zombie counts as ended, its parent has not reaped it yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
