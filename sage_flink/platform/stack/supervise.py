"""supervisord: its configuration as text, and a client for its socket.

It restarts what dies, with a back-off; rotates logs; and signals whole process groups.
"""

import contextlib
import http.client
import resource
import shlex
import socket
import subprocess
import time
import xmlrpc.client  # nosec B411 - our own supervisor, at a socket of our own
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_flink.common.errors import StackError
from sage_flink.platform.stack.home import Home
from sage_flink.platform.stack.part import Part

RPC_TIMEOUT_S = 10.0
START_TIMEOUT_S = 15.0
OPEN_FILES_WANTED = 65_536
LOG_BYTES_MAX, LOG_BACKUPS = "10MB", 3
# Deaths in a row, each within START_S of its start, before supervisord gives a part up (FATAL).
START_S, RESTARTS_MAX = 3, 12
RUNNING = frozenset({"STARTING", "RUNNING", "STOPPING"})


@dataclass(frozen=True, slots=True)
class Process:
    """What supervisord says about one part; ``pid`` is 0 when there is none."""

    name: str
    state: str
    pid: int
    started_s: float
    word: str

    @property
    def running(self) -> bool:
        """Whether a process exists."""
        return self.pid > 0 and self.state in RUNNING


def escaped(text: str) -> str:
    """``text`` for a value of supervisord's configuration, which expands per cent signs."""
    return text.replace("%", "%%")


def environment(home: Home, part: Part) -> str:
    """The extra environment of ``part``; the marks let us find its processes whatever happened."""
    marks = {"SAGE_HOME": str(home.root), "SAGE_STACK": str(home.root), "SAGE_PART": part.name}
    return ",".join(f'{key}="{escaped(value)}"' for key, value in {**part.env, **marks}.items())


def program(home: Home, part: Part) -> str:
    """The section of one part."""
    return f"""
[program:{part.name}]
command={escaped(shlex.join(part.command))}
directory={escaped(str(part.folder))}
environment={environment(home, part)}
autostart=false
autorestart=true
startsecs={START_S}
startretries={RESTARTS_MAX}
stopsignal=TERM
stopwaitsecs={part.stop_s}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={escaped(str(home.log(part.name)))}
stdout_logfile_maxbytes={LOG_BYTES_MAX}
stdout_logfile_backups={LOG_BACKUPS}
"""


def render(home: Home, parts: Iterable[Part]) -> str:
    """supervisord.conf; every part is in it, none starts by itself."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(OPEN_FILES_WANTED, hard)
    head = f"""; Written by `sage up`; changes are lost at the next start.
[unix_http_server]
file={escaped(str(home.socket))}
chmod=0700

[supervisord]
identifier=sage
directory={escaped(str(home.root))}
logfile={escaped(str(home.log("supervisord")))}
logfile_maxbytes={LOG_BYTES_MAX}
logfile_backups=1
pidfile={escaped(str(home.run / "supervisord.pid"))}
minfds={files}
umask=077

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    return head + "".join(program(home, part) for part in parts)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

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


class UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> UnixConnection:
        """The connection of this call; noted where ``close`` looks for it."""
        connection = UnixConnection(self.path)
        self._connection = (host, connection)
        return connection


@dataclass(frozen=True, slots=True)
class Supervisor:
    """supervisord of one home; no connection is held between calls."""

    home: Home

    def call(self, method: str, *arguments: object) -> Any:
        """The answer to ``supervisor.METHOD(*arguments)``.

        Raises:
            StackError: supervisord does not answer, or refuses.
        """
        try:
            transport = UnixTransport(self.home.socket)
            with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as server:
                return getattr(server.supervisor, method)(*arguments)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise StackError(
                f"supervisord at {self.home.socket}: {method}{arguments} failed: {error}; "
                f"run `sage down`, then `sage up`; its log is {self.home.log('supervisord')}"
            ) from error

    def alive(self) -> bool:
        """Whether it answers."""
        try:
            self.call("getState")
        except StackError:
            return False
        return True

    def processes(self) -> dict[str, Process]:
        """Every part that it knows, by name."""
        return {
            info["name"]: Process(
                name=info["name"],
                state=info["statename"],
                pid=info["pid"],
                started_s=float(info["start"]),
                word=info["spawnerr"] or info["description"],
            )
            for info in self.call("getAllProcessInfo")
        }

    def serve(self, parts: Iterable[Part]) -> None:
        """Have it run with the configuration of ``parts``; what runs already is left alone.

        Raises:
            StackError: it does not come up.
        """
        settings = self.home.conf("supervisord") / "supervisord.conf"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(render(self.home, parts))
        if self.alive():
            self.reread()
            return
        self.home.socket.unlink(missing_ok=True)
        # It leaves for the background by itself, in a session of its own: Ctrl-C does not reach it.
        command = (
            str(self.home.need(self.home.python)),
            "-m",
            "supervisor.supervisord",
            "-c",
            str(settings),
        )
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.alive():
            if done.returncode or time.monotonic() > deadline:
                raise StackError(
                    "supervisord did not start: "
                    f"{(done.stderr or done.stdout).strip()[-500:] or 'no answer'}; "
                    f"see {self.home.log('supervisord')}"
                )
            time.sleep(0.05)

    def reread(self) -> None:
        """Take over a changed configuration, for the parts that do not run."""
        added, changed, _ = self.call("reloadConfig")[0]
        now = self.processes()
        for name in changed:
            if not now[name].running:
                self.call("removeProcessGroup", name)
                self.call("addProcessGroup", name)
        for name in added:
            self.call("addProcessGroup", name)

    def start(self, name: str) -> None:
        """Start one part; returns before it is ready."""
        self.call("startProcess", name, False)

    def stop(self, names: Iterable[str], *, timeout_s: float) -> None:
        """Stop ``names`` side by side and wait for their end; killed when they do not obey in time.

        Raises:
            StackError: one still runs after ``timeout_s``.
        """
        now = self.processes()
        ended = {"STOPPED", "EXITED", "FATAL"}
        going = {name for name in names if name in now and now[name].state not in ended}
        for name in going:
            with contextlib.suppress(StackError):  # it has ended in this moment
                self.call("stopProcess", name, False)
        deadline = time.monotonic() + timeout_s
        while going := {name for name in going if self.processes()[name].running}:
            if time.monotonic() > deadline:
                left = ", ".join(sorted(going))
                raise StackError(f"{left} did not stop in {timeout_s:.0f} s; run `sage down` again")
            time.sleep(0.1)
