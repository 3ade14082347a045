"""Python workers of test jobs, from a worker server of the tests."""

import os
import subprocess
import sys
import uuid

from sage_flink.platform.stack import worker_server
from sage_flink.platform.stack.process_guard import WORKERS


def start_worker_server() -> subprocess.Popen[bytes]:
    """A worker server; the jobs of this process, and of its children, take their workers there."""
    os.environ[WORKERS] = f"sage-workers-test-{uuid.uuid4()}"
    return subprocess.Popen([sys.executable, "-I", worker_server.__file__, os.environ[WORKERS]])
