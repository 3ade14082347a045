"""Directory of one local stack: the paths of its files, and its secrets."""

import hashlib
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.platform.plain_paths import plain_path

SETUP = "run `bash infra/setup.sh`"
#: With less free space no server of the stack starts well: Milvus and Kafka write 300 MiB at first.
FREE_MIB_MIN = 512
# sockaddr_un holds 108 bytes; supervisord binds to a longer temporary name (".<pid>") first.
SOCKET_PATH_BYTES_MAX = 108 - len(".4194304") - 1


def unusable_characters(path: str) -> str:
    """The characters of ``path`` with which no environment of Python or class path of Java works.

    A link cannot replace them: environments are installed under their real path.

    >>> unusable_characters("/home/größe 100%/@x"), unusable_characters("/a:b")
    ('', "':'")
    """
    bad = sorted({c for c in path if c == ":" or not c.isprintable()})
    return " ".join(map(ascii, bad))


@dataclass(frozen=True, slots=True)
class StackDirectory:
    """Paths inside ``$SAGE_HOME``. Only :meth:`create` makes folders."""

    root: Path

    @classmethod
    def at(cls, root: Path) -> "StackDirectory":
        """The stack directory at ``root``, by a path that every server takes.

        Raises:
            ConfigError: no path of this folder can be used.
        """
        root = root.absolute()
        if bad := unusable_characters(str(root)):
            raise ConfigError(
                f"SAGE_HOME {str(root)!r}: the path may not hold {bad}; "
                "set SAGE_HOME to another folder"
            )
        return cls(plain_path(root))

    @property
    def mark(self) -> str:
        """The value of ``SAGE_STACK`` in the environment of the stack's processes.

        The real path in ASCII, so that it is the same however the folder is reached.
        """
        return quote(os.fsencode(self.root.resolve()))

    def data(self, server: str) -> Path:
        """The folder of the persistent data of ``server``."""
        return self.root / "data" / server

    def conf(self, server: str) -> Path:
        """The folder of the generated configuration of ``server``, rewritten at every start."""
        return self.root / "conf" / server

    def log(self, server: str) -> Path:
        """The file with the output of ``server``."""
        return self.root / "logs" / f"{server}.log"

    def key(self, name: str) -> Path:
        """The file of the secret ``name``."""
        return self.root / "keys" / name

    @property
    def tls(self) -> Path:
        """The folder of the certificates of a secured stack."""
        return self.root / "keys" / "tls"

    @property
    def stack_json(self) -> Path:
        """``stack.json``: addresses, ports and connections, read by ``Settings.load``."""
        return self.root / "stack.json"

    @property
    def run(self) -> Path:
        """The folder of process ids, locks and the socket of the running stack."""
        return self.root / "run"

    @property
    def python(self) -> Path:
        """The interpreter of the data plane."""
        return self.root / "venv" / "flink" / "bin" / "python"

    @property
    def pyflink(self) -> Path:
        """The folder of PyFlink, which holds Flink itself; it may not exist yet."""
        found = sorted(
            (self.root / "venv" / "flink" / "lib").glob("python3*/site-packages/pyflink")
        )
        return found[-1] if found else self.root / "venv/flink/lib/python3/site-packages/pyflink"

    def require(self, path: Path) -> Path:
        """``path``, which setup creates.

        Raises:
            StackError: it does not exist.
        """
        if not path.exists():
            raise StackError(f"{path} does not exist; {SETUP}")
        return path

    @property
    def socket(self) -> Path:
        """supervisord's socket: inside the directory, or in a short path stored there.

        A unix socket's path is limited to SOCKET_PATH_BYTES_MAX bytes.
        """
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

    def create(self) -> None:
        """Create the folders, private to the user, and store the path of a socket outside.

        Raises:
            StackError: the folders cannot be written, their disk is full, or the socket's folder
                belongs to another user.
        """
        try:
            self.root.resolve().mkdir(parents=True, exist_ok=True)  # mkdir fails on an open link
            for folder in (self.run, self.root / "logs", self.root / "keys"):
                folder.mkdir(parents=True, exist_ok=True)
            (self.run / "lock").touch()
        except OSError as error:
            raise StackError(
                f"SAGE_HOME {self.root.resolve()} cannot be written ({error}); "
                "set SAGE_HOME to a folder that you may write"
            ) from error
        free_mib = shutil.disk_usage(self.root).free >> 20
        if free_mib < FREE_MIB_MIN:
            raise StackError(
                f"SAGE_HOME {self.root.resolve()}: {free_mib} MiB free, and the servers need "
                f"{FREE_MIB_MIN} MiB to start; free disk space, or set SAGE_HOME to another disk"
            )
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


def write_private(path: Path, content: str | bytes) -> None:
    """Write ``path`` in one step, readable by its owner only (mode 0600)."""
    scratch = path.with_name(f"{path.name}.new")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    scratch.replace(path)


def secret(directory: StackDirectory, name: str, prefix: str = "") -> str:
    """The secret ``name``, created if missing: ``prefix`` + 32 URL-safe characters, mode 0600."""
    path = directory.key(name)
    if path.exists():
        return path.read_text().strip()
    value = prefix + secrets.token_urlsafe(24)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(value + "\n")
    return value
