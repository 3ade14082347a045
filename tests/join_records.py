"""Records and streams of the tests of joins: orders with payments, requests with rules."""

from typing import Any

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.flow import Stream
from sage_flink.flow.lists import ListSource

DAY_MS = 1_700_000_000_000


def event(input_: str, number: int, ms: int, **value: Any) -> Record:
    id_ = f"{input_}/0/{number}"
    return Record(id_, {"user": "a", **value}, DAY_MS + ms, origin=id_)


def order(number: int, ms: int, **value: Any) -> Record:
    return event("orders", number, ms, **value)


def payment(number: int, ms: int, **value: Any) -> Record:
    return event("payments", number, ms, **value)


def stream(name: str, *records: Record) -> Stream:
    """The records by user, with their time."""
    timed = sage.flow.read(name, ListSource(records)).event_time(f"{name}-time", out_of_order_s=0.1)
    return timed.key_by(f"{name}-key", "user")


def request(number: int, **value: Any) -> Record:
    id_ = f"requests/0/{number}"
    return Record(id_, {"n": number, **value}, DAY_MS + number, b"key", {"h": b"1"}, id_)


def read(name: str, *records: Record) -> Stream:
    return sage.flow.read(name, ListSource(records))
