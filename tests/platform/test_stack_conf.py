"""Configuration files of the local stack's servers, and the paths of the stack directory."""

import configparser
import os
import stat
import tempfile
from pathlib import Path

import pytest
import yaml

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.platform.plain_paths import is_plain
from sage_flink.platform.stack import flink, influxdb, kafka, milvus, stack_directory, zookeeper
from sage_flink.platform.stack.ports import DEFAULT_PORTS
from sage_flink.platform.stack.servers import SERVERS, select
from sage_flink.platform.stack.stack_directory import SOCKET_PATH_BYTES_MAX, StackDirectory, secret
from sage_flink.platform.stack.supervisor import escape, render

TEMPLATE = """
etcd:
  endpoints: localhost:{{ etcd_port(int): 2379 }}
  data:
    dir: {{ etcd_data_dir }}
localStorage: {path: {{ local_storage_dir }}}
rocksmq: {path: {{ rocksmq_data_dir }}}
proxy: {ip: , port: 19530}
rootCoord: {port: {{ root_coord_port(int): 53100 }}}
queryCoord: {}
queryNode: {segcore: {interimIndex: {nlist: 128, nprobe: 16}}}
indexNode: {}
dataCoord: {}
dataNode: {}
log: {level: info, file: {rootPath: "{{ system_log_path }}"}}
common: {storageType: local, security: {tlsMode: {{ tls_mode(int): 0 }}}}
"""


@pytest.fixture
def home(tmp_path):
    return StackDirectory.at(tmp_path)


def test_every_server_has_a_program_section_that_restarts_it_and_kills_its_group(home):
    servers = [make(home, DEFAULT_PORTS) for make in SERVERS.values()]

    conf = configparser.RawConfigParser(strict=True)
    conf.read_string(render(home, servers))

    assert {name for name in conf.sections() if name.startswith("program:")} == {
        f"program:{name}" for name in SERVERS
    }
    for name in SERVERS:
        program = conf[f"program:{name}"]
        assert (program["autorestart"], program["killasgroup"], program["autostart"]) == (
            "true",
            "true",
            "false",
        )
        assert f'SAGE_STACK="{home.mark}"' in program["environment"]
        assert f'SAGE_SERVER="{name}"' in program["environment"]


@pytest.mark.parametrize("name", ["with space", "quo'te\"s", "größe", "team@corp", "100%", "#,;$"])
def test_servers_get_a_stack_directory_with_odd_characters_by_a_plain_path(
    tmp_path, monkeypatch, name
):
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    home = StackDirectory.at(tmp_path / name)

    home.create()
    conf = render(home, [make(home, DEFAULT_PORTS) for make in SERVERS.values()])

    assert (tmp_path / name / "run").is_dir()
    assert is_plain(home.root)
    assert name not in conf.replace(escape(home.mark), "")
    assert conf.isascii()


def test_the_mark_of_a_stack_is_the_same_by_every_path_to_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "größe").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "größe")

    marks = {StackDirectory.at(tmp_path / name).mark for name in ("größe", "link")}

    assert len(marks) == 1
    assert marks.pop().isascii()


@pytest.mark.parametrize("name", ["a:b", "new\nline", "\udcff"])
def test_a_path_that_no_environment_can_have_is_refused_before_anything_is_made(tmp_path, name):
    with pytest.raises(ConfigError, match=r"may not hold .*; set SAGE_HOME to another folder"):
        StackDirectory.at(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_taskmanager_runs_under_the_process_guard(home):
    command = SERVERS["taskmanager"](home, DEFAULT_PORTS).command

    assert command[2].endswith("process_guard.py")
    assert command[-2:] == ("java", f"@{home.conf('flink')}/taskmanager.args")


def test_flink_keeps_the_shipped_java_options_and_uses_our_ports(home):
    shipped = {
        "env": {"java": {"opts": {"all": "--add-opens x"}}},
        "rest": {"address": "localhost"},
    }

    conf = flink.merge_settings(
        shipped, flink.cluster_settings(home, {**DEFAULT_PORTS, "flink": 8181})
    )

    assert conf["env.java.opts.all"] == "--add-opens x"
    assert (conf["rest.address"], conf["rest.port"], conf["rest.bind-port"]) == (
        "127.0.0.1",
        8181,
        "8181",
    )


def test_flink_stores_job_metadata_in_zookeeper_and_in_files(home):
    ports = {**DEFAULT_PORTS, "zookeeper": 2281, "flink_rpc": 6223}

    conf = flink.cluster_settings(home, ports)

    assert conf["high-availability.zookeeper.quorum"] == "127.0.0.1:2281"
    assert conf["high-availability.jobmanager.port"] == 6223
    assert conf["high-availability.storageDir"] == (home.data("flink") / "ha").as_uri()


def test_zookeeper_listens_on_loopback_and_opens_no_other_port(home):
    conf = zookeeper.properties(home.data("zookeeper"), {**DEFAULT_PORTS, "zookeeper": 2281})

    assert (conf["clientPort"], conf["clientPortAddress"]) == (2281, "127.0.0.1")
    assert conf["admin.enableServer"] == "false"
    assert not any(key.startswith("server.") for key in conf)


def test_flink_reports_only_steps_and_calls_to_influxdb_with_few_tags(home):
    conf = flink.reporter_settings({**DEFAULT_PORTS, "influxdb": 8186}, "the-token")

    own = "metrics.reporter.influxdb."
    assert conf["metrics.reporters"] == "influxdb"
    assert (conf[f"{own}port"], conf[f"{own}db"]) == (8186, "flink")
    assert conf[f"{own}password"] == "the-token"
    assert conf[f"{own}filter.includes"].startswith("*.step:*:counter;")
    assert {"task_attempt_id", "tm_id", "job_id"} <= set(
        conf[f"{own}scope.variables.excludes"].split(";")
    )


def test_the_token_is_created_once_and_never_for_a_server_that_lost_its_key(home):
    first = influxdb.token(home)
    assert influxdb.token(home) == first

    home.key("influxdb").unlink()
    home.data("influxdb").mkdir(parents=True)
    (home.data("influxdb") / "influxd.bolt").touch()

    assert influxdb.token(home) == ""
    assert not home.key("influxdb").exists()


def test_kafka_accepts_large_records_and_never_deletes_records(home):
    conf = kafka.properties(home.data("kafka"), {**DEFAULT_PORTS, "kafka": 9192})

    assert conf["message.max.bytes"] == conf["replica.fetch.max.bytes"] == 33_554_432
    assert conf["log.retention.ms"] == -1
    assert conf["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9192"


def test_a_cluster_id_with_a_leading_dash_is_not_parsed_as_an_option(home):
    command = kafka.format_command(home, home.root / "server.properties", "-wEBAQEBAQEBAQEBAQEBAQ")

    assert [word for word in command if "wEBAQ" in word] == ["--cluster-id=-wEBAQEBAQEBAQEBAQEBAQ"]


def test_milvus_uses_our_ports_and_etcd_its_own_configuration_file(home):
    data, conf = home.data("milvus"), home.conf("milvus")

    tree = milvus.settings(
        TEMPLATE, data, conf, {**DEFAULT_PORTS, "milvus": 19630, "milvus_etcd": 2479}
    )

    assert (tree["proxy"]["port"], tree["proxy"]["ip"]) == (19630, "127.0.0.1")
    assert tree["rootCoord"]["port"] == DEFAULT_PORTS["milvus_root_coord"]
    assert tree["etcd"]["config"]["path"] == str(conf / "etcd.yaml")
    assert tree["common"]["security"]["tlsMode"] == 0
    assert tree["queryNode"]["segcore"]["interimIndex"] == {"nlist": 128, "nprobe": 128}
    assert "{{" not in yaml.safe_dump(tree)
    assert milvus.etcd_settings(data, {**DEFAULT_PORTS, "milvus_etcd": 2479})[
        "listen-client-urls"
    ] == ("http://127.0.0.1:2479")


def test_the_tick_of_milvus_is_a_setting(monkeypatch):
    assert milvus.tick_ms() == 50

    monkeypatch.setenv("SAGE_MILVUS_TICK_MS", "200")
    assert milvus.tick_ms() == 200


@pytest.mark.parametrize("text", ["", "5", "1001", "-50", "50ms", "1e2"])
def test_a_tick_that_is_no_number_of_milliseconds_is_refused(monkeypatch, text):
    monkeypatch.setenv("SAGE_MILVUS_TICK_MS", text)

    with pytest.raises(ConfigError, match="must be a whole number from 10 to 1000, got"):
        milvus.tick_ms()


def test_every_user_of_the_machine_can_write_milvus_runtime_folder(tmp_path):
    before = os.umask(0o077)  # as supervisord has it

    milvus.share_runtime_folder(tmp_path / "milvus")
    os.umask(before)

    assert stat.S_IMODE((tmp_path / "milvus").stat().st_mode) == 0o1777


def test_a_link_at_the_place_of_milvus_runtime_folder_is_not_followed(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    (tmp_path / "milvus").symlink_to(mine)

    milvus.share_runtime_folder(tmp_path / "milvus")

    assert stat.S_IMODE(mine.stat().st_mode) == 0o700


def test_a_disk_without_space_is_refused_before_any_server_starts(home, monkeypatch):
    monkeypatch.setattr(stack_directory, "FREE_MIB_MIN", 1 << 40)

    with pytest.raises(StackError, match=r"MiB free, and the servers need .*; free disk space"):
        home.create()


def test_a_stack_directory_that_cannot_be_written_is_refused_with_its_variable():
    with pytest.raises(StackError, match=r"cannot be written .*; set SAGE_HOME to a folder"):
        StackDirectory.at(Path("/proc/sage")).create()


def test_the_socket_is_in_the_stack_directory_when_its_path_fits(home):
    assert home.socket == home.run / "supervisor.sock"


def test_a_long_stack_directory_gets_a_short_socket_path_that_is_stored(tmp_path, monkeypatch):
    with tempfile.TemporaryDirectory() as short:  # pytest's own folders have long names
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        home = StackDirectory.at(tmp_path / ("x" * 100))

        home.create()
        socket = home.socket
        monkeypatch.delenv("XDG_RUNTIME_DIR")

        assert len(str(socket)) <= SOCKET_PATH_BYTES_MAX
        assert home.socket == socket
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700


def test_a_secret_is_created_once_and_is_private(home):
    first = secret(home, "gateway", "sk-sage-")

    assert secret(home, "gateway", "sk-sage-") == first
    assert len(first) == len("sk-sage-") + 32
    assert stat.S_IMODE(home.key("gateway").stat().st_mode) == 0o600


def test_flink_selects_its_servers_in_our_order():
    assert select({"flink", "kafka"}) == ["kafka", "zookeeper", "jobmanager", "taskmanager"]
    assert select({"taskmanager"}) == ["zookeeper", "jobmanager", "taskmanager"]
    assert select({"jobmanager"}) == ["zookeeper", "jobmanager"]
    assert select(None) == list(SERVERS)


def test_an_unknown_server_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match="no such server: redis; the servers are kafka"):
        select({"redis"})


@pytest.mark.parametrize(
    "name", ["kafka", "zookeeper", "jobmanager", "milvus", "influxdb", "gateway"]
)
def test_a_missing_file_of_setup_is_reported_with_the_setup_command(home, name):
    with pytest.raises(StackError, match=r"does not exist; run `bash infra/setup\.sh`"):
        SERVERS[name](home, DEFAULT_PORTS).prepare()
