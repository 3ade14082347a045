"""Java programs that prepare a server: they run once and end."""

import os
import subprocess
from collections.abc import Sequence

from sage_flink.common.errors import StackError
from sage_flink.platform.plain_paths import UTF8


def run_java(command: Sequence[str], *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """The finished program, whatever its exit status.

    Raises:
        StackError: there is no ``java``, or it did not end in time.
    """
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, **UTF8},
        )
    except FileNotFoundError as error:
        raise StackError(f"no {command[0]!r} on PATH; install a JDK of version 17") from error
    except subprocess.TimeoutExpired as error:
        raise StackError(
            f"{command[0]} did not end in {timeout_s:.0f} s; see `sage doctor`, then try again"
        ) from error
