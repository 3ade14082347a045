"""B4: what does a proxy in front of an engine cost: milliseconds, requests a second, memory?

Each proxy has a core of its own; the engine, which answers at once or after 60 ms, and the load
share another. Closed loops at 1 to 256 clients, whole and streamed, then an open loop at half of
what that side could do at most in the same repeat, beside the direct path at the same rate: what is
*added* is the difference. The limit is ``direct``. Every request carries an id of its own and its
tenant has a budget, so sage records each answer in its ledger, and holds and settles the cost of
each. ``sage_plain`` is a gateway without budgets, asked without ids, as a user at a terminal asks
it. At the end 1,000 streams are held open and memory is read.

A full run of 5 repeats takes about 14 minutes, ``--quick`` about one.
"""

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from benchmark_sage.b4_headline import Rows, headline
from benchmark_sage.mock_engine import MockEngine, mock_engine
from benchmark_sage.pace import Pace, attempted
from benchmark_sage.peers.litellm_proxy import litellm
from benchmark_sage.peers.nginx_proxy import nginx
from benchmark_sage.peers.sage_gateway import sage_gateway
from benchmark_sage.peers.vllm_router import vllm_router
from benchmark_sage.proxies import Peer, Proxy, cores
from benchmark_sage.results import Result, result
from sage_flink.common import sage_home

SEED, SECONDS, QUICK_SECONDS, STREAMS = 1, 2.0, 0.4, 1000
LONG, ANSWER = "constant:60ms", "/v1/chat/completions"
STREAM_LATENCY = "constant:6s"
PEERS: Mapping[str, Peer] = {"vllm-router": vllm_router, "litellm": litellm, "nginx": nginx}
SAGE_MODEL = {"engine": "mock", "kind": "chat", "concurrency": 2048}


class Arm(NamedTuple):
    """One closed loop."""

    clients: int
    stream: bool = False
    latency: str = "none"

    @property
    def name(self) -> str:
        """As the result file has it."""
        kind, ms = "stream" if self.stream else "whole", 0 if self.latency == "none" else 60
        return f"{kind}, {ms} ms, c={self.clients}"


CLOSED = (
    *(Arm(clients) for clients in (1, 8, 32, 256)),
    *(Arm(clients, stream=True) for clients in (1, 32)),
    *(Arm(clients, latency=LONG) for clients in (1, 64, 256)),
    Arm(1, stream=True, latency=LONG),
)
#: So much that nobody ever gets there, and every call is held and settled all the same.
BUDGETS = {"local": {"tokens_per_day": 10**12}}


class Side(NamedTuple):
    """What is asked: a proxy or the engine itself, with or without ids."""

    proxy: Proxy
    control: Callable[[str], None]
    ids: bool = True


def run(*, repeats: int, quick: bool = False, peers: Sequence[str] = tuple(PEERS)) -> Result:
    """Every side through every arm, ``repeats`` times, interleaved."""
    seconds, kept = QUICK_SECONDS if quick else SECONDS, Rows()
    proxy_core, load_core = cores()
    with confined(load_core), ExitStack() as stack:
        engine = stack.enter_context(mock_engine(seed=SEED, core=load_core))
        found = _sides(stack, engine, peers, (proxy_core, load_core), kept)
        runs = [(len(CLOSED) + 2) * (seconds + 0.2)] * repeats * len(found)
        pace = Pace([*runs, *(20.0 for _ in found)])
        for number in range(repeats):
            for name, side in found.items():
                rows = _through(side, found["direct"], seconds, SEED + number)
                for arm, row in rows.items():
                    kept.setdefault(name, {}).setdefault(arm, []).append(row)
                pace.tell(f"repeat {number + 1}/{repeats}  {name:<12}", rows[Arm(32).name])
        for name, side in found.items():
            if name != "direct":
                row = attempted(_held_open, side, 100 if quick else STREAMS)
                kept[name][f"{STREAMS} streams"] = [row]
                pace.tell(f"{name:<12} {STREAMS} streams", row)
    return result("B4", seed=SEED, repeats=repeats, sides=dict(kept), headline=headline(kept))


def _sides(
    stack: ExitStack, engine: MockEngine, peers: Sequence[str], on: tuple[int, int], kept: Rows
) -> dict[str, Side]:
    """The sides that run; one that does not is a row that says why."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sage-b4-")))
    proxy_core, load_core = on

    def told(latency: str) -> None:
        engine.control(latency=latency)

    found = {"direct": Side(Proxy(engine.url, "", {}), told)}
    for name, tenants, ids in (("sage", BUDGETS, True), ("sage_plain", {}, False)):
        gateway = sage_gateway(
            {"mock": SAGE_MODEL}, folder, proxy_core, engine_core=load_core, tenants=tenants
        )
        found[name] = _of_sage(stack.enter_context(gateway), ids)
    for name in peers:
        try:
            proxy = stack.enter_context(PEERS[name]([engine.url], folder, proxy_core))
        except Exception as error:
            kept[name] = {"error": [{"error": f"{type(error).__name__}: {error}"}]}
        else:
            found[name] = Side(proxy, told)
    for name, side in found.items():
        kept[name] = {"settings": [side.proxy.settings]}
    return found


def _of_sage(gateway: Proxy, ids: bool) -> Side:
    (own,) = gateway.engines()

    def told(latency: str) -> None:
        httpx.post(f"{own}/control", json={"latency": latency}).raise_for_status()

    return Side(gateway, told, ids)


def _through(side: Side, direct: Side, seconds: float, seed: int) -> dict[str, dict[str, Any]]:
    """One row an arm."""
    side.control("none")
    loaded(side, seconds=min(1.0, seconds), clients=8)  # connections and code are warm
    rows = {}
    for arm in CLOSED:
        side.control(arm.latency)
        options = {"clients": arm.clients, "stream": arm.stream}
        rows[arm.name] = attempted(lambda o=options: loaded(side, seconds=seconds, **o))
    side.control("none")
    peak = max(row.get("requests_per_s", 0.0) for row in rows.values())
    if side is not direct and peak:
        rate = {"rate": peak / 2, "seed": seed}
        rows["half load"] = attempted(lambda: loaded(side, seconds=seconds, **rate))
        rows["half load, direct"] = attempted(lambda: loaded(direct, seconds=seconds, **rate))
    return rows


def loaded(side: Side, *, seconds: float, **options: float | bool) -> dict[str, Any]:
    """What the load generator saw, and what the proxy used meanwhile.

    Raises:
        ValueError: a request failed; with what the side said.
    """
    told = [f"--{name}={str(value).lower()}" for name, value in options.items()]
    proxy = side.proxy
    command = [
        *(str(sage_home() / "lib" / "load-generator"), "--url", proxy.url + ANSWER),
        *("--model", proxy.model, "--key", proxy.key, "--duration", f"{seconds}s", *told),
        *(["--ids"] if side.ids else []),
    ]
    before = proxy.cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout)
    if row["failed"]:
        raise ValueError(f"{row['failed']} of {row['failed'] + row['answered']}: {row['why']}")
    if proxy.process is not None:
        row["cpu_s_per_1000"] = (proxy.cpu_s() - before) / row["answered"] * 1000
        row["rss_mib"] = proxy.rss_mib()
    return {name: round(value, 3) for name, value in row.items()}


def _held_open(side: Side, streams: int) -> dict[str, Any]:
    """The most memory while so many streams are open at a time, where it gets that far."""
    side.control(STREAM_LATENCY)
    peak, over = side.proxy.rss_mib(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.2):
            peak = max(peak, side.proxy.rss_mib())

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.monotonic()
    try:
        row = loaded(side, seconds=0.2, clients=streams, stream=True)
    finally:
        over.set()
        watching.join()
        side.control("none")
    took_s = round(time.monotonic() - began, 1)
    return {"answered": row["answered"], "rss_mib_peak": round(peak, 1), "took_s": took_s}


@contextmanager
def confined(core: int) -> Iterator[None]:
    """This process, and what it starts, on this core meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)
