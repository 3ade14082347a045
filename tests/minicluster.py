"""A MiniCluster in this process: warning filters, a sink and cleanup for tests with Flink jobs."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from sage_flink.common import ConfigError, Record, decode, encode
from sage_flink.flow import BatchLimits, FlinkOptions, Refusal

#: For ``pytestmark``, in addition to the mark ``flink``.
QUIET = [
    # Beam, which PyFlink loads, warns of its own age; the class of the warning is pyparsing's.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # PyFlink leaves the pipes and sockets of its JVM to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

#: Options of a job on a MiniCluster.
LOCAL = FlinkOptions(target="local", checkpoint_interval_s=0.5)


@dataclass(frozen=True)
class DiscardSink:
    """A sink that discards failed records."""

    def flink_sink(self, jvm: Any, *, transaction_prefix: str) -> Any:
        return jvm.org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink()


@dataclass(frozen=True)
class FileSink:
    """A sink that appends a line of hex to a file for each record."""

    path: str
    batch: BatchLimits = field(default_factory=BatchLimits)

    def writer(self) -> "FileSink":
        return self

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        with Path(self.path).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.writelines(f"{encode(record).hex()}\n" for record in records)
        return []

    def close(self) -> None:
        """Each write opens and closes the file."""

    def read_records(self) -> list[Record]:
        if not Path(self.path).exists():
            return []
        with Path(self.path).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # a line may be megabytes, and half written
            return [decode(bytes.fromhex(line)) for line in file]

    def count(self) -> int:
        """The number of records, without decoding them."""
        path = Path(self.path)
        return path.read_bytes().count(b"\n") if path.exists() else 0


@dataclass(frozen=True)
class FailOnce(FileSink):
    """A sink whose writer fails once, after ``rows_max`` rows.

    With ``checkpoints``, the folder of the job's, it waits for one that has those rows: a job that
    fails before its first checkpoint starts from nothing, whatever its state is worth. Flink takes
    none until every task runs, so the records have to last until then: ``slowly`` is a step for it.
    """

    rows_max: int = 0
    checkpoints: str = ""
    batch: BatchLimits = field(default_factory=lambda: BatchLimits(5, linger_s=0.01))

    def writer(self) -> "FailOnce":
        with Path(f"{self.path}.writers").open("a") as file:
            file.write("opened\n")
        return self

    def slowly(self, pause_s: float) -> "Slowly":
        """A step that pauses at each record until the writer has failed."""
        return Slowly(pause_s, until=self._marker)

    @property
    def _marker(self) -> str:
        return f"{self.path}.failed-once"

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        marker = Path(self._marker)
        if self.count() >= self.rows_max and not marker.exists() and self._is_in_a_checkpoint():
            marker.touch()
            raise ConfigError("the test: this subtask fails once")
        return super().write(records)

    def _is_in_a_checkpoint(self) -> bool:
        if not self.checkpoints:
            return True
        complete = Path(self.checkpoints).glob("*/chk-*/_metadata")
        newest = max((int(path.parent.name.removeprefix("chk-")) for path in complete), default=0)
        before = Path(f"{self.path}.checkpoint")
        if not before.exists():
            before.write_text(str(newest))
        return newest >= int(before.read_text()) + 2  # the next one may have begun before


@dataclass(frozen=True)
class Slowly:
    """The record's own value, after ``pause_s``; without a pause once the file ``until`` exists."""

    pause_s: float
    until: str = ""

    def __call__(self, record: Record) -> Any:
        if not (self.until and Path(self.until).exists()):
            time.sleep(self.pause_s)
        return record.value


def restore_environment() -> Iterator[None]:
    """A MiniCluster runs Python steps in this process and marks its environment as a worker's."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def wait_for_workers(timeout_s: float = 60) -> None:
    """Wait for the worker threads of an ending job: they end after it, with an error."""
    wait_until(
        lambda: not any(map(_of_a_worker, threading.enumerate())), timeout_s, "the workers end"
    )


def _of_a_worker(thread: threading.Thread) -> bool:
    return thread.name == "read_grpc_client_inputs"
