"""The running stack: cheap read-only checks."""

import json
import stat
import urllib.request

import pytest

from sage_flink.common.settings import Settings, sage_home
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.native_jar import name_on_cluster, native_jar
from sage_flink.platform.stack import log_path, status, up
from sage_flink.platform.stack.kafka import speaks_kafka
from sage_flink.platform.stack.servers import SERVERS

pytestmark = [pytest.mark.service, pytest.mark.alone]

RSS_MIB_MAX = 6 * 1024


def test_every_server_is_ready_and_has_a_log():
    servers = {server.name: server for server in status(sage_home())}

    assert {name: server.state for name, server in servers.items()} == dict.fromkeys(
        SERVERS, "ready"
    )
    for server in servers.values():
        assert server.pid
        assert log_path(sage_home(), server.name) == server.log


def test_the_idle_stack_uses_less_than_six_gibibytes():
    assert sum(server.rss_mib for server in status(sage_home())) < RSS_MIB_MAX


def test_a_second_up_changes_no_process():
    before = {server.name: server.pid for server in status(sage_home())}

    after = up(sage_home(), quiet=True)

    assert {server.name: server.pid for server in after} == before


def test_kafka_answers_at_the_address_in_the_settings():
    assert speaks_kafka(int(Settings.load().kafka_servers.rsplit(":", 1)[1]))


def test_flink_offers_its_slots():
    with urllib.request.urlopen(f"{Settings.load().flink_url}/overview", timeout=5) as answer:
        overview = json.load(answer)

    assert (overview["taskmanagers"], overview["slots-total"]) == (1, 4)


def test_flink_has_the_classes_of_jobs_so_that_no_job_sends_them():
    with FlinkRest(Settings.load().flink_url) as rest:
        names = rest.jar_names()

    assert name_on_cluster(native_jar(sage_home())) in names
    assert any(name.startswith("flink-python-") for name in names)


def test_influxdb_accepts_the_key_of_the_first_start():
    settings = Settings.load()
    request = urllib.request.Request(
        f"{settings.influxdb_url}/api/v2/buckets?name=ops",
        headers={"Authorization": f"Token {settings.secret('influxdb')}"},
    )

    with urllib.request.urlopen(request, timeout=5) as answer:
        assert json.load(answer)["buckets"][0]["name"] == "ops"


def test_keys_are_private():
    for key in (sage_home() / "keys").rglob("*"):
        assert stat.S_IMODE(key.stat().st_mode) == (0o700 if key.is_dir() else 0o600)
