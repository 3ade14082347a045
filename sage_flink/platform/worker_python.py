"""The interpreter of Flink's Python workers: the running one, by a path without white space.

PyFlink 2.3 starts a worker with ``pyflink-udf-runner.sh``, which expands the interpreter's path
without quotes: a job submitted from an environment in a folder ``my project`` restarts without end.
"""

import hashlib
import sys
from contextlib import suppress
from pathlib import Path

from sage_flink.common.errors import ConfigError
from sage_flink.common.settings import sage_cache


def worker_python(executable: str = sys.executable, environment: str = sys.prefix) -> str:
    """``executable``, through a link to its environment where the path has white space in it.

    The link lies in the cache folder, not in a temporary one: a job that Flink restores after a
    restart of the machine needs it again.

    Raises:
        ConfigError: the cache folder's path has white space too, or the link cannot be made.
    """
    if not _has_space(executable):
        return executable
    root = Path(environment)
    link = sage_cache() / "python" / hashlib.sha256(environment.encode()).hexdigest()[:12]
    python = link / Path(executable).relative_to(root)
    if _has_space(str(link)):
        raise ConfigError(
            f"Flink cannot start {executable!r}: there is white space in its path, and in that of "
            f"the cache ({link.parent}); set SAGE_CACHE to a folder without"
        )
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            with suppress(FileExistsError):  # another submission made the same link
                link.symlink_to(root, target_is_directory=True)
    except OSError as error:
        raise ConfigError(
            f"Flink cannot start {executable!r}, whose path has white space, "
            f"and no link to it can be made: {error}"
        ) from error
    return str(python)


def _has_space(path: str) -> bool:
    return any(character.isspace() for character in path)
