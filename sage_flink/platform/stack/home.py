"""The folder of one stack: where everything lies, and the keys it keeps."""

import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sage_flink.common.errors import ConfigError, StackError

SETUP = "run `bash infra/setup.sh`"
# sockaddr_un holds 108 bytes; supervisord binds to a longer temporary name (".<pid>") first.
SOCKET_PATH_BYTES_MAX = 108 - len(".4194304") - 1


@dataclass(frozen=True, slots=True)
class Home:
    """Names inside ``$SAGE_HOME``; makes a folder only when asked."""

    root: Path

    @classmethod
    def at(cls, root: Path) -> "Home":
        """The home at ``root``.

        Raises:
            ConfigError: the path has a character that the servers' scripts cannot carry.
        """
        root = root.absolute()
        if bad := sorted(set(str(root)) & set("\"'`;$\\ \n:")):
            raise ConfigError(
                f"SAGE_HOME {root}: the path may not hold {' '.join(map(repr, bad))}, because the "
                "servers' own start scripts split on them; set SAGE_HOME to another folder"
            )
        return cls(root)

    def data(self, part: str) -> Path:
        """The folder that holds what ``part`` must not lose."""
        return self.root / "data" / part

    def conf(self, part: str) -> Path:
        """The folder of the generated configuration of ``part``; written anew at every start."""
        return self.root / "conf" / part

    def log(self, part: str) -> Path:
        """What ``part`` printed."""
        return self.root / "logs" / f"{part}.log"

    def key(self, name: str) -> Path:
        """The file of the secret ``name``."""
        return self.root / "keys" / name

    @property
    def notes(self) -> Path:
        """``stack.json``: addresses and ports, read by ``Settings.load``."""
        return self.root / "stack.json"

    @property
    def run(self) -> Path:
        """Process ids and locks of what runs now."""
        return self.root / "run"

    @property
    def python(self) -> Path:
        """The interpreter of the data plane."""
        return self.root / "venv" / "flink" / "bin" / "python"

    @property
    def pyflink(self) -> Path:
        """The folder of the installed PyFlink, which holds Flink itself; perhaps not yet there."""
        found = sorted(
            (self.root / "venv" / "flink" / "lib").glob("python3*/site-packages/pyflink")
        )
        return found[-1] if found else self.root / "venv/flink/lib/python3/site-packages/pyflink"

    def need(self, path: Path) -> Path:
        """``path``, which setup makes.

        Raises:
            StackError: it is not there.
        """
        if not path.exists():
            raise StackError(f"{path} is not there; {SETUP}")
        return path

    @property
    def socket(self) -> Path:
        """supervisord's socket: in the home, or in a short folder noted there if too long."""
        inside = self.run / "supervisor.sock"
        if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES_MAX:
            return inside
        note = self.run / "socket"
        if note.exists():
            return Path(note.read_text().strip())
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        short = Path(runtime) if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir())
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return short / f"sage-{os.getuid()}-{digest}" / "supervisor.sock"

    def make(self) -> None:
        """The folders, private to the user; the place of a socket outside is noted inside.

        Raises:
            StackError: the socket's folder belongs to somebody else.
        """
        for folder in (self.run, self.root / "logs", self.root / "keys"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.root / "keys").chmod(0o700)
        socket = self.socket
        socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if socket.parent.stat().st_uid != os.getuid():
            raise StackError(
                f"{socket.parent} belongs to another user; "
                "set XDG_RUNTIME_DIR or TMPDIR to a folder of yours"
            )
        if socket.parent != self.run:
            (self.run / "socket").write_text(str(socket))


def secret(home: Home, name: str, prefix: str = "") -> str:
    """The secret ``name``, made when missing: ``prefix`` + 32 URL-safe characters, mode 0600."""
    path = home.key(name)
    if path.exists():
        return path.read_text().strip()
    value = prefix + secrets.token_urlsafe(24)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(value + "\n")
    return value
