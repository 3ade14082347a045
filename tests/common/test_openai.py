"""Error bodies and stream events in OpenAI's schema, and in other schemas."""

import pytest

from sage_flink.common import PoolError
from sage_flink.common.openai import error_message, event_of


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no room"}}', "no room"),
        (b'{"error": "no room"}', "no room"),
        (b'{"error": {"message": null}}', 'HTTP 503: {"error": {"message": null}}'),
        (b"[]", "HTTP 503: []"),
        (b"\xff", "HTTP 503: \ufffd"),
        (b"", "HTTP 503"),
    ],
)
def test_the_message_of_an_error_is_that_of_its_body_or_the_start_of_the_body(body, message):
    assert error_message(body, 503) == message


def test_a_long_message_is_cut():
    assert len(error_message(b'{"error": {"message": "%s"}}' % (b"x" * 900), 400)) == 500


@pytest.mark.parametrize("line", [b"", b": ping", b"data: [DONE]\r", b"event: x"])
def test_a_line_without_an_event_is_none(line):
    assert event_of(line) is None


def test_an_event_is_its_fields():
    assert event_of(b'data: {"usage": null}\r') == {"usage": None}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'data: {"error": {"message": "no room"}}', "^no room$"),
        (b"data: {", "the stream carried what is not an event"),
        (b"data: 3", "the stream carried what is not an event"),
    ],
)
def test_an_event_that_is_an_error_or_broken_is_raised(line, message):
    with pytest.raises(PoolError, match=message):
        event_of(line)
