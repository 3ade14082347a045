"""Orders and payments made by a script, and the topic that each order belongs to."""

import json
import random
from dataclasses import dataclass, field
from typing import Any

#: Key and value of a Kafka message.
Message = tuple[bytes | None, bytes]
START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
STEP_MS = 10_000


@dataclass
class OrderLog:
    """What is written to both topics, first and then, and the ids of the orders by their topic.

    ``then`` begins with late orders, and ends with a message in each topic that is hours later: by
    it the time of the others is over.
    """

    orders: list[Message] = field(default_factory=list)
    payments: list[Message] = field(default_factory=list)
    orders_then: list[Message] = field(default_factory=list)
    payments_then: list[Message] = field(default_factory=list)
    ids: dict[str, set[str]] = field(
        default_factory=lambda: {"paid": set(), "unpaid": set(), "late": set()}
    )
    without_order: set[str] = field(default_factory=set)


def order_log(count: int, seed: int) -> OrderLog:
    """``count`` orders, one every ten seconds; of each ten two are not paid and one is late."""
    rand, log = random.Random(seed), OrderLog()
    payments = []
    last_ms = START_MS + count * STEP_MS + 2 * HOUR_MS
    for number in range(count):
        id_, at_ms = f"o{number}", START_MS + number * STEP_MS
        match number % 10:
            case 9:
                log.orders_then.append(_message(id_, at_ms, total=number))
                log.ids["late"].add(id_)
                continue
            case 8:  # never paid
                log.ids["unpaid"].add(id_)
            case 7:  # paid too late
                log.ids["unpaid"].add(id_)
                log.without_order.add(id_)
                payments.append((at_ms + HOUR_MS + rand.randrange(1, HOUR_MS), id_))
            case _:  # paid in time, up to a minute before the order
                log.ids["paid"].add(id_)
                payments.append((at_ms + rand.randrange(-60_000, HOUR_MS + 1), id_))
        log.orders.append(_message(id_, at_ms - rand.randrange(5_000), total=number))
    log.payments += [_message(id_, at_ms, sum=1) for at_ms, id_ in sorted(payments)]
    log.orders.append(_message("mark", last_ms))
    log.payments.append(_message("mark", last_ms))
    log.ids["paid"].add("mark")
    log.orders_then.append(_message("end", last_ms + 9 * HOUR_MS))
    log.payments_then.append(_message("end", last_ms + 9 * HOUR_MS))
    log.ids["paid"].add("end")
    return log


def _message(id_: str, at_ms: int, **more: Any) -> Message:
    return id_.encode(), json.dumps({"order": id_, "at": at_ms, **more}).encode()
