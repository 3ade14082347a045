"""``sage dlq replay``: letters back into their pipeline, as a bounded Flink job beside it.

What decides is what the topic holds once the job has ended: a letter with a marker was replayed.
So it matters neither how this command ended last time nor how that job did.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from sage_flink.cli.dlq_letters import (
    Id,
    Limit,
    Place,
    Reason,
    Since,
    Step,
    letters_at,
    place_of,
    wanted_of,
)
from sage_flink.cli.jobs import flink_url
from sage_flink.cli.output import console
from sage_flink.common import ConfigError, OperatorNeeded, Retryable
from sage_flink.common.letters import Posted, Wanted, distinct
from sage_flink.platform.flink_rest import ENDED, FlinkRest

if TYPE_CHECKING:
    from sage_flink.flow.replay import Replay

#: What one job takes: its records travel with the job itself.
ROUND_LETTERS_MAX = 2_000
ROUND_CHARS_MAX = 16 << 20
RESTARTS_MAX = 10


def replay(
    pipeline: Annotated[str, typer.Argument(help="A job of sage_jobs, or a YAML file.")],
    step: Step = "",
    reason: Reason = "",
    since: Since = "",
    id_: Id = "",
    limit: Limit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Replay letters once: each record enters at the step that refused it.

    Ids stay, so nothing doubles. Output and the mark that a letter was replayed are one
    transaction: a replay that was cut off is simply run again.
    """
    place, wanted = place_of(pipeline), wanted_of(step, reason, since, id_)
    if place.graph is None:
        raise ConfigError(
            f"{pipeline!r} is a topic: which steps to replay? "
            "Give a job of sage_jobs, or the path of a YAML file"
        )
    if dry_run:
        _plan(place, _chosen(place, wanted, limit))
        return
    with FlinkRest(flink_url()) as rest:
        letters, known = _settled(rest, place, wanted, limit)
        chosen = _plan(place, letters)
        if chosen and (yes or typer.confirm(f"replay {_letters(chosen)}?", abort=True)):
            _replay(rest, place, chosen, known)


def _chosen(place: Place, wanted: Wanted, limit: int | None) -> list[Posted]:
    """The letters to replay, twins as one; twins of another time or reason are read as well."""
    near = Wanted(step=wanted.step, id=wanted.id)
    return list(distinct(letters_at(place, near, payloads=True).open, wanted))[:limit]


def _plan(place: Place, letters: Sequence[Posted]) -> tuple[Posted, ...]:
    """The letters that can be replayed, said by step; the others are told with the reason."""
    from sage_flink.flow.replay import one_transaction
    from sage_flink.flow.replay import replay as planned

    plan: Replay = planned(place.graph, letters)
    if plan.graph is not None:
        one_transaction(plan.graph)
    for why, count in Counter(left.why for left in plan.left).most_common():
        console.print(f"left: {count} x {why}", soft_wrap=True)
    if not plan.taken:
        console.print("nothing to replay")
    for name, count in Counter(posted.letter.step for posted in plan.taken).most_common():
        console.print(f"to replay: {count} at step {name!r}", soft_wrap=True)
    return plan.taken


def _settled(
    rest: FlinkRest, place: Place, wanted: Wanted, limit: int | None
) -> tuple[list[Posted], frozenset[str]]:
    """The letters to replay, read while no replay of theirs ran; and the replays known by then."""
    while True:
        before = {job.id for job in rest.jobs() if job.state in ENDED}
        letters = _chosen(place, wanted, limit)
        names = {_name(place, posted) for posted in letters}
        late = [job for job in rest.jobs() if job.name in names and job.id not in before]
        if not late:
            return letters, frozenset(before)
        for job in late:
            _ended(rest, job.id, f"an earlier replay runs: {job.name} {job.id}")


def _replay(
    rest: FlinkRest, place: Place, letters: Iterable[Posted], known: frozenset[str]
) -> None:
    from sage_flink import flow
    from sage_flink.flow.replay import replay as planned

    options = flow.FlinkOptions(restarts_max=RESTARTS_MAX)
    for part in _rounds(place, letters):
        name = _name(place, part[0])
        graph = planned(place.graph, part).graph
        assert graph is not None
        if late := [job for job in rest.jobs() if job.name == name and job.id not in known]:
            raise Retryable(f"another replay came between ({late[0].id}); run this again")
        ends = _ends(place)
        with console.status(Text(f"submitting {name}")):
            job_id = flow.submit(
                graph, name=name, options=options, job=_job(place, part[0]), at_once=True
            )
        console.print(f"job {job_id}; see {rest.url}/#/job/running/{job_id}", soft_wrap=True)
        state = _ended(rest, job_id, f"{name}: {_letters(part)}")
        known |= {job_id}
        _report(place, part, ends, f"job {job_id} ended {state}")


def _report(place: Place, part: Sequence[Posted], ends: dict[int, int], ended: str) -> None:
    """Say what the topic holds now.

    Raises:
        OperatorNeeded: the letters are not marked, so the job failed; they are as they were.
    """
    after = letters_at(place, Wanted(), payloads=False)
    done = [posted for posted in part if posted.position in after.replayed]
    if len(done) < len(part):
        raise OperatorNeeded(
            f"{ended}: {_letters(part)} not replayed, and still there; "
            "see `sage logs taskmanager`, then run this again"
        )
    name = _name(place, part[0])
    again = [posted for posted in after.letters if posted.run == name and _is_new(posted, ends)]
    console.print(f"replayed {_letters(done)}; failed again: {len(again)}")
    for step, count in Counter(posted.letter.step for posted in again).most_common():
        console.print(f"  {count} at step {step!r}, in {place.topic}", soft_wrap=True)


def _ended(rest: FlinkRest, job_id: str, what: str) -> str:
    """The state in which the job has ended, once it has."""
    began = time.monotonic()
    with console.status(Text(what)) as status:
        while (state := rest.job(job_id).state) not in ENDED:
            status.update(Text(f"{what}, {state.lower()} {time.monotonic() - began:.0f} s"))
            time.sleep(0.5)
    return state


def _rounds(place: Place, letters: Iterable[Posted]) -> Iterator[list[Posted]]:
    """The letters in parts that a job can take, each of one job's letters."""
    by_job = partial(_job, place)
    for _, group in groupby(sorted(letters, key=by_job), by_job):
        part: list[Posted] = []
        chars = 0
        for posted in group:
            chars += len(posted.letter.payload)
            if part and (chars > ROUND_CHARS_MAX or len(part) == ROUND_LETTERS_MAX):
                yield part
                part, chars = [], len(posted.letter.payload)
            part.append(posted)
        yield part


def _job(place: Place, posted: Posted) -> str:
    """The job that wrote the letter; letters before version 1 do not say."""
    return posted.letter.job or place.job


def _name(place: Place, posted: Posted) -> str:
    return f"{_job(place, posted)}.replay"


def _ends(place: Place) -> dict[int, int]:
    from sage_connectors.kafka_client import end_offsets

    return end_offsets(place.topic, place.servers)


def _is_new(posted: Posted, ends: dict[int, int]) -> bool:
    _, partition, offset = posted.position.rsplit("/", 2)
    return int(offset) >= ends.get(int(partition), 0)


def _letters(letters: Sequence[object]) -> str:
    return f"{len(letters)} letter{'s' if len(letters) != 1 else ''}"
