"""The stack that is up: cheap questions that change nothing."""

import json
import stat
import urllib.request

import pytest

from sage_flink.common.settings import Settings, sage_home
from sage_flink.platform.stack import log_path, status, up
from sage_flink.platform.stack.kafka import speaks_kafka
from sage_flink.platform.stack.parts import PARTS

pytestmark = pytest.mark.service

RSS_MIB_MAX = 6 * 1024


def test_every_part_is_ready_has_a_log_and_an_address():
    parts = {part.name: part for part in status(sage_home())}

    assert {name: part.state for name, part in parts.items()} == dict.fromkeys(PARTS, "ready")
    for part in parts.values():
        assert part.pid
        assert log_path(sage_home(), part.name) == part.log


def test_the_stack_rests_below_six_gibibytes():
    assert sum(part.rss_mib for part in status(sage_home())) < RSS_MIB_MAX


def test_up_again_changes_no_process():
    before = {part.name: part.pid for part in status(sage_home())}

    after = up(sage_home(), quiet=True)

    assert {part.name: part.pid for part in after} == before


def test_kafka_answers_at_the_address_in_the_settings():
    assert speaks_kafka(int(Settings.load().kafka_servers.rsplit(":", 1)[1]))


def test_flink_offers_its_slots():
    with urllib.request.urlopen(f"{Settings.load().flink_url}/overview", timeout=5) as answer:
        overview = json.load(answer)

    assert (overview["taskmanagers"], overview["slots-total"]) == (1, 4)


def test_influxdb_takes_the_key_that_the_first_start_made():
    settings = Settings.load()
    request = urllib.request.Request(
        f"{settings.influxdb_url}/api/v2/buckets?name=ops",
        headers={"Authorization": f"Token {settings.secret('influxdb')}"},
    )

    with urllib.request.urlopen(request, timeout=5) as answer:
        assert json.load(answer)["buckets"][0]["name"] == "ops"


def test_keys_are_private():
    for key in (sage_home() / "keys").iterdir():
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
