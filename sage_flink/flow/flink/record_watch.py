"""Ends a worker process in which one element takes too long, such as an endless loop.

Flink has no limit on it: the task would wait for its worker, and the job for the task. The process
ends, because nothing else stops a Python thread; ``PythonStageOperator`` starts it again.

A thread looks at all watches once a second. A loop in native code that keeps the interpreter's
lock, such as a regular expression, stops that thread too; then faulthandler's own thread ends the
process, which the first one puts off as long as it runs. Both print where the process was.
"""

import contextlib
import faulthandler
import os
import threading
import time

CHECK_S = 1.0
STDERR = 2
_WATCHES: set["RecordWatch"] = set()
_LOCK = threading.Lock()
_thread: threading.Thread | None = None


class RecordWatch(contextlib.AbstractContextManager["RecordWatch"]):
    """A limit of ``timeout_s`` on one element of a stage, from ``started_s`` on; 0: none.

    As a context manager it is active in this process. In a process that runs a MiniCluster it is
    not: its end would be that of the user's program.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.started_s = 0.0

    def __enter__(self) -> "RecordWatch":
        """Activate the limit."""
        if self.timeout_s and "PYTHON_LOOPBACK_SERVER_ADDRESS" not in os.environ:
            with _LOCK:
                _WATCHES.add(self)
            _start_thread()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the limit."""
        with _LOCK:
            _WATCHES.discard(self)

    def is_overdue(self, now_s: float) -> bool:
        """Whether an element is in progress for longer than the limit."""
        return 0 < self.started_s < now_s - self.timeout_s


def _start_thread() -> None:
    global _thread
    with _LOCK:
        if _thread is None:
            _thread = threading.Thread(target=_check, name="record watch", daemon=True)
            _thread.start()


def _check() -> None:
    while True:
        with _LOCK:
            watches = tuple(_WATCHES)
        if watches:
            longest_s = max(watch.timeout_s for watch in watches)
            faulthandler.dump_traceback_later(longest_s + CHECK_S, exit=True, file=STDERR)
        else:
            faulthandler.cancel_dump_traceback_later()
        if any(watch.is_overdue(time.monotonic()) for watch in watches):
            faulthandler.dump_traceback(STDERR)
            os._exit(1)
        time.sleep(CHECK_S)
