"""A gateway on real sockets with real child processes; the engine is a fake without a model."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import uvicorn
from engineless_gateway import Outcomes
from repeating_client import RepeatingClient

from sage_flink.common import Settings
from sage_flink.tsdb import bucket
from sage_gateway.app import listen, server_config
from sage_gateway.composition import Gateway, build
from sage_gateway.config.pool_spec import LimitsSpec, PoolSpec
from sage_gateway.controlplane.pool import Pool
from sage_gateway.idempotency.in_flight_call import InFlightCall
from sage_gateway.tenants import Keys

KEY = "sk-sage-test"
CHAT = "/v1/chat/completions"
#: Tests that use one of these fixtures, or the module, run a gateway with engine processes.
GATEWAY_FIXTURES = frozenset({"start", "gateway"})
#: Of a test without its own limit; several waits of a busy machine fit.
TIMEOUT_S = 240


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        in_here = Path(__file__).parent in Path(item.path).parents
        used = GATEWAY_FIXTURES & set(getattr(item, "fixturenames", ()))
        if in_here and (used or "gateway_process" in vars(getattr(item, "module", None) or item)):
            item.add_marker(pytest.mark.processes)
        starts = in_here and item.get_closest_marker("processes")
        if starts and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@dataclass
class RunningGateway:
    """A gateway that is listening, with a client."""

    client: httpx.Client
    gateway: Gateway
    loop: asyncio.AbstractEventLoop
    logs: Path

    @property
    def url(self) -> str:
        return str(self.client.base_url)

    @property
    def pool(self) -> Pool:
        return self.gateway.pool

    def chat(self, content: str, model: str = "talk", **more: Any) -> httpx.Response:
        messages = [{"role": "user", "content": content}]
        body = {"model": model, "messages": messages, **more}
        return self.client.post(CHAT, json=body)

    def engine_stats(self, model: str = "talk", replica: int = 0) -> dict[str, Any]:
        member = self.pool.models[model].replica_slots[replica]
        found: dict[str, Any] = httpx.get(member.url("/seen"), timeout=20, verify=False).json()
        return found

    @contextlib.contextmanager
    def open_call(
        self,
        body: dict[str, Any],
        path: str = CHAT,
        *,
        headers: Sequence[str] = (),
        key: str = KEY,
    ) -> Iterator[socket.socket]:
        """Send a request, and disconnect at the end of the block."""
        raw = orjson.dumps(body)
        head = [f"POST {path} HTTP/1.1", f"authorization: Bearer {key}", *headers]
        host, port = self.url.removeprefix("http://").rstrip("/").split(":")
        with socket.create_connection((host, int(port))) as caller:
            lines = [*head, f"content-length: {len(raw)}", "", ""]
            caller.sendall("\r\n".join(lines).encode() + raw)
            yield caller

    def release(self, name: str, model: str = "talk") -> None:
        """Let the engines of the model answer the requests with the script ``hold NAME``."""
        for member in self.pool.models[model].replica_slots:
            httpx.get(member.url(f"/release/{name}"), timeout=20, verify=False)

    def generations(self) -> list[InFlightCall]:
        """The generations in flight that have an id."""
        calls = self.gateway.accounting.idempotency._by_store["generations"]
        return list(calls._calls.values())

    def until(self, condition: Callable[[], bool], seconds: float = 45.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"the condition is still false\n{self.describe()}"
            time.sleep(0.02)

    def describe(self) -> str:
        """The health page, and the end of each engine's log."""
        try:
            parts = [self.client.get("/health").text]
        except httpx.HTTPError as error:
            parts = [repr(error)]
        for log in sorted(self.logs.glob("engine-*.log")):
            parts += [f"{log}:", *log.read_text(errors="replace").splitlines()[-20:]]
        return "\n".join(parts)

    def healthy(self) -> bool:
        return self.client.get("/health").status_code == 200


Start = Callable[..., contextlib.AbstractContextManager[RunningGateway]]

#: Frequent checks, but a hung engine is found late: a busy machine starves engines for seconds.
QUICK = {
    "interval_s": 0.05,
    "suspect_s": 5.0,
    "timeout_s": 5.0,
    "missed_max": 2,
    "backoff_first_s": 0.05,
}
#: For tests of engines that hang.
HUNG_EARLY = {**QUICK, "suspect_s": 0.8, "timeout_s": 0.5}


def fake(kind: str = "chat", **more: Any) -> dict[str, Any]:
    model = {"engine": "fake", "kind": kind, "health": QUICK, **more}
    return model | ({"dim": 4} if kind == "embedding" else {})


@contextlib.contextmanager
def start_gateway(
    home: Path, models: dict[str, Any], *, wait: bool = True, **more: Any
) -> Iterator[RunningGateway]:
    rest = more.pop("pool", {})
    more.setdefault("factories", {})
    more.setdefault("bucket", bucket("pool", store="memory"))
    spec = PoolSpec.model_validate({"models": models, **rest})
    built = build(Settings(home=home, models=home), spec, Keys.of(KEY), **more)
    app = built.asgi
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(server_config(app))
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    headers = {"Authorization": f"Bearer {KEY}"}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=20, verify=False) as client:
            while not (server.started and loops):
                assert thread.is_alive(), "the gateway did not start"
                time.sleep(0.005)
            running = RunningGateway(client, built, loops[0], home / "logs")
            if wait:
                running.until(running.healthy)
            yield running
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts a gateway with these models: ``with start({"talk": model}) as gateway``.

    ``home``: its folder; by default a new one.
    """

    def with_home(models: dict[str, Any], home: Path | None = None, **more: Any) -> Any:
        return start_gateway(home or tmp_path_factory.mktemp("home"), models, **more)

    return with_home


@pytest.fixture(scope="session", name="fake")
def fake_model() -> Callable[..., dict[str, Any]]:
    """A model of the fake engine, as an entry of ``pool.yaml``."""
    return fake


@pytest.fixture(scope="session")
def hung_early() -> dict[str, float]:
    """Health checks that find a hung engine within a second or two."""
    return HUNG_EARLY


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway with a chat and an embedding model, shared by tests that only send requests."""
    models = {"talk": fake(replicas=1, aliases=["other-name"]), "vectors": fake("embedding")}
    with start_gateway(tmp_path_factory.mktemp("home"), models) as running:
        yield running


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[Any]:
    """OpenAI's own client of ``gateway``, that of the module where it has one of its own."""
    from gateway_client import client_of  # imports openai, which most files here do without

    with client_of(gateway.url) as found:
        yield found


@pytest.fixture
def caller(gateway: RunningGateway) -> RepeatingClient:
    """A client of the shared gateway that repeats its calls."""
    return RepeatingClient(gateway)


@pytest.fixture
async def outcomes(tmp_path: Path) -> AsyncIterator[Outcomes]:
    """A gateway without engines, whose tenant has a budget."""
    async with Outcomes(LimitsSpec(tokens_per_day=1_000_000), tmp_path) as found:
        yield found
