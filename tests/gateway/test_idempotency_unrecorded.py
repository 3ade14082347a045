"""Answers that are delivered and not recorded: failures, cut streams, answers too large."""

from typing import Any

import pytest
from repeating_client import RepeatingClient, ledger_header, new_id_headers


@pytest.mark.parametrize("script", ["status 500", "status 429", "overflow"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_is_delivered_and_not_recorded(
    caller: RepeatingClient, script: str, stream: bool
) -> None:
    id_headers = new_id_headers()

    first = caller.ask(script, id_headers, stream=stream)
    again = caller.ask(script, id_headers, stream=stream)

    assert first.status_code == again.status_code >= 400
    assert (ledger_header(first), ledger_header(again)) == (None, None)
    assert caller.engine_requests() == 2


def test_a_failure_is_delivered_to_all_joined_clients(start: Any, fake: Any) -> None:
    with start({"talk": fake(timeout_s=4)}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()
        first = caller.begin("sleep 15", id_headers)
        gateway.until(lambda: caller.engine_requests() == 1)
        joined = caller.begin("sleep 15", id_headers)

        assert (first.result().status_code, joined.result().status_code) == (504, 504)
        assert caller.engine_requests() == 1


def test_a_stream_that_the_engine_cut_is_not_recorded(start: Any, fake: Any) -> None:
    with start({"talk": fake()}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()

        first = caller.ask("cut 3", id_headers, stream=True)
        again = caller.ask("cut 3", id_headers, stream=True)

        assert "stream_interrupted" in first.text
        assert again.content == first.content
        assert ledger_header(again) is None
        assert caller.engine_requests() == 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_above_the_size_limit_is_delivered_but_not_recorded(
    start: Any, fake: Any, stream: bool
) -> None:
    script = "echo " + " ".join(["word"] * 300)
    with start({"talk": fake()}, pool={"ledger": {"answer_bytes_max": 1024}}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()

        first = caller.ask(script, id_headers, stream=stream)
        again = caller.ask(script, id_headers, stream=stream)

        assert first.text.count("word") == again.text.count("word") == 300
        assert ledger_header(again) is None
        assert caller.engine_requests() == 2
        assert caller.metric("sage_gateway_ledger_unfit_total") == 2
