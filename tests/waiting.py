"""Waiting for a condition, with a time limit and a description for the failure message."""

import time
from collections.abc import Callable

import psutil


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s: {what}"
        time.sleep(0.1)


def has_ended(pid: int) -> bool:
    """Whether a process has ended; a zombie counts as ended, its parent has not reaped it yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
