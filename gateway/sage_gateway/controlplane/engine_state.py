"""What a gateway leaves for the one after it: which engines run, and how many were wanted.

One folder a home and port, ``$SAGE_HOME/run/gateway-PORT``, mode 0700: a file an engine, written
when it is started and gone when it has ended, and ``wanted`` for what was changed at run time. A
gateway that is killed leaves it behind, and the engines with it; the next one at that port takes
over those that it would have started itself. An ordered stop leaves nothing.

**Two gateways of one home have two folders, because they have two ports**, and neither sees the
engines of the other. Where they have one port at two addresses the first one holds the folder's
lock, and the second keeps no records: its engines end with it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from sage_flink.common import ConfigError
from sage_gateway.config.pool_spec import ModelSpec

WANTED = "wanted"
SAME_S = 2.0  # the clock's boot time, from which a process' start is told, may be corrected


class Record(BaseModel):
    """An engine that runs: ``created_s`` tells it from a later process of the same id.

    ``digest`` is that of its command line, ``owner`` the id of the gateway that keeps it.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    place: int
    pid: int
    created_s: float
    port: int
    digest: str
    owner: int


class Wanted(BaseModel):
    """What was wanted at run time of a pool that began as ``base``, a digest."""

    model_config = ConfigDict(frozen=True)

    base: str
    models: dict[str, ModelSpec]
    replicas: dict[str, int]


class Records:
    """The folder of one gateway; see the module."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: int | None = None

    def open(self) -> bool:
        """Whether the folder is this gateway's; that of another that lives it leaves alone.

        Raises:
            ConfigError: the folder cannot be made.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            why = f"cannot write {self._folder}: {error.strerror}"
            raise ConfigError(f"{why}; set SAGE_HOME to a folder that can be written") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def close(self) -> None:
        """Leave nothing. An engine that still runs ends when this process does."""
        if self._lock is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def path(self, model: str, place: int) -> Path:
        """A file for an engine that is about to be started; no other engine ever has the same."""
        return self._folder / f"{quote(model, safe='')}~{place}~{secrets.token_hex(4)}.json"

    def keep(self, path: Path, record: Record) -> None:
        """Note an engine that runs."""
        self._write(path, record)

    def found(self) -> Iterator[tuple[Path, Record]]:
        """What an earlier gateway has left that still runs; what does not is forgotten."""
        for file in sorted(self._folder.glob("*~*.json")):
            try:
                record = Record.model_validate_json(file.read_bytes())
            except (OSError, ValidationError):
                record = None
            if record is not None and runs(record):
                yield file, record
            else:
                file.unlink(missing_ok=True)

    def want(self, wanted: Wanted) -> None:
        """Note what is wanted now."""
        self._write(self._folder / WANTED, wanted)

    def wanted(self, base: str) -> Wanted | None:
        """What the gateway before wanted, if it began with the same pool."""
        with contextlib.suppress(OSError, ValidationError):
            found = Wanted.model_validate_json((self._folder / WANTED).read_bytes())
            return found if found.base == base else None
        return None

    def _write(self, path: Path, what: BaseModel) -> None:
        """All of it or nothing, mode 0600."""
        beside = path.with_name(f".{path.name}")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(what.model_dump_json())
        beside.replace(path)


def created_s(pid: int) -> float:
    """When the process began, 0 when it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def runs(record: Record) -> bool:
    """Whether that very process still runs."""
    try:
        process = psutil.Process(record.pid)
        there = process.status() != psutil.STATUS_ZOMBIE
        return there and abs(process.create_time() - record.created_s) < SAME_S
    except psutil.NoSuchProcess:
        return False


def digest(line: Sequence[str], env: Mapping[str, str]) -> str:
    """Of a command line with its environment."""
    return hashlib.sha256(json.dumps([list(line), sorted(env.items())]).encode()).hexdigest()
