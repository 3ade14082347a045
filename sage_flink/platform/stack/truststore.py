"""Java's trust store of a secured stack: the JVM's own authorities, and the stack's.

For clients in the JVM that take no authority of their own, such as Flink's InfluxDB reporter.
"""

import shutil
import subprocess
from pathlib import Path

from sage_flink.common.errors import StackError
from sage_flink.platform.stack.stack_directory import StackDirectory, write_private

TIMEOUT_S = 60
#: The JVM's own, which everyone knows: a trust store holds no secret.
PASSWORD = "changeit"  # noqa: S105  # nosec B105


def path(directory: StackDirectory) -> Path:
    """Where it is, in the format of the JVM's own."""
    return directory.tls / "truststore"


def ensure(directory: StackDirectory) -> Path:
    """The trust store; made again when the JVM's or the stack's authorities have changed.

    Raises:
        StackError: the JDK's ``keytool`` is missing or failed.
    """
    authority, store = directory.tls / "ca.pem", path(directory)
    shipped = _program().resolve().parents[1] / "lib" / "security" / "cacerts"
    if not shipped.exists():
        raise StackError(f"the JDK has no {shipped}; install a complete JDK 17")
    newest_ns = max(file.stat().st_mtime_ns for file in (authority, shipped))
    if store.exists() and store.stat().st_mtime_ns >= newest_ns:
        return store
    scratch = store.with_name("truststore.made")
    write_private(scratch, shipped.read_bytes())
    imported = ("-importcert", "-noprompt", "-alias", "sage-stack", "-file", str(authority))
    keytool(*imported, "-keystore", str(scratch))
    write_private(store, scratch.read_bytes())
    scratch.unlink()
    return store


def keytool(*arguments: str) -> str:
    """The output of the JDK's ``keytool``, which also takes the password of the trust store.

    Raises:
        StackError: it is missing, or failed.
    """
    done = subprocess.run(
        (str(_program()), *arguments, "-storepass", PASSWORD),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise StackError(f"keytool: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def _program() -> Path:
    tool = shutil.which("keytool")
    if tool is None:
        raise StackError("keytool, a part of the JDK, is not on PATH; install a JDK 17")
    return Path(tool)
