"""Python workers as processes, from a worker server of the tests."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator

from sage_flink.platform.stack import worker_server
from sage_flink.platform.stack.process_guard import WORKERS


def serve_workers() -> Iterator[str]:
    """The address of a worker server; processes that start meanwhile take their workers there."""
    address = f"sage-workers-test-{uuid.uuid4()}"
    with subprocess.Popen([sys.executable, "-I", worker_server.__file__, address]) as running:
        os.environ[WORKERS] = address
        yield address
        del os.environ[WORKERS]
        running.kill()
