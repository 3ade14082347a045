"""A hostile tenant: malformed requests at a constant rate, each malformed in another way.

Run as a process, ``python hostile_load.py HOST PORT KEY SECONDS``, so that its work delays no other
client. It prints how often each status was the answer, by attack; ``""`` is a closed connection.
"""

import asyncio
import contextlib
import gzip
import itertools
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

PER_MINUTE = 2000
WAIT_S = 2.0
CHAT = "/v1/chat/completions"
COMPLETE = b'{"model":"talk","max_tokens":4,"messages":[{"role":"user","content":"%b"}]%b}'
LARGE = 10 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """The gateway, and the key of the hostile tenant."""

    host: str
    port: int
    key: str

    def head(self, *lines: bytes, path: str = CHAT, method: str = "POST") -> bytes:
        """A request head with the key, up to its empty line."""
        first = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.key}\r\n"
        return first.encode() + b"".join(line + b"\r\n" for line in lines) + b"\r\n"

    def post(self, body: bytes, *lines: bytes, path: str = CHAT) -> bytes:
        """A whole request."""
        return self.head(b"content-length: %d" % len(body), *lines, path=path) + body


class Caller:
    """One connection of the hostile tenant."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, raw: bytes) -> None:
        """Send as far as the gateway reads."""
        self._writer.write(raw)
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(self._writer.drain(), WAIT_S)

    async def dribble(self, raw: bytes, seconds: float) -> None:
        """Send a byte each tenth of a second."""
        for byte in raw[: int(seconds * 10)]:
            await self.send(bytes([byte]))
            await asyncio.sleep(0.1)

    async def status(self) -> str:
        """The status of the next answer; empty if the connection is closed or nothing comes."""
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            return (await asyncio.wait_for(self._reader.readexactly(12), WAIT_S))[9:].decode()
        return ""


Attack = Callable[[Target, Caller], Awaitable[str]]


def sends(make: Callable[[Target], bytes]) -> Attack:
    """An attack that sends some bytes and reads the status."""

    async def attack(target: Target, caller: Caller) -> str:
        await caller.send(make(target))
        return await caller.status()

    return attack


def hangs_up(make: Callable[[Target], bytes], after_s: float) -> Attack:
    """An attack that sends some bytes and hangs up after a while."""

    async def attack(target: Target, caller: Caller) -> str:
        await caller.send(make(target))
        await asyncio.sleep(after_s)
        return ""

    return attack


def dribbles(quick: Callable[[Target], bytes], slow: bytes, seconds: float) -> Attack:
    """An attack that sends ``quick``, then ``slow`` byte by byte, and hangs up."""

    async def attack(target: Target, caller: Caller) -> str:
        await caller.send(quick(target))
        await caller.dribble(slow, seconds)
        return ""

    return attack


def body(raw: bytes, *lines: bytes, path: str = CHAT) -> Attack:
    """An attack by a whole request with this body."""
    return sends(lambda target: target.post(raw, *lines, path=path))


def chat(content: bytes = b"hi", more: bytes = b"") -> bytes:
    """The body of a chat; ``more`` are further fields."""
    return COMPLETE % (content, more)


CHUNKED = b"transfer-encoding: chunked"
ATTACKS: dict[str, Attack] = {
    "no json": body(b"{'model': 'talk'"),
    "no body": body(b""),
    "random bytes": body(os.urandom(2000)),
    "no utf-8": body(chat(b"\xff\xfe")),
    "deep lists": body(b"[" * 200_000),
    "deep objects": body(chat(more=b',"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000)),
    "a huge number": body(chat(more=b',"max_tokens":' + b"9" * 5000)),
    "wrong types": body(b'{"model":1,"messages":{"role":"user"}}'),
    "an empty message": body(b'{"model":"talk","messages":[{}]}'),
    "a part without text": body(
        b'{"model":"talk","messages":[{"role":"user","content":[{"type":"text"}]}]}'
    ),
    "tools without names": body(chat(more=b',"tools":[{"type":"function","function":{}}]')),
    "too many choices": body(chat(more=b',"n":1000000')),
    "an unknown model": body(chat().replace(b"talk", b"gpt-9")),
    "a model with a long name": body(chat().replace(b"talk", b"m" * 100_000)),
    "a chat for an embedding": body(chat(), path="/v1/embeddings"),
    "a wrong key": sends(lambda t: t.post(chat()).replace(t.key.encode(), b"sk-wrong")),
    "10 MiB of json": body(chat(b"x" * LARGE)),
    "10 MiB of zeros": body(b"\0" * LARGE),
    "10 MiB unannounced": sends(
        lambda t: t.head(CHUNKED) + b"100000\r\n%b\r\n" % (b"x" * (1 << 20)) * 10 + b"0\r\n\r\n"
    ),
    "a gzip bomb": body(gzip.compress(b" " * (64 << 20), 1), b"content-encoding: gzip"),
    "a broken gzip": body(b"\x1f\x8b" + os.urandom(100), b"content-encoding: gzip"),
    "a head of 1 MiB": sends(lambda t: t.head(b"x: " + b"y" * (1 << 20))),
    "20,000 headers": sends(lambda t: t.head(*(b"x-%d: y" % i for i in range(20_000)))),
    "a long path": sends(lambda t: t.head(path="/v1/" + "a" * 50_000, method="GET")),
    "an odd method": sends(lambda t: t.head(method="BREW")),
    "a proxy request": sends(lambda _: b"CONNECT example.com:443 HTTP/1.1\r\n\r\n"),
    "an offer of http/2": sends(lambda _: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a tls hello": sends(
        lambda _: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500)
    ),
    "no http": sends(lambda _: b"hello?\r\n\r\n"),
    "a length too large": hangs_up(lambda t: t.head(b"content-length: 9000") + chat(), 0.5),
    "a length too small": sends(lambda t: t.head(b"content-length: 5") + chat()),
    "a negative length": sends(lambda t: t.head(b"content-length: -1") + chat()),
    "two lengths": sends(lambda t: t.head(b"content-length: 5", b"content-length: 6") + chat()),
    "a length and chunks": sends(lambda t: t.head(b"content-length: 5", CHUNKED) + chat()),
    "a chunk without a size": sends(lambda t: t.head(CHUNKED) + b"zz\r\n" + chat()),
    "a chunk too large": sends(lambda t: t.head(CHUNKED) + b"f" * 16 + b"\r\n" + chat()),
    "a chunk cut off": hangs_up(lambda t: t.head(CHUNKED) + b"ff\r\n" + chat(), 0.5),
    "a slow head": dribbles(lambda _: b"POST ", CHAT.encode() + b" HTTP/1.1", 3.0),
    "a slow body": dribbles(lambda t: t.head(b"content-length: 90"), chat(), 3.0),
    "a body that does not come": hangs_up(lambda t: t.head(b"content-length: 10"), 5.0),
    "half a request line": hangs_up(lambda _: b"POST /v1/ch", 5.0),
    "nothing at all": hangs_up(lambda _: b"", 5.0),
    "a bad cookie of headers": sends(
        lambda t: t.post(chat(), b"x-sage-deadline-ms: soon", b"x-sage-priority: \xff")
    ),
    "gone at once": hangs_up(lambda t: t.post(chat(b"gone")), 0.0),
    "gone while it waits": hangs_up(lambda t: t.post(chat(b"[[hang=30s]]")), 0.2),
    "gone from a stream": hangs_up(lambda t: t.post(chat(more=b',"stream":true')), 0.06),
    "gone in the middle of a body": hangs_up(lambda t: t.post(chat(b"x" * 60_000))[:30_000], 0.0),
    "a file of nothing": sends(lambda t: t.head(b"content-length: 0", path="/v1/files")),
    "a batch of nothing": body(b'{"input_file_id":1}', path="/v1/batches"),
}


async def attack_once(target: Target, attack: Attack) -> str:
    """The status that the attack got."""
    try:
        reader, writer = await asyncio.open_connection(target.host, target.port)
    except OSError:
        return "no connection"
    try:
        return await attack(target, Caller(reader, writer))
    finally:
        writer.transport.abort()


async def attack_for(target: Target, seconds: float) -> dict[str, dict[str, int]]:
    """Attack in turn at ``PER_MINUTE``; the statuses by attack."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)

    async def attack(name: str) -> None:
        found[name][await attack_once(target, ATTACKS[name])] += 1

    began_s, names = time.monotonic(), itertools.cycle(ATTACKS)
    async with asyncio.TaskGroup() as group:
        for at_s in _times(seconds):
            await asyncio.sleep(began_s + at_s - time.monotonic())
            group.create_task(attack(next(names)))
    return {name: dict(statuses) for name, statuses in found.items()}


def _times(seconds: float) -> Iterator[float]:
    return (n * 60 / PER_MINUTE for n in range(int(seconds * PER_MINUTE / 60)))


if __name__ == "__main__":
    host, port, key, seconds = sys.argv[1:]
    target = Target(host, int(port), key)
    print(json.dumps(asyncio.run(attack_for(target, float(seconds)))))
