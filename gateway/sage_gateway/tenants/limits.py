"""What an account may still spend: pure functions over its state.

A rate is a debt that drains: each request adds to it, time takes away, and it may not rise above
what one minute allows. What a call takes in tokens is guessed when it begins and put right when it
ends; one that is larger than a whole minute goes when there is no debt at all, and leaves more.

A budget is kept by holding back, before a call, the most that it can cost. What a call did cost is
never more than was held, so ``spent + held`` never passes the budget. Days and months are UTC's;
what is held counts against whichever day its call ends in.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.errors import GatewayError, QuotaExceeded

MINUTE_S = 60.0
DAY_S = 86_400


class Cost(msgspec.Struct, frozen=True, gc=False):
    """In tokens: what a call is likely to take, and what it cannot pass."""

    likely: int
    most: int


class Account(msgspec.Struct, frozen=True, gc=False):
    """One key's or one tenant's state. ``day`` is as 20261124, ``month`` as 202611."""

    requests_owed: float = 0.0
    tokens_owed: float = 0.0
    at_s: float = 0.0
    day: int = 0
    day_spent: int = 0
    month: int = 0
    month_spent: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The limit that stands against a call, of which account, and how long it will."""

    account: str
    limit: str
    allowed: int
    wait_s: float

    def error(self) -> GatewayError:
        """The answer that tells it; 429."""
        budget = self.limit in ("tokens_per_day", "tokens_per_month")
        words = self.limit.replace("_", " ")
        next_step = "ask for less, or wait" if budget else "try again later"
        return QuotaExceeded(
            f"{self.account}: {self.allowed:,} {words} are used up; {next_step}",
            code="insufficient_quota" if budget else "rate_limit_exceeded",
            retry_after_s=max(1, math.ceil(self.wait_s)),
        )


def refusal(
    account: Account, limits: LimitsSpec, cost: Cost, *, name: str, now_s: float
) -> Refusal | None:
    """What stands against the call; None when it may begin. ``account`` is :func:`brought` up."""
    rates = (
        ("requests_per_minute", limits.requests_per_minute, account.requests_owed, 1),
        ("tokens_per_minute", limits.tokens_per_minute, account.tokens_owed, cost.likely),
    )
    over = [
        Refusal(name, limit, allowed, more * MINUTE_S / allowed)
        for limit, allowed, owed, takes in rates
        if allowed is not None and (more := owed + min(takes, allowed) - allowed) > 0
    ]
    if over:
        return max(over, key=lambda stands: stands.wait_s)
    budgets = (
        ("tokens_per_month", limits.tokens_per_month, account.month_spent),
        ("tokens_per_day", limits.tokens_per_day, account.day_spent),
    )
    for limit, allowed, spent in budgets:
        if allowed is not None and spent + account.held + cost.most > allowed:
            held_back = spent + cost.most <= allowed  # it may fit when others have ended
            wait_s = 1.0 if held_back else left_s(limit, now_s)
            return Refusal(name, limit, allowed, wait_s)
    return None


def brought(account: Account, limits: LimitsSpec, now_s: float) -> Account:
    """The account as it stands now: debts drained, a new day or month begun."""
    passed_s = max(0.0, now_s - account.at_s)
    return replace(
        rolled(account, now_s),
        requests_owed=_drained(account.requests_owed, limits.requests_per_minute, passed_s),
        tokens_owed=_drained(account.tokens_owed, limits.tokens_per_minute, passed_s),
        at_s=_later(account.at_s, now_s),
    )


def rolled(account: Account, now_s: float) -> Account:
    """The account with what it spent in the day and the month of now."""
    day, month = period(now_s)
    if day <= account.day:  # the usual case; a clock that went back begins nothing anew
        return account
    same = account.month == month
    month_spent = account.month_spent if same else 0
    return replace(account, day=day, day_spent=0, month=month, month_spent=month_spent)


def begun(account: Account, cost: Cost) -> Account:
    """With one more call under way."""
    return replace(
        account,
        requests_owed=account.requests_owed + 1,
        tokens_owed=account.tokens_owed + cost.likely,
        held=account.held + cost.most,
    )


def ended(account: Account, cost: Cost, used: int) -> Account:
    """With this call over, and ``used`` taken for what it was likely to take."""
    return replace(
        account,
        tokens_owed=max(0.0, account.tokens_owed + used - cost.likely),
        held=account.held - cost.most,
    )


def spent(account: Account, tokens: int, day: int) -> Account:
    """With ``tokens`` more spent on ``day``, or less.

    What is spent counts even if its day lies before the account's: then the clock went back.
    """
    more = tokens > 0
    same_day = day == account.day or (more and day < account.day)
    same_month = day // 100 == account.month or (more and day // 100 < account.month)
    return replace(
        account,
        day_spent=account.day_spent + (tokens if same_day else 0),
        month_spent=account.month_spent + (tokens if same_month else 0),
    )


def limited(limits: LimitsSpec) -> bool:
    """Whether any limit is set."""
    rates = limits.requests_per_minute is not None or limits.tokens_per_minute is not None
    return rates or budgeted(limits)


def budgeted(limits: LimitsSpec) -> bool:
    """Whether there is a budget among them."""
    return limits.tokens_per_day is not None or limits.tokens_per_month is not None


def period(now_s: float) -> tuple[int, int]:
    """The day and the month of a time since the epoch.

    >>> period(0)
    (19700101, 197001)
    """
    return _period(int(now_s // DAY_S))


def days(first: int, last: int) -> list[int]:
    """Every day from ``first`` to ``last``, both as 20261124.

    >>> days(20261130, 20261201)
    [20261130, 20261201]
    """
    one, end = (datetime.strptime(str(d), "%Y%m%d").replace(tzinfo=UTC) for d in (first, last))
    return [period((one + timedelta(days=n)).timestamp())[0] for n in range((end - one).days + 1)]


def left_s(limit: str, now_s: float) -> float:
    """How long the day or the month of ``limit`` still is."""
    at = datetime.fromtimestamp(now_s, UTC)
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if limit == "tokens_per_day":
        return (midnight + timedelta(days=1)).timestamp() - now_s
    return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1).timestamp() - now_s


@lru_cache(maxsize=8)
def _period(day: int) -> tuple[int, int]:
    at = datetime.fromtimestamp(day * DAY_S, UTC)
    month = at.year * 100 + at.month
    return month * 100 + at.day, month


def _later(at_s: float, now_s: float) -> float:
    """The later one, but for a clock that was put back: then now. Gateways' clocks differ a bit."""
    return at_s if 0 < at_s - now_s < MINUTE_S else now_s


def _drained(owed: float, per_minute: int | None, passed_s: float) -> float:
    return 0.0 if per_minute is None else max(0.0, owed - passed_s * per_minute / MINUTE_S)
