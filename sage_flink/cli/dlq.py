"""``sage dlq``: list, show and replay the dead letters of a job."""

import base64
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from sage_flink.cli.dlq_filters import (
    Connection,
    Id,
    Job,
    Limit,
    Reason,
    Since,
    Step,
    dead_letters_of,
    filter_of,
)
from sage_flink.cli.dlq_replay import replay
from sage_flink.cli.output import AsJson, console
from sage_flink.common import NotFound, Rejected
from sage_flink.common.dead_letters import DeadLetter, reason_class

#: How much of a value that is not text is shown.
BYTES_SHOWN = 2_000
#: How wide a column is, except the last one.
CELL_CHARS_MAX = 24

app = typer.Typer(help="Dead letters: list, show, replay.", no_args_is_help=True)
app.command("replay")(replay)


@app.command("list")
def list_dead_letters(
    job: Job,
    step: Step = "",
    reason: Reason = "",
    since: Since = "",
    id_: Id = "",
    limit: Limit = None,
    every: Annotated[bool, typer.Option("--all", help="Include replayed dead letters.")] = False,
    connection: Connection = "",
    as_json: AsJson = False,
) -> None:
    """List dead letters, the oldest first, and count them by step and reason."""
    chosen = filter_of(step, reason, since, id_)
    topic = dead_letters_of(job, chosen, values=as_json, connection=connection)
    letters = (topic.letters if every else topic.open)[:limit]
    if as_json:
        print(json.dumps([_json(letter, topic.replayed) for letter in letters]))
        return
    if letters:
        _print_table(letters)
        _print_counts(letters)
    else:
        hidden = len(topic.letters) - len(topic.open)
        console.print(f"no dead letters{f'; {hidden} replayed, see --all' if hidden else ''}")
    if topic.other_messages:
        console.print(f"{topic.other_messages} messages are not dead letters of this version")


@app.command()
def show(
    job: Job,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The record's id.")],
    connection: Connection = "",
    as_json: AsJson = False,
) -> None:
    """Show every dead letter of a record, complete, replayed or not."""
    topic = dead_letters_of(job, filter_of(id_=id_), values=True, connection=connection)
    if not topic.letters:
        raise NotFound(
            f"{job}: no dead letter of a record {id_!r}; see `sage dlq list {job} --all`"
        )
    if as_json:
        print(json.dumps([_json(letter, topic.replayed) for letter in topic.letters]))
        return
    for letter in topic.letters:
        _print_letter(letter, replayed=letter.position in topic.replayed)


def _json(letter: DeadLetter, replayed: frozenset[str]) -> dict[str, Any]:
    value = letter.message.value
    return {
        "position": letter.position,
        "posted_ms": letter.posted_ms,
        "replayed": letter.position in replayed,
        "id": letter.id,
        "step": letter.step,
        "reason": letter.reason,
        "attempts": letter.attempts,
        **_details(letter),
        "encoding": letter.encoding,
        "value": None if value is None else _text(value),
    }


def _details(letter: DeadLetter) -> dict[str, Any]:
    return {
        "kind": letter.kind,
        "origin": letter.origin,
        "timestamp_ms": letter.timestamp_ms,
        "key": None if letter.key is None else _text(letter.key),
        "headers": {name: _text(value) for name, value in letter.headers.items()},
        "job": letter.job,
        "run": letter.run,
    }


def _text(data: bytes) -> str | dict[str, str]:
    """Bytes as text, or in base64 where they are not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _print_table(letters: tuple[DeadLetter, ...]) -> None:
    table = _table("id", "step", "when (UTC)", "tries", "reason")
    for letter in letters:
        when = _when(letter.posted_ms).strftime("%m-%d %H:%M")
        cells = (letter.id, letter.step, when, str(letter.attempts), letter.reason)
        table.add_row(*(" ".join(cell.split()) for cell in cells))
    console.print(table)


def _print_counts(letters: tuple[DeadLetter, ...]) -> None:
    table = _table("count", "step", "reason")
    counts = Counter((letter.step, reason_class(letter.reason)) for letter in letters)
    for (step, reason), count in counts.most_common():
        table.add_row(str(count), step, " ".join(reason.split()))
    table.add_row(str(len(letters)), "in all", "")
    console.print()
    console.print(table)


def _table(*names: str) -> Table:
    """Rows of one line each: the last column gets the width that the others leave."""
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0), expand=True)
    *first, last = names
    for name in first:
        table.add_column(name, max_width=CELL_CHARS_MAX, no_wrap=True, overflow="ellipsis")
    table.add_column(last, ratio=1, no_wrap=True, overflow="ellipsis")
    return table


def _print_letter(letter: DeadLetter, *, replayed: bool) -> None:
    fields = {
        "dead letter": f"{letter.position}{', replayed' if replayed else ''}",
        "when": _when(letter.posted_ms).isoformat(timespec="seconds"),
        "id": letter.id,
        "step": letter.step,
        "reason": letter.reason,
        "attempts": letter.attempts,
        **_details(letter),
        "value": letter.encoding,
    }
    for name, value in fields.items():
        console.print(f"{name:<13} {value}", soft_wrap=True)
    console.print(_readable(letter), soft_wrap=True)
    console.print()


def _readable(letter: DeadLetter) -> str:
    try:
        value = letter.record().value
    except Rejected as refusal:
        return str(refusal)
    if not isinstance(value, bytes):
        return json.dumps(value, indent=2, ensure_ascii=False, default=repr)
    text = _text(value)
    if isinstance(text, str):
        return text
    rest = f" ... {len(value)} bytes; all with --json" if len(value) > BYTES_SHOWN else ""
    return f"{value[:BYTES_SHOWN]!r}{rest}"


def _when(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
