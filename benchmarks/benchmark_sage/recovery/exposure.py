"""Search for the secrets of a stack in all that others can read."""

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import psutil

from benchmark_sage.recovery.cluster import Cluster
from sage_connectors.kafka_client import drain
from sage_flink.platform.flink_rest import FlinkRest

#: Folders of the stack directory: logs, settings, and what jobs write.
FOLDERS = ("logs", "conf", "run", "data/flink", "data/kafka")
PRIVATE = 0o600
TIMEOUT_S = 30.0


def exposures(
    cluster: Cluster,
    rest: FlinkRest,
    job_id: str,
    *,
    topics: Sequence[str] = (),
    printed: str = "",
) -> list[str]:
    """Where a secret of the stack can be read, as ``NAME in PLACE``; empty if nowhere.

    Places are command lines of all processes, Flink's REST API, ``stack.json``, logs, checkpoints,
    savepoints, the files of all topics (whose batches may be compressed), and settings with a mode
    other than 0600; of ``topics`` also the records, and what the submission has ``printed``.
    """
    keys = (file for file in (cluster.home / "keys").iterdir() if file.is_file())
    secrets = {file.name: file.read_bytes().strip() for file in keys}
    places = (
        ("output of the submission", printed.encode()),
        *_command_lines(),
        *_answers(rest, job_id),
        *_files(cluster.home),
        *_records(topics),
    )
    return [
        f"{name} in {place}" for place, text in places for name in secrets if secrets[name] in text
    ]


def _command_lines() -> Iterator[tuple[str, bytes]]:
    for process in psutil.process_iter(["cmdline"]):
        yield f"command line of {process.pid}", " ".join(process.info["cmdline"] or ()).encode()


def _answers(rest: FlinkRest, job_id: str) -> Iterator[tuple[str, bytes]]:
    """What Flink's REST API, and so its web page, shows of the job and the processes."""
    job = [f"/jobs/{job_id}{each}" for each in ("", "/config", "/exceptions", "/accumulators")]
    job += [f"/jobs/{job_id}/checkpoints", f"/jobs/{job_id}/plan", "/config"]
    manager = [f"/jobmanager/{each}" for each in ("config", "environment", "log", "stdout")]
    with httpx.Client(base_url=rest.url, timeout=TIMEOUT_S, trust_env=False) as client:
        workers = client.get("/taskmanagers").raise_for_status().json()["taskmanagers"]
        worker = [
            f"/taskmanagers/{each['id']}{page}"
            for each in workers
            for page in ("", "/log", "/stdout")
        ]
        for path in (*job, *manager, *worker):
            yield f"REST {path}", client.get(path).content


def _records(topics: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for topic in topics:
        for record in drain(topic):
            headers = (name.encode() + value for name, value in record.headers.items())
            yield (
                f"record {record.id}",
                b" ".join((record.key or b"", record.value or b"", *headers)),
            )


def _files(home: Path) -> Iterator[tuple[str, bytes]]:
    files = (file for folder in FOLDERS for file in (home / folder).rglob("*"))
    for file in (home / "stack.json", *files):
        try:
            mode, text = file.stat().st_mode, file.read_bytes() if file.is_file() else b""
        except FileNotFoundError:
            continue  # a checkpoint or a log segment that has just been replaced
        if stat.S_IMODE(mode) != PRIVATE or "conf" not in file.relative_to(home).parts:
            yield str(file), text
