"""Limits of an account, as pure functions over its state.

A rate is a debt that time pays off: each request adds to it, and it may not rise above what one
minute allows. The tokens of a call are estimated when it begins and corrected when it ends. A call
that is larger than a whole minute is admitted when there is no debt at all, and leaves more.

A budget is kept by holding, before a call, the most that it can cost. The actual cost is never more
than the hold, so ``spent + held`` never exceeds the budget. Days and months are UTC; a hold counts
against the day on which its call ends.
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
    """The tokens that a call probably uses, and the most that it can use."""

    likely: int
    most: int


class AccountState(msgspec.Struct, frozen=True, gc=False):
    """State of the account of a key or a tenant. ``day`` is as 20261124, ``month`` as 202611."""

    requests_debt: float = 0.0
    tokens_debt: float = 0.0
    at_s: float = 0.0
    day: int = 0
    day_spent: int = 0
    month: int = 0
    month_spent: int = 0
    tokens_held: int = 0


@dataclass(frozen=True, slots=True)
class LimitRefusal:
    """The limit that refuses a call, its account, and for how long it will."""

    account: str
    limit: str
    allowed: int
    wait_s: float

    def error(self) -> GatewayError:
        """The refusal as an error."""
        budget = self.limit in ("tokens_per_day", "tokens_per_month")
        words = self.limit.replace("_", " ")
        next_step = "ask for less, or wait" if budget else "try again later"
        return QuotaExceeded(
            f"{self.account}: {self.allowed:,} {words} are used up; {next_step}",
            code="insufficient_quota" if budget else "rate_limit_exceeded",
            retry_after_s=max(1, math.ceil(self.wait_s)),
        )


def refusal(
    account: AccountState, limits: LimitsSpec, cost: Cost, *, name: str, now_s: float
) -> LimitRefusal | None:
    """The limit that refuses the call, or None. ``account`` is a result of :func:`replenish`."""
    refused = _rate_refusal(account, limits, cost, name) if has_rate(limits) else None
    return refused or _budget_refusal(account, limits, cost, name, now_s)


def _rate_refusal(
    account: AccountState, limits: LimitsSpec, cost: Cost, name: str
) -> LimitRefusal | None:
    rates = (
        ("requests_per_minute", limits.requests_per_minute, account.requests_debt, 1),
        ("tokens_per_minute", limits.tokens_per_minute, account.tokens_debt, cost.likely),
    )
    longest = None
    for limit, allowed, debt, tokens in rates:
        if allowed is not None and (excess := debt + min(tokens, allowed) - allowed) > 0:
            refused = LimitRefusal(name, limit, allowed, excess * MINUTE_S / allowed)
            longest = refused if longest is None or refused.wait_s > longest.wait_s else longest
    return longest


def _budget_refusal(
    account: AccountState, limits: LimitsSpec, cost: Cost, name: str, now_s: float
) -> LimitRefusal | None:
    budgets = (
        ("tokens_per_month", limits.tokens_per_month, account.month_spent),
        ("tokens_per_day", limits.tokens_per_day, account.day_spent),
    )
    for limit, allowed, spent in budgets:
        if allowed is not None and spent + account.tokens_held + cost.most > allowed:
            fits_later = spent + cost.most <= allowed  # when other calls release their holds
            wait_s = 1.0 if fits_later else remaining_s(limit, now_s)
            return LimitRefusal(name, limit, allowed, wait_s)
    return None


def replenish(account: AccountState, limits: LimitsSpec, now_s: float) -> AccountState:
    """The account at ``now_s``: debts reduced by the time since, and :func:`roll_over`.

    Without a rate nothing reads the debts, and they stay as they are.
    """
    account = roll_over(account, now_s)
    if not has_rate(limits):
        return account
    passed_s = max(0.0, now_s - account.at_s)
    return replace(
        account,
        requests_debt=_reduce(account.requests_debt, limits.requests_per_minute, passed_s),
        tokens_debt=_reduce(account.tokens_debt, limits.tokens_per_minute, passed_s),
        at_s=_later(account.at_s, now_s),
    )


def roll_over(account: AccountState, now_s: float) -> AccountState:
    """The account in the day and the month of ``now_s``; what it spent in earlier ones is 0."""
    day, month = period(now_s)
    if day <= account.day:  # the usual case, or a clock that went back
        return account
    same = account.month == month
    month_spent = account.month_spent if same else 0
    return replace(account, day=day, day_spent=0, month=month, month_spent=month_spent)


def hold(account: AccountState, cost: Cost) -> AccountState:
    """The account with the cost of one more call held."""
    return replace(
        account,
        requests_debt=account.requests_debt + 1,
        tokens_debt=account.tokens_debt + cost.likely,
        tokens_held=account.tokens_held + cost.most,
    )


def release(account: AccountState, cost: Cost, used: int) -> AccountState:
    """The account after a call, with ``used`` tokens in place of the estimate."""
    return replace(
        account,
        tokens_debt=max(0.0, account.tokens_debt + used - cost.likely),
        tokens_held=account.tokens_held - cost.most,
    )


def charge(account: AccountState, tokens: int, day: int) -> AccountState:
    """The account with ``tokens`` more spent on ``day``, or less if they are negative.

    A charge counts even if its day is before the account's: then the clock went back.
    """
    more = tokens > 0
    same_day = day == account.day or (more and day < account.day)
    same_month = day // 100 == account.month or (more and day // 100 < account.month)
    return replace(
        account,
        day_spent=account.day_spent + (tokens if same_day else 0),
        month_spent=account.month_spent + (tokens if same_month else 0),
    )


def has_limit(limits: LimitsSpec) -> bool:
    """Whether any limit is set."""
    return has_token_budget(limits) or has_rate(limits)


def has_rate(limits: LimitsSpec) -> bool:
    """Whether a limit per minute is set."""
    return limits.requests_per_minute is not None or limits.tokens_per_minute is not None


def has_token_budget(limits: LimitsSpec) -> bool:
    """Whether a token budget is set."""
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


def remaining_s(limit: str, now_s: float) -> float:
    """The seconds until the end of the day or the month, whichever ``limit`` counts."""
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
    """The later of both; but now, if the clock was set back. Gateways' clocks differ slightly."""
    return at_s if 0 < at_s - now_s < MINUTE_S else now_s


def _reduce(debt: float, per_minute: int | None, passed_s: float) -> float:
    return 0.0 if per_minute is None else max(0.0, debt - passed_s * per_minute / MINUTE_S)
