"""``sage dlq``: list, show and replay the dead letters of a job."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from sage_flink.cli.dlq_letters import By, Id, Limit, Reason, Since, Step, letters_of, wanted_of
from sage_flink.cli.dlq_replay import replay
from sage_flink.cli.output import AsJson, console
from sage_flink.common import NotFound, Rejected
from sage_flink.common.letters import Posted, kind, schema

#: How much of a payload that is no text is shown.
BYTES_SHOWN = 2_000
#: How wide a column is, the last apart.
CELL_MAX = 24

app = typer.Typer(help="Dead letters: list, show, replay.", no_args_is_help=True)
app.command("replay")(replay)


@app.command("list")
def list_letters(
    job: By,
    step: Step = "",
    reason: Reason = "",
    since: Since = "",
    id_: Id = "",
    limit: Limit = None,
    every: Annotated[bool, typer.Option("--all", help="Replayed letters as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """List letters, the oldest first, and count them by step and reason."""
    wanted = wanted_of(step, reason, since, id_)
    found = letters_of(job, wanted, payloads=as_json)
    shown = (found.letters if every else found.open)[:limit]
    if as_json:
        print(json.dumps([_said(posted, found.replayed) for posted in shown]))
        return
    if not shown:
        hidden = len(found.letters) - len(found.open)
        console.print(f"no letters{f'; {hidden} replayed, see --all' if hidden else ''}")
    else:
        _print_table(shown)
        _print_counts(shown)
    if found.strange:
        console.print(f"{found.strange} messages are no letters")


@app.command()
def show(
    job: By,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The record's id.")],
    as_json: AsJson = False,
) -> None:
    """Show every letter of a record, whole, replayed or not."""
    found = letters_of(job, wanted_of(id_=id_), payloads=True)
    if not found.letters:
        raise NotFound(f"{job}: no letter of a record {id_!r}; see `sage dlq list {job} --all`")
    if as_json:
        print(json.dumps([_said(posted, found.replayed) for posted in found.letters]))
        return
    for posted in found.letters:
        _print_letter(posted, replayed=posted.position in found.replayed)


@app.command("schema")
def print_schema() -> None:
    """Print the JSON schema of a dead-letter topic's messages."""
    print(json.dumps(schema(), indent=2))


def _said(posted: Posted, replayed: frozenset[str]) -> dict[str, Any]:
    place = {"position": posted.position, "posted_ms": posted.posted_ms}
    taken = {"replayed": posted.position in replayed}
    return {**place, **taken, **posted.letter.model_dump(mode="json")}


def _print_table(shown: tuple[Posted, ...]) -> None:
    rows = [
        (
            posted.letter.id,
            posted.letter.step,
            _when(posted.posted_ms).strftime("%m-%d %H:%M"),
            str(posted.letter.attempts),
            posted.letter.reason,
        )
        for posted in shown
    ]
    _print_rows(("id", "step", "when (UTC)", "tries", "reason"), rows)


def _print_counts(shown: tuple[Posted, ...]) -> None:
    counts = Counter((posted.letter.step, kind(posted.letter.reason)) for posted in shown)
    rows = [(str(count), step, reason) for (step, reason), count in counts.most_common()]
    console.print()
    _print_rows(("count", "step", "reason"), [*rows, (str(len(shown)), "in all", "")])


def _print_rows(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A line a row, as wide as the console: the last column gets what the others leave."""
    lines = [[" ".join(cell.split()) for cell in row] for row in (heads, *rows)]
    widths = [min(CELL_MAX, max(map(len, column))) for column in zip(*lines, strict=True)]
    widths[-1] = max(CELL_MAX // 2, console.width - sum(widths[:-1]) - 2 * len(widths[:-1]))
    for cells in lines:
        cut = (_cut(cell, width).ljust(width) for cell, width in zip(cells, widths, strict=True))
        console.print("  ".join(cut).rstrip(), soft_wrap=True)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _print_letter(posted: Posted, *, replayed: bool) -> None:
    letter = posted.letter
    shown = letter.model_dump(mode="json", exclude={"payload", "payload_encoding", "v"})
    when = _when(posted.posted_ms).isoformat(timespec="seconds")
    position = f"{posted.position}{', replayed' if replayed else ''}"
    for name, value in ({"letter": position, "when": when, **shown}).items():
        console.print(f"{name:<13} {value}", soft_wrap=True)
    console.print(f"{'payload':<13} {letter.payload_encoding}", soft_wrap=True)
    console.print(_readable(posted), soft_wrap=True)
    console.print()


def _readable(posted: Posted) -> str:
    letter = posted.letter
    if letter.payload_encoding == "json":
        return json.dumps(json.loads(letter.payload), indent=2, ensure_ascii=False)
    if letter.payload_encoding == "text":
        return letter.payload
    try:
        raw = letter.record().value
    except Rejected as verdict:
        return str(verdict)
    rest = f" ... {len(raw)} bytes; the whole with --json" if len(raw) > BYTES_SHOWN else ""
    return f"{raw[:BYTES_SHOWN]!r}{rest}"


def _when(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
