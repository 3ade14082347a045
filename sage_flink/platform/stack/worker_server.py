"""Worker server: makes Flink's Python workers as copies of one process that has loaded PyFlink.

usage: worker_server.py ADDRESS

A worker needs 2.1 s of CPU time to load PyFlink and Beam, and after a failure all workers of a
TaskManager load them at the same moment. A copy (fork) of a process that has done so is connected
within 0.25 s, four at a time on two cores, and shares its memory. Only libraries are loaded here,
never code of sage or of a job, so that a new version of either needs no new server.

The TaskManager starts the command ``sage-worker-python`` for each worker; it connects here, at an
abstract Unix socket, hands over its arguments, environment and files, and waits for the exit
status. A worker dies with its command, and all workers die with the server; without a server the
command is the plain interpreter.

The process has no other thread that runs Python and has no channel of gRPC when it forks: both
would not survive it. It is run by file path because it does not import the package.
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass

sys.path.insert(0, os.path.dirname(__file__))  # noqa: PTH120 - `python -I` does not search it
from process_guard import PR_SET_PDEATHSIG, prctl  # type: ignore[import-not-found]

del sys.path[0]  # its other modules have the names of libraries
BOOT = "pyflink.fn_execution.beam.beam_boot"
#: What workers load: PyFlink's own modules, then the libraries of sage's steps.
LIBRARIES = (
    BOOT,
    "pyflink.fn_execution.beam.beam_sdk_worker_main",
    "pyflink.datastream",
    "msgspec",
    "orjson",
    "pydantic",
    "httpx",
    "tenacity",
    "cachetools",
    "rich.progress",
    "typer",
    "yaml",
)
REQUEST_S, REQUEST_BYTES_MAX = 5.0, 16 << 20


@dataclass
class WorkerRequest:
    """A worker to make: its arguments, folder, environment and files 0, 1 and 2."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    files: list[int]

    def run(self) -> None:
        """Become the worker. Called in the copy, once."""
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for target, file in enumerate(self.files):
            os.dup2(file, target)
            os.close(file)
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        added = filter(None, self.environment.get("PYTHONPATH", "").split(os.pathsep))
        sys.path[:] = [self.folder, *added, *sys.path]
        sys.argv = [BOOT, *self.arguments]
        sys.modules.pop(BOOT, None)  # it runs as __main__
        if numpy := sys.modules.get("numpy.random"):
            numpy.seed()  # Python's own generator does it at a fork
        gc.unfreeze()
        runpy.run_module(BOOT, run_name="__main__", alter_sys=True)


def receive(connection: socket.socket) -> WorkerRequest:
    """The request of a command of this user.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is another user's, late, or no request.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    if struct.unpack("3i", credentials)[1] != os.getuid():
        raise PermissionError
    connection.settimeout(REQUEST_S)
    head, files, _, _ = socket.recv_fds(connection, 8, 3)
    try:
        size = int.from_bytes(head, "big")
        if len(head) != 8 or len(files) != 3 or size > REQUEST_BYTES_MAX:
            raise ValueError(head)
        with connection.makefile("rb") as stream:
            place = json.loads(stream.read(size))
        return WorkerRequest(place["arguments"], place["folder"], place["environment"], files)
    except BaseException:
        for file in files:
            os.close(file)
        raise


class WorkerServer:
    """The open connections and the worker of each."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.workers: dict[int, tuple[socket.socket, int]] = {}

    def serve(self) -> WorkerRequest:
        """Make a worker for each request, without end; returns in the workers alone."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.listener:
                    connection, _ = self.listener.accept()
                    if request := self._fork(connection):
                        return request
                elif key.data is None:
                    self._reap(key.fd)  # the worker has ended
                elif self.selector.get_map().get(key.fd) is key:  # not closed by _reap just now
                    os.kill(key.data, signal.SIGKILL)  # the command has ended
                    self.selector.unregister(key.fileobj)

    def _fork(self, connection: socket.socket) -> WorkerRequest | None:
        try:
            request = receive(connection)
        except (OSError, ValueError, KeyError, TypeError):
            connection.close()
            return None
        pid = os.fork()
        if not pid:
            self._close_all(connection)
            return request
        for file in request.files:
            os.close(file)
        watch = os.pidfd_open(pid)
        self.workers[watch] = connection, pid
        self.selector.register(watch, selectors.EVENT_READ, None)
        self.selector.register(connection, selectors.EVENT_READ, pid)
        return None

    def _reap(self, watch: int) -> None:
        connection, pid = self.workers.pop(watch)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for each in (watch, connection):
            with suppress(KeyError):
                self.selector.unregister(each)
        os.close(watch)
        with suppress(OSError), connection:
            connection.sendall(str(status if status >= 0 else 128 - status).encode())

    def _close_all(self, connection: socket.socket) -> None:
        """In a worker: the files of the server and of the other workers."""
        self.selector.close()
        for each in (self.listener, connection, *(c for c, _ in self.workers.values())):
            each.close()
        for watch in self.workers:
            os.close(watch)


def load(libraries: tuple[str, ...]) -> None:
    """Load what is installed of ``libraries``, and keep it out of the garbage collector."""
    for library in libraries:
        with suppress(ImportError):
            importlib.import_module(library)
    gc.collect()
    gc.freeze()


def main(address: str) -> None:
    """Serve at the abstract socket ``address``; the process guard ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind("\0" + address)
    listener.listen(128)  # those who connect before the libraries are loaded wait here
    load(LIBRARIES)
    WorkerServer(listener).serve().run()


if __name__ == "__main__":
    main(sys.argv[1])
