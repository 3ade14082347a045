"""An embedding server on onnxruntime: ``/v1/embeddings``; run by path in the engines' environment.

Texts of all pending requests share one queue. A round takes the next texts up to a limit of tokens,
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
ROUND_TOKENS_MAX = 4096  # per round: more sorts better and makes other requests wait longer
SMALL_TEXTS_MAX = 4  # a request of at most this many texts is a query, not ingestion
TEXTS_MAX = 2048  # per request, OpenAI's limit
BODY_BYTES_MAX = 8 << 20

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Embeddings = tuple[Vectors, int]  # with the tokens they cost
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class EmbeddingsBody(msgspec.Struct):
    """The body of a request; its ``model`` is ignored, because the server has one."""

    input: str | list[str]
    encoding_format: str | None = "float"
    dimensions: int | None = None


class RequestError(Exception):
    """The request is wrong: HTTP 400. Its arguments: the message, the field at fault if known."""


class OnnxModel:
    """Tokenizer and session; both release the GIL while they work."""

    def __init__(self, folder: Path, *, tokens_max: int, threads: int) -> None:
        os.environ["RAYON_NUM_THREADS"] = str(threads)
        import onnxruntime as ort
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()  # the file's default is 128 tokens, padded
        self.tokenizer.enable_truncation(tokens_max)
        options = ort.SessionOptions()
        # One thread a run and several runs at once: 1.3 times the speed of two threads in one run.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # keeps memory flat over many shapes
        self.session = ort.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.dim = int(self.session.get_outputs()[0].shape[-1])

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """The token ids of each text, truncated."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(texts)]

    def vectors(self, rows: list[list[int]]) -> Vectors:
        """Unit vectors (len(rows), dim) float32, in the order of ``rows``: one padded batch."""
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        feed = {"input_ids": ids, "attention_mask": mask}
        output: Vectors = self.session.run(["embedding"], feed)[0]
        return output


@dataclass(slots=True, eq=False)
class EmbeddingJob:
    """The texts of one request; rows below ``next_row`` are already in batches."""

    rows: list[list[int]]
    out: Vectors
    done: "asyncio.Future[None]"
    left: int
    next_row: int = 0


JobRow = tuple[EmbeddingJob, int]


def next_rows(pending: list[EmbeddingJob], tokens_max: int) -> list[JobRow]:
    """Remove and return the next rows of ``pending``, up to ``tokens_max``.

    Small requests (a query waits for its vector) are first with half of the room, then the oldest;
    jobs of callers that hung up are dropped.
    """
    rows: list[JobRow] = []
    small = [job for job in pending if len(job.rows) <= SMALL_TEXTS_MAX]
    left = tokens_max
    for jobs, floor in ((small, tokens_max // 2), (list(pending), 0)):
        for job in jobs:
            while not job.done.done() and job.next_row < len(job.rows) and left > floor:
                left -= len(job.rows[job.next_row])
                rows.append((job, job.next_row))
                job.next_row += 1
    pending[:] = [job for job in pending if not job.done.done() and job.next_row < len(job.rows)]
    return rows


def batches(rows: list[JobRow], tokens_max: int) -> Iterator[list[JobRow]]:
    """Batches of rows in order of length, each with a padded size of at most ``tokens_max``."""
    batch: list[JobRow] = []
    for job, row in sorted(rows, key=lambda r: len(r[0].rows[r[1]])):
        if batch and (len(batch) + 1) * len(job.rows[row]) > tokens_max:
            yield batch
            batch = []
        batch.append((job, row))
    if batch:
        yield batch


class EmbeddingScheduler:
    """The queue of pending texts and the threads of the model; used on the event loop only."""

    def __init__(self, model: OnnxModel, threads: int) -> None:
        self.model = model
        self.pending: list[EmbeddingJob] = []
        self.batches: deque[list[JobRow]] = deque()
        self.idle = threads
        self.pool = ThreadPoolExecutor(threads, "onnx")
        self.tokenizing = ThreadPoolExecutor(1, "tokens")
        self.running: set[asyncio.Task[None]] = set()

    async def embed(self, texts: list[str]) -> Embeddings:
        """The vectors of ``texts`` and the tokens they cost."""
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self.tokenizing, self.model.tokens, texts)
        out = np.empty((len(rows), self.model.dim), np.float32)
        job = EmbeddingJob(rows, out, loop.create_future(), left=len(rows))
        self.pending.append(job)
        while self.idle:
            self.idle -= 1
            task = loop.create_task(self._work())
            self.running.add(task)
            task.add_done_callback(self.running.discard)
        await job.done
        return out, sum(map(len, rows))

    async def _work(self) -> None:
        """Run batches on one thread until no text is pending."""
        loop = asyncio.get_running_loop()
        while self.batches or self.pending:
            if not self.batches:
                next_round = next_rows(self.pending, ROUND_TOKENS_MAX)
                self.batches.extend(batches(next_round, BATCH_TOKENS_MAX))
                continue
            batch = self.batches.popleft()
            rows = [job.rows[row] for job, row in batch]
            try:
                vectors = await loop.run_in_executor(self.pool, self.model.vectors, rows)
                store_vectors(batch, vectors)
            except Exception as error:  # of the model: only the requests of this batch fail
                for job in {job for job, _ in batch if not job.done.done()}:
                    job.done.set_exception(error)
        self.idle += 1


def store_vectors(batch: list[JobRow], vectors: Vectors) -> None:
    """Copy the vectors to their jobs; a job with all of its vectors is done."""
    for (job, row), vector in zip(batch, vectors, strict=True):
        job.out[row] = vector
        job.left -= 1
        if not job.left and not job.done.done():
            job.done.set_result(None)


def parse(body: bytes, dim: int) -> tuple[list[str], str]:
    """The texts and the encoding of a request; RequestError if they are not served."""
    try:
        fields = msgspec.json.decode(body, type=EmbeddingsBody)
    except msgspec.DecodeError as error:
        raise RequestError(f"the body is not an embeddings request: {error}") from error
    texts = [fields.input] if isinstance(fields.input, str) else fields.input
    if not 0 < len(texts) <= TEXTS_MAX:
        raise RequestError(f"input must hold 1 to {TEXTS_MAX} texts, got {len(texts)}", "input")
    if "" in texts:
        raise RequestError(f"input[{texts.index('')}] is empty; leave it out", "input")
    encoding = "float" if fields.encoding_format is None else fields.encoding_format
    if encoding not in ("float", "base64"):
        raise RequestError(f"it must be float or base64, got {encoding!r}", "encoding_format")
    if fields.dimensions not in (None, dim):
        raise RequestError(f"this model's vectors have {dim} dimensions", "dimensions")
    return texts, encoding


def response_body(name: str, vectors: Vectors, encoding: str, tokens: int) -> bytes:
    """OpenAI's list of embeddings."""
    encode = (lambda v: base64.b64encode(v.tobytes()).decode()) if encoding == "base64" else None
    items = map(encode, vectors) if encode else vectors
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(items)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    page = {"object": "list", "data": data, "model": name, "usage": usage}
    return orjson.dumps(page, option=orjson.OPT_SERIALIZE_NUMPY)


class EmbeddingApp:
    """The ASGI application: ``/health`` and ``/v1/embeddings``."""

    def __init__(self, name: str, scheduler: EmbeddingScheduler) -> None:
        self.name, self.scheduler = name, scheduler

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return None
        if scope["path"] == "/health":
            return await send_json(send, 200, b'{"status":"ok"}')
        if (scope["method"], scope["path"]) != ("POST", "/v1/embeddings"):
            return await send_json(send, 404, error_body("no such route"))
        try:
            texts, encoding = parse(await read_body(receive), self.scheduler.model.dim)
            vectors, tokens = await self.until_disconnect(receive, self.scheduler.embed(texts))
        except RequestError as error:
            return await send_json(send, 400, error_body(*error.args))
        except Exception as error:  # a client never gets a stack trace
            print(f"embedding failed: {error!r}", flush=True)
            body = error_body(f"the model failed: {error}", kind="server_error")
            return await send_json(send, 500, body)
        return await send_json(send, 200, response_body(self.name, vectors, encoding, tokens))

    async def until_disconnect(self, receive: Receive, work: Awaitable[Embeddings]) -> Embeddings:
        """The result of ``work``; it is cancelled when the client disconnects."""
        working = asyncio.ensure_future(work)
        disconnect = asyncio.ensure_future(receive())
        await asyncio.wait((working, disconnect), return_when=asyncio.FIRST_COMPLETED)
        disconnect.cancel()
        if not working.done():
            working.cancel()
            raise RequestError("the client disconnected")
        return working.result()


async def read_body(receive: Receive) -> bytes:
    """The request's body; RequestError if it is larger than ``BODY_BYTES_MAX``."""
    body = bytearray()
    while True:
        event = await receive()
        body += event.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise RequestError(f"the body is larger than {BODY_BYTES_MAX} bytes")
        if not event.get("more_body"):
            return bytes(body)


async def send_json(send: Send, status: int, body: bytes) -> None:
    """Send one JSON response."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(message: str, param: str = "", kind: str = "invalid_request_error") -> bytes:
    """An error in OpenAI's schema."""
    fields = {"message": message, "type": kind, "param": param or None, "code": None}
    return orjson.dumps({"error": fields})


def main() -> None:
    """Load the model, open the port, and serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--alias", required=True)
    for name in ("port", "context-tokens", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    model = OnnxModel(args.model, tokens_max=args.context_tokens, threads=args.threads)
    uvicorn.run(
        EmbeddingApp(args.alias, EmbeddingScheduler(model, args.threads)),
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
