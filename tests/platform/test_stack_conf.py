"""What the stack writes for its servers, and where."""

import configparser
import stat
import tempfile

import pytest
import yaml

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.platform.stack import flink, influxdb, kafka, milvus, zookeeper
from sage_flink.platform.stack.home import SOCKET_PATH_BYTES_MAX, Home, secret
from sage_flink.platform.stack.parts import PARTS, select
from sage_flink.platform.stack.ports import USUAL
from sage_flink.platform.stack.supervise import render

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
queryNode: {}
indexNode: {}
dataCoord: {}
dataNode: {}
log: {level: info, file: {rootPath: "{{ system_log_path }}"}}
common: {storageType: local, security: {tlsMode: {{ tls_mode(int): 0 }}}}
"""


@pytest.fixture
def home(tmp_path):
    return Home.at(tmp_path)


def test_every_part_has_its_own_program_that_restarts_and_dies_as_a_group(home):
    parts = [make(home, USUAL) for make in PARTS.values()]

    conf = configparser.RawConfigParser(strict=True)
    conf.read_string(render(home, parts))

    assert {name for name in conf.sections() if name.startswith("program:")} == {
        f"program:{name}" for name in PARTS
    }
    for name in PARTS:
        program = conf[f"program:{name}"]
        assert (program["autorestart"], program["killasgroup"], program["autostart"]) == (
            "true",
            "true",
            "false",
        )
        assert f'SAGE_STACK="{home.root}"' in program["environment"]
        assert f'SAGE_PART="{name}"' in program["environment"]


def test_a_per_cent_sign_in_the_path_is_escaped_for_supervisord(tmp_path):
    home = Home.at(tmp_path / "a%b")

    conf = render(home, [PARTS["influxdb"](home, USUAL)])

    assert "a%%b" in conf
    assert "a%b" not in conf.replace("%%", "")


@pytest.mark.parametrize("name", ["with space", "quo'te", "semi;colon", "a:b"])
def test_a_path_that_the_servers_scripts_would_split_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="may not hold"):
        Home.at(tmp_path / name)


def test_the_taskmanager_runs_under_the_guard(home):
    command = PARTS["taskmanager"](home, USUAL).command

    assert command[2].endswith("guard.py")
    assert command[-2:] == ("java", f"@{home.conf('flink')}/taskmanager.args")


def test_flink_keeps_the_shipped_java_options_and_takes_our_ports(home):
    shipped = {
        "env": {"java": {"opts": {"all": "--add-opens x"}}},
        "rest": {"address": "localhost"},
    }

    conf = flink.merged(shipped, flink.cluster_settings(home, {**USUAL, "flink": 8181}))

    assert conf["env.java.opts.all"] == "--add-opens x"
    assert (conf["rest.address"], conf["rest.port"], conf["rest.bind-port"]) == (
        "127.0.0.1",
        8181,
        "8181",
    )


def test_flink_keeps_in_zookeeper_and_in_files_what_outlives_its_jobmanager(home):
    ports = {**USUAL, "zookeeper": 2281, "flink_rpc": 6223}

    conf = flink.cluster_settings(home, ports)

    assert conf["high-availability.zookeeper.quorum"] == "127.0.0.1:2281"
    assert conf["high-availability.jobmanager.port"] == 6223
    assert conf["high-availability.storageDir"] == (home.data("flink") / "ha").as_uri()


def test_zookeeper_listens_on_loopback_and_opens_no_other_port(home):
    conf = zookeeper.properties(home.data("zookeeper"), {**USUAL, "zookeeper": 2281})

    assert (conf["clientPort"], conf["clientPortAddress"]) == (2281, "127.0.0.1")
    assert conf["admin.enableServer"] == "false"
    assert not any(key.startswith("server.") for key in conf)


def test_flink_tells_influxdb_of_the_steps_and_calls_alone_and_by_few_tags(home):
    conf = flink.reporter_settings({**USUAL, "influxdb": 8186}, "the-token")

    own = "metrics.reporter.influxdb."
    assert conf["metrics.reporters"] == "influxdb"
    assert (conf[f"{own}port"], conf[f"{own}db"]) == (8186, "flink")
    assert conf[f"{own}password"] == "the-token"
    assert conf[f"{own}filter.includes"].startswith("*.step:*:counter;")
    assert {"task_attempt_id", "tm_id", "job_id"} <= set(
        conf[f"{own}scope.variables.excludes"].split(";")
    )


def test_the_token_is_made_once_and_never_beside_a_server_whose_key_is_gone(home):
    made = influxdb.token(home)
    assert made == influxdb.token(home)

    home.key("influxdb").unlink()
    home.data("influxdb").mkdir(parents=True)
    (home.data("influxdb") / "influxd.bolt").touch()

    assert influxdb.token(home) == ""
    assert not home.key("influxdb").exists()


def test_kafka_takes_large_records_and_keeps_them(home):
    conf = kafka.properties(home.data("kafka"), {**USUAL, "kafka": 9192})

    assert conf["message.max.bytes"] == conf["replica.fetch.max.bytes"] == 33_554_432
    assert conf["log.retention.ms"] == -1
    assert conf["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9192"


def test_a_cluster_id_that_begins_with_a_dash_is_no_option_of_kafkas_tool(home):
    command = kafka.format_command(home, home.root / "server.properties", "-wEBAQEBAQEBAQEBAQEBAQ")

    assert [word for word in command if "wEBAQ" in word] == ["--cluster-id=-wEBAQEBAQEBAQEBAQEBAQ"]


def test_milvus_gets_every_port_from_us_and_etcd_from_its_own_file(home):
    data, conf = home.data("milvus"), home.conf("milvus")

    tree = milvus.settings(TEMPLATE, data, conf, {**USUAL, "milvus": 19630, "milvus_etcd": 2479})

    assert (tree["proxy"]["port"], tree["proxy"]["ip"]) == (19630, "127.0.0.1")
    assert tree["rootCoord"]["port"] == USUAL["milvus_root_coord"]
    assert tree["etcd"]["config"]["path"] == str(conf / "etcd.yaml")
    assert tree["common"]["security"]["tlsMode"] == 0
    assert "{{" not in yaml.safe_dump(tree)
    assert milvus.etcd_settings(data, {**USUAL, "milvus_etcd": 2479})["listen-client-urls"] == (
        "http://127.0.0.1:2479"
    )


def test_the_socket_lies_in_the_home_when_its_path_fits(home):
    assert home.socket == home.run / "supervisor.sock"


def test_a_long_home_gets_a_short_socket_that_is_found_again(tmp_path, monkeypatch):
    with tempfile.TemporaryDirectory() as short:  # pytest's own folders have long names
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        home = Home.at(tmp_path / ("x" * 100))

        home.make()
        socket = home.socket
        monkeypatch.delenv("XDG_RUNTIME_DIR")

        assert len(str(socket)) <= SOCKET_PATH_BYTES_MAX
        assert home.socket == socket
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700


def test_a_secret_is_made_once_and_is_private(home):
    first = secret(home, "gateway", "sk-sage-")

    assert secret(home, "gateway", "sk-sage-") == first
    assert len(first) == len("sk-sage-") + 32
    assert stat.S_IMODE(home.key("gateway").stat().st_mode) == 0o600


def test_flink_names_its_parts_and_order_is_ours():
    assert select({"flink", "kafka"}) == ["kafka", "zookeeper", "jobmanager", "taskmanager"]
    assert select({"taskmanager"}) == ["zookeeper", "jobmanager", "taskmanager"]
    assert select({"jobmanager"}) == ["zookeeper", "jobmanager"]
    assert select(None) == list(PARTS)


def test_an_unknown_part_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match="no such part: redis; there are kafka"):
        select({"redis"})


@pytest.mark.parametrize(
    "name", ["kafka", "zookeeper", "jobmanager", "milvus", "influxdb", "gateway"]
)
def test_what_setup_makes_and_is_missing_is_named_with_the_command(home, name):
    with pytest.raises(StackError, match=r"is not there; run `bash infra/setup\.sh`"):
        PARTS[name](home, USUAL).prepare()
