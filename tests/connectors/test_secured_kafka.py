"""Kafka over TLS with every way to log in, against a broker that the tests start."""

import logging
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from certificates import Authority
from redis_server import free_port
from secured_broker import PASSWORD, TOKEN_SECRET, USER, SecuredBroker, secured_broker

from sage_connectors.kafka_client import delete_topic, drain, end_offsets, ensure_topic, feed
from sage_connectors.server_check import check_server
from sage_flink.common import ConfigError, StoreUnavailable
from sage_flink.common.connections import KafkaConnection, parse

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    with secured_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


def connection(broker: SecuredBroker, listener: str = "SASL", **changes: Any) -> KafkaConnection:
    made = parse("events", broker.fields(listener, **changes))
    assert isinstance(made, KafkaConnection)
    return made


def without_login(**changes: Any) -> dict[str, Any]:
    return {"mechanism": None, "username": None, "password": None, **changes}


def login(broker: SecuredBroker, mechanism: str) -> dict[str, Any]:
    folder = broker.folder
    match mechanism:
        case "mTLS":
            mine = {"certificate": str(folder / "client.pem"), "key": str(folder / "client.key")}
            return without_login(listener="MTLS", protocol="SSL", **mine)
        case "OAUTHBEARER":
            secret = f"file:{folder / 'token-secret'}"
            token = {"token_url": broker.token_url, "client_id": USER, "client_secret": secret}
            return without_login(**token) | {"mechanism": mechanism}
    return {"mechanism": mechanism}


@pytest.mark.parametrize(
    "mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "mTLS"]
)
def test_tools_write_and_read_with_every_way_to_log_in(
    broker: SecuredBroker, mechanism: str
) -> None:
    events, topic = connection(broker, **login(broker, mechanism)), f"t-{uuid.uuid4().hex}"

    ensure_topic(topic, 2, events)
    feed(topic, [(b"k", b"%d" % n) for n in range(20)], events)
    read = sorted(int(record.value) for record in drain(topic, events))

    assert read == list(range(20))
    assert sum(end_offsets(topic, events).values()) == 20
    assert check_server(events).startswith("Kafka ")
    delete_topic(topic, events)


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "a wrong password": (
        "SASL",
        {"password": "file:{folder}/wrong"},
        r"username, password: 127.0.0.1:\d+ does not accept them",
    ),
    "a wrong password for PLAIN": (
        "SASL",
        {"password": "file:{folder}/wrong", "mechanism": "PLAIN"},
        r"username, password: 127.0.0.1:\d+ does not accept them",
    ),
    "an unknown user": (
        "SASL",
        {"username": "nobody"},
        r"username, password: 127.0.0.1:\d+ does not accept",
    ),
    "a variable that is not set": (
        "SASL",
        {"password": "env:ABSENT_PASSWORD"},
        r"password: the environment variable ABSENT_PASSWORD is not set here",
    ),
    "a file that is absent": (
        "SASL",
        {"password": "file:{folder}/absent"},
        r"password: .*/absent cannot be read here: No such file",
    ),
    "a certificate that has expired": (
        "EXPIRED",
        {},
        r"the certificate of 127.0.0.1:\d+ expired on \w{3} .*GMT; renew it there",
    ),
    "a certificate for another host": (
        "ELSEWHERE",
        {},
        r"servers: the certificate of 127.0.0.1:\d+ is not for 127.0.0.1: it is for broker.example",
    ),
    "a certificate of another authority": (
        "SASL",
        {"ca": "{folder}/other.pem"},
        r"ca: the certificate of 127.0.0.1:\d+ is not signed by ca .*other.pem",
    ),
    "no authority": (
        "SASL",
        {"ca": None},
        r"is not signed by the authorities of this machine; set",
    ),
    "an authority that is no PEM": ("SASL", {"ca": "{folder}/password"}, r"ca: .*/password cannot"),
    "an absent authority": (
        "SASL",
        {"ca": "{folder}/no.pem"},
        r"ca: .*no.pem cannot be used: No su",
    ),
    "TLS where there is none": ("OPEN", {}, r"protocol: 127.0.0.1:\d+ does not speak TLS"),
    "no TLS where there is": (
        "SASL",
        {"protocol": "SASL_PLAINTEXT", "ca": None},
        r"protocol: 127.0.0.1:\d+ does not speak SASL_PLAINTEXT",
    ),
    "plain text where there is TLS": (
        "SASL",
        without_login(protocol=None, ca=None),
        r"protocol: 127.0.0.1:\d+ does not speak PLAINTEXT",
    ),
    "no login where one is asked for": (
        "SASL",
        without_login(protocol="SSL"),
        r"protocol: 127.0.0.1:\d+ does not speak SSL: it asks for a login by PLAIN, SCRAM",
    ),
    "a login where none is asked for": (
        "OPEN",
        {"protocol": "SASL_PLAINTEXT", "ca": None},
        r"protocol: 127.0.0.1:\d+ does not speak SASL_PLAINTEXT: it asks for no login",
    ),
    "no certificate where one is asked for": (
        "MTLS",
        without_login(protocol="SSL"),
        r"certificate: 127.0.0.1:\d+ refused the client: it wants one",
    ),
    "a certificate that the broker does not trust": (
        "MTLS",
        without_login(
            protocol="SSL", certificate="{folder}/stranger.pem", key="{folder}/stranger.key"
        ),
        r"certificate: 127.0.0.1:\d+ refused the client: it does not accept .*stranger.pem",
    ),
    "a key of another certificate": (
        "MTLS",
        without_login(protocol="SSL", certificate="{folder}/client.pem", key="{folder}/server.key"),
        r"certificate: .*client.pem with key .*server.key cannot be used",
    ),
    "a wrong client secret": (
        "SASL",
        without_login(
            token_url="{token_url}",
            client_id=USER,
            client_secret="file:{folder}/wrong",
        )
        | {"mechanism": "OAUTHBEARER"},
        r"token_url http.*/token does not accept client_id and client_secret",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_setting_is_named_within_30_seconds(broker: SecuredBroker, fault: str) -> None:
    listener, changes, sentence = WRONG[fault]
    Authority(broker.folder, "other").certificate("stranger", ["client.example"])
    places = {"folder": broker.folder, "token_url": broker.token_url}
    made = {
        key: value.format(**places) if isinstance(value, str) else value
        for key, value in changes.items()
    }
    events, began = connection(broker, listener, **made), time.monotonic()

    with pytest.raises(ConfigError, match=sentence) as caught:
        check_server(events)

    assert time.monotonic() - began < 30
    assert str(caught.value).startswith("connection 'events' (kafka at 127.0.0.1:")
    for secret in (PASSWORD, TOKEN_SECRET, "hunter2"):
        assert secret not in str(caught.value)


def test_a_mechanism_that_the_broker_does_not_offer_is_named(broker: SecuredBroker) -> None:
    events = connection(broker).model_copy(update={"mechanism": "GSSAPI"})

    with pytest.raises(ConfigError, match=r"mechanism: .* does not know GSSAPI; it knows .*PLAIN"):
        check_server(events)


def test_a_broker_that_is_away_is_no_wrong_setting(broker: SecuredBroker) -> None:
    away = connection(broker, servers=f"127.0.0.1:{free_port()}")

    with pytest.raises(StoreUnavailable, match="no broker answers"):
        check_server(away)


def test_no_log_line_holds_a_secret(
    broker: SecuredBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    for mechanism in ("PLAIN", "SCRAM-SHA-512", "OAUTHBEARER"):
        check_server(connection(broker, **login(broker, mechanism)))

    assert len(caplog.records) > 10
    for secret in (PASSWORD, TOKEN_SECRET, "auth=Bearer"):
        assert secret not in caplog.text
        assert repr(secret.encode())[2:-1] not in caplog.text
