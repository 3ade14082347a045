"""InfluxDB 2.7; the first start creates the organisation, the buckets and the keys."""

from pathlib import Path
from typing import Any

import httpx

from sage_flink.common.errors import StackError
from sage_flink.platform.stack.ports import Ports
from sage_flink.platform.stack.server import Server, responds, trusting
from sage_flink.platform.stack.stack_directory import StackDirectory, secret
from sage_flink.platform.stack.stack_json import ORG, USER, address

BUCKET = "ops"
BOLT = "influxd.bolt"
#: The bucket of Flink's own reporter: the record counters of jobs and the metrics of their calls.
FLINK_BUCKET, FLINK_KEPT_S = "flink", 30 * 24 * 3600
SETUP_TIMEOUT_S = 30.0


def set_up(directory: StackDirectory, url: str, authority: Path | None = None) -> None:
    """Create organisation ``sage``, buckets ``ops`` and ``flink``, and the token's key file.

    The keys are written before the request to the server, so an interruption loses no key.

    Raises:
        StackError: the server refuses, or the key that it was set up with is missing.
    """
    context = trusting(authority)
    options: dict[str, Any] = {"timeout": SETUP_TIMEOUT_S, "trust_env": False, "verify": context}
    with httpx.Client(base_url=url, **options) as client:
        try:
            if not client.get("/api/v2/setup").raise_for_status().json()["allowed"]:
                if not directory.key("influxdb").exists():
                    raise StackError(
                        f"influxdb: {directory.data('influxdb')} was set up with a key that is not "
                        f"in {directory.key('influxdb')} any more; restore the key, or move the "
                        "data folder away to start empty"
                    )
                return make_bucket(client, directory)
            password = secret(directory, "influxdb-password")
            body = {
                "username": USER,
                "password": password,
                "org": ORG,
                "bucket": BUCKET,
                "token": secret(directory, "influxdb"),
            }
            client.post("/api/v2/setup", json=body).raise_for_status()
            make_bucket(client, directory)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise StackError(
                f"influxdb: first-time set-up at {url} failed: {error}; "
                f"see {directory.log('influxdb')}"
            ) from error


def token(directory: StackDirectory) -> str:
    """The server's token, created if needed; empty when a server that is set up lost its key."""
    if (directory.data("influxdb") / BOLT).exists() and not directory.key("influxdb").exists():
        return ""
    return secret(directory, "influxdb")


def make_bucket(client: httpx.Client, directory: StackDirectory) -> None:
    """Create the bucket of Flink's reporter if it is missing.

    The reporter speaks InfluxDB 1's protocol; InfluxDB 2.7 maps a database to the bucket of the
    same name by itself.
    """
    client.headers["Authorization"] = f"Token {secret(directory, 'influxdb')}"
    orgs = client.get("/api/v2/orgs", params={"org": ORG}).raise_for_status().json()["orgs"]
    body = {
        "orgID": orgs[0]["id"],
        "name": FLINK_BUCKET,
        "retentionRules": [{"type": "expire", "everySeconds": FLINK_KEPT_S}],
    }
    answer = client.post("/api/v2/buckets", json=body)
    if answer.status_code != httpx.codes.UNPROCESSABLE_ENTITY:  # 422: it exists
        answer.raise_for_status()


def influxdb(directory: StackDirectory, ports: Ports, secured: bool = False) -> Server:
    """The time-series store, on ``ports['influxdb']``."""
    url = address("influxdb", ports, secured=secured)
    data = directory.data("influxdb")
    authority = directory.tls / "ca.pem" if secured else None
    server = directory.tls / "server.pem"  # key and certificate
    tls = (f"--tls-cert={server}", f"--tls-key={server}", "--tls-min-version=1.2")

    def prepare() -> None:
        directory.require(directory.root / "lib" / "influxd")
        data.mkdir(parents=True, exist_ok=True)

    return Server(
        name="influxdb",
        command=(
            str(directory.root / "lib" / "influxd"),
            f"--bolt-path={data / BOLT}",
            f"--sqlite-path={data / 'influxd.sqlite'}",
            f"--engine-path={data / 'engine'}",
            f"--http-bind-address=127.0.0.1:{ports['influxdb']}",
            "--reporting-disabled",
            "--log-level=warn",
            *(tls if secured else ()),
        ),
        folder=data,
        ports=("influxdb",),
        url=url,
        prepare=prepare,
        ready=lambda: responds(
            f"{url}/health", lambda response: response.json()["status"] == "pass", authority
        ),
        after_ready=lambda: set_up(directory, url, authority),
        secured=secured,
    )
