"""The accounts of one process: who holds what, and what was used. Nothing here waits."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.tenants.keys import NO_LIMITS, Key
from sage_gateway.tenants.limits import (
    Account,
    Refusal,
    begun,
    brought,
    ended,
    period,
    refusal,
    rolled,
    spent,
)
from sage_gateway.tenants.store_protocol import Call, Charge, account_names


class Books:
    """Keys by their id, and accounts by their name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.keys: dict[str, Key] = {}
        self._clock = clock
        self._accounts: dict[str, Account] = {}

    def admit(self, call: Call) -> Refusal | None:
        """Hold its cost in both accounts, or say which limit stands against it."""
        now_s = self._clock()
        found: list[tuple[str, Account]] = []
        for name, limits in _limited(call):
            account = brought(self._accounts.get(name, Account()), limits, now_s)
            if stands := refusal(account, limits, call.cost, name=name, now_s=now_s):
                return stands
            found.append((name, account))
        for name, account in found:
            self._accounts[name] = begun(account, call.cost)
        return None

    def end(self, call: Call, tokens: int) -> None:
        """Its hold is over; its rate is put right by what it took."""
        for name, _ in _limited(call):
            self._accounts[name] = ended(self._accounts[name], call.cost, tokens)

    def load(self, charges: Sequence[Charge]) -> None:
        """Put down what was used earlier this month."""
        now_s = self._clock()
        today, _ = period(now_s)
        for one in charges:
            for name in account_names(one.row.tenant, one.row.key):
                account = rolled(self._accounts.get(name, Account()), now_s)
                day_spent = account.day_spent + one.tokens * (one.row.day == today)
                month_spent = account.month_spent + one.tokens
                self._accounts[name] = replace(
                    account, day_spent=day_spent, month_spent=month_spent
                )

    def charge(self, charges: Sequence[Charge]) -> None:
        """Put down what was used, or with negative counts take it back."""
        now_s = self._clock()
        for one in charges:
            for name in account_names(one.row.tenant, one.row.key):
                account = rolled(self._accounts.get(name, Account()), now_s)
                self._accounts[name] = spent(account, one.tokens, one.row.day)


def _limited(call: Call) -> list[tuple[str, LimitsSpec]]:
    """The accounts that anything is limited in."""
    return [both for both in call.accounts() if both[1] is not NO_LIMITS]
