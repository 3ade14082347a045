"""``sage dlq replay``: processes dead letters again, in a bounded Flink job next to the pipeline's.

The topic decides: a dead letter with a replay mark was replayed. So it does not matter how an
earlier run of this command ended, or its job.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from sage_flink.cli.dlq_filters import (
    Id,
    Limit,
    Reason,
    Since,
    Step,
    TopicOfJob,
    dead_letters_in,
    filter_of,
    is_pipeline,
    topic_of_pipeline,
)
from sage_flink.cli.jobs import flink_url
from sage_flink.cli.output import console
from sage_flink.common import ConfigError, OperatorNeeded, Retryable
from sage_flink.common.dead_letters import DeadLetter, DeadLetterFilter, distinct
from sage_flink.platform.flink_rest import ENDED, FlinkRest

if TYPE_CHECKING:
    from sage_flink.flow.replay import Replay

#: Limits of one job: its records travel in the job itself.
ROUND_LETTERS_MAX = 2_000
ROUND_BYTES_MAX = 16 << 20
RESTARTS_MAX = 10


def replay(
    pipeline: Annotated[str, typer.Argument(help="A job of sage_jobs, or a YAML file.")],
    name: Annotated[str, typer.Option(help="Of the job, where it is not the pipeline's.")] = "",
    step: Step = "",
    reason: Reason = "",
    since: Since = "",
    id_: Id = "",
    limit: Limit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Replay dead letters once: each record enters at the step that refused it.

    Ids stay the same, so no row is doubled. The output and the mark that a dead letter was replayed
    are one transaction: after an interruption, run the command again.
    """
    if not is_pipeline(pipeline):
        raise ConfigError(
            f"{pipeline!r} is no pipeline: which steps to replay? "
            "Give a job of sage_jobs, or the path of a YAML file, and its --name"
        )
    place, chosen = topic_of_pipeline(pipeline, name), filter_of(step, reason, since, id_)
    if dry_run:
        _plan(place, _open_letters(place, chosen, limit))
        return
    with FlinkRest(flink_url()) as rest:
        letters, known = _after_running_replays(rest, place, chosen, limit)
        replayable = _plan(place, letters)
        if replayable and (yes or typer.confirm(f"replay {_count(replayable)}?", abort=True)):
            _replay(rest, place, replayable, known)


def _open_letters(
    place: TopicOfJob, chosen: DeadLetterFilter, limit: int | None
) -> list[DeadLetter]:
    """The dead letters to replay, each record once, also if it failed at different times."""
    near = DeadLetterFilter(step=chosen.step, id=chosen.id)
    return list(distinct(dead_letters_in(place, near, values=True).open, chosen))[:limit]


def _plan(place: TopicOfJob, letters: Sequence[DeadLetter]) -> tuple[DeadLetter, ...]:
    """The dead letters that can be replayed; prints them by step, and the others by reason."""
    from sage_flink.flow.replay import one_transaction
    from sage_flink.flow.replay import replay as planned

    plan: Replay = planned(place.graph, letters)
    if plan.graph is not None:
        one_transaction(plan.graph)
    for reason, count in Counter(each.reason for each in plan.skipped).most_common():
        console.print(f"skipped: {count} x {reason}", soft_wrap=True)
    if not plan.letters:
        console.print("nothing to replay")
    for name, count in Counter(letter.step for letter in plan.letters).most_common():
        console.print(f"to replay: {count} at step {name!r}", soft_wrap=True)
    return plan.letters


def _after_running_replays(
    rest: FlinkRest, place: TopicOfJob, chosen: DeadLetterFilter, limit: int | None
) -> tuple[list[DeadLetter], frozenset[str]]:
    """The dead letters to replay, read while no job replayed them; and the jobs that ended."""
    while True:
        before = {job.id for job in rest.jobs() if job.state in ENDED}
        letters = _open_letters(place, chosen, limit)
        names = {_name(place, letter) for letter in letters}
        running = [job for job in rest.jobs() if job.name in names and job.id not in before]
        if not running:
            return letters, frozenset(before)
        for job in running:
            _wait_for_end(rest, job.id, f"an earlier replay runs: {job.name} {job.id}")


def _replay(
    rest: FlinkRest, place: TopicOfJob, letters: Iterable[DeadLetter], known: frozenset[str]
) -> None:
    from sage_flink import flow
    from sage_flink.flow.replay import replay as planned

    options = flow.FlinkOptions(restarts_max=RESTARTS_MAX)
    for part in _rounds(place, letters):
        name = _name(place, part[0])
        graph = planned(place.graph, part).graph
        assert graph is not None
        if others := [job for job in rest.jobs() if job.name == name and job.id not in known]:
            raise Retryable(f"another replay was started ({others[0].id}); run this again")
        ends = _end_offsets(place)
        with console.status(Text(f"submitting {name}")):
            job_id = flow.submit(
                graph, name=name, options=options, job=_job(place, part[0]), in_one_transaction=True
            )
        console.print(f"job {job_id}; see {rest.url}/#/job/running/{job_id}", soft_wrap=True)
        state = _wait_for_end(rest, job_id, f"{name}: {_count(part)}")
        known |= {job_id}
        _report(place, part, ends, f"job {job_id} ended {state}")


def _report(
    place: TopicOfJob, part: Sequence[DeadLetter], ends: dict[int, int], ended: str
) -> None:
    """Print what the topic holds now.

    Raises:
        OperatorNeeded: the dead letters are not marked, so the job failed; they are unchanged.
    """
    after = dead_letters_in(place, DeadLetterFilter(), values=False)
    done = [letter for letter in part if letter.position in after.replayed]
    if len(done) < len(part):
        raise OperatorNeeded(
            f"{ended}: {_count(part)} not replayed, and still in the topic; "
            "see `sage logs taskmanager`, then run this again"
        )
    name = _name(place, part[0])
    again = [letter for letter in after.letters if letter.run == name and _is_new(letter, ends)]
    console.print(f"replayed {_count(done)}; failed again: {len(again)}")
    for step, count in Counter(letter.step for letter in again).most_common():
        console.print(f"  {count} at step {step!r}, in {place.topic}", soft_wrap=True)


def _wait_for_end(rest: FlinkRest, job_id: str, what: str) -> str:
    """The state in which the job ended; returns when it has."""
    began = time.monotonic()
    with console.status(Text(what)) as status:
        while (state := rest.job(job_id).state) not in ENDED:
            status.update(Text(f"{what}, {state.lower()} {time.monotonic() - began:.0f} s"))
            time.sleep(0.5)
    return state


def _rounds(place: TopicOfJob, letters: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """The dead letters in parts that one job can replay, each of the dead letters of one job."""
    by_job = partial(_job, place)
    for _, group in groupby(sorted(letters, key=by_job), by_job):
        part: list[DeadLetter] = []
        size = 0
        for letter in group:
            size += len(letter.message.value or b"")
            if part and (size > ROUND_BYTES_MAX or len(part) == ROUND_LETTERS_MAX):
                yield part
                part, size = [], len(letter.message.value or b"")
            part.append(letter)
        yield part


def _job(place: TopicOfJob, letter: DeadLetter) -> str:
    """The job whose record failed."""
    return letter.job or place.job


def _name(place: TopicOfJob, letter: DeadLetter) -> str:
    return f"{_job(place, letter)}.replay"


def _end_offsets(place: TopicOfJob) -> dict[int, int]:
    from sage_connectors.kafka_client import end_offsets

    return end_offsets(place.topic, place.servers)


def _is_new(letter: DeadLetter, ends: dict[int, int]) -> bool:
    _, partition, offset = letter.position.rsplit("/", 2)
    return int(offset) >= ends.get(int(partition), 0)


def _count(letters: Sequence[object]) -> str:
    return f"{len(letters)} dead letter{'s' if len(letters) != 1 else ''}"
