"""A secured stack: what its servers are told, what stack.json says, and the change of mode."""

import json
import stat

import pytest
from typer.testing import CliRunner

from sage_flink import cli
from sage_flink.common.errors import ConfigError, StackError
from sage_flink.common.settings import Settings
from sage_flink.platform import stack
from sage_flink.platform.stack import certificates, flink, kafka, milvus, mode
from sage_flink.platform.stack.ports import DEFAULT_PORTS
from sage_flink.platform.stack.servers import SERVERS
from sage_flink.platform.stack.stack_directory import StackDirectory, secret
from sage_flink.platform.stack.stack_json import is_secured, write_stack_json

SECURED = {"kafka", "milvus", "influxdb", "gateway"}
SECRETS = ("kafka", "milvus", "influxdb", "gateway", "influxdb-password")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    return StackDirectory.at(tmp_path)


def servers(home):
    return {name: make(home, DEFAULT_PORTS, True) for name, make in SERVERS.items()}


def test_the_servers_that_clients_talk_to_are_secured_and_the_others_listen_on_loopback(home):
    found = servers(home)

    assert {name for name, server in found.items() if server.secured} == SECURED
    assert {found[name].url.partition(":")[0] for name in SECURED - {"kafka"}} == {"https"}
    assert flink.cluster_settings(home, DEFAULT_PORTS)["rest.bind-address"] == "127.0.0.1"


def test_no_secret_is_on_a_command_line_or_in_an_environment_variable(home):
    values = [secret(home, name) for name in SECRETS]

    for server in servers(home).values():
        words = " ".join((*server.command, *server.env.values()))
        assert not any(value in words for value in values), server.name


def test_stack_json_names_the_connections_and_holds_no_secret(home):
    values = [secret(home, name) for name in SECRETS]

    write_stack_json(home, {**DEFAULT_PORTS, "kafka": 9192, "milvus": 19630}, secured=True)

    text = home.stack_json.read_text()
    assert not any(value in text for value in values)
    connections = json.loads(text)["connections"]
    assert set(connections) == SECURED
    assert connections["kafka"] == {
        "kind": "kafka",
        "servers": "127.0.0.1:9192",
        "protocol": "SASL_SSL",
        "mechanism": "SCRAM-SHA-512",
        "username": "sage",
        "password": f"file:{home.root}/keys/kafka",
        "ca": f"{home.root}/keys/tls/ca.pem",
    }
    assert connections["milvus"]["url"] == Settings.load().milvus_url == "https://127.0.0.1:19630"


def test_an_open_stack_names_no_connections(home):
    write_stack_json(home, DEFAULT_PORTS)

    assert json.loads(home.stack_json.read_text())["connections"] == {}
    assert not is_secured(home)


def test_kafka_demands_tls_and_a_password_on_both_of_its_listeners(home):
    conf = kafka.security(home.tls, "the-password", {**DEFAULT_PORTS, "kafka": 9192})

    assert conf["listeners"] == "SASL_SSL://127.0.0.1:9192,CONTROLLER://127.0.0.1:9093"
    assert "PLAINTEXT" not in conf["listener.security.protocol.map"]
    assert set(conf["sasl.enabled.mechanisms"].split(",")) == {
        "PLAIN",
        "SCRAM-SHA-256",
        "SCRAM-SHA-512",
    }
    assert conf["ssl.keystore.type"] == conf["ssl.truststore.type"] == "PEM"


def test_milvus_demands_tls_and_a_password_and_serves_no_http(home):
    tree = {"common": {"security": {"tlsMode": 0}, "x": 1}, "proxy": {"port": 1}, "tls": {"y": 2}}

    conf = milvus.security(tree, home.tls)

    assert conf["common"] == {"security": {"authorizationEnabled": True, "tlsMode": 1}, "x": 1}
    assert conf["proxy"] == {"port": 1, "http": {"enabled": False}}
    assert conf["tls"]["serverPemPath"] == str(home.tls / "server.pem")
    assert tree["common"]["security"] == {"tlsMode": 0}


def test_influxdb_and_the_gateway_serve_https_with_the_certificate_of_the_stack(home):
    found = servers(home)

    assert f"--tls-cert={home.tls}/server.pem" in found["influxdb"].command
    assert found["gateway"].command[1:] == ("--ssl-certfile", f"{home.tls}/server.pem")


def test_flinks_reporter_reaches_influxdb_by_tls_and_keeps_its_java_options(home):
    reporter = flink.reporter_settings(DEFAULT_PORTS, "the-token", True)
    own = flink.cluster_settings(home, DEFAULT_PORTS)

    conf = flink.trust_settings(own, home.tls / "truststore")

    assert reporter["metrics.reporter.influxdb.scheme"] == "https"
    trust = f"-Djavax.net.ssl.trustStore={home.tls}/truststore"
    assert trust in conf["env.java.opts.jobmanager"]
    assert trust in conf["env.java.opts.taskmanager"]
    assert conf["env.java.opts.jobmanager"].startswith(own["env.java.opts.jobmanager"])


def test_the_settings_of_a_secured_broker_are_private(home, monkeypatch):
    (home.root / "lib" / "kafka").mkdir(parents=True)
    monkeypatch.setattr(kafka, "format_storage", lambda *_: None)

    servers(home)["kafka"].prepare()

    file = home.conf("kafka") / "server.properties"
    assert secret(home, "kafka") in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_first_start_is_open_and_a_later_one_is_as_before():
    def choose(asked, stored):
        return mode.choose_mode(asked=asked, stored=stored, running=(), jobs_to_continue=0)

    assert [choose(None, False), choose(None, True)] == [False, True]
    assert [choose(True, False), choose(True, True)] == [True, True]
    assert [choose(False, False), choose(False, True)] == [False, False]


@pytest.mark.parametrize(
    ("asked", "words"),
    [(True, "runs open .*`sage up --secure`"), (False, "runs secured .*`sage up --no-secure`")],
)
def test_the_mode_of_servers_that_run_does_not_change(asked, words):
    with pytest.raises(ConfigError, match=words):
        mode.choose_mode(asked=asked, stored=not asked, running={"kafka"}, jobs_to_continue=0)

    assert not mode.choose_mode(asked=None, stored=False, running={"kafka"}, jobs_to_continue=1)


def test_jobs_that_are_to_continue_prevent_a_change_of_mode(home):
    plans = home.data("flink") / "ha" / "sage"
    plans.mkdir(parents=True)
    (plans / "submittedExecutionPlan0a1b").touch()

    with pytest.raises(ConfigError, match=r"1 jobs continue .*then `sage up --secure`"):
        mode.prepare(home, True, running=())

    assert not home.tls.exists()


def test_a_damaged_stack_json_does_not_open_a_secured_stack(home):
    mode.prepare(home, True, running=())
    write_stack_json(home, DEFAULT_PORTS, secured=True)

    home.stack_json.write_text("{")

    assert is_secured(home)
    assert mode.prepare(home, None, running=()).secured
    assert not mode.prepare(home, False, running=()).secured


def test_a_stack_that_became_open_stays_open(home):
    mode.prepare(home, True, running=())
    write_stack_json(home, DEFAULT_PORTS, secured=False)

    assert not mode.prepare(home, None, running=()).secured


def test_the_authority_is_not_replaced_while_servers_run(home):
    mode.prepare(home, True, running=())
    write_stack_json(home, DEFAULT_PORTS, secured=True)
    (home.tls / "ca.key").unlink()

    with pytest.raises(StackError, match="needs a new certificate authority"):
        mode.prepare(home, None, running={"kafka"})

    assert mode.prepare(home, None, running=()).is_renewed


def test_a_probe_without_the_authority_is_no_error(home):
    nobody_there = dict.fromkeys(DEFAULT_PORTS, 9)

    assert not any(make(home, nobody_there, True).ready() for make in SERVERS.values())


def test_up_passes_the_mode_on_and_ps_shows_it(home, monkeypatch):
    calls = []
    monkeypatch.setattr(stack, "up", lambda *_, **options: calls.append(options["secured"]))

    for words in ((), ("--secure",), ("--no-secure",), ("kafka", "--secure")):
        assert CliRunner().invoke(cli.app, ["up", *words]).exit_code == 0
    certificates.ensure(home)
    write_stack_json(home, DEFAULT_PORTS, secured=True)
    shown = CliRunner().invoke(cli.app, ["ps"]).output
    listed = json.loads(CliRunner().invoke(cli.app, ["ps", "--json"]).output)

    assert calls == [None, True, False, True]
    assert "secured by TLS and passwords: kafka, milvus, influxdb, gateway" in shown
    assert {server["name"] for server in listed if server["secured"]} == SECURED
