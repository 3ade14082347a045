"""B4: the cost of a proxy in front of an engine in milliseconds, requests a second and memory.

Each proxy has its own core; the engine, which answers immediately or after 60 ms, and the load
generator share another. Closed loops with 1 to 256 clients, unstreamed and streamed, are followed
by an open loop at half of that side's highest rate in the same repeat, and by the direct path at
the same rate: *added* is the difference of the two. The limit is ``direct``. Every request has its
own idempotency key and its tenant has a budget, so sage records each response in its idempotency
store, and reserves and settles the cost of each call. ``sage_plain`` is a gateway without budgets
and gets requests without keys, like those of a user at a terminal. At the end 1,000 streams are
kept open and memory is read. ``--before CHECKOUT`` adds the gateway of another checkout that is set
up, as the side ``before`` with the settings of ``sage``.

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
from benchmark_sage.pace import Pace, attempt
from benchmark_sage.peers.litellm_proxy import litellm
from benchmark_sage.peers.nginx_proxy import nginx
from benchmark_sage.peers.sage_gateway import sage_gateway
from benchmark_sage.peers.vllm_router import vllm_router
from benchmark_sage.proxies import Peer, ProxyUnderTest, cores
from benchmark_sage.results import Result, result
from sage_flink.common import sage_home

SEED, SECONDS, QUICK_SECONDS, STREAMS = 1, 2.0, 0.4, 1000
LONG, ANSWER = "constant:60ms", "/v1/chat/completions"
STREAM_LATENCY = "constant:6s"
PEERS: Mapping[str, Peer] = {"vllm-router": vllm_router, "litellm": litellm, "nginx": nginx}
SAGE_MODEL = {"engine": "mock", "kind": "chat", "concurrency": 2048}


class LoopArm(NamedTuple):
    """The settings of one closed loop."""

    clients: int
    stream: bool = False
    latency: str = "none"

    @property
    def name(self) -> str:
        """The name in the result file."""
        kind, ms = "stream" if self.stream else "whole", 0 if self.latency == "none" else 60
        return f"{kind}, {ms} ms, c={self.clients}"


CLOSED = (
    *(LoopArm(clients) for clients in (1, 8, 32, 256)),
    *(LoopArm(clients, stream=True) for clients in (1, 32)),
    *(LoopArm(clients, latency=LONG) for clients in (1, 64, 256)),
    LoopArm(1, stream=True, latency=LONG),
)
#: Too large to be used up, but every call is still reserved and settled.
BUDGETS = {"local": {"tokens_per_day": 10**12}}


class Side(NamedTuple):
    """The target of the load: a proxy or the engine itself, with or without idempotency keys."""

    proxy: ProxyUnderTest
    control: Callable[[str], None]
    ids: bool = True


def run(
    *,
    repeats: int,
    quick: bool = False,
    peers: Sequence[str] = tuple(PEERS),
    before: Path | None = None,
) -> Result:
    """Every side through every arm, ``repeats`` times, interleaved arm by arm.

    ``before``: a checkout whose gateway is measured with this one's.
    """
    seconds, kept = QUICK_SECONDS if quick else SECONDS, Rows()
    proxy_core, load_core = cores()
    with on_core(load_core), ExitStack() as stack:
        engine = stack.enter_context(mock_engine(seed=SEED, core=load_core))
        found = _sides(stack, engine, peers, (proxy_core, load_core), kept, before)
        whole_s = len(CLOSED) * (seconds + 0.2) * len(found)
        pace = Pace([*([whole_s / len(CLOSED)] * len(CLOSED) * repeats), *(20.0 for _ in found)])
        for number in range(repeats):
            for arm, rows in _through(found, seconds, SEED + number):
                for name, row in rows.items():
                    kept.setdefault(name, {}).setdefault(arm, []).append(row)
                pace.report(f"repeat {number + 1}/{repeats}  {arm:<18} {_rates(rows)}", {})
        for name, side in found.items():
            if name != "direct":
                row = attempt(_hold_streams, side, 100 if quick else STREAMS)
                kept[name][f"{STREAMS} streams"] = [row]
                pace.report(f"{name:<12} {STREAMS} streams", row)
    return result("B4", seed=SEED, repeats=repeats, sides=dict(kept), headline=headline(kept))


def _sides(
    stack: ExitStack,
    engine: MockEngine,
    peers: Sequence[str],
    on: tuple[int, int],
    kept: Rows,
    before: Path | None,
) -> dict[str, Side]:
    """The sides that started; for one that failed, a row in ``kept`` holds the error."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sage-b4-")))
    proxy_core, load_core = on

    def set_latency(latency: str) -> None:
        engine.control(latency=latency)

    found = {"direct": Side(ProxyUnderTest(engine.url, "", {}), set_latency)}
    gateways = [("sage", BUDGETS, None), ("sage_plain", {}, None)]
    for name, tenants, checkout in [*gateways, *([("before", BUDGETS, before)] if before else [])]:
        gateway = sage_gateway(
            {"mock": SAGE_MODEL},
            folder,
            proxy_core,
            engine_core=load_core,
            checkout=checkout,
            tenants=tenants,
        )
        found[name] = _of_sage(stack.enter_context(gateway), ids=bool(tenants))
    for name in peers:
        try:
            proxy = stack.enter_context(PEERS[name]([engine.url], folder, proxy_core))
        except Exception as error:
            kept[name] = {"error": [{"error": f"{type(error).__name__}: {error}"}]}
        else:
            found[name] = Side(proxy, set_latency)
    for name, side in found.items():
        kept[name] = {"settings": [side.proxy.settings]}
    return found


def _of_sage(gateway: ProxyUnderTest, *, ids: bool) -> Side:
    (own,) = gateway.engines()

    def set_latency(latency: str) -> None:
        httpx.post(f"{own}/control", json={"latency": latency}).raise_for_status()

    return Side(gateway, set_latency, ids)


def _through(
    sides: dict[str, Side], seconds: float, seed: int
) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Each arm with a row for each side, one side directly after the other.

    The speed of a machine changes within a minute; a ratio is of two neighbours.
    """
    peaks = dict.fromkeys(sides, 0.0)
    for side in sides.values():
        side.control("none")
        apply_load(side, seconds=min(1.0, seconds), clients=8)  # connections and code are warm
    for arm in CLOSED:
        rows = {name: _closed_loop(side, arm, seconds) for name, side in sides.items()}
        for name, row in rows.items():
            peaks[name] = max(peaks[name], row.get("requests_per_s", 0.0))
        yield arm.name, rows
    for side in sides.values():
        side.control("none")
    halves: dict[str, dict[str, Any]] = {}
    directs: dict[str, dict[str, Any]] = {}
    for name, side in sides.items():
        if name != "direct" and peaks[name]:
            rate = {"rate": peaks[name] / 2, "seed": seed}
            halves[name] = attempt(lambda s=side, r=rate: apply_load(s, seconds=seconds, **r))
            directs[name] = attempt(
                lambda r=rate: apply_load(sides["direct"], seconds=seconds, **r)
            )
    yield "half load", halves
    yield "half load, direct", directs


def _closed_loop(side: Side, arm: LoopArm, seconds: float) -> dict[str, Any]:
    side.control(arm.latency)
    options = {"clients": arm.clients, "stream": arm.stream}
    return attempt(lambda: apply_load(side, seconds=seconds, **options))


def _rates(rows: Mapping[str, dict[str, Any]]) -> str:
    """The requests a second of each side."""
    return "  ".join(f"{name} {row.get('requests_per_s', 0):.0f}" for name, row in rows.items())


def apply_load(side: Side, *, seconds: float, **options: float | bool) -> dict[str, Any]:
    """The load generator's figures, and the proxy's CPU and memory during the load.

    Raises:
        ValueError: a request failed; the message holds the side's error.
    """
    flags = [f"--{name}={str(value).lower()}" for name, value in options.items()]
    proxy = side.proxy
    command = [
        *(str(sage_home() / "lib" / "load-generator"), "--url", proxy.url + ANSWER),
        *("--model", proxy.model, "--key", proxy.key, "--duration", f"{seconds}s", *flags),
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


def _hold_streams(side: Side, streams: int) -> dict[str, Any]:
    """The highest memory of the proxy while ``streams`` streams are open at the same time."""
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
        row = apply_load(side, seconds=0.2, clients=streams, stream=True)
    finally:
        over.set()
        watching.join()
        side.control("none")
    took_s = round(time.monotonic() - began, 1)
    return {"answered": row["answered"], "rss_mib_peak": round(peak, 1), "took_s": took_s}


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Restrict this process, and the processes it starts, to this core during the block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)
