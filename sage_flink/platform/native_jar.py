"""The jar of sage's native operators: where it is, and under what name a cluster has it."""

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from sage_flink.platform.plain_paths import plain_path

#: Older versions that stay in the class path of clusters that run.
OTHERS_MAX = 3


def native_jar(home: Path) -> Path:
    """Path of the native operators: the wheel's own jar, else the one that setup links."""
    packaged = Path(__file__).with_name("sage-native.jar")
    return packaged if packaged.exists() else home / "lib" / "sage-native.jar"


def name_on_cluster(jar: Path) -> str:
    """The file name of ``jar`` in a cluster's class path: it holds the digest of the content.

    So a job can tell whether a cluster has the classes that the job was made with.
    """
    digest = hashlib.sha256(jar.read_bytes()).hexdigest()
    return f"{jar.stem}-{digest[:12]}.jar"


def put_on_cluster(jar: Path, folder: Path) -> Path:
    """The jar in ``folder``, under its name on a cluster; only the newest versions stay there.

    The path is plain, and ``folder`` is created before the link to it, which could not be created
    through the link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder = plain_path(folder)
    target = folder / name_on_cluster(jar)
    others = set(folder.glob(f"{jar.stem}-*.jar")) - {target}
    for old in sorted(others, key=lambda path: path.stat().st_mtime)[:-OTHERS_MAX]:
        old.unlink(missing_ok=True)
    if not target.exists():
        part = target.with_suffix(f".{os.getpid()}")
        part.unlink(missing_ok=True)
        with suppress(OSError):
            os.link(jar.resolve(), part)  # refused between file systems
        if not part.exists():
            shutil.copyfile(jar, part)
        part.replace(target)
    return target
