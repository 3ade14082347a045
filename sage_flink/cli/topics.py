"""``sage topics``: record the messages of a topic with their timing, and replay them."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from sage_flink.cli.dlq_filters import QUIET_S, SECONDS, Connection, brokers_of
from sage_flink.cli.output import AsJson, console, print_json
from sage_flink.common import ConfigError

if TYPE_CHECKING:
    from sage_connectors.topic_recording import TopicReplay

#: How often the number of messages is shown.
SHOWN_S = 0.2

app = typer.Typer(help="Topics: record and replay messages.", no_args_is_help=True)
Count = Annotated[int | None, typer.Option(min=1, metavar="N", help="End after N messages.")]
WithoutGaps = Annotated[bool, typer.Option("--as-fast-as-possible", help="Without the gaps.")]
Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="A Kafka topic.")]


@app.command("record")
def record_topic(
    topic: Topic,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, such as t.rec.gz.")],
    for_: Annotated[
        str, typer.Option("--for", metavar="TIME", help="End after 60s, 5m, 1h; else on Ctrl-C.")
    ] = "",
    count: Count = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Also what is in the topic already.")
    ] = False,
    connection: Connection = "",
    as_json: AsJson = False,
) -> None:
    """Record what arrives in a topic: keys, values, headers, timestamps, partitions, gaps.

    Ctrl-C ends the recording and keeps it. Committed messages only. The gaps are those of arrival;
    of messages that were in the topic before, those of their timestamps.
    """
    from sage_connectors.topic_recording import record

    for_s, started_s = seconds_of("--for", for_) if for_ else None, time.monotonic()
    with _progress(f"{topic}: recorded") as on_progress:
        messages, interrupted = record(
            topic,
            file,
            brokers_of(connection),
            for_s=for_s,
            count=count,
            from_beginning=from_beginning,
            on_progress=on_progress,
        )
    seconds, size = time.monotonic() - started_s, file.stat().st_size
    if as_json:
        about = {"topic": topic, "file": file, "messages": messages, "bytes": size}
        print_json({**about, "seconds": round(seconds, 3), "interrupted": interrupted})
        return
    text = f"{file}: {messages:,} messages of {topic} in {seconds:.1f} s, {size:,} bytes"
    console.print(f"{text}{'; interrupted' if interrupted else ''}", soft_wrap=True)
    if not messages and not from_beginning:
        console.print("no message arrived; --from-beginning records those in the topic already")


@app.command("replay")
def replay_topic(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A recording of `sage topics record`.")
    ],
    topic: Topic,
    speed: Annotated[
        float, typer.Option(metavar="X", help="Gaps divided by X: 2 is twice as fast.")
    ] = 1.0,
    as_fast_as_possible: WithoutGaps = False,
    shift_to_now: Annotated[
        bool, typer.Option("--shift-to-now", help="Move all timestamps by one distance, to now.")
    ] = False,
    connection: Connection = "",
    as_json: AsJson = False,
) -> None:
    """Write a recording into a topic, with the recorded gaps, into the same partitions.

    An absent topic is created. Timestamps are the recorded ones unless shifted. Ctrl-C ends it;
    what was sent is in the topic.
    """
    from sage_connectors.topic_recording import replay

    if not 0 < speed < float("inf"):
        raise ConfigError(
            f"--speed must be more than 0, got {speed:g}; without gaps: --as-fast-as-possible"
        )
    with _progress(f"{topic}: replayed") as on_progress:
        result = replay(
            file,
            topic,
            brokers_of(connection),
            speed=None if as_fast_as_possible else speed,
            shift_to_now=shift_to_now,
            on_progress=on_progress,
        )
    if as_json:
        print_json({"topic": topic, "file": file, **asdict(result)})
    else:
        _show_replay(topic, file, result, has_gaps=not as_fast_as_possible)


def _show_replay(topic: str, file: Path, result: "TopicReplay", *, has_gaps: bool) -> None:
    text = f"{topic}: {result.messages:,} messages in {result.seconds:.1f} s"
    if has_gaps:
        text += f", at most {result.behind_s_max * 1000:.0f} ms behind the recording"
    console.print(f"{text}{'; interrupted' if result.interrupted else ''}", soft_wrap=True)
    if not result.complete:
        console.print(
            f"{file} is incomplete: its recorder was killed; every message before that was sent"
        )


def seconds_of(option: str, text: str) -> float:
    """The seconds of a duration.

    >>> seconds_of("--for", "1.5m")
    90.0

    Raises:
        ConfigError: it is none.
    """
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)):
        raise ConfigError(f"{option} must be such as 60s, 5m or 1h, got {text!r}")
    return float(found[1]) * SECONDS[found[2]]


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    """Shows the number of messages on stderr when it takes long."""
    started_s = shown_s = time.monotonic()
    with Console(stderr=True, highlight=False).status(Text("")) as status:
        status.stop()

        def show(messages: int) -> None:
            nonlocal shown_s
            now_s = time.monotonic()
            if now_s - started_s > QUIET_S and now_s - shown_s > SHOWN_S:
                shown_s = now_s
                status.start()
                status.update(Text(f"{what} {messages:,} messages; Ctrl-C ends it"))

        yield show
