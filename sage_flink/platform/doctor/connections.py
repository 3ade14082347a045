"""Connections: whether Kafka, Flink, Milvus, InfluxDB and the gateway answer at their addresses."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from sage_flink.common.connections_file import load_connections
from sage_flink.common.http_clients import httpx_options
from sage_flink.common.proxies import is_loopback
from sage_flink.common.settings import Settings
from sage_flink.platform.doctor.check import Check
from sage_flink.platform.stack.kafka import speaks_kafka
from sage_flink.platform.stack.server import trusting

TIMEOUT_S = 2.0
CLOCK_OFF_S = 30.0


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """One server at one address. ``error`` is empty when it answered; ``clock_off_s``: how much
    its clock is ahead of ours, 0.0 when it did not say.
    """

    name: str
    address: str
    version: str = ""
    error: str = ""
    clock_off_s: float = 0.0


def read_connections(settings: Settings) -> list[ConnectionFacts]:
    """One connection per address of ``settings``; all are tried at the same time.

    It does not log in: `sage connections test` does.

    Raises:
        ConfigError: a file of named connections cannot be read.
    """
    named = {name: found for name, (found, _) in load_connections().items()}
    ca = {name: Path(path) for name, found in named.items() if (path := getattr(found, "ca", ""))}
    over_tls = "SSL" in getattr(named.get("kafka"), "protocol", "")
    influxdb, gateways = settings.influxdb_url, settings.gateway_urls
    brokers = settings.kafka_servers.split(",")
    probes: list[Callable[[], list[ConnectionFacts]]] = [
        lambda: [_kafka(address, over_tls, ca.get("kafka")) for address in brokers],
        lambda: [_http("flink", settings.flink_url, "/config", "flink-version")],
        lambda: [_tcp("milvus", settings.milvus_url)],
        lambda: [_http("influxdb", influxdb, "/health", "version", ca.get("influxdb"))],
        lambda: [_http("gateway", x, "/health", "version", ca.get("gateway")) for x in gateways],
    ]
    with ThreadPoolExecutor(len(probes)) as threads:
        return [one for found in threads.map(lambda probe: probe(), probes) for one in found]


def check_connections(found: list[ConnectionFacts]) -> Iterator[Check]:
    """The checks of the connections.

    A server of this machine that is down is a warning: it may be stopped on purpose, and if it
    should run, its process is the fault.
    """
    for one in found:
        if not one.error:
            version = f" {one.version}" if one.version else ""
            yield Check("connections", one.name, "ok", f"answers at {one.address}{version}")
            if abs(one.clock_off_s) > CLOCK_OFF_S:
                yield _clock(one)
            continue
        setting = "SAGE_KAFKA_SERVERS" if one.name == "kafka" else f"SAGE_{one.name.upper()}_URL"
        is_local = is_loopback(_as_url(one.address))
        step = f"run `sage up {one.name}`" if is_local else "see that it runs and is reachable"
        yield Check(
            "connections",
            one.name,
            "warning" if is_local else "fault",
            f"{one.address}: {one.error}",
            f"{step}; or set {setting} to another address",
        )


def _clock(one: ConnectionFacts) -> Check:
    where = "ahead of" if one.clock_off_s > 0 else "behind"
    found = f"its clock is {abs(one.clock_off_s):.0f} s {where} this machine's"
    return Check("connections", one.name, "warning", found, "set both clocks (NTP)")


def _http(name: str, url: str, path: str, version: str, ca: Path | None = None) -> ConnectionFacts:
    address = _without_login(url)
    try:
        options = httpx_options(url, trusting(ca) if ca else None)
        with httpx.Client(timeout=TIMEOUT_S, **options) as client:
            response = client.get(url.rstrip("/") + path)
        body = response.json() if response.status_code < httpx.codes.BAD_REQUEST else {}
        found = str(body.get(version, "")) if isinstance(body, dict) else ""
        off_s = _clock_off_s(response.headers.get("date", ""), time.time())
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return ConnectionFacts(name, address, error=f"{type(error).__name__}: {error}".rstrip(": "))
    if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        return ConnectionFacts(name, address, error=f"answers with status {response.status_code}")
    return ConnectionFacts(name, address, found, clock_off_s=off_s)


def _kafka(address: str, over_tls: bool, ca: Path | None) -> ConnectionFacts:
    host, _, port = address.strip().rpartition(":")
    if not port.isdigit():
        return ConnectionFacts("kafka", address, error="is not of the form HOST:PORT")
    failed = _refusal(host.strip("[]"), int(port))
    is_known = is_loopback(_as_url(address)) and over_tls == bool(ca)
    if not failed and is_known and not speaks_kafka(int(port), ca):
        failed = f"what listens there does not speak Kafka with{'' if ca else 'out'} TLS"
    return ConnectionFacts("kafka", address, error=failed)


def _tcp(name: str, url: str) -> ConnectionFacts:
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError as error:
        return ConnectionFacts(name, _without_login(url), error=str(error))
    return ConnectionFacts(name, _without_login(url), error=_refusal(parts.hostname or "", port))


def _refusal(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        return str(error) or type(error).__name__
    return ""


def _clock_off_s(date: str, now_s: float) -> float:
    try:
        return parsedate_to_datetime(date).timestamp() - now_s
    except ValueError:
        return 0.0


def _as_url(address: str) -> str:
    return address if "://" in address else f"//{address}"


def _without_login(url: str) -> str:
    """The address without user and password."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "an address that is no URL"
    return f"{parts.scheme}://{host}{parts.path}"
