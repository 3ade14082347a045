"""The state that a gateway leaves for its successor: running engines and the wanted replicas.

One folder per home and port, ``$SAGE_HOME/run/gateway-PORT``, mode 0700: one file per engine,
written when the engine is started and removed when it has ended, and ``wanted`` for changes made at
run time. A gateway that is killed leaves the folder and its engines behind; the next gateway at
that port takes over the engines that it would have started itself. An ordered stop removes all.

**Two gateways of one home have two folders, because they have two ports**, and neither sees the
engines of the other. If they share a port at two addresses, the first one holds the folder's lock,
and the second keeps no records: its engines end with it.
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
SAME_S = 2.0  # the boot time, on which a process' start time is based, may be corrected


class EngineRecord(BaseModel):
    """A running engine; ``created_s`` distinguishes it from a later process with the same id.

    ``digest``: of its command line; ``owner``: the process id of its gateway.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    index: int
    pid: int
    created_s: float
    port: int
    digest: str
    owner: int


class WantedState(BaseModel):
    """The models and replicas wanted at run time; ``base``: the digest of the pool at the start."""

    model_config = ConfigDict(frozen=True)

    base: str
    models: dict[str, ModelSpec]
    replicas: dict[str, int]


class EngineStateStore:
    """The folder of one gateway; see the module."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: int | None = None

    def open(self) -> bool:
        """Lock the folder; False, without a change, if another running gateway has locked it.

        Raises:
            ConfigError: the folder cannot be created.
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
        """Remove the folder. An engine that still runs ends when this process does."""
        if self._lock is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def new_path(self, model: str, index: int) -> Path:
        """The file for an engine that is about to be started; no other engine ever has it."""
        return self._folder / f"{quote(model, safe='')}~{index}~{secrets.token_hex(4)}.json"

    def write_engine(self, path: Path, record: EngineRecord) -> None:
        """Record a running engine."""
        self._write(path, record)

    def running_engines(self) -> Iterator[tuple[Path, EngineRecord]]:
        """The engines of an earlier gateway that still run; records of others are removed."""
        for file in sorted(self._folder.glob("*~*.json")):
            try:
                record = EngineRecord.model_validate_json(file.read_bytes())
            except (OSError, ValidationError):
                record = None
            if record is not None and is_running(record):
                yield file, record
            else:
                file.unlink(missing_ok=True)

    def write_wanted(self, wanted: WantedState) -> None:
        """Record what is wanted now."""
        self._write(self._folder / WANTED, wanted)

    def read_wanted(self, base: str) -> WantedState | None:
        """What an earlier gateway wanted, if it started with the same pool."""
        with contextlib.suppress(OSError, ValidationError):
            wanted = WantedState.model_validate_json((self._folder / WANTED).read_bytes())
            return wanted if wanted.base == base else None
        return None

    def _write(self, path: Path, content: BaseModel) -> None:
        """Write atomically, mode 0600."""
        temporary = path.with_name(f".{path.name}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(temporary, flags, 0o600), "w") as file:
            file.write(content.model_dump_json())
        temporary.replace(path)


def new_record(
    model: str, index: int, pid: int, port: int, command: Sequence[str], env: Mapping[str, str]
) -> EngineRecord:
    """The record of an engine of this gateway."""
    return EngineRecord(
        model=model,
        index=index,
        pid=pid,
        created_s=created_s(pid),
        port=port,
        digest=digest(command, env),
        owner=os.getpid(),
    )


def created_s(pid: int) -> float:
    """When the process was created, 0 if it does not exist."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def is_running(record: EngineRecord) -> bool:
    """Whether the recorded process, not another of the same id, still runs."""
    try:
        process = psutil.Process(record.pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and abs(process.create_time() - record.created_s) < SAME_S
    except psutil.NoSuchProcess:
        return False


def digest(command: Sequence[str], env: Mapping[str, str]) -> str:
    """The digest of a command line with its environment."""
    content = json.dumps([list(command), sorted(env.items())])
    return hashlib.sha256(content.encode()).hexdigest()
