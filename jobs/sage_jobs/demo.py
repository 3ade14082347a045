"""The demo: feeds documents, waits until they are searchable, asks questions, and counts.

Run by ``bash infra/demo.sh``. Each count is read from the server that stores the rows, and the run
fails when the counts are not balanced.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

import sage_flink as sage
from sage_connectors.kafka_client import committed_offsets, drain, feed
from sage_flink.common import ConfigError, OperatorNeeded, Record, Settings, sage_home
from sage_flink.common.dead_letters import REPLAYED
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.platform import stack
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.job_accounting import job_balance
from sage_flink.platform.record_accounting import Balance
from sage_jobs import corpus, rag_ingest
from sage_jobs.ask import ask
from sage_jobs.entry import report_errors
from sage_jobs.rag_ingest import RagIngest

JOB = "rag_ingest"
QUESTIONS = (
    "What does the assert statement do?",
    "How does a with statement use a context manager?",
    "What is the difference between is and == ?",
)
console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class ExpectedIds:
    """The ids that the job will write, from its own steps run in this process."""

    chunks: frozenset[str]
    failed: frozenset[str]


@dataclass(frozen=True, slots=True)
class DemoCounts:
    """The counts in the servers after a run; the last two are over all runs."""

    fed: int
    read: int
    dead_lettered: int
    chunks: int
    vectors: int
    vectors_all: int
    points_all: int

    @property
    def is_balanced(self) -> bool:
        """Whether all documents were read, and every chunk has its vector and its point.

        Points can be more than vectors: a document with a newer time has new points.
        """
        return (
            self.fed == self.read
            and self.chunks == self.vectors
            and self.vectors_all <= self.points_all
        )


@dataclass(frozen=True, slots=True)
class CountsBefore:
    """The counts before this run."""

    read: int
    dead: int


def main(
    docs: Annotated[
        Path | None, typer.Option(help="Ingest this folder instead of the Python reference.")
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option("--ask", help="Ask this instead; may be repeated.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Stop the stack at the end.")] = False,
) -> None:
    """Bring the stack up, ingest documents through Flink, ask questions, and count."""
    if keep and down:
        raise ConfigError("--keep and --down exclude each other; give one")
    home = sage_home()
    stay = keep or (console.is_terminal and not down)
    began = time.monotonic()
    stack.up(home)
    try:
        run(docs, tuple(question or QUESTIONS), began)
    finally:
        if not stay:
            stack.down(home)
    if stay:
        console.print("The stack is up; [bold]sage down[/] stops it.")


def run(docs: Path | None, questions: tuple[str, ...], began: float) -> None:
    """The demo on a stack that is up."""
    settings = Settings.load()
    config = RagIngest(dead_letters=f"{JOB}.dead-letters", group=JOB)
    with step("documents"):
        documents = list(corpus.folder(docs, report_skip)) if docs else corpus.python_reference()
        messages = [corpus.message(document) for document in documents]
        if not messages:
            raise ConfigError(f"{docs}: no file with a known suffix in it")
        expected = expect(messages, config)
    with step("job rag_ingest"):
        rest = FlinkRest(settings.flink_url)
        job_id = submit_once(rest, config, settings)
    before = CountsBefore(committed_offsets(config.group, config.topic), dead(config))
    started = time.monotonic()
    feed_all(messages, config)
    wait_searchable(expected, config)
    seconds = time.monotonic() - started
    counted = count(len(messages), expected, config, before)
    balance = job_balance(rest, rest.job(job_id), wait_s=60)
    for text in questions:
        console.rule(style="dim")
        ask(text, settings, console)
    report(counted, balance, seconds, time.monotonic() - began, settings)


def report_skip(reason: str) -> None:
    """Print the reason why a file was skipped."""
    console.print(Text(f"skipped: {reason}", "yellow"))


def expect(messages: list[tuple[bytes, bytes]], config: RagIngest) -> ExpectedIds:
    """The chunk ids that the job will write, from the job's own steps run in this process."""
    nodes = rag_ingest.build(config).nodes
    ends = next(place for place, node in enumerate(nodes) if node.name == "split")
    graph = sage.flow.Stream(nodes[: ends + 1]).write("chunks", ListSink())
    rows = tuple(
        Record(id=f"fed/{n}", value=value, key=key) for n, (key, value) in enumerate(messages)
    )
    outcome = asyncio.run(sage.flow.run(graph, sources={"documents": ListSource(rows)}))
    chunks = frozenset(record.id for record in outcome.written["chunks"])
    return ExpectedIds(chunks, frozenset(failed.id for failed in outcome.failed))


def submit_once(rest: FlinkRest, config: RagIngest, settings: Settings) -> str:
    """Submit the job unless it runs already; returns its id when all its tasks run."""
    job = rest.running(JOB)
    job_id = job.id if job else sage.flow.submit(rag_ingest.build(config), name=JOB)
    wait(lambda: rest.all_tasks_running(job_id), 120, f"job {job_id}: see {settings.flink_url}")
    return job_id


def feed_all(messages: list[tuple[bytes, bytes]], config: RagIngest) -> None:
    """Write the messages to the topic and wait for the acknowledgements, with a progress bar."""
    with bar() as progress:
        task = progress.add_task("fed to Kafka", total=len(messages))
        feed(config.topic, messages, on_progress=lambda n: progress.update(task, completed=n))


def wait_searchable(expected: ExpectedIds, config: RagIngest) -> None:
    """Return when every expected chunk is in the collection, by a strong count.

    Raises:
        OperatorNeeded: no further chunk arrived for two minutes.
    """
    store = sage.db.collection(config.collection, dim=config.dim).open()
    have, changed = 0, time.monotonic()
    with bar() as progress:
        task = progress.add_task("searchable", total=len(expected.chunks))
        while have < len(expected.chunks):
            time.sleep(0.3)
            if (now := store.count(expected.chunks)) > have:
                have, changed = now, time.monotonic()
                progress.update(task, completed=have)
            if time.monotonic() - changed > 120:
                raise OperatorNeeded(
                    f"{have} of {len(expected.chunks)} chunks are searchable, without a new "
                    "one for 120 s; see `sage ps` and `sage logs taskmanager`"
                )
    store.close()


def count(fed: int, expected: ExpectedIds, config: RagIngest, before: CountsBefore) -> DemoCounts:
    """The counts in the servers, after a checkpoint has committed the offsets."""
    store = sage.db.collection(config.collection, dim=config.dim).open()
    bucket = sage.tsdb.bucket(config.bucket).open()
    end = before.read + fed
    with step("checkpoint"):  # behind all records that are on their way, a minute on a slow machine
        wait(
            lambda: committed_offsets(config.group, config.topic) >= end,
            300,
            "offsets are not committed; see `sage ps` and `sage logs taskmanager`",
        )
    wait(lambda: bucket.count("chunks") >= store.count(), 60, "points are missing in InfluxDB")
    counted = DemoCounts(
        fed=fed,
        read=committed_offsets(config.group, config.topic) - before.read,
        dead_lettered=dead(config) - before.dead,
        chunks=len(expected.chunks),
        vectors=store.count(expected.chunks),
        vectors_all=store.count(),
        points_all=bucket.count("chunks"),
    )
    store.close()
    bucket.close()
    return counted


def report(
    counted: DemoCounts, balance: Balance, ingest_s: float, whole_s: float, settings: Settings
) -> None:
    """Print the table and the addresses; raise when the counts are not balanced."""
    table = Table(title="Counts, and where they were taken", title_justify="left", box=None)
    table.add_column("stage")
    table.add_column("count", justify="right")
    table.add_column("counted in", style="dim")
    for stage, number, place in (
        ("documents fed", counted.fed, "Kafka, acknowledged"),
        ("documents read", counted.read, "Kafka, offsets the job committed"),
        ("dead-lettered", counted.dead_lettered, "Kafka, read committed"),
        ("chunks", counted.chunks, "the job's own steps, run here"),
        ("vectors of these chunks", counted.vectors, "Milvus, strong count"),
        ("vectors, all runs", counted.vectors_all, "Milvus, strong count"),
        ("points, all runs", counted.points_all, "InfluxDB"),
    ):
        table.add_row(stage, f"{number:,}", place)
    state = "balanced" if balance.is_balanced else "not balanced"
    table.add_row("records of the job", state, "Flink: `sage jobs account rag_ingest`")
    table.add_row("fed to searchable", f"{ingest_s:.1f} s", "")
    table.add_row("the whole demo", f"{whole_s:.1f} s", "")
    console.rule(style="dim")
    console.print(table)
    console.print(
        f"\nFlink UI      {settings.flink_url}\n"
        f"Gateway docs  {settings.gateway_url}/docs\n"
        f"              any user name; the password: {_short(settings.home / 'keys' / 'gateway')}\n"
        "Logs          sage logs taskmanager   (sage ps names the others)"
    )
    if not (counted.is_balanced and balance.is_balanced):
        raise OperatorNeeded(
            "the counts are not balanced: see the table above, and `sage jobs account rag_ingest`"
        )


def dead(config: RagIngest) -> int:
    """The number of committed records in the dead-letter topic, replayed ones included."""
    return sum(REPLAYED not in message.headers for message in drain(config.dead_letters))


def wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return when ``condition`` holds.

    Raises:
        OperatorNeeded: it did not within ``seconds``; ``what`` names the missing condition.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise OperatorNeeded(f"waited {seconds:g} s: {what}")
        time.sleep(0.2)


def _short(path: Path) -> Path:
    """The path relative to the working directory, where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the seconds that the block took; on a terminal a spinner shows while it runs."""
    started = time.monotonic()
    with console.status(title):
        yield
    console.print(f"{title:<24} {time.monotonic() - started:6.1f} s")


def bar() -> Progress:
    """A progress bar; without a terminal it prints its final state."""
    return Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


if __name__ == "__main__":
    with report_errors("demo"):
        typer.run(main)
