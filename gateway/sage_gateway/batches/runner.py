"""One batch that runs, from where it stands to its end; the one owner of its state.

A line is asked as background work under an id that is always the same, so that the ledger answers
it once, and its answer is a row before it counts. After ``kill -9`` the lines without a row are
asked again: those whose answer was paid for come out of the ledger. The output file is made of the
rows, in the order of the lines.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec
from prometheus_client import Counter

from sage_gateway.batches import request_lines, state_machine
from sage_gateway.batches.batch_store import Owned, Rows
from sage_gateway.batches.file_store import Disk
from sage_gateway.batches.schema import Batch, Counts, FileObject, Mistake, Mistakes, Status
from sage_gateway.config.pool_spec import BatchesSpec
from sage_gateway.requests.response import Response
from sage_gateway.runtime.worker_thread import Thread

log = logging.getLogger("sage.gateway")

MISTAKES_MAX = 100
AGAIN_S = 5.0
ENDS = {Status.FINALIZING: Status.COMPLETED, Status.CANCELLING: Status.CANCELLED}
#: Asks the pool for the one who owns the batch: path, request id, body.
Ask = Callable[[Owned, str, str, bytes], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Works:
    """What all runs share. ``known``: whether there is such a model.

    ``rooms``: by model, so that those that wait for a hung one stop no other.
    """

    spec: BatchesSpec
    thread: Thread
    rows: Rows
    disk: Disk
    ask: Ask
    known: Callable[[str], bool]
    rooms: Mapping[str, asyncio.Semaphore]
    ended: Counter


class Run:
    """A batch that is not over. Only this writes its state."""

    def __init__(self, owned: Owned, works: Works) -> None:
        self.owned = owned
        self._works = works
        self.task = asyncio.create_task(self._work(), name=owned.batch.id)

    @property
    def batch(self) -> Batch:
        """As it stands now, but for the counts of answers."""
        return self.owned.batch

    async def cancel(self) -> Batch | None:
        """Begin to cancel it, and how it then stands; None if it is too late for that."""
        if self.batch.status not in state_machine.CANCELLABLE:
            return None
        saved = self._moved(Status.CANCELLING)
        cancelling = self.batch
        self.task.cancel()
        await saved
        return cancelling

    async def _work(self) -> None:
        """To the end, whatever fails on the way: every step can be taken again."""
        while not state_machine.over(self.batch.status):
            try:
                await self._to_the_end()
            except Exception:
                log.exception("%s: tried again in %g s", self.batch.id, AGAIN_S)
                with self._cancellable():
                    await asyncio.sleep(AGAIN_S)

    async def _to_the_end(self) -> None:
        try:
            async with asyncio.timeout(max(0.0, self.batch.expires_at - time.time())):
                with self._cancellable():
                    await self._to_the_last_line()
        except TimeoutError:
            if self.batch.status not in ENDS:
                await self._gather(Status.EXPIRED)
        if self.batch.status in ENDS:
            await self._gather(ENDS[self.batch.status])

    @contextlib.contextmanager
    def _cancellable(self) -> Iterator[None]:
        """What :meth:`cancel` breaks off, and that is no error; a gateway that stops is one."""
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.batch.status is not Status.CANCELLING or task is None:
                raise
            task.uncancel()

    async def _to_the_last_line(self) -> None:
        if self.batch.status is Status.VALIDATING:
            try:
                total, mistakes = await asyncio.to_thread(self._validated)
            except FileNotFoundError:  # deleted in the moment that the batch was made
                total, mistakes = 0, [Mistake(code="file_not_found", message="it was deleted")]
            self._known_total(total)
            if mistakes:
                failed = self.batch.model_copy(update={"errors": Mistakes(data=mistakes)})
                self.owned = replace(self.owned, batch=failed)
            await self._moved(Status.FAILED if mistakes else Status.IN_PROGRESS)
        if self.batch.status is Status.IN_PROGRESS:
            await self._answer_all()
            await self._moved(Status.FINALIZING)

    def _validated(self) -> tuple[int, list[Mistake]]:
        """How many lines there are, and the first mistakes in them. Waits for the disk."""
        batch, found, ids, total = self.batch, [], set[str](), 0
        with self._works.disk.path(batch.input_file_id).open("rb") as file:
            for number, raw in request_lines.lines_of(file):
                total += 1
                if total > self._works.spec.lines_max:
                    most = f"there are more than {self._works.spec.lines_max} lines"
                    return total, [request_lines.mistake(number, "too_many_lines", most)]
                if wrong := self._wrong(number, raw, ids):
                    found.append(wrong)
                if len(found) == MISTAKES_MAX:
                    break
        if not total:
            found.append(Mistake(code="empty_file", message="the input file has no lines"))
        return total, found

    def _wrong(self, number: int, raw: bytes | None, ids: set[str]) -> Mistake | None:
        if raw is None:
            return request_lines.mistake(
                number, "line_too_long", f"over {request_lines.LINE_BYTES_MAX} bytes"
            )
        try:
            line = request_lines.line_in(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return request_lines.mistake(number, "invalid_json_line", str(error))
        if wrong := request_lines.wrong_in(line, self.batch.endpoint):
            return request_lines.mistake(number, *wrong)
        if line.custom_id in ids:
            told = f"custom_id {line.custom_id!r:.80} was there before"
            return request_lines.mistake(number, "duplicate_custom_id", told, "custom_id")
        ids.add(line.custom_id)
        model = request_lines.model_of(line)
        if not self._works.known(model):
            told = f"no model {model!r:.80} here"
            return request_lines.mistake(number, "model_not_found", told, "body.model")
        return None

    async def _answer_all(self) -> None:
        """Ask every line that has no answer; some at a time, the file never whole in memory."""
        works, batch = self._works, self.batch
        done = await works.thread(works.rows.answered, batch.id)
        own = asyncio.Semaphore(works.spec.lines_at_once)
        with works.disk.path(batch.input_file_id).open("rb") as file:
            async with asyncio.TaskGroup() as group:
                numbered = request_lines.lines_of(file)
                while (at := await asyncio.to_thread(next, numbered, None)) is not None:
                    if at.number in done or at.raw is None:
                        continue
                    await own.acquire()
                    task = group.create_task(self._answer(at.number, request_lines.line_in(at.raw)))
                    task.add_done_callback(lambda _: own.release())

    async def _answer(self, number: int, line: request_lines.Line) -> None:
        works, batch_id = self._works, self.batch.id
        answer = await self._asked(number, line)
        good = answer.status == 200
        told = request_lines.told(batch_id, number, line.custom_id, answer)
        await works.thread(works.rows.record, batch_id, number, told, good=good)
        works.ended.labels("completed" if good else "failed").inc()

    async def _asked(self, number: int, line: request_lines.Line) -> Response:
        """The line's answer, an error too, however long that takes."""
        batch, body, failures = self.batch, bytes(line.body), 0
        room = self._works.rooms[request_lines.model_of(line)]
        while True:
            async with room:
                asked = request_lines.request_id(batch.id, number)
                answer = await self._works.ask(self.owned, batch.endpoint, asked, body)
            failures += not request_lines.waits(answer)
            wait_s = request_lines.again_in_s(answer, failures)
            if wait_s is None:
                return answer
            await asyncio.sleep(wait_s)

    async def _gather(self, last: Status) -> None:
        """Make the files of what was answered; it ends in this state."""
        ended = state_machine.moved(self.batch, last, time.time())
        self.owned = replace(self.owned, batch=await self._works.thread(self._gathered, ended))

    def _gathered(self, batch: Batch) -> Batch:
        """The batch with its files, saved. Waits for the disk, in the thread of the rows."""
        rows, disk, now_s = self._works.rows, self._works.disk, int(time.time())
        parts = {
            "output": rows.told(batch.id, good=True),
            "error": self._errors(batch),
        }
        made: dict[str, FileObject] = {}
        for name, pieces in parts.items():
            file_id, size = disk.written(pieces)
            if not size:
                disk.drop(file_id)
                continue
            filename = f"{batch.id}_{name}.jsonl"
            made[f"{name}_file_id"] = FileObject(
                id=file_id, bytes=size, created_at=now_s, filename=filename, purpose="batch_output"
            )
        batch = batch.model_copy(update={place: file.id for place, file in made.items()})
        rows.finish(self.owned.tenant, batch, list(made.values()))
        return batch

    def _errors(self, batch: Batch) -> Iterator[bytes]:
        """The lines of the error file; of an expired batch those that were never answered too."""
        rows = self._works.rows
        yield from rows.told(batch.id, good=False)
        if batch.status is not Status.EXPIRED:
            return
        done, why = rows.answered(batch.id), "this batch expired before the line was answered"
        with self._works.disk.path(batch.input_file_id).open("rb") as file:
            for number, raw in request_lines.lines_of(file):
                if number not in done and raw is not None:
                    custom_id = request_lines.line_in(raw).custom_id
                    yield request_lines.untold(batch.id, number, custom_id, "batch_expired", why)

    def _known_total(self, total: int) -> None:
        batch = self.batch.model_copy(update={"request_counts": Counts(total=total)})
        self.owned = replace(self.owned, batch=batch)

    def _moved(self, status: Status) -> Awaitable[None]:
        """It stands there from now on; the returned one says when that is saved."""
        batch = state_machine.moved(self.batch, status, time.time())
        self.owned = replace(self.owned, batch=batch)
        return self._works.thread(self._works.rows.save, batch)
