"""Savepoints and retained checkpoints: the state of a job between two runs.

Each job has a folder with its name in the cluster's savepoint and checkpoint directories, so that
a later run finds it::

    <savepoints>/<job>/savepoint-*          kept until a user deletes it
    <savepoints>/<job>/drained/savepoint-*  of a drained run: all records are written, so that a
                                            later run cannot continue from it
    <checkpoints>/<job>/<job id>/chk-*      the last of a cancelled or failed run, RUNS_KEPT of them

On a file system that only the cluster can read, paths work, but listing and ``latest`` do not.

Flink reads the text after ``file://`` as the path itself, per cent signs and blanks included: an
escaped URI, such as ``Path.as_uri`` makes, names another folder for Flink than for us.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

from sage_flink.common.errors import ConfigError, NotFound
from sage_flink.platform.flink_rest import ENDED, FlinkJob, FlinkRest

#: How many cancelled or failed runs of a job keep their last checkpoint.
RUNS_KEPT = 3
LATEST = "latest"
_FILE = "file:"
Kind = Literal["savepoint", "checkpoint", "drained"]


@dataclass(frozen=True, slots=True)
class SavedState:
    """One savepoint or checkpoint in a file system; ``taken_s`` is seconds since the epoch."""

    kind: Kind
    path: str
    taken_s: float


@dataclass(frozen=True, slots=True)
class StateFolders:
    """The state folders of one job, as URIs; empty where the cluster has no such directory."""

    savepoints: str
    checkpoints: str

    @property
    def drain_target(self) -> str:
        """The folder for the states of drained runs."""
        return f"{self.savepoints}/drained" if self.savepoints else ""


def folders_of(job: str, rest: FlinkRest) -> StateFolders:
    """The state folders of the job called ``job`` on this cluster.

    Raises:
        StackError: the cluster does not answer.
    """
    config, name = rest.config(), quote(job, safe="")
    savepoints, checkpoints = (
        config.get(f"execution.checkpointing.{key}", "") for key in ("savepoint-dir", "dir")
    )
    return StateFolders(
        savepoints and f"{savepoints.rstrip('/')}/{name}",
        checkpoints and f"{checkpoints.rstrip('/')}/{name}",
    )


def list_states(folders: StateFolders) -> list[SavedState]:
    """The states that a later run can start from, and those of drained runs, newest first.

    Raises:
        ConfigError: the folders are not on this machine.
    """
    patterns: tuple[tuple[Kind, str, str], ...] = (
        ("savepoint", folders.savepoints, "savepoint-*"),
        ("drained", folders.drain_target, "savepoint-*"),
        ("checkpoint", folders.checkpoints, "*/chk-*"),
    )
    states = [
        SavedState(kind, flink_uri(path.parent), path.stat().st_mtime)
        for kind, folder, pattern in patterns
        if folder
        for path in _local(folder).glob(f"{pattern}/_metadata")
    ]
    return sorted(states, key=lambda state: -state.taken_s)


def resolve_state(name: str, job: str, folders: StateFolders) -> str:
    """The URI of the state that ``name`` refers to: a path, a URI, or ``latest``.

    Raises:
        NotFound: ``latest``, and the job has no state to start from.
        ConfigError: ``latest``, and the folders are not on this machine.
    """
    if name != LATEST:
        return name if not name or urlsplit(name).scheme else flink_uri(Path(name))
    newest = next(iter(list_states(folders)), None)
    if newest is None:
        raise NotFound(
            f"job {job!r} has no savepoint and no retained checkpoint; "
            "submit it without --from-savepoint, or name a path"
        )
    if newest.kind == "drained":
        raise NotFound(
            f"job {job!r} was drained last: everything it read is written, so there is no state "
            "to start from; submit it without --from-savepoint, or name an older state from "
            f"`sage jobs savepoints {job}`"
        )
    return newest.path


def stop_with_savepoint(
    rest: FlinkRest,
    job: FlinkJob,
    *,
    to: str = "",
    on_progress: Callable[[str], None] = lambda _: None,
) -> str:
    """Stop the job with a savepoint, without draining it, and return the savepoint's URI.

    Records in flight are part of the savepoint, and the job's output to Kafka is committed.

    Raises:
        StackError: the savepoint failed or the job did not end; it may still run.
    """
    target = to and resolve_state(to, job.name, StateFolders("", ""))
    target = target or folders_of(job.name, rest).savepoints
    return rest.stop(job.id, target=target, on_progress=on_progress)


def drain(rest: FlinkRest, job: FlinkJob, *, timeout_s: float = 120.0) -> None:
    """Stop the job after it has written everything it read; see :meth:`FlinkRest.drain`.

    Raises:
        StackError: it has not ended after ``timeout_s`` seconds; it still runs.
    """
    folders = folders_of(job.name, rest)
    rest.drain(job.id, target=folders.drain_target, timeout_s=timeout_s)
    if _is_local(folders.drain_target):
        # One is enough: `latest` only has to see that the newest run was drained.
        _keep(_local(folders.drain_target).glob("savepoint-*"), 1)


def delete_old_checkpoints(rest: FlinkRest, job: str) -> None:
    """Delete the checkpoints of all ended runs of the job except the last ``RUNS_KEPT``."""
    folders = folders_of(job, rest)
    if not _is_local(folders.checkpoints):
        return
    alive = {one.id for one in rest.jobs() if one.state not in ENDED}
    runs = [run for run in _local(folders.checkpoints).glob("*") if run.name not in alive]
    complete = [run for run in runs if any(run.glob("chk-*/_metadata"))]
    _keep(complete, RUNS_KEPT)
    _keep((run for run in runs if run not in complete), 0)


def _keep(paths: Iterable[Path], count: int) -> None:
    newest_first = sorted(paths, key=lambda path: -path.stat().st_mtime)
    for path in newest_first[count:]:
        shutil.rmtree(path, ignore_errors=True)


def flink_uri(path: Path) -> str:
    """The URI that Flink reads as ``path``.

    >>> flink_uri(Path("/data/my savepoints/100%"))
    'file:///data/my savepoints/100%'
    """
    return f"{_FILE}//{path.absolute()}"


def _is_local(uri: str) -> bool:
    return uri.startswith(_FILE)


def _local(uri: str) -> Path:
    if not _is_local(uri):
        raise ConfigError(
            f"the job's state is in {uri}, which is not on this machine; list it there, "
            "and give --from-savepoint a path"
        )
    return Path("/" + uri.removeprefix(_FILE).lstrip("/"))
