"""supervisord: its configuration as text, and a client of its XML-RPC API.

supervisord restarts servers that die, with a back-off; rotates their logs; and signals whole
process groups.
"""

import contextlib
import http.client
import os
import resource
import shlex
import socket
import subprocess
import time
import xmlrpc.client  # nosec B411 - our own supervisor, on our own socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_flink.common.errors import StackError
from sage_flink.platform.plain_paths import UTF8
from sage_flink.platform.stack.server import Server
from sage_flink.platform.stack.stack_directory import StackDirectory

RPC_TIMEOUT_S = 10.0
START_TIMEOUT_S = 15.0
OPEN_FILES_WANTED = 65_536
LOG_BYTES_MAX, LOG_BACKUPS = "10MB", 3
# After this many deaths in a row, each within START_S of a start, supervisord stops trying (FATAL).
START_S, RESTARTS_MAX = 3, 12
RUNNING = frozenset({"STARTING", "RUNNING", "STOPPING"})


@dataclass(frozen=True, slots=True)
class SupervisedProcess:
    """supervisord's view of one server; ``pid`` is 0 when it has no process."""

    name: str
    state: str
    pid: int
    started_s: float
    message: str

    @property
    def running(self) -> bool:
        """Whether a process exists."""
        return self.pid > 0 and self.state in RUNNING


def escape(text: str) -> str:
    """``text`` as a value in supervisord's configuration, which expands per cent signs."""
    return text.replace("%", "%%")


def environment(directory: StackDirectory, server: Server) -> str:
    """The extra environment of ``server``.

    Its marks identify the server's processes, also after a crash of supervisord.
    """
    marks = {
        "SAGE_HOME": str(directory.root),
        "SAGE_STACK": directory.mark,
        "SAGE_SERVER": server.name,
    }
    return ",".join(f'{key}="{escape(value)}"' for key, value in {**server.env, **marks}.items())


def program(directory: StackDirectory, server: Server) -> str:
    """The configuration section of one server."""
    return f"""
[program:{server.name}]
command={escape(shlex.join(server.command))}
directory={escape(str(server.folder))}
environment={environment(directory, server)}
autostart=false
autorestart=true
startsecs={START_S}
startretries={RESTARTS_MAX}
stopsignal=TERM
stopwaitsecs={server.stop_s}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={escape(str(directory.log(server.name)))}
stdout_logfile_maxbytes={LOG_BYTES_MAX}
stdout_logfile_backups={LOG_BACKUPS}
"""


def render(directory: StackDirectory, servers: Iterable[Server]) -> str:
    """supervisord.conf with a section for every server; supervisord starts no server by itself."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(OPEN_FILES_WANTED, hard)
    head = f"""; Written by `sage up`; changes are lost at the next start.
[unix_http_server]
file={escape(str(directory.socket))}
chmod=0700

[supervisord]
identifier=sage
directory={escape(str(directory.root))}
logfile={escape(str(directory.log("supervisord")))}
logfile_maxbytes={LOG_BYTES_MAX}
logfile_backups=1
pidfile={escape(str(directory.run / "supervisord.pid"))}
minfds={files}
umask=077

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    return head + "".join(program(directory, server) for server in servers)


class UnixConnection(http.client.HTTPConnection):
    """HTTP connection over a unix socket, with a timeout."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=RPC_TIMEOUT_S)
        self.path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self.path))
        except OSError:
            self.sock.close()
            raise


# supervisor.xmlrpc.SupervisorTransport has no timeout: `sage ps` would hang with supervisord. httpx
# over a unix socket leaks the socket when no server listens on it (httpcore 1.0).
class UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> UnixConnection:
        """The connection of this call, stored in the attribute that ``close`` reads."""
        connection = UnixConnection(self.path)
        self._connection = (host, connection)
        return connection


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Client of one stack directory's supervisord; opens a connection for each call."""

    directory: StackDirectory

    def call(self, method: str, *arguments: object) -> Any:
        """The result of ``supervisor.METHOD(*arguments)``.


        Raises:
            StackError: supervisord does not answer, or refuses.
        """
        try:
            transport = UnixTransport(self.directory.socket)
            with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as server:
                return getattr(server.supervisor, method)(*arguments)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise StackError(
                f"supervisord at {self.directory.socket}: {method}{arguments} failed: {error}; "
                f"run `sage down`, then `sage up`; its log is {self.directory.log('supervisord')}"
            ) from error

    def alive(self) -> bool:
        """Whether supervisord answers."""
        try:
            self.call("getState")
        except StackError:
            return False
        return True

    def processes(self) -> dict[str, SupervisedProcess]:
        """The process of every configured server, by name."""
        return {
            info["name"]: SupervisedProcess(
                name=info["name"],
                state=info["statename"],
                pid=info["pid"],
                started_s=float(info["start"]),
                message=info["spawnerr"] or info["description"],
            )
            for info in self.call("getAllProcessInfo")
        }

    def serve(self, servers: Iterable[Server]) -> None:
        """Start supervisord with the configuration of ``servers``; running servers do not change.

        Raises:
            StackError: supervisord does not start.
        """
        settings = self.directory.conf("supervisord") / "supervisord.conf"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(render(self.directory, servers), encoding="utf-8")
        if self.alive():
            self.reread()
            return
        self.directory.socket.unlink(missing_ok=True)
        # It becomes a daemon by itself, in its own session: Ctrl-C does not reach it.
        command = (
            str(self.directory.require(self.directory.python)),
            "-m",
            "supervisor.supervisord",
            "-c",
            str(settings),
        )
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
            env={**os.environ, **UTF8},
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.alive():
            if done.returncode or time.monotonic() > deadline:
                raise StackError(
                    "supervisord did not start: "
                    f"{(done.stderr or done.stdout).strip()[-500:] or 'it does not answer'}; "
                    f"see {self.directory.log('supervisord')}"
                )
            time.sleep(0.05)

    def reread(self) -> None:
        """Apply a changed configuration to the servers that do not run."""
        added, changed, _ = self.call("reloadConfig")[0]
        now = self.processes()
        for name in changed:
            if not now[name].running:
                self.call("removeProcessGroup", name)
                self.call("addProcessGroup", name)
        for name in added:
            self.call("addProcessGroup", name)

    def start(self, name: str) -> None:
        """Start one server; returns before it is ready."""
        self.call("startProcess", name, False)

    def stop(self, names: Iterable[str], *, timeout_s: float) -> None:
        """Stop ``names`` in parallel and wait until they have ended.

        supervisord kills a server that does not end within its ``stop_s``.

        Raises:
            StackError: a server still runs after ``timeout_s``.
        """
        now = self.processes()
        ended = {"STOPPED", "EXITED", "FATAL"}
        stopping = {name for name in names if name in now and now[name].state not in ended}
        for name in stopping:
            with contextlib.suppress(StackError):  # it ended by itself just now
                self.call("stopProcess", name, False)
        deadline = time.monotonic() + timeout_s
        while stopping := {name for name in stopping if self.processes()[name].running}:
            if time.monotonic() > deadline:
                rest = ", ".join(sorted(stopping))
                raise StackError(f"{rest} did not stop in {timeout_s:.0f} s; run `sage down` again")
            time.sleep(0.1)
