"""A MiniCluster in this process: what a test module with Flink jobs needs around it."""

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from waiting import wait_until

from sage_flink.common import Record, decode, encode
from sage_flink.flow import BatchLimits, Refusal

#: For ``pytestmark``, besides ``pytest.mark.flink``.
QUIET = [
    # Beam, which PyFlink loads, warns of its own age; the class of the warning is pyparsing's.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # PyFlink leaves the pipes and sockets of its JVM to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@dataclass(frozen=True)
class Appended:
    """A sink: a line of hex for each record, at the end of a file."""

    path: str
    batch: BatchLimits = field(default_factory=BatchLimits)

    def writer(self) -> "Appended":
        return self

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        with Path(self.path).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.writelines(f"{encode(record).hex()}\n" for record in records)
        return []

    def close(self) -> None:
        """Nothing is open."""

    def held(self) -> list[Record]:
        if not Path(self.path).exists():
            return []
        with Path(self.path).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # a line may be megabytes, and half written
            return [decode(bytes.fromhex(line)) for line in file]

    def count(self) -> int:
        """How many it holds, or is about to."""
        path = Path(self.path)
        return path.read_bytes().count(b"\n") if path.exists() else 0


def environment_kept() -> Iterator[None]:
    """A MiniCluster runs Python steps in this process and marks its environment as a worker's."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def workers_end() -> None:
    """Wait for the workers of a job that ends: their threads end with an error, after it."""
    wait_until(lambda: not any(map(_of_a_worker, threading.enumerate())), 60, "the workers end")


def _of_a_worker(thread: threading.Thread) -> bool:
    return thread.name == "read_grpc_client_inputs"
