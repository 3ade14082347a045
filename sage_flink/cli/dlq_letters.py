"""What the commands of ``sage dlq`` share: the filters, and how they find a job's letters."""

import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from sage_flink.cli import pipelines
from sage_flink.common import ConfigError, Settings, sage_home
from sage_flink.common.letters import Wanted

if TYPE_CHECKING:
    from sage_connectors.dead_letters import Found

#: Silence that a person does not mind.
QUIET_S = 2.0
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

By = Annotated[
    str,
    typer.Argument(metavar="JOB", help="A job of sage_jobs, a YAML file, or a dead-letter topic."),
]
Step = Annotated[str, typer.Option(help="Only of this step.")]
Reason = Annotated[str, typer.Option(metavar="REGEX", help="Only of a reason that matches.")]
Since = Annotated[str, typer.Option(metavar="WHEN", help="1h, 30m, 2d, or a time in ISO 8601.")]
Id = Annotated[str, typer.Option("--id", metavar="ID", help="Only of the record of this id.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="The oldest N of them.")]


class Place(NamedTuple):
    """A topic, and where it is; ``job`` is '' where a topic was named."""

    topic: str
    servers: str
    job: str
    graph: Any = None


def wanted_of(step: str = "", reason: str = "", since: str = "", id_: str = "") -> Wanted:
    """The filters as a value.

    Raises:
        ConfigError: the reason is no regular expression, or since is no time.
    """
    try:
        pattern = re.compile(reason) if reason else None
    except re.error as error:
        raise ConfigError(
            f"--reason must be a regular expression, got {reason!r}: {error}"
        ) from None
    return Wanted(step, pattern, since_ms(since, time.time()) if since else 0, id_)


def since_ms(text: str, now_s: float) -> int:
    """Milliseconds since the epoch of a time in ISO 8601 (UTC by default), or of so long ago.

    >>> since_ms("1h", 7200), since_ms("1970-01-01T00:01Z", 0)
    (3600000, 60000)

    Raises:
        ConfigError: neither.
    """
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        return max(0, round((now_s - float(found[1]) * SECONDS[found[2]]) * 1000))
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--since must be such as 1h, 30m, 2d, or a time in ISO 8601, got {text!r}"
        ) from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def place_of(job: str) -> Place:
    """The dead-letter topic of a job or a YAML pipeline, or the topic of this name.

    Raises:
        ConfigError: its dead letters are in no topic, or no Kafka is known.
    """
    from sage_connectors import Kafka

    if job.endswith(pipelines.FILES) or job in pipelines.jobs():
        graph = pipelines.load(job)
        sink = graph.dead_letters
        if not isinstance(sink, Kafka):
            raise ConfigError(
                f"{job}: its dead letters are in no topic; "
                f'add .dead_letters_to(kafka("{Path(job).stem}.dead-letters"))'
            )
        return Place(sink.topic, sink.servers or _servers(), Path(job).stem, graph)
    return Place(Kafka(job).topic, _servers(), "")


def letters_of(job: str, wanted: Wanted, *, payloads: bool) -> "Found":
    """The letters of a job that are wanted, with progress when it takes long."""
    return letters_at(place_of(job), wanted, payloads=payloads)


def letters_at(place: Place, wanted: Wanted, *, payloads: bool) -> "Found":
    """The letters at a place that are wanted, with progress when it takes long."""
    from sage_connectors import dead_letters

    began, total = time.monotonic(), dead_letters.size(place.topic, place.servers)
    with Console(stderr=True, highlight=False).status(Text("")) as status:
        status.stop()

        def told(messages: int) -> None:
            if time.monotonic() - began > QUIET_S and messages % 100 == 0:
                status.start()
                status.update(Text(f"{place.topic}: {messages:,} of about {total:,} messages"))

        return dead_letters.find(
            place.topic, place.servers, wanted=wanted, payloads=payloads, on_progress=told
        )


def _servers() -> str:
    """The Kafka of this stack, or the one that is named; never a stranger's on the usual port."""
    if "SAGE_KAFKA_SERVERS" not in os.environ and not (sage_home() / "stack.json").exists():
        raise ConfigError(f"no stack in {sage_home()}; run `sage up`, or set SAGE_KAFKA_SERVERS")
    return Settings.load().kafka_servers
