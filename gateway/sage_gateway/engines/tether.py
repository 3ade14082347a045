"""``tether.py PARENT COMMAND...``: become COMMAND, and die when the process PARENT dies.

A COMMAND that cannot be run is named on standard error; the exit code is 127, as a shell's.

Linux tells a child of its parent's death (prctl PR_SET_PDEATHSIG), and the wish survives exec.
A process of its own does it, because code between fork and exec may hang when there are threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie, check that the parent is still there, exec."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the gateway is gone")
    try:
        os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell wanted
    except OSError as error:
        print(f"cannot run {sys.argv[2]}: {error.strerror}", file=sys.stderr, flush=True)
        sys.exit(127)


main()
