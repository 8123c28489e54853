"""Budgets in memory, over a bank of one account book."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import pytest

from core.clock import FrozenClock
from core.config import BudgetSpec, Snapshot
from core.errors import BudgetExhausted, BudgetUnavailable, ProviderBudgetExhausted
from core.periods import Period, period_at
from gateway.budget import Budgets, Grant, Reservation, share


class FakeBank:
    """One account; `lease` is what this process was granted. `others` is leased to other processes."""

    def __init__(self) -> None:
        self.spent = self.others = self.granted = self.charged = self.lease_id = self.takes = 0
        self.broken = self.lost_answer = False
        self.hold: asyncio.Event | None = None
        self.tended: list[dict[int, int]] = []
        self.meanwhile: Callable[[], None] | None = None

    async def take(self, budget: BudgetSpec, period_start: int, lease_id: int, least: int, wanted: int, spare: int) -> Grant:
        self.takes += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.broken:
            raise OSError("away")
        more = share(budget.limit, self.spent + self.others + self.granted, least, wanted, spare)
        if not more and least:
            return Grant(0, 0, self.spent, self.others + self.granted)
        self.lease_id = self.lease_id or 7
        self.granted += more
        if self.lost_answer:
            raise OSError("the connection broke")
        return Grant(self.lease_id, self.granted, self.spent, self.others + self.granted)

    async def tend(self, given_back: Mapping[int, int], unused: Set[int], accounts: Sequence[tuple[BudgetSpec, int]]) -> dict[int, int]:
        if self.broken:
            raise OSError("away")
        if self.meanwhile is not None:
            self.meanwhile()
        self.tended.append(dict(given_back))
        self.granted -= given_back.get(self.lease_id, 0)
        if self.lease_id in unused and self.granted == self.charged:
            self.lease_id = 0
        return {self.lease_id: self.granted} if self.lease_id in given_back else {}

    def charge(self, amount: int) -> None:
        """As the drainer does."""
        self.spent += amount
        self.charged += amount

    async def watch(self) -> None: ...


def spec(limit: int = 1000, **changes: Any) -> BudgetSpec:
    values = {
        "id": "b",
        "name": "The daily tokens budget of team growth",
        "scope": "team",
        "holder": "t",
        "kind": "tokens",
        "period": "day",
    }
    return BudgetSpec(limit=limit, **{**values, **changes})


@pytest.fixture
def bank() -> FakeBank:
    return FakeBank()


def budgets_of(bank: FakeBank, clock: FrozenClock, *specs: BudgetSpec) -> Budgets:
    made = Budgets(bank, clock, lease_s=60, timeout_s=5)
    made.apply(Snapshot(version=1, loaded_at=0.0, budgets=specs))
    return made


async def reserve(budgets: Budgets, budget: BudgetSpec, amount: int) -> Reservation:
    return budgets.reserve_now([(budget, amount)]) or await budgets.reserve([(budget, amount)])


async def test_the_first_goes_to_the_bank_and_the_next_out_of_the_lease(bank: FakeBank, clock: FrozenClock) -> None:
    budgets = budgets_of(bank, clock, spec())
    assert budgets.reserve_now([(spec(), 10)]) is None
    first = await budgets.reserve([(spec(), 10)])
    assert bank.granted == 10 + 20  # 20: a fiftieth of the limit
    second = budgets.reserve_now([(spec(), 20)])
    assert second is not None
    assert budgets.reserve_now([(spec(), 1)]) is None
    (hold,) = first.holds()
    assert (hold.budget_id, hold.period_start, hold.lease_id, hold.reserved) == ("b", 1_799_971_200, 7, 10)


async def test_what_was_not_used_is_free_again(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(100)
    budgets = budgets_of(bank, clock, budget)
    first = await reserve(budgets, budget, 100)
    with pytest.raises(BudgetExhausted):
        await reserve(budgets, budget, 1)
    first.settle([30])
    assert await reserve(budgets, budget, 70)
    with pytest.raises(BudgetExhausted):
        await reserve(budgets, budget, 1)


async def test_a_refusal_names_everything(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(100)
    bank.spent, bank.others = 80, 5
    with pytest.raises(BudgetExhausted) as refused:
        await reserve(budgets_of(bank, clock, budget), budget, 16)
    assert refused.value.message == (
        "The daily tokens budget of team growth is exhausted: 80 tokens of 100 tokens are used and 5 tokens are reserved by requests "
        "under way; this request may need up to 16 tokens. It renews at 2027-01-16 00:00 UTC. "
        "What is reserved and not used is free again a second after those requests end."
    )
    assert (refused.value.http_status, refused.value.code, refused.value.retryable) == (429, "insufficient_quota", False)


async def test_a_providers_budget_leads_to_the_next_target(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(1, scope="provider")
    with pytest.raises(ProviderBudgetExhausted) as refused:
        await reserve(budgets_of(bank, clock, budget), budget, 2)
    assert refused.value.retryable


async def test_those_who_wait_share_one_way_and_the_last_ones_are_refused(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(10)
    budgets = budgets_of(bank, clock, budget)
    found = await asyncio.gather(*(reserve(budgets, budget, 1) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(one, Reservation) for one in found) == 10
    assert sum(isinstance(one, BudgetExhausted) for one in found) == 40
    assert (bank.takes, bank.granted) == (1, 10)


async def test_a_small_one_fits_where_a_large_one_does_not(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(10)
    budgets = budgets_of(bank, clock, budget)
    large, small = await asyncio.gather(reserve(budgets, budget, 11), reserve(budgets, budget, 10), return_exceptions=True)
    assert isinstance(large, BudgetExhausted)
    assert isinstance(small, Reservation)


async def test_who_leaves_while_waiting_leaks_nothing(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(10)
    budgets, bank.hold = budgets_of(bank, clock, budget), asyncio.Event()
    waiting = [asyncio.create_task(reserve(budgets, budget, 5)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()
    bank.hold.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert waiting[0].cancelled()
    waiting[1].result().settle()
    await budgets.tend()
    await budgets.tend()
    assert bank.granted == 0


async def test_who_leaves_in_the_moment_of_the_grant_leaks_nothing(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(10)
    budgets, bank.hold = budgets_of(bank, clock, budget), asyncio.Event()
    waiting = asyncio.create_task(reserve(budgets, budget, 5))
    await asyncio.sleep(0)
    (waiter,) = budgets._accounts["b"].waiting
    waiter.granted.add_done_callback(lambda _: waiting.cancel())  # while the grant is on its way to it
    bank.hold.set()
    await asyncio.gather(waiting, return_exceptions=True)
    if not waiting.cancelled():
        waiting.result().settle()
    for _ in range(2):
        await budgets.tend()
    assert bank.granted == 0


async def test_idle_lease_goes_back_within_two_passes(bank: FakeBank, clock: FrozenClock) -> None:
    budgets = budgets_of(bank, clock, spec())
    (await reserve(budgets, spec(), 10)).settle([4])
    await budgets.tend()
    assert bank.granted == 4 + 10  # as much as was needed in the last second
    await budgets.tend()
    assert bank.granted == 4  # used, and still to be charged


async def test_of_a_scarce_budget_nothing_is_kept_for_later(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(10)
    budgets = budgets_of(bank, clock, budget)
    first, second = await asyncio.gather(reserve(budgets, budget, 6), reserve(budgets, budget, 6), return_exceptions=True)
    assert isinstance(first, Reservation)
    assert isinstance(second, BudgetExhausted)
    await budgets.tend()
    assert bank.granted == 6


async def test_more_used_than_reserved_is_leased_afterwards(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(10)
    budgets = budgets_of(bank, clock, budget)
    (await reserve(budgets, budget, 10)).settle([13])
    await budgets.tend()
    assert bank.granted == 13


async def test_a_lease_is_not_closed_while_anything_is_reserved_of_it(bank: FakeBank, clock: FrozenClock) -> None:
    """A vendor delivers more than was asked of it, and that is charged, between our giving back and the bank's look: all that was
    granted is then charged, though a request still runs on it."""
    budget = spec(1000)
    budgets = budgets_of(bank, clock, budget)
    first, running = await reserve(budgets, budget, 500), await reserve(budgets, budget, 200)
    for _ in range(2):
        await budgets.tend()
    assert bank.granted == 700

    def first_ends() -> None:
        first.settle([700])
        bank.charge(700)
        bank.meanwhile = None

    clock.advance(10)
    bank.meanwhile = first_ends
    await budgets.tend()
    assert bank.lease_id
    await budgets.tend()
    assert bank.granted - bank.charged == 200
    running.settle([50])
    bank.charge(50)
    clock.advance(10)
    await budgets.tend()
    assert (bank.granted, bank.charged, bank.lease_id) == (750, 750, 0)


async def test_a_request_outlives_its_lease_and_its_successors_have_one_of_their_own(bank: FakeBank, clock: FrozenClock) -> None:
    """Others release what a process holds that they have not heard of for long. Nobody is cut off: what runs is charged when it ends."""
    budget = spec(1000)
    budgets = budgets_of(bank, clock, budget)
    running = await reserve(budgets, budget, 400)
    bank.granted, bank.lease_id = 0, 8
    clock.advance(60)
    assert budgets.reserve_now([(budget, 1)]) is None
    await budgets.tend()
    next_one = await reserve(budgets, budget, 600)
    running.settle([300])
    bank.spent += 300
    next_one.settle()
    for _ in range(2):
        clock.advance(10)
        await budgets.tend()
    with pytest.raises(BudgetExhausted):
        await reserve(budgets, budget, 701)
    assert await reserve(budgets, budget, 700)


async def test_without_the_database_only_what_is_in_hand(bank: FakeBank, clock: FrozenClock) -> None:
    budgets = budgets_of(bank, clock, spec())
    await reserve(budgets, spec(), 10)
    bank.broken = True
    assert budgets.reserve_now([(spec(), 20)])
    with pytest.raises(BudgetUnavailable) as refused:
        await reserve(budgets, spec(), 1)
    assert refused.value.http_status == 503
    bank.broken = False
    assert await reserve(budgets, spec(), 1)


async def test_a_lease_that_was_not_renewed_counts_for_nothing(bank: FakeBank, clock: FrozenClock) -> None:
    budgets = budgets_of(bank, clock, spec())
    await reserve(budgets, spec(), 10)
    clock.advance(60)
    assert budgets.reserve_now([(spec(), 1)]) is None
    assert await budgets.reserve([(spec(), 1)])


async def test_a_grant_whose_answer_was_lost_is_found_again(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(10)
    budgets, bank.lost_answer = budgets_of(bank, clock, budget), True
    with pytest.raises(BudgetUnavailable):
        await reserve(budgets, budget, 4)
    bank.lost_answer = False
    (await reserve(budgets, budget, 5)).settle([5])
    for _ in range(2):
        await budgets.tend()
    assert bank.granted == 5


async def test_what_could_not_be_given_back_is_not_lost(bank: FakeBank, clock: FrozenClock) -> None:
    budgets = budgets_of(bank, clock, spec())
    (await reserve(budgets, spec(), 10)).settle([4])
    bank.broken = True
    for _ in range(2):
        with pytest.raises(OSError, match="away"):
            await budgets.tend()
    bank.broken = False
    for _ in range(12):
        clock.advance(10)
        await budgets.tend()
    assert bank.granted == 4


async def test_a_soft_budget_never_refuses_and_needs_no_database(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(10, hard=False)
    bank.broken = True
    reservation = budgets_of(bank, clock, budget).reserve_now([(budget, 500)])
    assert reservation is not None
    assert reservation.holds()[0].lease_id == 0


async def test_all_or_nothing(bank: FakeBank, clock: FrozenClock) -> None:
    wide, narrow = spec(), spec(1, id="n", scope="key", holder="k")
    budgets = budgets_of(bank, clock, wide, narrow)
    (await reserve(budgets, wide, 20)).settle()
    free = budgets._accounts["b"].lease.free
    with pytest.raises(BudgetExhausted):
        await budgets.reserve([(wide, 5), (narrow, 5000)])
    assert budgets._accounts["b"].lease.free == free


async def test_a_new_period_is_a_new_account(bank: FakeBank, clock: FrozenClock) -> None:
    budgets = budgets_of(bank, clock, spec())
    first = await reserve(budgets, spec(), 10)
    clock.advance(86_400)
    second = await reserve(budgets, spec(), 10)
    assert second.holds()[0].period_start - first.holds()[0].period_start == 86_400


async def test_what_was_used_stays_used_where_a_budget_goes_and_comes_back(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(10)
    budgets = budgets_of(bank, clock, budget)
    (await reserve(budgets, budget, 10)).settle([9])
    for specs in ((), (budget,)):
        budgets.apply(Snapshot(version=2, loaded_at=0.0, budgets=specs))
    with pytest.raises(BudgetExhausted):
        await reserve(budgets, budget, 2)
    clock.advance(1)
    await budgets.tend()
    assert await reserve(budgets, budget, 1)


async def test_a_refusal_is_good_for_a_moment(bank: FakeBank, clock: FrozenClock) -> None:
    budget = spec(1)
    budgets = budgets_of(bank, clock, budget)
    for _ in range(3):
        with pytest.raises(BudgetExhausted):
            await reserve(budgets, budget, 2)
    assert bank.takes == 1
    budgets.apply(Snapshot(version=2, loaded_at=0.0, budgets=(spec(2),)))
    assert await reserve(budgets, spec(2), 2)


async def test_a_lower_limit_holds_for_what_is_in_hand_too(bank: FakeBank, clock: FrozenClock) -> None:
    """Requests that need little of what they reserve would otherwise live for long on a lease from before."""
    budgets = budgets_of(bank, clock, spec())
    (await reserve(budgets, spec(), 100)).settle([10])
    running = await reserve(budgets, spec(), 50)
    budgets.apply(Snapshot(version=2, loaded_at=0.0, budgets=(spec(5),)))
    for _ in range(3):
        with pytest.raises(BudgetExhausted):
            await reserve(budgets, spec(5), 5)
        clock.advance(1)
        await budgets.tend()
    running.settle([7])
    await budgets.tend()
    assert bank.granted == 10 + 7  # used, and still to be charged


async def test_a_lower_limit_that_is_not_reached_refuses_nobody(bank: FakeBank, clock: FrozenClock) -> None:
    budgets = budgets_of(bank, clock, spec())
    running = await reserve(budgets, spec(), 100)
    budgets.apply(Snapshot(version=2, loaded_at=0.0, budgets=(spec(500),)))
    (await reserve(budgets, spec(500), 100)).settle([1])
    running.settle([2])
    for _ in range(2):
        await budgets.tend()
    assert bank.granted == 3


@pytest.mark.parametrize(
    ("kind", "start", "end"),
    [
        ("day", 1_799_971_200, 1_800_057_600),  # Friday, 15 January 2027
        ("week", 1_799_625_600, 1_800_230_400),
        ("month", 1_798_761_600, 1_801_440_000),
        ("total", 0, float("inf")),
    ],
)
def test_periods(kind: str, start: int, end: float) -> None:
    assert period_at(kind, 1_800_000_000.0) == Period(start, end)
    assert period_at(kind, start) == Period(start, end)
    if kind != "total":
        assert period_at(kind, end).start == end


@pytest.mark.parametrize(
    ("committed", "least", "wanted", "spare", "granted"),
    [(0, 10, 10, 20, 30), (990, 10, 10, 20, 10), (991, 10, 10, 20, 0), (900, 10, 50, 20, 53), (980, 10, 50, 20, 20), (1000, 0, 0, 0, 0)],
)
def test_leases_get_smaller_as_the_account_fills(committed: int, least: int, wanted: int, spare: int, granted: int) -> None:
    assert share(1000, committed, least, wanted, spare) == granted
