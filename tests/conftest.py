"""Settings and fixtures for all tests."""

import logging
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import settings

# An example may be slow on a busy machine; the time limit of each test catches hanging code.
settings.register_profile("sage", deadline=None)
settings.load_profile("sage")

# A test that polls for minutes would bury its failure under a line for each request.
logging.getLogger("httpx").setLevel(logging.WARNING)

WORKERS = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Jobs of this process take their Python workers from one that has PyFlink loaded already."""
    config = session.config
    if (
        any(item.get_closest_marker("flink") for item in session.items)
        and not config.option.collectonly
    ):
        from worker_processes import start_worker_server

        config.stash[WORKERS] = start_worker_server()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if server := session.config.stash.get(WORKERS, None):
        server.kill()
        server.wait()


@pytest.fixture(autouse=True)
def remove_beams_log_handlers():
    """Remove the log handlers that Beam leaves on the root logger.

    A Python worker in this process adds one for its job. After the job its queue has no reader, so
    the 10,000th log record of any later test would block without end.
    """
    yield
    for handler in list(logging.getLogger().handlers):
        if type(handler).__module__.startswith("apache_beam"):
            logging.getLogger().removeHandler(handler)


@pytest.fixture
def minicluster() -> Iterator[None]:
    """Restores the environment that a MiniCluster changes, and waits for its workers' threads."""
    from minicluster import restore_environment, wait_for_workers  # loads sage_flink

    yield from restore_environment()
    wait_for_workers()
