"""A client that repeats its calls under their ids, and counts the requests at the engine."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import orjson

CHAT = "/v1/chat/completions"


def new_id_headers() -> dict[str, str]:
    return {"x-request-id": uuid.uuid4().hex}


class RepeatingClient:
    """Client that repeats requests under their ids, and counts the requests at the engine."""

    def __init__(self, gateway: Any) -> None:
        self.gateway = gateway
        self._before = gateway.engine_stats()

    def ask(self, content: str, headers: dict[str, str], **more: Any) -> httpx.Response:
        found: httpx.Response = self.gateway.client.post(
            CHAT, content=chat(content, **more), headers=headers
        )
        return found

    def begin(self, content: str, headers: dict[str, str], **more: Any) -> "Future":
        return Future(lambda: self.ask(content, headers, **more))

    def disconnect(self, content: str, headers: dict[str, str]) -> None:
        """Send a request that is new to the engine, and leave once the engine has it."""
        before = self.engine_requests()
        lines = [f"{name}: {value}" for name, value in headers.items()]
        with self.gateway.open_call(orjson.loads(chat(content)), headers=lines):
            self.gateway.until(lambda: self.engine_requests() > before)

    def until_listeners(self, count: int) -> None:
        """Wait until so many clients wait for the generations in flight that have an id."""
        calls = self.gateway.generations
        self.gateway.until(lambda: sum(call.listeners for call in calls()) == count)

    def engine_requests(self) -> int:
        count: int = self.gateway.engine_stats()["requests"] - self._before["requests"]
        return count

    def abort_count(self) -> int:
        count: int = self.gateway.engine_stats()["hung_up"] - self._before["hung_up"]
        return count

    def metric(self, name: str) -> float:
        """The value of a metric, summed over its labels."""
        lines = self.gateway.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


class Future:
    """A call in a thread."""

    def __init__(self, work: Callable[[], httpx.Response]) -> None:
        self._found: list[httpx.Response] = []
        self._thread = threading.Thread(target=lambda: self._found.append(work()))
        self._thread.start()

    def result(self) -> httpx.Response:
        self._thread.join(20)
        return self._found[0]


def chat(content: str, **more: Any) -> bytes:
    messages = [{"role": "user", "content": content}]
    return orjson.dumps({"model": "talk", "messages": messages} | more)


def ledger_header(answer: httpx.Response) -> str | None:
    return answer.headers.get("x-sage-ledger")
