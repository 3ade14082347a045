"""Error bodies and events of OpenAI's shape, and of servers that speak another."""

import pytest

from sage_flink.common import PoolError
from sage_flink.common.openai import error_message, event_of


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "no room"}}', "no room"),
        (b'{"error": "no room"}', "no room"),
        (b'{"error": {"message": null}}', 'HTTP 503: {"error": {"message": null}}'),
        (b"[]", "HTTP 503: []"),
        (b"\xff", "HTTP 503: \ufffd"),
        (b"", "HTTP 503"),
    ],
)
def test_an_error_says_what_its_body_says_or_how_it_begins(body, said):
    assert error_message(body, 503) == said


def test_a_long_message_is_cut():
    assert len(error_message(b'{"error": {"message": "%s"}}' % (b"x" * 900), 400)) == 500


@pytest.mark.parametrize("line", [b"", b": ping", b"data: [DONE]\r", b"event: x"])
def test_what_carries_no_event_is_none(line):
    assert event_of(line) is None


def test_an_event_is_its_fields():
    assert event_of(b'data: {"usage": null}\r') == {"usage": None}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'data: {"error": {"message": "no room"}}', "^no room$"),
        (b"data: {", "the stream carried what is not an event"),
        (b"data: 3", "the stream carried what is not an event"),
    ],
)
def test_an_event_that_is_an_error_or_broken_is_raised(line, said):
    with pytest.raises(PoolError, match=said):
        event_of(line)
