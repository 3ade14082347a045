"""Where the state of a job lies between its runs, and how a run ends in such a state.

Each job has a folder by its name in the two of the cluster, so that a later run finds it::

    <savepoints>/<job>/savepoint-*          kept until somebody deletes it
    <savepoints>/<job>/drained/savepoint-*  of a drained run: nothing is left to go on from
    <checkpoints>/<job>/<job id>/chk-*      the last of a cancelled or failed run, RUNS_KEPT of them

Folders on another file system than this machine's are Flink's to read: paths work there, listing
and ``latest`` do not.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from sage_flink.common.errors import ConfigError, NotFound
from sage_flink.platform.flink_rest import ENDED, FlinkRest, Job

#: Cancelled or failed runs of a job whose last checkpoint stays.
RUNS_KEPT = 3
LATEST = "latest"
Kind = Literal["savepoint", "checkpoint", "drained"]


@dataclass(frozen=True, slots=True)
class Saved:
    """One state that lies in a file system; ``taken_s`` is seconds since the epoch."""

    kind: Kind
    path: str
    taken_s: float


@dataclass(frozen=True, slots=True)
class StateFolders:
    """The folders of one job, as URIs; empty where the cluster has none."""

    savepoints: str
    checkpoints: str

    @property
    def drained(self) -> str:
        """Where a drained run leaves its state."""
        return f"{self.savepoints}/drained" if self.savepoints else ""


def folders_of(job: str, rest: FlinkRest) -> StateFolders:
    """The folders of the job called ``job`` on this cluster.

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


def found(folders: StateFolders) -> list[Saved]:
    """What a later run could go on from and what was drained, newest first.

    Raises:
        ConfigError: the folders are not on this machine.
    """
    places: tuple[tuple[Kind, str, str], ...] = (
        ("savepoint", folders.savepoints, "savepoint-*"),
        ("drained", folders.drained, "savepoint-*"),
        ("checkpoint", folders.checkpoints, "*/chk-*"),
    )
    saved = [
        Saved(kind, path.parent.as_uri(), path.stat().st_mtime)
        for kind, place, pattern in places
        if place
        for path in _local(place).glob(f"{pattern}/_metadata")
    ]
    return sorted(saved, key=lambda one: -one.taken_s)


def resolved(wanted: str, job: str, folders: StateFolders) -> str:
    """The URI of the state that ``wanted`` names: a path, a URI, or ``latest``.

    Raises:
        NotFound: ``latest``, and the job has left nothing to go on from.
        ConfigError: ``latest``, and the folders are not on this machine.
    """
    if wanted != LATEST:
        return wanted if not wanted or urlsplit(wanted).scheme else Path(wanted).absolute().as_uri()
    newest = next(iter(found(folders)), None)
    if newest is None:
        raise NotFound(
            f"job {job!r} has no savepoint and no retained checkpoint; "
            "submit it without --from-savepoint, or name a path"
        )
    if newest.kind == "drained":
        raise NotFound(
            f"job {job!r} was drained last: all that it had read is written, and no state is left "
            "to go on from; submit it without --from-savepoint, or name an older state of "
            f"`sage jobs savepoints {job}`"
        )
    return newest.path


def stop_with_savepoint(
    rest: FlinkRest, job: Job, *, to: str = "", told: Callable[[str], None] = lambda _: None
) -> str:
    """End the job in a savepoint, without draining it; the savepoint's URI comes back.

    Its records in flight are in the savepoint, and what it wrote to Kafka is committed.

    Raises:
        StackError: the savepoint or the end did not come about; the job may still run.
    """
    target = to and resolved(to, job.name, StateFolders("", ""))
    target = target or folders_of(job.name, rest).savepoints
    return rest.stop(job.id, target=target, told=told)


def drain(rest: FlinkRest, job: Job, *, timeout_s: float = 120.0) -> None:
    """End the job once all that it has read is written; see :meth:`FlinkRest.drain`.

    Raises:
        StackError: it has not ended after ``timeout_s`` seconds; it still runs.
    """
    folders = folders_of(job.name, rest)
    rest.drain(job.id, target=folders.drained, timeout_s=timeout_s)
    if _is_local(folders.drained):
        _keep(_local(folders.drained).glob("savepoint-*"), 1)  # a mark for `latest`, no more


def tidy(rest: FlinkRest, job: str) -> None:
    """Delete what older runs of the job have left, but for the last ``RUNS_KEPT`` checkpoints."""
    folders = folders_of(job, rest)
    if not _is_local(folders.checkpoints):
        return
    alive = {one.id for one in rest.jobs() if one.state not in ENDED}
    runs = [run for run in _local(folders.checkpoints).glob("*") if run.name not in alive]
    left = [run for run in runs if any(run.glob("chk-*/_metadata"))]
    _keep(left, RUNS_KEPT)
    _keep((run for run in runs if run not in left), 0)


def _keep(paths: Iterable[Path], count: int) -> None:
    newest_first = sorted(paths, key=lambda path: -path.stat().st_mtime)
    for path in newest_first[count:]:
        shutil.rmtree(path, ignore_errors=True)


def _is_local(uri: str) -> bool:
    return urlsplit(uri).scheme == "file"


def _local(uri: str) -> Path:
    if not _is_local(uri):
        raise ConfigError(
            f"state lies in {uri}, which is not on this machine; list it there, "
            "and give --from-savepoint a path"
        )
    return Path(unquote(urlsplit(uri).path))
