"""state: millions of keys in keyed state, in RocksDB and in the heap of the TaskManager.

::

    Kafka -> key by user -> the first record of each user -> those to check -> Kafka

The keys come in five parts. After each one the JVM collects its garbage, and the heap that is left
and the sizes of the newest checkpoint are read. Then the TaskManager is killed, and users come
again: one that passes a second time was lost from the state.
``new_job`` does without the state: a job that starts from nothing lets all of them pass.

``heap`` has a tenth of the keys: with all of them the TaskManager of the local stack runs out of
memory.
"""

import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

import sage_flink as sage
from benchmark_sage.pace import attempt
from benchmark_sage.recovery.cluster import Cluster, running_cluster, until
from benchmark_sage.results import Headline, Result, result
from sage_connectors import Json, kafka
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic, feed
from sage_flink.common import Settings
from sage_flink.operators import Where
from sage_flink.platform.flink_rest import ENDED, FlinkRest

PARTS, CHECKED, CHECKPOINT_S = 5, 1_000, 5.0
WAIT_S, EVER_S = 600.0, 10_000_000.0
Row = dict[str, Any]


def run(*, repeats: int, records: int = 5_000_000, quick: bool = False) -> Result:
    """``records`` keys in RocksDB, a tenth of them in the heap."""
    count = 100_000 if quick else records
    sides: dict[str, list[Row]] = {"rocksdb": [], "heap": []}
    with running_cluster() as cluster:
        for number in range(repeats):
            for side, keys in (("rocksdb", count), ("heap", count // 10)):
                row = attempt(StateRun(cluster, side, keys).run)  # type: ignore[arg-type]
                sides[side].append(row)
                print(f"repeat {number + 1}/{repeats}  {side:<8} {row}", flush=True)
    return result("state", seed=0, repeats=repeats, sides=dict(sides), headline=headline(sides))


@dataclass(slots=True)
class StateRun:
    """One side: a job with ``keys`` keys in its state."""

    cluster: Cluster
    backend: Literal["rocksdb", "heap"]
    keys: int
    name: str = field(default_factory=lambda: f"state{uuid.uuid4().hex[:8]}")
    marks: int = 0

    def run(self) -> Row:
        """Fill the state, kill the TaskManager, and look for keys that were lost."""
        for topic in (self.name, f"{self.name}.out", f"{self.name}.failed"):
            ensure_topic(topic)
        with FlinkRest(Settings.load().flink_url) as rest:
            job_id = self._submit()
            try:
                row: Row = {"keys": self.keys, "parts": [self._fill(rest, job_id, 0)]}
                for part in range(1, PARTS):
                    row["parts"].append(self._fill(rest, job_id, part))
                row |= checkpoint_sizes(rest.checkpoints(job_id))
                row |= self._kill(rest, job_id)
                row["passed_again"] = self._passed_again()
                rest.cancel(job_id)
                job_id = self._submit()
                row["passed_again_new_job"] = self._passed_again()
                return row
            finally:
                if rest.job(job_id).state not in ENDED:
                    rest.cancel(job_id)
                for topic in (self.name, f"{self.name}.out"):
                    delete_topic(topic)

    def build(self) -> sage.flow.Graph:
        """The job's graph."""
        return (
            sage.flow.read("events", kafka(self.name, group=self.name, format=Json()))
            .key_by("by-user", "user")
            .deduplicate("first", within_s=EVER_S, by="key")
            .filter("checked", Where("check", True))
            .write("out", kafka(f"{self.name}.out", format=Json()))
            .dead_letters_to(kafka(f"{self.name}.failed"))
        )

    def _submit(self) -> str:
        options = sage.flow.FlinkOptions(
            checkpoint_interval_s=CHECKPOINT_S, state_backend=self.backend
        )
        return sage.flow.submit(self.build(), name=self.name, options=options)

    def _fill(self, rest: FlinkRest, job_id: str, part: int) -> Row:
        """Add a fifth of the keys; the heap and the checkpoint with them."""
        began_s, each = time.monotonic(), self.keys // PARTS
        self._feed(range(part * each, (part + 1) * each))
        took_s = time.monotonic() - began_s
        checkpoint = self._next_checkpoint(rest, job_id)
        return {
            "keys": (part + 1) * each,
            "heap_mib": self._heap_mib(),
            "state_mib": mib(checkpoint["state_size"]),
            "written_mib": mib(checkpoint["checkpointed_size"]),
            "checkpoint_ms": checkpoint["end_to_end_duration"],
            "keys_per_s": round(each / took_s),
        }

    def _kill(self, rest: FlinkRest, job_id: str) -> Row:
        began_s = time.monotonic()
        self.cluster.kill_taskmanager(rest, job_id)
        runs_s = time.monotonic() - began_s
        self._mark()
        first_s = time.monotonic() - began_s
        return {"running_again_s": round(runs_s, 1), "first_output_s": round(first_s, 1)}

    def _passed_again(self) -> int:
        """How many of ``CHECKED`` known users pass; as many new ones must pass."""
        known = range(0, self.keys, self.keys // CHECKED)
        self.marks += 1
        new = [f"{self.marks}/{number}" for number in range(CHECKED)]
        feed(self.name, (message(user, check=True) for user in [*map(str, known), *new]))
        self._mark()
        passed = set(self._users())
        missing = set(new) - passed
        if missing:
            raise AssertionError(f"{len(missing)} new users did not pass, such as {min(missing)}")
        return len(passed & set(map(str, known)))

    def _feed(self, users: range) -> None:
        feed(self.name, (message(str(user), check=False) for user in users))
        self._mark()

    def _mark(self) -> None:
        """Wait until a new user behind all others has passed."""
        self.marks += 1
        mark = f"mark/{self.marks}"
        feed(self.name, [message(mark, check=True)])
        until(lambda: mark in set(self._users()), WAIT_S, "the records of the topic", every_s=0.5)

    def _users(self) -> Iterator[str]:
        for record in drain(f"{self.name}.out"):
            yield msgspec.json.decode(record.value)["user"]

    def _next_checkpoint(self, rest: FlinkRest, job_id: str) -> dict[str, Any]:
        """A checkpoint whose barrier comes after this call."""

        def newest() -> dict[str, Any]:
            return rest.checkpoints(job_id)["latest"]["completed"] or {"id": 0}

        before = newest()["id"]
        until(lambda: newest()["id"] >= before + 2, WAIT_S, "a checkpoint")
        return newest()

    def _heap_mib(self) -> float:
        """The used heap of the TaskManager after a full garbage collection."""
        servers = self.cluster.processes("taskmanager")
        jvm = next(one for one in servers if one.name() == "java")
        subprocess.run(["jcmd", str(jvm.pid), "GC.run"], check=True, capture_output=True)
        told = subprocess.run(
            ["jcmd", str(jvm.pid), "GC.heap_info"], check=True, capture_output=True, text=True
        ).stdout
        return round(sum(int(used) for used in re.findall(r"heap.* used (\d+)K", told)) / 1024, 1)


def message(user: str, *, check: bool) -> tuple[bytes, bytes]:
    """A record of the topic."""
    return user.encode(), msgspec.json.encode({"user": user, "check": check})


def mib(size: int) -> float:
    """Bytes in MiB."""
    return round(size / 2**20, 2)


def checkpoint_sizes(checkpoints: dict[str, Any]) -> Row:
    """What a checkpoint wrote while keys came, and the whole state at it: means, in MiB."""
    summary = checkpoints["summary"]
    return {
        "checkpoints": checkpoints["counts"]["completed"],
        "written_mib_mean": mib(summary["checkpointed_size"]["avg"]),
        "state_mib_mean": mib(summary["state_size"]["avg"]),
    }


def headline(sides: dict[str, list[Row]]) -> list[Headline]:
    """How flat the heap is, what a checkpoint writes, how fast the state is back, what is lost."""
    rows = [row for row in sides["rocksdb"] if "error" not in row]
    figures: list[tuple[str, Callable[[Row], float], str, float, float]] = [
        ("bytes of heap a key", heap_bytes_a_key, "bytes", 20.0, 1.0),
        ("written by a checkpoint over the state, mean", written_share, "ratio", 0.5, 0.1),
        ("seconds from kill -9 to the first output", lambda r: r["first_output_s"], "s", 30, 10),
        ("known keys that passed again", lambda row: row["passed_again"], "", 0, 0),
    ]
    return [
        Headline.worst(metric, [of(row) for row in rows], unit=unit, floor=floor, moonshot=moonshot)
        for metric, of, unit, floor, moonshot in figures
        if rows
    ]


def heap_bytes_a_key(row: Row) -> float:
    """By how much the heap grows with a key, from the first part to the last."""
    first, last = row["parts"][0], row["parts"][-1]
    return float((last["heap_mib"] - first["heap_mib"]) * 2**20 / (last["keys"] - first["keys"]))


def written_share(row: Row) -> float:
    """What a checkpoint wrote while keys came, as a share of the whole state."""
    return float(row["written_mib_mean"] / row["state_mib_mean"])
