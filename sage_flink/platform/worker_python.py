"""The interpreter of Flink's Python workers: the running one, by a plain path.

Where sage is installed it is the command ``sage-worker-python`` of the same environment, which
takes workers from the TaskManager's worker server, if there is one.

PyFlink 2.3 starts a worker with ``pyflink-udf-runner.sh``, which expands the interpreter's path
without quotes: a job submitted from an environment in a folder ``my project`` restarts without end.
"""

import sys
from pathlib import Path

from sage_flink.platform.plain_paths import plain_path


def worker_python(executable: str = sys.executable, environment: str = sys.prefix) -> str:
    """The command of workers for ``executable``, by a link where its path is not plain.

    Raises:
        ConfigError: the link cannot be made.
    """
    python = Path(executable)
    command = python.with_name("sage-worker-python")
    python = command if command.exists() else python
    if not python.is_relative_to(environment):
        return str(plain_path(python.parent) / python.name)
    return str(plain_path(Path(environment)) / python.relative_to(environment))
