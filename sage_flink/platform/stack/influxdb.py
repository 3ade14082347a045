"""InfluxDB 2.7; the first start makes the organisation, the buckets and the keys."""

import httpx

from sage_flink.common.errors import StackError
from sage_flink.platform.stack.home import Home, secret
from sage_flink.platform.stack.part import Part, answers
from sage_flink.platform.stack.ports import Ports

ORG, BUCKET, USER = "sage", "ops", "sage"
BOLT = "influxd.bolt"
#: What Flink's own reporter writes: the counts of jobs and the figures of their calls.
FLINK_BUCKET, FLINK_KEPT_S = "flink", 30 * 24 * 3600
SETUP_TIMEOUT_S = 30.0


def set_up(home: Home, url: str) -> None:
    """Organisation ``sage``, buckets ``ops`` and ``flink``, and the token in ``keys/influxdb``.

    The keys are written before the server is asked, so a stop in between loses nothing.

    Raises:
        StackError: the server refuses, or it was set up with a key that is gone.
    """
    with httpx.Client(base_url=url, timeout=SETUP_TIMEOUT_S, trust_env=False) as client:
        try:
            if not client.get("/api/v2/setup").raise_for_status().json()["allowed"]:
                if not home.key("influxdb").exists():
                    raise StackError(
                        f"influxdb: {home.data('influxdb')} was set up with a key that is gone "
                        f"from {home.key('influxdb')}; put the key back, or move the data folder "
                        "away to start empty"
                    )
                return make_bucket(client, home)
            password = secret(home, "influxdb-password")
            body = {
                "username": USER,
                "password": password,
                "org": ORG,
                "bucket": BUCKET,
                "token": secret(home, "influxdb"),
            }
            client.post("/api/v2/setup", json=body).raise_for_status()
            make_bucket(client, home)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise StackError(
                f"influxdb: first-time set-up at {url} failed: {error}; see {home.log('influxdb')}"
            ) from error


def token(home: Home) -> str:
    """The token that the server has or will have; empty when the key of a set-up server is gone."""
    if (home.data("influxdb") / BOLT).exists() and not home.key("influxdb").exists():
        return ""
    return secret(home, "influxdb")


def make_bucket(client: httpx.Client, home: Home) -> None:
    """The bucket of Flink's reporter, when it is missing. Speaks InfluxDB 1's protocol to it.

    InfluxDB 2.7 maps a database to the bucket of the same name by itself.
    """
    client.headers["Authorization"] = f"Token {secret(home, 'influxdb')}"
    orgs = client.get("/api/v2/orgs", params={"org": ORG}).raise_for_status().json()["orgs"]
    body = {
        "orgID": orgs[0]["id"],
        "name": FLINK_BUCKET,
        "retentionRules": [{"type": "expire", "everySeconds": FLINK_KEPT_S}],
    }
    answer = client.post("/api/v2/buckets", json=body)
    if answer.status_code != httpx.codes.UNPROCESSABLE_ENTITY:  # 422: it is there
        answer.raise_for_status()


def influxdb(home: Home, ports: Ports) -> Part:
    """The time-series store, on ``ports['influxdb']``."""
    url = f"http://127.0.0.1:{ports['influxdb']}"
    data = home.data("influxdb")

    def prepare() -> None:
        home.need(home.root / "lib" / "influxd")
        data.mkdir(parents=True, exist_ok=True)

    return Part(
        name="influxdb",
        command=(
            str(home.root / "lib" / "influxd"),
            f"--bolt-path={data / BOLT}",
            f"--sqlite-path={data / 'influxd.sqlite'}",
            f"--engine-path={data / 'engine'}",
            f"--http-bind-address=127.0.0.1:{ports['influxdb']}",
            "--reporting-disabled",
            "--log-level=warn",
        ),
        folder=data,
        ports=("influxdb",),
        url=url,
        prepare=prepare,
        ready=lambda: answers(
            f"{url}/health", lambda response: response.json()["status"] == "pass"
        ),
        settle=lambda: set_up(home, url),
    )
