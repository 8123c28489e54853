"""Budgets on the hot path: what a request may cost at most is reserved in memory, out of leases that the database has granted.

A process holds a lease on each account (a budget in one period) that it spends from. In memory a lease is one number, what is
left of it: reserving takes from it, settling gives back what was reserved and not used. What was used stays taken: the ledger
charges it to the same lease when the journal is drained, so nothing has to be told to anybody. Only a lease that does not
suffice costs a way to the database, one at a time, for all who wait. What lies idle is given back every second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from typing import NamedTuple, Protocol

import msgspec

from core.clock import Clock
from core.config import BudgetSpec, Snapshot
from core.errors import BudgetExhausted, ProviderBudgetExhausted
from core.periods import Period, period_at
from gateway.budget_words import exhausted, unavailable
from monitoring.journal import Hold

_log = logging.getLogger(__name__)

PASS_INTERVAL_S = 1.0
# A lease is at most this part of the limit beyond what is needed now, and of what is left a part that gets ever smaller.
_SLICE_OF_LIMIT = 50
_SLICE_OF_REST = 16
# A refusal is good for so long: whoever asks again meanwhile is not worth a way to the database.
_REFUSED_FOR_S = 0.2
_RENEWALS_PER_LEASE = 6


class Grant(NamedTuple):
    """What the database says of an account, and of this process's lease on it. `granted` is all that the lease was ever given, less
    what was given back; `lease_id` 0 = there is none, because nothing could be granted."""

    lease_id: int
    granted: int
    spent: int
    leased: int


class Bank(Protocol):
    """The database's side. Any of these raises whatever keeps the database from answering."""

    async def take(self, budget: BudgetSpec, period_start: int, lease_id: int, least: int, wanted: int, spare: int) -> Grant:
        """At least `least` more for this process's lease, up to `wanted`, and a part of `spare` where there is plenty; or nothing."""
        ...

    async def tend(self, given_back: Mapping[int, int], unused: Set[int], accounts: Sequence[tuple[BudgetSpec, int]]) -> dict[int, int]:
        """Renews the leases (by id) and takes back from each so much, less than nothing where more was used than granted. What was
        granted to each then; one that is missing is gone: of `unused`, those that owe nothing are closed. Reports how far
        `accounts` are used."""
        ...

    async def watch(self) -> None:
        """Releases the leases of processes that are no more."""
        ...


class Lease:
    """`free` is what nobody has reserved or used, less than nothing where more was used than reserved; `held` what is reserved.
    Good until `valid_until_s` (monotonic): then others may have released it."""

    __slots__ = ("free", "granted", "held", "id", "lately", "valid_until_s")

    def __init__(self) -> None:
        self.id = self.granted = self.free = self.held = self.lately = 0
        self.valid_until_s = 0.0

    def take(self, amount: int) -> None:
        self.free -= amount
        self.held += amount
        self.lately += amount

    def settle(self, reserved: int, used: int) -> None:
        self.free += reserved - used
        self.held -= reserved


class _Waiter(NamedTuple):
    amount: int
    granted: asyncio.Future[Lease]


class Account:
    """One budget in one period, as this process sees it."""

    __slots__ = ("filling", "lease", "period", "refused", "refused_until_s", "spec", "waiting")

    def __init__(self, spec: BudgetSpec, period: Period) -> None:
        self.spec = spec
        self.period = period
        self.lease = Lease()
        self.waiting: list[_Waiter] = []
        self.filling: asyncio.Task[None] | None = None
        self.refused: Grant | None = None
        self.refused_until_s = 0.0


class Part(NamedTuple):
    """What is reserved of one account; `lease` None = of a soft budget, or nothing."""

    account: Account
    lease: Lease | None
    amount: int


class Reservation(msgspec.Struct):
    """What one attempt has reserved. Ends once, in `settle`."""

    parts: list[Part] = msgspec.field(default_factory=list)

    def holds(self) -> tuple[Hold, ...]:
        return tuple(
            Hold(part.account.spec.id, part.account.period.start, part.lease.id if part.lease else 0, part.amount) for part in self.parts
        )

    def settle(self, used: Sequence[int] = ()) -> None:
        """`used`: of each part, () = nothing of any."""
        for part, amount in zip(self.parts, used or (0,) * len(self.parts), strict=True):
            if part.lease is not None:
                part.lease.settle(part.amount, amount)
        self.parts = []


class Budgets:
    """All budgets, in one process. Used on the event loop alone."""

    def __init__(self, bank: Bank, clock: Clock, *, lease_s: float, timeout_s: float) -> None:
        """A lease that could not be renewed for `lease_s` counts for nothing; nobody waits longer than `timeout_s` for the database."""
        self.any = self.names_users = False
        self._bank = bank
        self._clock = clock
        self._lease_s = lease_s
        self._timeout_s = timeout_s
        self._by_holder: dict[tuple[str, str], tuple[BudgetSpec, ...]] = {}
        self._accounts: dict[str, Account] = {}
        self._leases: dict[int, Lease] = {}
        self._one_at_a_time = asyncio.Lock()
        self._renew_at_s = 0.0

    def apply(self, snapshot: Snapshot) -> None:
        """What is reserved stays reserved; of a budget that was changed all that is not needed now is given back."""
        by_holder: dict[tuple[str, str], tuple[BudgetSpec, ...]] = {}
        for spec in snapshot.budgets:
            holder = spec.scope, spec.holder
            by_holder[holder] = (*by_holder.get(holder, ()), spec)
            account = self._accounts.get(spec.id)
            if account is not None and account.spec != spec:
                account.lease.lately = 0
                if spec.limit < account.spec.limit:
                    account.lease = Lease()  # what is in hand was granted under the old limit: `tend` gives it back, the bank is asked
                account.spec, account.refused_until_s = spec, 0.0
        self._by_holder = by_holder
        self.any, self.names_users = bool(by_holder), any(spec.scope == "user" for spec in snapshot.budgets)
        for gone in self._accounts.keys() - {spec.id for spec in snapshot.budgets}:
            self._accounts.pop(gone).lease.lately = 0

    def of(self, key_id: str, team_id: str, provider_id: str, user: str) -> tuple[BudgetSpec, ...]:
        """Those that apply to a request of that key at that provider; `user` "" = it names none."""
        found = self._by_holder.get
        specs = found(("key", key_id), ()) + found(("team", team_id), ()) + found(("provider", provider_id), ())
        return specs + found(("user", user), ()) if user else specs

    def reserve_now(self, needs: Sequence[tuple[BudgetSpec, int]]) -> Reservation | None:
        """Out of what is in hand; None = `reserve` must be awaited."""
        now = self._clock.monotonic()
        reservation = Reservation()
        for spec, amount in needs:
            part = self._from_hand(self._account(spec), amount, now)
            if part is None:
                reservation.settle()
                return None
            reservation.parts.append(part)
        return reservation

    async def reserve(self, needs: Iterable[tuple[BudgetSpec, int]]) -> Reservation:
        """All of `needs`, or nothing. Raises BudgetExhausted, BudgetUnavailable."""
        reservation = Reservation()
        try:
            for spec, amount in needs:
                account = self._account(spec)
                part = self._from_hand(account, amount, self._clock.monotonic())
                reservation.parts.append(part or Part(account, await self._asked_for(account, amount), amount))
        except BaseException:
            reservation.settle()
            raise
        return reservation

    def _account(self, spec: BudgetSpec) -> Account:
        account, wall_s = self._accounts.get(spec.id), self._clock.wall()
        if account is None or not account.period.start <= wall_s < account.period.end:
            account = self._accounts[spec.id] = Account(spec, period_at(spec.period, wall_s))
        return account

    def _from_hand(self, account: Account, amount: int, now: float) -> Part | None:
        if not account.spec.hard or not amount:
            return Part(account, None, amount)
        lease = account.lease
        if lease.free < amount or now >= lease.valid_until_s:
            return None
        lease.take(amount)
        return Part(account, lease, amount)

    # Leases ---------------------------------------------------------------------------------------------------------

    async def _asked_for(self, account: Account, amount: int) -> Lease:
        refused = account.refused if self._clock.monotonic() < account.refused_until_s else None
        if refused is not None and amount > account.spec.limit - refused.spent - refused.leased:
            raise self._exhausted(account, amount, refused)
        waiter = _Waiter(amount, asyncio.get_running_loop().create_future())
        account.waiting.append(waiter)
        if account.filling is None:
            account.filling = asyncio.create_task(self._fill(account))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await waiter.granted
        except BaseException as exc:
            granted = waiter.granted
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                granted.result().settle(amount, 0)  # it came in the moment in which nobody wanted it any more
            if isinstance(exc, TimeoutError):
                raise unavailable(account.spec) from None
            raise

    async def _fill(self, account: Account) -> None:
        """Until nobody waits. Who comes while the database is asked is asked for next."""
        while account.waiting:
            asked, account.waiting = account.waiting, []
            try:
                self._hand_out(account, asked, await self._take(account, [waiter.amount for waiter in asked]))
            except Exception as exc:
                _log.warning("%s: the database did not say what is left (%s: %s)", account.spec.name, type(exc).__name__, exc)
                for waiter in asked:
                    if not waiter.granted.done():
                        waiter.granted.set_exception(unavailable(account.spec))
        account.filling = None

    async def _take(self, account: Account, amounts: Sequence[int]) -> Grant:
        spec = account.spec
        async with self._one_at_a_time:
            began_s, lease = self._clock.monotonic(), account.lease
            in_hand = lease.free if began_s < lease.valid_until_s else 0
            least, wanted = max(0, min(amounts) - in_hand), max(0, sum(amounts) - in_hand)
            grant = await self._bank.take(spec, account.period.start, lease.id, least, wanted, spec.limit // _SLICE_OF_LIMIT)
            self._learn(account, grant, began_s)
        return grant

    def _learn(self, account: Account, grant: Grant, began_s: float) -> None:
        if not grant.lease_id:
            return
        lease = account.lease
        if lease.id != grant.lease_id:
            # The old one was released meanwhile, and those who have reserved of it settle with it; or the clock went back to this period.
            self._leases.pop(lease.id, None)
            lease = account.lease = self._leases.get(grant.lease_id) or Lease()
        lease.id = grant.lease_id
        lease.free += grant.granted - lease.granted
        lease.granted = grant.granted
        lease.valid_until_s = began_s + self._lease_s
        self._leases[lease.id] = lease

    def _hand_out(self, account: Account, asked: Sequence[_Waiter], grant: Grant) -> None:
        lease, now = account.lease, self._clock.monotonic()
        for waiter in asked:
            if waiter.granted.done():
                continue
            if lease.free >= waiter.amount and now < lease.valid_until_s:
                lease.take(waiter.amount)
                waiter.granted.set_result(lease)
            else:
                account.refused, account.refused_until_s = grant, now + _REFUSED_FOR_S
                lease.lately = 0  # what is left may be enough for somebody elsewhere
                waiter.granted.set_exception(self._exhausted(account, waiter.amount, grant))

    def _exhausted(self, account: Account, amount: int, grant: Grant) -> BudgetExhausted:
        kind = ProviderBudgetExhausted if account.spec.scope == "provider" else BudgetExhausted
        return kind(exhausted(account.spec, account.period.end, amount, grant.spent, grant.leased))

    # Every second ---------------------------------------------------------------------------------------------------

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """For ever. What the database does not answer is tried again."""
        failing = False
        while True:
            await sleep(PASS_INTERVAL_S)
            try:
                await self.tend()
                failing = False
            except Exception as exc:
                if not failing:
                    _log.error("budgets: leases cannot be renewed (%s: %s)", type(exc).__name__, exc)
                failing = True

    async def tend(self) -> None:
        """Gives back what lies idle, renews the rest. Raises what the bank raises; nothing is lost then."""
        if not self.any and not self._leases:
            return
        async with self._one_at_a_time:
            began_s = self._clock.monotonic()
            renews = began_s >= self._renew_at_s
            given = {lease.id: idle for lease in list(self._leases.values()) if (idle := _idle(lease)) or renews}
            for lease_id, idle in given.items():
                self._leases[lease_id].free -= idle
                self._leases[lease_id].granted -= idle
            # What is reserved now may be used up, and charged, before the bank looks: who has more than that would lose its lease.
            unused = {lease_id for lease_id in given if not (self._leases[lease_id].held or self._leases[lease_id].free)}
            accounts = [(account.spec, account.period.start) for account in self._accounts.values()]
            granted = await self._bank.tend(given, unused, accounts) if given or accounts else {}
            for lease_id in given:
                self._heard(lease_id, granted.get(lease_id), began_s)
        if renews:
            self._renew_at_s = began_s + self._lease_s / _RENEWALS_PER_LEASE
            await self._bank.watch()

    def _heard(self, lease_id: int, granted: int | None, began_s: float) -> None:
        lease = self._leases[lease_id]
        if granted is None:
            del self._leases[lease_id]
            for account in self._accounts.values():
                if account.lease is lease:
                    account.lease = Lease()
            return
        lease.free += granted - lease.granted
        lease.granted = granted
        lease.valid_until_s = began_s + self._lease_s


def _idle(lease: Lease) -> int:
    """What was not needed in the last second; negative: more was used than was granted."""
    keep, lease.lately = min(lease.lately, max(0, lease.free)), 0
    return lease.free - keep


def share(limit: int, committed: int, least: int, wanted: int, spare: int) -> int:
    """How much of an account that has `committed` (spent and leased) a lease gets more; 0 = nothing, for `least` is not left."""
    left = limit - committed
    if left < least or left <= 0:
        return 0
    return min(left, wanted + min(spare, max(0, left - wanted) // _SLICE_OF_REST))
