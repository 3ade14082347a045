"""Waiting for a condition, with a time limit and a description for the failure message."""

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")


def wait_until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """The first true value of ``condition``; the test fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s: {what}"
        time.sleep(0.1)
    return found


def has_ended(pid: int) -> bool:
    """Whether a process has ended; a zombie counts as ended, its parent has not reaped it yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
