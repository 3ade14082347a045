"""Machine: cores, memory, disk, open files, clock, locale, temporary folder."""

import locale
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from sage_flink.platform.doctor.check import Check, Level
from sage_flink.platform.stack.stack_directory import FREE_MIB_MIN

CORES_MIN = 2
#: The stack with one job takes 3 to 6 GiB, most of it Flink, Milvus and the engines.
MEMORY_MIB_MIN = 6 * 1024
#: Kafka, Milvus and Flink each fail in another way on a full disk: a fault below the first number,
#: a warning below the second.
DISK_MIB = (FREE_MIB_MIN, 4 * 1024)
TMP_MIB_MIN = 64
#: Kafka opens three files per segment, Milvus some hundreds.
OPEN_FILES_MIN = 4096
CLOCK_AHEAD_S = 60.0


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of one folder; ``parent`` is the folder itself, or its nearest parent."""

    purpose: str
    folder: Path
    parent: Path
    free_mib: float
    is_writable: bool


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What was read of the machine; times in seconds since the epoch."""

    cores: int
    memory_mib: float
    memory_free_mib: float
    disks: tuple[Disk, ...]
    open_files: int
    encoding: str
    now_s: float
    newest_file: Path | None
    newest_file_s: float


def read_disk(purpose: str, folder: Path) -> Disk:
    """The disk below ``folder``, which may not exist yet."""
    parent = next(p for p in (folder, *folder.parents) if _exists(p) or p == p.parent)
    free = shutil.disk_usage(parent).free / 2**20
    return Disk(purpose, folder, parent, free, os.access(parent, os.W_OK | os.X_OK))


def read_machine(home: Path, cache: Path) -> MachineFacts:
    """The facts of this machine, for a stack in ``home``."""
    places = {"SAGE_HOME": home, "SAGE_CACHE": cache, "TMPDIR": _temporary_folder()}
    memory = psutil.virtual_memory()
    newest, newest_s = _newest(home.glob("*.json"), home.glob("logs/*.log"), home.glob("venv/*/*"))
    return MachineFacts(
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        memory_mib=memory.total / 2**20,
        memory_free_mib=memory.available / 2**20,
        disks=tuple(read_disk(purpose, folder) for purpose, folder in places.items()),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        encoding=locale.getencoding(),
        now_s=time.time(),
        newest_file=newest,
        newest_file_s=newest_s,
    )


def check_machine(facts: MachineFacts) -> Iterator[Check]:
    """The checks of the machine."""
    yield _cores(facts)
    yield _memory(facts)
    for disk in facts.disks:
        yield _disk(disk)
    yield _open_files(facts)
    yield _clock(facts)
    yield _locale(facts)


def _cores(facts: MachineFacts) -> Check:
    found = f"{facts.cores} cores"
    if facts.cores >= CORES_MIN:
        return Check("machine", "cores", "ok", found)
    step = f"give the machine or container at least {CORES_MIN}; servers start slowly on one"
    return Check("machine", "cores", "warning", found, step)


def _memory(facts: MachineFacts) -> Check:
    found = f"{facts.memory_free_mib / 1024:.1f} GiB available of {facts.memory_mib / 1024:.1f} GiB"
    if facts.memory_mib >= MEMORY_MIB_MIN:
        return Check("machine", "memory", "ok", found)
    step = f"give it {MEMORY_MIB_MIN / 1024:.0f} GiB, or start fewer servers: `sage up kafka flink`"
    return Check("machine", "memory", "warning", found, step)


def _disk(disk: Disk) -> Check:
    found = f"{disk.free_mib / 1024:.1f} GiB free in {disk.folder}"
    if not disk.is_writable:
        step = f"set {disk.purpose} to a folder that you may write"
        return Check("machine", disk.purpose, "fault", f"{disk.parent} is not writable", step)
    least, low = (TMP_MIB_MIN, TMP_MIB_MIN) if disk.purpose == "TMPDIR" else DISK_MIB
    if disk.free_mib >= low:
        return Check("machine", disk.purpose, "ok", found)
    step = f"free disk space, or set {disk.purpose} to a folder on a larger disk"
    level: Level = "fault" if disk.free_mib < least else "warning"
    return Check("machine", disk.purpose, level, found, step)


def _open_files(facts: MachineFacts) -> Check:
    unlimited = facts.open_files == resource.RLIM_INFINITY
    found = "unlimited" if unlimited else f"at most {facts.open_files:,}"
    if unlimited or facts.open_files >= OPEN_FILES_MIN:
        return Check("machine", "open files", "ok", found)
    step = f"raise the hard limit to {OPEN_FILES_MIN:,} or more (`ulimit -Hn`, limits.conf)"
    return Check("machine", "open files", "warning", found, step)


def _clock(facts: MachineFacts) -> Check:
    now = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(facts.now_s))
    ahead = facts.newest_file_s - facts.now_s
    if ahead < CLOCK_AHEAD_S:
        return Check("machine", "clock", "ok", now)
    found = f"{now}, but {facts.newest_file} is {_duration(ahead)} newer"
    step = "set the clock (NTP); records and checkpoints get wrong times until then"
    return Check("machine", "clock", "warning", found, step)


def _locale(facts: MachineFacts) -> Check:
    if facts.encoding.lower().replace("-", "") == "utf8":
        return Check("machine", "locale", "ok", facts.encoding)
    step = "set LC_ALL=C.UTF-8: other characters of names and texts print as question marks"
    return Check("machine", "locale", "warning", facts.encoding, step)


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 3600 else f"{seconds:.0f} s"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder above it cannot be read
        return False


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # none of the usual folders can be written
        return Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108


def _newest(*groups: Iterable[Path]) -> tuple[Path | None, float]:
    newest, newest_s = None, 0.0
    for path in (path for group in groups for path in group):
        try:
            changed_s = path.lstat().st_mtime
        except OSError:
            continue
        if changed_s > newest_s:
            newest, newest_s = path, changed_s
    return newest, newest_s
