"""Settings and fixtures for all tests."""

import gc
import logging
import signal
import subprocess
from collections.abc import Generator, Iterator

import pytest
from deselected_files import (  # noqa: F401 - hooks of pytest
    pytest_collection_modifyitems,
    pytest_deselected,
    pytest_ignore_collect,
)
from hypothesis import settings

# An example may be slow on a busy machine; the time limit of each test catches hanging code.
settings.register_profile("sage", deadline=None)
settings.load_profile("sage")

# A test that polls for minutes would bury its failure under a line for each request.
logging.getLogger("httpx").setLevel(logging.WARNING)

# What a shell runs in the background ignores SIGINT, and so would programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

WORKERS = pytest.StashKey[subprocess.Popen[bytes]]()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what the collection makes out of all garbage collections: these objects stay.

    They are two million; a full garbage collection among the tests would take a second.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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


@pytest.fixture(scope="session")
def milvus_lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a milvus-lite that all tests of this process share; they are ``processes``."""
    from milvus_lite_server import milvus_lite_server

    with milvus_lite_server(tmp_path_factory.mktemp("milvus-lite")) as url:
        yield url
