"""Ports: the usual one where it is free, a recognisable other where not, and the same next time."""

import socket

import pytest

from sage_flink.common.errors import StackError
from sage_flink.common.settings import Settings
from sage_flink.platform.stack.home import Home
from sage_flink.platform.stack.ports import (
    USUAL,
    choose,
    is_free,
    kept_ports,
    write_notes,
)


def only(*free):
    return lambda port: port in free


def test_the_usual_port_is_chosen_where_it_is_free():
    assert choose({}, free=lambda _: True) == USUAL


def test_a_taken_port_moves_by_a_hundred():
    ports = choose({}, free=only(9192, 9292), usual={"kafka": 9092})

    assert ports == {"kafka": 9192}


def test_the_choice_of_last_time_stays_while_it_is_free():
    kept = {"kafka": 9292}

    assert choose(kept, free=lambda _: True, usual={"kafka": 9092}) == kept


def test_a_kept_port_that_somebody_else_took_is_chosen_anew():
    assert choose({"kafka": 9292}, free=only(9092), usual={"kafka": 9092}) == {"kafka": 9092}


def test_the_port_of_our_own_running_server_counts_as_free_for_it():
    ports = choose({"kafka": 9092}, ours=["kafka"], free=only(9192), usual={"kafka": 9092})

    assert ports == {"kafka": 9092}


def test_no_two_servers_get_one_port():
    ports = choose({"b": 100, "a": 100}, free=lambda _: True, usual={"a": 100, "b": 100})

    assert ports == {"a": 100, "b": 200}


def test_no_free_port_at_all_says_what_was_tried():
    with pytest.raises(
        StackError, match=r"kafka: no free port among 9092, 9192 .* end what listens"
    ):
        choose({}, free=lambda _: False, usual={"kafka": 9092})


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_with_a_listener_is_not_free(address):
    with socket.socket() as server:
        server.bind((address, 0))
        server.listen()

        assert not is_free(server.getsockname()[1])


def test_usual_ports_lie_below_those_that_the_system_hands_out():
    assert max(USUAL.values()) + 100 * 90 < 32_768
    assert len(set(USUAL.values())) == len(USUAL)


def test_notes_are_what_settings_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    ports = {**USUAL, "kafka": 9192, "gateway": 8988}

    write_notes(Home.at(tmp_path), ports)

    settings = Settings.load()
    assert (settings.kafka_servers, settings.gateway_url) == (
        "127.0.0.1:9192",
        "http://127.0.0.1:8988",
    )
    assert kept_ports(Home.at(tmp_path)) == ports


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ports": 3}', '{"ports": {"kafka": "x"}}'])
def test_damaged_notes_count_as_none(tmp_path, text):
    home = Home.at(tmp_path)
    home.notes.write_text(text)

    assert kept_ports(home) == {}
