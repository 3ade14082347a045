"""OpenAI's ``/v1/embeddings`` on onnxruntime; run by path in the engines' environment.

Texts of all waiting requests share one queue. A turn takes the next texts up to a limit of tokens,
sorts them by length and cuts them into small batches of near-equal length, so that little is spent
on padding; ``--threads`` threads run one batch each. The event loop never computes a vector.
"""

import argparse
import asyncio
import base64
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import uvicorn

BATCH_TOKENS_MAX = 512  # padded; measured best of 256 to 8192, beyond 2048 the caches overflow
TURN_TOKENS_MAX = 4096  # what is cut at once: more sorts better and makes others wait longer
SMALL_TEXTS_MAX = 4  # a request of so few texts is a question, not ingestion
TEXTS_MAX = 2048  # per request, as OpenAI has it
BODY_BYTES_MAX = 8 << 20

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Ask(msgspec.Struct):
    """A request's body; ``model`` is one folder and always the same."""

    input: str | list[str]
    encoding_format: str | None = "float"
    dimensions: int | None = None


class Refused(Exception):  # noqa: N818 - a verdict on a request
    """The request is wrong: HTTP 400 with this message."""


class Model:
    """Tokenizer and session; both free the interpreter while they work."""

    def __init__(self, folder: Path, *, tokens_max: int, threads: int) -> None:
        os.environ["RAYON_NUM_THREADS"] = str(threads)
        import onnxruntime as ort
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()  # the file asks for 128 tokens, padded
        self.tokenizer.enable_truncation(tokens_max)
        options = ort.SessionOptions()
        # One thread a run and several runs at once: 1.3 times the speed of two threads in one run.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # keeps memory flat over many shapes
        self.session = ort.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.dim = int(self.session.get_outputs()[0].shape[-1])

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """The token ids of each text, truncated."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(texts)]

    def vectors(self, rows: list[list[int]]) -> Vectors:
        """Unit vectors (len(rows), dim) float32, in the order given: one padded batch."""
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for line, row in enumerate(rows):
            ids[line, : len(row)] = row
            mask[line, : len(row)] = 1
        feed = {"input_ids": ids, "attention_mask": mask}
        found: Vectors = self.session.run(["embedding"], feed)[0]
        return found


@dataclass(slots=True, eq=False)
class Job:
    """One request's texts on their way; rows below ``taken`` are already cut into batches."""

    rows: list[list[int]]
    out: Vectors
    done: "asyncio.Future[None]"
    left: int
    taken: int = 0


Row = tuple[Job, int]


def take(waiting: list[Job], tokens_max: int) -> list[Row]:
    """The next rows, up to ``tokens_max``, taken out of ``waiting``.

    Small requests (a question waits for its vector) go first with half of the room, then the
    oldest; jobs whose caller has gone are dropped.
    """
    rows: list[Row] = []
    small = [job for job in waiting if len(job.rows) <= SMALL_TEXTS_MAX]
    left = tokens_max
    for jobs, floor in ((small, tokens_max // 2), (list(waiting), 0)):
        for job in jobs:
            while not job.done.done() and job.taken < len(job.rows) and left > floor:
                left -= len(job.rows[job.taken])
                rows.append((job, job.taken))
                job.taken += 1
    waiting[:] = [job for job in waiting if not job.done.done() and job.taken < len(job.rows)]
    return rows


def batches(rows: list[Row], tokens_max: int) -> Iterator[list[Row]]:
    """Rows by rising length, cut where the padded size would pass ``tokens_max``."""
    batch: list[Row] = []
    for job, row in sorted(rows, key=lambda r: len(r[0].rows[r[1]])):
        if batch and (len(batch) + 1) * len(job.rows[row]) > tokens_max:
            yield batch
            batch = []
        batch.append((job, row))
    if batch:
        yield batch


class Turns:
    """The queue before the model's threads; one owner of it, on the event loop."""

    def __init__(self, model: Model, threads: int) -> None:
        self.model = model
        self.waiting: list[Job] = []
        self.cut: deque[list[Row]] = deque()
        self.idle = threads
        self.pool = ThreadPoolExecutor(threads, "onnx")
        self.tokenizing = ThreadPoolExecutor(1, "tokens")
        self.running: set[asyncio.Task[None]] = set()

    async def embed(self, texts: list[str]) -> tuple[Vectors, int]:
        """The vectors of ``texts`` and the tokens they cost."""
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self.tokenizing, self.model.tokens, texts)
        out = np.empty((len(rows), self.model.dim), np.float32)
        job = Job(rows, out, loop.create_future(), left=len(rows))
        self.waiting.append(job)
        while self.idle:
            self.idle -= 1
            task = loop.create_task(self._work())
            self.running.add(task)
            task.add_done_callback(self.running.discard)
        await job.done
        return out, sum(map(len, rows))

    async def _work(self) -> None:
        """One thread's share: batch after batch until there is none."""
        loop = asyncio.get_running_loop()
        while self.cut or self.waiting:
            if not self.cut:
                self.cut.extend(batches(take(self.waiting, TURN_TOKENS_MAX), BATCH_TOKENS_MAX))
                continue
            batch = self.cut.popleft()
            rows = [job.rows[row] for job, row in batch]
            try:
                settle(batch, await loop.run_in_executor(self.pool, self.model.vectors, rows))
            except Exception as error:  # the model's own: the requests of this batch fail, no other
                for job, _ in batch:
                    if not job.done.done():
                        job.done.set_exception(error)
        self.idle += 1


def settle(batch: list[Row], vectors: Vectors) -> None:
    """Give each job its vectors; a job that has all of them is done."""
    for (job, row), vector in zip(batch, vectors, strict=True):
        job.out[row] = vector
        job.left -= 1
        if not job.left and not job.done.done():
            job.done.set_result(None)


def checked(body: bytes, dim: int) -> tuple[list[str], str]:
    """The texts and the encoding asked for.

    Raises:
        Refused: the request is not one this server can answer.
    """
    try:
        ask = msgspec.json.decode(body, type=Ask)
    except msgspec.DecodeError as error:
        raise Refused(f"the body is not an embeddings request: {error}") from error
    texts = [ask.input] if isinstance(ask.input, str) else ask.input
    if not 0 < len(texts) <= TEXTS_MAX:
        raise Refused(f"input must hold 1 to {TEXTS_MAX} texts, got {len(texts)}")
    if "" in texts:
        raise Refused(f"input[{texts.index('')}] is empty; leave it out")
    if ask.encoding_format not in (None, "float", "base64"):
        raise Refused(f"encoding_format must be float or base64, got {ask.encoding_format!r}")
    if ask.dimensions not in (None, dim):
        raise Refused(f"dimensions must be {dim}, the size of this model's vectors")
    return texts, ask.encoding_format or "float"


def answer(name: str, vectors: Vectors, encoding: str, tokens: int) -> bytes:
    """OpenAI's list of embeddings."""
    spell = (lambda v: base64.b64encode(v.tobytes()).decode()) if encoding == "base64" else None
    data = [
        {"object": "embedding", "index": i, "embedding": spell(v) if spell else v}
        for i, v in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    page = {"object": "list", "data": data, "model": name, "usage": usage}
    return orjson.dumps(page, option=orjson.OPT_SERIALIZE_NUMPY)


class App:
    """The ASGI application: ``/health`` and ``/v1/embeddings``."""

    def __init__(self, name: str, turns: Turns) -> None:
        self.name = name
        self.turns = turns

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return None
        if scope["path"] == "/health":
            return await reply(send, 200, b'{"status":"ok"}')
        if (scope["method"], scope["path"]) != ("POST", "/v1/embeddings"):
            return await reply(send, 404, failure("no such route", "invalid_request_error"))
        try:
            texts, encoding = checked(await whole(receive), self.turns.model.dim)
            vectors, tokens = await self.gone_or(receive, self.turns.embed(texts))
        except Refused as error:
            return await reply(send, 400, failure(str(error), "invalid_request_error"))
        except Exception as error:  # never a stack trace at a user
            print(f"embedding failed: {error!r}", flush=True)
            return await reply(send, 500, failure(f"the model failed: {error}", "server_error"))
        return await reply(send, 200, answer(self.name, vectors, encoding, tokens))

    async def gone_or(
        self, receive: Receive, work: Awaitable[tuple[Vectors, int]]
    ) -> tuple[Vectors, int]:
        """The work's result; a caller that hangs up cancels it, and the queue drops its texts."""
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(receive())
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not working.done():
            working.cancel()
            raise Refused("the caller hung up")
        return working.result()


async def whole(receive: Receive) -> bytes:
    """The request's body.

    Raises:
        Refused: it is larger than ``BODY_BYTES_MAX``.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        part = event.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > BODY_BYTES_MAX:
            raise Refused(f"the body is larger than {BODY_BYTES_MAX} bytes")
        if not event.get("more_body"):
            return b"".join(parts)


async def reply(send: Send, status: int, body: bytes) -> None:
    """Send one JSON answer."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def failure(message: str, kind: str) -> bytes:
    """OpenAI's shape of an error."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}})


def main() -> None:
    """Load, then serve until SIGTERM; the port opens when the model is ready."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--alias", required=True)
    for number in ("port", "context-tokens", "threads"):
        parser.add_argument(f"--{number}", type=int, required=True)
    args = parser.parse_args()
    model = Model(args.model, tokens_max=args.context_tokens, threads=args.threads)
    uvicorn.run(
        App(args.alias, Turns(model, args.threads)),
        host="127.0.0.1",
        port=args.port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
