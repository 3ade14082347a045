"""Runner of one batch, from its saved state to its end; the only writer of that state.

Each line is sent as background work under an id that depends on the batch and the line alone, so
the idempotency store answers it once. Its answer is saved before it is counted. After ``kill -9``
the lines without a saved answer are sent again; the idempotency store replays those that the
engine had finished. The output file is written from the saved answers, in the order of the lines.
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
from sage_gateway.batches.batch_store import BatchStore, OwnedBatch
from sage_gateway.batches.file_store import FileStore
from sage_gateway.batches.retries import final_answer
from sage_gateway.batches.schema import (
    Batch,
    BatchError,
    BatchErrors,
    FileObject,
    RequestCounts,
    Status,
)
from sage_gateway.config.storage_spec import BatchesSpec
from sage_gateway.requests.response import Response
from sage_gateway.runtime.worker_thread import WorkerThread

log = logging.getLogger("sage.gateway")

ERRORS_MAX = 100
RETRY_S = 5.0
FINAL_STATUS = {Status.FINALIZING: Status.COMPLETED, Status.CANCELLING: Status.CANCELLED}
#: Sends a request to the pool for the owner of the batch: path, request id, body.
Send = Callable[[OwnedBatch, str, str, bytes], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class BatchContext:
    """What all runs share.

    ``model_slots``: requests in flight by model, so that a model that hangs blocks no other.
    ``line_counter``: counts lines by outcome.
    """

    spec: BatchesSpec
    thread: WorkerThread
    store: BatchStore
    files: FileStore
    send: Send
    is_known_model: Callable[[str], bool]
    model_slots: Mapping[str, asyncio.Semaphore]
    line_counter: Counter


class BatchRun:
    """A batch that has not ended, with the task that runs it."""

    def __init__(self, owned: OwnedBatch, context: BatchContext) -> None:
        self.owned = owned
        self._context = context
        self.task = asyncio.create_task(self._run(), name=owned.batch.id)

    @property
    def batch(self) -> Batch:
        """Its current state; the store has the counts of answers."""
        return self.owned.batch

    async def cancel(self) -> Batch | None:
        """Start to cancel it; the batch in its new state, or None if it is too late to cancel."""
        if self.batch.status not in state_machine.CANCELLABLE:
            return None
        saved = self._set_status(Status.CANCELLING)
        cancelling = self.batch
        self.task.cancel()
        await saved
        return cancelling

    async def _run(self) -> None:
        """Run to the end. Every step can be repeated, so an unexpected error is retried."""
        while not state_machine.is_final(self.batch.status):
            try:
                await self._run_once()
            except Exception:
                log.exception("%s: the batch failed, retrying in %g s", self.batch.id, RETRY_S)
                with self._cancellable():
                    await asyncio.sleep(RETRY_S)

    async def _run_once(self) -> None:
        try:
            async with asyncio.timeout(max(0.0, self.batch.expires_at - time.time())):
                with self._cancellable():
                    await self._validate_and_answer()
        except TimeoutError:
            if self.batch.status not in FINAL_STATUS:
                await self._finish(Status.EXPIRED)
        if self.batch.status in FINAL_STATUS:
            await self._finish(FINAL_STATUS[self.batch.status])

    @contextlib.contextmanager
    def _cancellable(self) -> Iterator[None]:
        """Absorb the cancellation by :meth:`cancel`; pass on that of a gateway that stops."""
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.batch.status is not Status.CANCELLING or task is None:
                raise
            task.uncancel()

    async def _validate_and_answer(self) -> None:
        if self.batch.status is Status.VALIDATING:
            try:
                total, errors = await asyncio.to_thread(self._validate)
            except FileNotFoundError:  # not by the API, which keeps the input of an open batch
                message = f"the content of {self.batch.input_file_id} is no longer on the disk"
                total, errors = 0, [BatchError(code="file_not_found", message=message)]
            self._set_total(total)
            if errors:
                failed = self.batch.model_copy(update={"errors": BatchErrors(data=errors)})
                self.owned = replace(self.owned, batch=failed)
            await self._set_status(Status.FAILED if errors else Status.IN_PROGRESS)
        if self.batch.status is Status.IN_PROGRESS:
            await self._answer_all()
            await self._set_status(Status.FINALIZING)

    def _validate(self) -> tuple[int, list[BatchError]]:
        """The number of lines, and the first errors in them. Blocks on the disk."""
        batch, found, ids, total = self.batch, [], set[str](), 0
        with self._context.files.path(batch.input_file_id).open("rb") as file:
            for number, raw in request_lines.read_lines(file):
                total += 1
                if total > self._context.spec.lines_max:
                    message = f"there are more than {self._context.spec.lines_max} lines"
                    return total, [request_lines.batch_error(number, "too_many_lines", message)]
                if error := self._find_error(number, raw, ids):
                    found.append(error)
                if len(found) == ERRORS_MAX:
                    break
        if not total:
            found.append(BatchError(code="empty_file", message="the input file has no lines"))
        return total, found

    def _find_error(self, number: int, raw: bytes | None, ids: set[str]) -> BatchError | None:
        if raw is None:
            message = f"over {request_lines.LINE_BYTES_MAX} bytes"
            return request_lines.batch_error(number, "line_too_long", message)
        try:
            line = request_lines.parse_line(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return request_lines.batch_error(number, "invalid_json_line", str(error))
        if found := request_lines.find_error(line, self.batch.endpoint):
            return request_lines.batch_error(number, *found)
        if line.custom_id in ids:
            message = f"an earlier line has the custom_id {line.custom_id!r:.80}"
            return request_lines.batch_error(number, "duplicate_custom_id", message, "custom_id")
        ids.add(line.custom_id)
        model = request_lines.model_of(line)
        if not self._context.is_known_model(model):
            message = f"the pool has no model {model!r:.80}"
            return request_lines.batch_error(number, "model_not_found", message, "body.model")
        return None

    async def _answer_all(self) -> None:
        """Send every line without an answer, ``lines_at_once`` at a time.

        The file is read as lines are sent; it is never whole in memory.
        """
        context, batch = self._context, self.batch
        done = await context.thread(context.store.answered_lines, batch.id)
        slots = asyncio.Semaphore(context.spec.lines_at_once)
        with context.files.path(batch.input_file_id).open("rb") as file:
            async with asyncio.TaskGroup() as group:
                lines = request_lines.read_lines(file)
                while (at := await asyncio.to_thread(next, lines, None)) is not None:
                    if at.number in done or at.raw is None:
                        continue
                    await slots.acquire()
                    line = request_lines.parse_line(at.raw)
                    task = group.create_task(self._answer(at.number, line))
                    task.add_done_callback(lambda _: slots.release())

    async def _answer(self, number: int, line: request_lines.RequestLine) -> None:
        context, batch_id = self._context, self.batch.id
        answer = await self._send(number, line)
        good = answer.status == 200
        text = request_lines.answer_line(batch_id, number, line.custom_id, answer)
        await context.thread(context.store.record, batch_id, number, text, good=good)
        context.line_counter.labels("completed" if good else "failed").inc()

    async def _send(self, number: int, line: request_lines.RequestLine) -> Response:
        """The final answer to a line, which may be an error; retries for as long as it takes."""
        batch, body = self.batch, bytes(line.body)
        request_id = request_lines.request_id(batch.id, number)
        slots = self._context.model_slots[request_lines.model_of(line)]

        async def send() -> Response:
            async with slots:
                return await self._context.send(self.owned, batch.endpoint, request_id, body)

        return await final_answer(send)

    async def _finish(self, status: Status) -> None:
        """Write the output files and end the batch in ``status``."""
        final = state_machine.with_status(self.batch, status, time.time())
        batch = await self._context.thread(self._write_files, final)
        self.owned = replace(self.owned, batch=batch)

    def _write_files(self, batch: Batch) -> Batch:
        """The batch with its output files, saved. Runs on the worker thread of the store."""
        store, files, now_s = self._context.store, self._context.files, int(time.time())
        contents = {
            "output": store.answers(batch.id, good=True),
            "error": self._error_lines(batch),
        }
        expiry = batch.output_expires_after
        created: dict[str, FileObject] = {}
        for name, lines in contents.items():
            file_id, size = files.write(lines)
            if not size:
                files.delete(file_id)
                continue
            filename = f"{batch.id}_{name}.jsonl"
            created[f"{name}_file_id"] = FileObject(
                id=file_id,
                bytes=size,
                created_at=now_s,
                expires_at=now_s + expiry.seconds if expiry else None,
                filename=filename,
                purpose="batch_output",
            )
        batch = batch.model_copy(update={field: file.id for field, file in created.items()})
        store.finish(self.owned.tenant, batch, list(created.values()))
        return batch

    def _error_lines(self, batch: Batch) -> Iterator[bytes]:
        """The error file: failed lines, and in an expired batch those without an answer."""
        store = self._context.store
        yield from store.answers(batch.id, good=False)
        if batch.status is not Status.EXPIRED:
            return
        done = store.answered_lines(batch.id)
        message = "this batch expired before the line was answered"
        with self._context.files.path(batch.input_file_id).open("rb") as file:
            for number, raw in request_lines.read_lines(file):
                if number not in done and raw is not None:
                    custom_id = request_lines.parse_line(raw).custom_id
                    yield request_lines.missing_answer_line(
                        batch.id, number, custom_id, "batch_expired", message
                    )

    def _set_total(self, total: int) -> None:
        batch = self.batch.model_copy(update={"request_counts": RequestCounts(total=total)})
        self.owned = replace(self.owned, batch=batch)

    def _set_status(self, status: Status) -> Awaitable[None]:
        """Change the state; await the result to know that it is saved."""
        batch = state_machine.with_status(self.batch, status, time.time())
        self.owned = replace(self.owned, batch=batch)
        return self._context.thread(self._context.store.save, batch)
