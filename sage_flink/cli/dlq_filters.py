"""Options of ``sage dlq``: the filters, and the dead-letter topic of a job."""

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
from sage_flink.common.connections import KafkaConnection
from sage_flink.common.connections_file import load_connections, named_connection
from sage_flink.common.dead_letters import DeadLetterFilter

if TYPE_CHECKING:
    from sage_connectors.dead_letters import DeadLetterTopic
    from sage_connectors.kafka_connection import Brokers

#: When reading takes longer, progress is shown.
QUIET_S = 2.0
SUFFIX = ".dead-letters"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Job = Annotated[
    str,
    typer.Argument(metavar="JOB", help="A job, a YAML file, or a dead-letter topic."),
]
Step = Annotated[str, typer.Option(help="Of this step only.")]
Reason = Annotated[str, typer.Option(metavar="REGEX", help="With a reason that matches only.")]
Since = Annotated[str, typer.Option(metavar="WHEN", help="1h, 30m, 2d, or a time in ISO 8601.")]
Id = Annotated[str, typer.Option("--id", metavar="ID", help="Of the record with this id only.")]
Connection = Annotated[
    str, typer.Option(metavar="NAME", help="The connection of a topic; see `sage connections ls`.")
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="The oldest N only.")]


class TopicOfJob(NamedTuple):
    """A dead-letter topic and its brokers; ``job`` is empty when a topic was named."""

    topic: str
    servers: "Brokers"
    job: str
    graph: Any = None


def filter_of(step: str = "", reason: str = "", since: str = "", id_: str = "") -> DeadLetterFilter:
    """The filters as a value.

    Raises:
        ConfigError: the reason is not a regular expression, or since is not a time.
    """
    try:
        pattern = re.compile(reason) if reason else None
    except re.error as error:
        raise ConfigError(
            f"--reason must be a regular expression, got {reason!r}: {error}"
        ) from None
    return DeadLetterFilter(step, pattern, since_ms(since, time.time()) if since else 0, id_)


def since_ms(text: str, now_s: float) -> int:
    """Milliseconds since the epoch of a time in ISO 8601 (UTC by default), or of an age.

    >>> since_ms("1h", 7200), since_ms("1970-01-01T00:01Z", 0)
    (3600000, 60000)

    Raises:
        ConfigError: it is neither.
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


def topic_of(job: str, connection: str = "") -> TopicOfJob:
    """The dead-letter topic of a job or a YAML pipeline, or the topic of this name.

    A name that belongs to no pipeline here is that of a job submitted under it, if there is a topic
    ``NAME.dead-letters``.

    Raises:
        ConfigError: its dead letters are not in a topic, or no Kafka or no topic is known.
    """
    from sage_connectors import Kafka
    from sage_connectors.kafka_client import topics

    if is_pipeline(job):
        return topic_of_pipeline(job)
    Kafka(job)  # a name that is no topic's belongs to no job either
    own = f"{job}{SUFFIX}"
    servers = brokers_of(connection)
    known = topics(servers)
    if own not in known and job not in known:
        message = f"no dead letters of a job {job!r}, and no topic of this name"
        raise ConfigError(f"{message}; see `sage jobs list --all`")
    return TopicOfJob(own if own in known else job, servers, "")


def is_pipeline(job: str) -> bool:
    """Whether it is a job of ``sage_jobs`` or a file."""
    return job.endswith(pipelines.FILES) or job in pipelines.jobs()


def topic_of_pipeline(pipeline: str, name: str = "") -> TopicOfJob:
    """The dead-letter topic of a pipeline that runs under ``name``, by default its own.

    Raises:
        ConfigError: its dead letters are not in a topic, or no Kafka is known.
    """
    from sage_connectors import Kafka
    from sage_flink.flow.graph import for_job

    name = name or Path(pipeline).stem
    graph = for_job(pipelines.load(pipeline), name)
    sink = graph.dead_letters
    if not isinstance(sink, Kafka):
        raise ConfigError(
            f"{pipeline}: its dead letters are not in a topic; "
            f'add .dead_letters_to(kafka("{{job}}{SUFFIX}"))'
        )
    servers = sink.brokers if sink.connection else sink.servers or _servers()
    return TopicOfJob(sink.topic, servers, name, graph)


def dead_letters_of(
    job: str, chosen: DeadLetterFilter, *, values: bool, connection: str = ""
) -> "DeadLetterTopic":
    """The dead letters of a job that match, with progress when it takes long."""
    return dead_letters_in(topic_of(job, connection), chosen, values=values)


def dead_letters_in(
    place: TopicOfJob, chosen: DeadLetterFilter, *, values: bool
) -> "DeadLetterTopic":
    """The dead letters in a topic that match, with progress when it takes long."""
    from sage_connectors.dead_letters import message_count, read_dead_letters

    started_s, total = time.monotonic(), message_count(place.topic, place.servers)
    with Console(stderr=True, highlight=False).status(Text("")) as status:
        status.stop()

        def show_progress(messages: int) -> None:
            if time.monotonic() - started_s > QUIET_S and messages % 100 == 0:
                status.start()
                status.update(Text(f"{place.topic}: {messages:,} of about {total:,} messages"))

        return read_dead_letters(
            place.topic, place.servers, chosen=chosen, values=values, on_progress=show_progress
        )


def brokers_of(connection: str) -> "Brokers":
    """The brokers of a named connection; without a name those of the stack.

    Raises:
        ConfigError: there is no such connection, or no Kafka is known.
    """
    return named_connection(connection, KafkaConnection) if connection else _servers()


def _servers() -> str:
    """The Kafka of this stack, or the one in the environment; never another one on that port."""
    if "kafka" in load_connections():
        return ""
    if "SAGE_KAFKA_SERVERS" not in os.environ and not (sage_home() / "stack.json").exists():
        raise ConfigError(f"no stack in {sage_home()}; run `sage up`, or set SAGE_KAFKA_SERVERS")
    return Settings.load().kafka_servers
