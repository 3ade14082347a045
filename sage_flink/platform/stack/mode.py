"""Mode of a stack: open on loopback, or secured by TLS and passwords. One for all its servers.

Secured are the servers that clients talk to: Kafka, Milvus, InfluxDB and the gateway. Flink,
ZooKeeper and the engines have no password; they listen on loopback. Milvus's internal components do
neither, see ``milvus.py``. So a secured stack keeps out clients without a secret; who can log in on
the machine can still reach Flink's REST API, and with it run code as the stack's user.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.platform.stack.flink import jobs_to_continue
from sage_flink.platform.stack.stack_directory import StackDirectory
from sage_flink.platform.stack.stack_json import is_secured

OPTIONS = {True: "--secure", False: "--no-secure"}
WORDS = {True: "secured", False: "open"}
RENEWED = "new certificate; the servers that run use it after `sage down` and `sage up`"


@dataclass(frozen=True, slots=True)
class Mode:
    """The mode of a start; ``is_renewed``: it made a new certificate."""

    secured: bool
    is_renewed: bool = False


def choose_mode(
    *, asked: bool | None, stored: bool, running: Collection[str], jobs_to_continue: int
) -> bool:
    """Whether the stack is to be secured: as ``asked``, else as it is ``stored``.

    Raises:
        ConfigError: the mode would change while a server runs, or while Flink has jobs to continue:
            they know the servers as they were when the jobs were submitted.
    """
    if asked is None or asked == stored:
        return stored
    up = f"`sage up {OPTIONS[asked]}`"
    if running:
        raise ConfigError(
            f"the stack runs {WORDS[stored]} ({', '.join(sorted(running))}); `sage down`, then {up}"
        )
    if jobs_to_continue:
        raise ConfigError(
            f"{jobs_to_continue} jobs continue at the next `sage up`, and they were submitted to a "
            f"stack that was {WORDS[stored]}: `sage up`, end them (`sage jobs list`, "
            f"`sage jobs cancel NAME`), `sage down`, then {up}"
        )
    return asked


def summary(directory: StackDirectory, servers: Collection[str]) -> str:
    """What a secured stack demands, of which ``servers``, and until when its certificate is valid.

    Near its end with the next step; empty without a certificate.
    """
    from sage_flink.platform.stack import certificates  # a quarter of a command's start-up

    until = certificates.expiry(directory)
    if until is None:
        return ""
    text = (
        f"secured by TLS and passwords: {', '.join(servers)}; keys in {directory.key('')}, "
        f"certificate valid until {until:%Y-%m-%d}"
    )
    soon = until - datetime.now(UTC) < timedelta(days=certificates.RENEWAL_DAYS)
    return f"{text}: `sage down` and `sage up` make a new one" if soon else text


def prepare(directory: StackDirectory, asked: bool | None, running: Collection[str]) -> Mode:
    """The mode of this start, with the certificates that it needs.

    Raises:
        ConfigError: the mode cannot change now.
        StackError: the authority is missing, damaged or about to expire while servers run, which
            would not be trusted any more.
    """
    secured = choose_mode(
        asked=asked,
        stored=is_secured(directory),
        running=running,
        jobs_to_continue=jobs_to_continue(directory),
    )
    if not secured:
        return Mode(secured)
    from sage_flink.platform.stack import certificates

    if running and not certificates.has_authority(directory):
        raise StackError(
            f"the stack needs a new certificate authority, because {directory.tls} has none that "
            "is valid for another month; `sage down`, then `sage up`"
        )
    return Mode(secured, certificates.ensure(directory))
