"""Account balances of one process, in memory. Nothing here waits."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.tenants import limits
from sage_gateway.tenants.keys import Key
from sage_gateway.tenants.limits import AccountState, LimitRefusal
from sage_gateway.tenants.store_protocol import Charge, MeteredCall, account_names

NEW_ACCOUNT = AccountState()


class AccountBalances:
    """Keys by id, and account states by name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.keys: dict[str, Key] = {}
        self._clock = clock
        self._accounts: dict[str, AccountState] = {}

    def admit(self, call: MeteredCall) -> LimitRefusal | None:
        """Hold the call's cost in both accounts, or return the limit that refuses it."""
        now_s = self._clock()
        found: list[tuple[str, AccountState]] = []
        for name, spec in _limited_accounts(call):
            account = limits.replenish(self._state(name), spec, now_s)
            if refusal := limits.refusal(account, spec, call.cost, name=name, now_s=now_s):
                return refusal
            found.append((name, account))
        for name, account in found:
            self._accounts[name] = limits.hold(account, call.cost)
        return None

    def release(self, call: MeteredCall, tokens: int) -> None:
        """End the hold, and correct the rate to the ``tokens`` that the call used."""
        for name, _ in _limited_accounts(call):
            self._accounts[name] = limits.release(self._accounts[name], call.cost, tokens)

    def load(self, charges: Sequence[Charge]) -> None:
        """Add the charges of this month, as read from a store."""
        now_s = self._clock()
        today, _ = limits.period(now_s)
        for charge in charges:
            for name in account_names(charge.row.tenant, charge.row.key):
                account = limits.roll_over(self._state(name), now_s)
                day_spent = account.day_spent + charge.tokens * (charge.row.day == today)
                month_spent = account.month_spent + charge.tokens
                self._accounts[name] = replace(
                    account, day_spent=day_spent, month_spent=month_spent
                )

    def charge(self, charges: Sequence[Charge]) -> None:
        """Add charges; negative counts reverse one."""
        now_s = self._clock()
        for charge in charges:
            for name in account_names(charge.row.tenant, charge.row.key):
                account = limits.roll_over(self._state(name), now_s)
                self._accounts[name] = limits.charge(account, charge.tokens, charge.row.day)

    def _state(self, name: str) -> AccountState:
        return self._accounts.get(name, NEW_ACCOUNT)


def _limited_accounts(call: MeteredCall) -> list[tuple[str, LimitsSpec]]:
    """The accounts that have a limit."""
    return [account for account in call.accounts() if limits.has_limit(account[1])]
