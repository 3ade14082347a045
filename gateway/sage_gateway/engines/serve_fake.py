"""A fake OpenAI-compatible server, scripted by the prompt; standard library only.

The last message's first word is the script: ``echo TEXT``, ``status CODE``, ``overflow`` (of any
request), ``die``,
``sleep SECONDS``, ``hold NAME`` (answer after ``GET /release/NAME``, at most ``HOLD_S`` later),
``slow``, ``break COUNT`` (die after COUNT events), ``cut COUNT`` (end after COUNT events, without
``[DONE]``). ``fail CODE`` is the answer to every later request, the probe's too. ``GET /seen``
returns the requests received, the chats by first word, and the number of callers that hung up; the
gateway's probes do not count.
"""

import argparse
import base64
import hashlib
import json
import os
import select
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SEEN: dict[str, Any] = {"requests": 0, "hung_up": 0, "last": {}, "headers": {}, "pid": os.getpid()}
SEEN["scripts"] = Counter()
LOCK = threading.Lock()
RELEASED: set[str] = set()
HOLD_S = 45.0
OVERFLOW = {"code": 400, "message": "too long", "type": "exceed_context_size_error"}


class FakeConnection(BaseHTTPRequestHandler):
    """One connection with its requests, one after the other."""

    protocol_version = "HTTP/1.1"
    alias = "fake"
    probe_status = 200
    failure = 0
    redirect = ""
    wbufsize = -1  # headers and body in one packet
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """``/health``, ``/seen`` and ``/release/NAME``."""
        if self.path.startswith("/release/"):
            RELEASED.add(self.path.removeprefix("/release/"))
        self.answer(200, {"status": "ok"} if self.path == "/health" else SEEN)

    def do_POST(self) -> None:
        """A chat, embeddings or a ranking."""
        try:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        except ValueError as error:
            return self.answer(400, {"error": {"message": str(error)}})
        if self.redirect and "x-sage-probe" not in self.headers:
            return self.answer(302, {}, location=self.redirect)
        if "x-sage-probe" in self.headers:
            if self.probe_status != 200:
                return self.answer(self.probe_status, {"error": {"message": "scripted failure"}})
        else:
            with LOCK:
                SEEN.update(last=body, headers=dict(self.headers), requests=SEEN["requests"] + 1)
        if last_text(body).split()[:1] == ["overflow"]:
            return self.answer(400, {"error": OVERFLOW})
        if self.path == "/v1/embeddings":
            return self.embed(body)
        if self.path == "/v1/rerank":
            return self.rerank(body)
        if self.path == "/v1/completions":
            return self.complete(body, str(body["prompt"]))
        words = last_text(body).split()
        return self.chat(body, words[0] if words else "echo", " ".join(words[1:]))

    def chat(self, body: dict[str, Any], verb: str, rest: str) -> None:
        """Run the script."""
        with LOCK:
            SEEN["scripts"][verb] += 1
        if verb == "die":
            os._exit(3)
        if verb == "fail":
            FakeConnection.failure = FakeConnection.probe_status = int(rest)
        if verb == "status" or self.failure:
            rest = str(self.failure or rest)
            return self.answer(int(rest), {"error": {"message": f"scripted status {rest}"}})
        if verb == "sleep" and not self.sleep(float(rest)):
            return None
        if verb == "hold" and not self.sleep(HOLD_S, unless_released=rest):
            return None
        text = rest if verb == "echo" else verb
        if body.get("stream"):
            return self.stream(text, verb, rest)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        page = {"id": "1", "object": "chat.completion", "created": 1, "model": self.alias}
        return self.answer(200, {**page, "choices": [choice], "usage": usage})

    def complete(self, body: dict[str, Any], prompt: str) -> None:
        """Echo the prompt."""
        if body.get("stream"):
            return self.stream(prompt, "echo", "")
        choice = {"index": 0, "text": prompt, "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        page = {"id": "1", "object": "text_completion", "created": 1, "model": self.alias}
        return self.answer(200, {**page, "choices": [choice], "usage": usage})

    def stream(self, text: str, verb: str, rest: str) -> None:
        """One event per word; ``break`` and ``cut`` end it early, ``slow`` takes 20 ms per word."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        limit = int(rest) if verb in ("break", "cut") else 1000
        words = text.split() if verb not in ("break", "cut", "slow") else ["word"] * 1000
        for word in words[:limit]:
            delta = {"index": 0, "delta": {"content": word + " "}, "finish_reason": None}
            page = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": self.alias}
            if not self.event(json.dumps({**page, "choices": [delta]})):
                return
            if verb == "slow" and not self.sleep(0.02):
                return
        if verb == "break":
            self.wfile.write(b'data: {"half an ev')
            self.wfile.flush()
            os._exit(3)
        if verb != "cut":
            self.event("[DONE]")
        self.close_connection = True

    def embed(self, body: dict[str, Any]) -> None:
        """Vectors of 4 numbers, a function of the text."""
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not isinstance(texts, list) or not all(isinstance(t, str) and t for t in texts):
            return self.answer(400, {"error": {"message": "input must be one text or more"}})
        rows = [vector(text) for text in texts]
        packed = [base64.b64encode(struct.pack("<4f", *row)).decode() for row in rows]
        encoded: list[Any] = packed if body.get("encoding_format") == "base64" else rows
        data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(encoded)]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        return self.answer(
            200, {"object": "list", "model": self.alias, "data": data, "usage": usage}
        )

    def rerank(self, body: dict[str, Any]) -> None:
        """Relevance is the share of the query's words in a document; the best is first."""
        wanted = set(body["query"].split())
        scores = [
            len(wanted & set(text.split())) / max(1, len(wanted)) for text in body["documents"]
        ]
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[: body.get("top_n")]
        results = [{"index": i, "relevance_score": scores[i]} for i in order]
        usage = {"prompt_tokens": len(scores), "total_tokens": len(scores)}
        page = {"object": "list", "model": self.alias, "results": results, "usage": usage}
        self.answer(200, page)

    def answer(self, status: int, page: object, location: str = "") -> None:
        """Send one JSON response."""
        body = json.dumps(page).encode()
        self.send_response(status)
        if location:
            self.send_header("location", location)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def event(self, data: str) -> bool:
        """Send one event; whether the caller is still connected."""
        try:
            self.wfile.write(f"data: {data}\n\n".encode())
            self.wfile.flush()
        except OSError:
            return self.sleep(0.0)
        return True

    def sleep(self, seconds: float, unless_released: str = "") -> bool:
        """Sleep, until the release of that name; False, and counted, if the caller hangs up."""
        end = time.monotonic() + seconds
        while True:
            readable, _, _ = select.select([self.connection], [], [], 0.01)
            if readable:
                with LOCK:
                    SEEN["hung_up"] += 1
                self.close_connection = True
                return False
            if time.monotonic() >= end or unless_released in RELEASED:
                return True

    def log_message(self, *args: object) -> None:
        """Do not log."""


def last_text(body: dict[str, Any]) -> str:
    """The last of the texts that a request is about."""
    if "messages" in body:
        return str(body["messages"][-1].get("content"))
    texts = body.get("prompt") or body.get("input") or body.get("documents")
    return str(texts[-1] if isinstance(texts, list) else texts)


def vector(text: str) -> list[float]:
    """Four numbers, unit length, the same for the same text."""
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:4]]
    length = sum(x * x for x in raw) ** 0.5
    return [x / length for x in raw]


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--load-s", type=float, default=0.0)
    parser.add_argument("--probe-status", type=int, default=200)
    parser.add_argument(
        "--redirect", default="", help="the target of the redirect that answers a POST"
    )
    args = parser.parse_args()
    time.sleep(args.load_s)
    FakeConnection.alias, FakeConnection.probe_status = args.alias, args.probe_status
    FakeConnection.redirect = args.redirect
    server = ThreadingHTTPServer(("127.0.0.1", args.port), FakeConnection)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
