"""Ports: the default where it is free, else a recognisable one, and the same at the next start."""

import socket
import subprocess
import sys

import pytest

from sage_flink.common.errors import StackError
from sage_flink.common.settings import Settings
from sage_flink.platform.stack.ports import DEFAULT_PORTS, PortClaims, choose, is_free
from sage_flink.platform.stack.stack_directory import StackDirectory
from sage_flink.platform.stack.stack_json import saved_ports, write_stack_json


def only(*free):
    return lambda port: port in free


def test_the_default_port_is_chosen_where_it_is_free():
    assert choose({}, free=lambda _: True) == DEFAULT_PORTS


def test_a_taken_port_moves_by_a_hundred():
    ports = choose({}, free=only(9192, 9292), defaults={"kafka": 9092})

    assert ports == {"kafka": 9192}


def test_a_saved_port_is_reused_while_it_is_free():
    kept = {"kafka": 9292}

    assert choose(kept, free=lambda _: True, defaults={"kafka": 9092}) == kept


def test_a_saved_port_that_another_program_took_is_replaced():
    assert choose({"kafka": 9292}, free=only(9092), defaults={"kafka": 9092}) == {"kafka": 9092}


def test_the_port_of_our_own_running_server_counts_as_free_for_it():
    ports = choose({"kafka": 9092}, ours=["kafka"], free=only(9192), defaults={"kafka": 9092})

    assert ports == {"kafka": 9092}


def test_no_two_servers_get_the_same_port():
    ports = choose({"b": 100, "a": 100}, free=lambda _: True, defaults={"a": 100, "b": 100})

    assert ports == {"a": 100, "b": 200}


def test_the_error_without_a_free_port_names_the_ports_that_were_tried():
    with pytest.raises(StackError, match=r"kafka: no free port among 9092, 9192 .* stop a program"):
        choose({}, free=lambda _: False, defaults={"kafka": 9092})


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_with_a_listener_is_not_free(address):
    with socket.socket() as server:
        server.bind((address, 0))
        server.listen()

        assert not is_free(server.getsockname()[1])


CLAIM = """
import sys
from sage_flink.platform.stack.ports import PortClaims
with PortClaims() as claims:
    print(claims.take(int(sys.argv[1])), flush=True)
    sys.stdin.readline()
"""


def test_two_starts_at_the_same_time_never_choose_the_same_port():
    """A server listens seconds after its port was chosen: the other start must see the choice."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", CLAIM, str(port)]

    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "True\n"
        with PortClaims() as claims:
            assert is_free(port)
            assert not claims.take(port)
        other.communicate("\n", timeout=20)

    with PortClaims() as claims:
        assert claims.take(port)


def test_a_port_with_a_listener_cannot_be_claimed_and_leaves_no_claim():
    with PortClaims() as claims:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert not claims.take(port)

        assert claims.take(port)


def test_default_ports_are_below_those_that_the_system_assigns():
    assert max(DEFAULT_PORTS.values()) + 100 * 90 < 32_768
    assert len(set(DEFAULT_PORTS.values())) == len(DEFAULT_PORTS)


def test_settings_reads_the_addresses_in_stack_json(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    ports = {**DEFAULT_PORTS, "kafka": 9192, "gateway": 8988}

    write_stack_json(StackDirectory.at(tmp_path), ports)

    settings = Settings.load()
    assert (settings.kafka_servers, settings.gateway_url) == (
        "127.0.0.1:9192",
        "http://127.0.0.1:8988",
    )
    assert saved_ports(StackDirectory.at(tmp_path)) == ports


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ports": 3}', '{"ports": {"kafka": "x"}}'])
def test_a_damaged_stack_json_counts_as_missing(tmp_path, text):
    home = StackDirectory.at(tmp_path)
    home.stack_json.write_text(text)

    assert saved_ports(home) == {}
