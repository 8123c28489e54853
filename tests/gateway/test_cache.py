"""The store of one process and of several: what is found, who asks, who is given what another got, and what goes when room is short."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from core.clock import FrozenClock
from core.config import ModelSpec, RouteSpec
from core.errors import ProviderTimeout
from gateway.cache import Cache, Entry, Lead, ttl_of
from gateway.sharing.entries import Entries
from gateway.sharing.peers import CACHE_PREFIX, Alone

PATIENCE_S = 30.0
ENTRY = Entry(b"body", b"", False, True, "stop", 4, None, "m", 0.0, 20, "USD", ())


def made(clock: FrozenClock, body: bytes = b"body") -> Entry:
    return msgspec.structs.replace(ENTRY, body=body, made_at=clock.wall())


def cache(**sizes: int) -> tuple[Cache, FrozenClock]:
    clock = FrozenClock()
    return Cache(clock, **{"max_bytes": 100_000, "max_entry_bytes": 1000, **sizes}), clock


async def led(store: Cache, key: bytes = b"k", ttl_s: float = 60) -> Lead:
    found = await store.find(key, ttl_s, PATIENCE_S)
    assert isinstance(found, Lead)
    return found


async def waiting(store: Cache, number: int, patience_s: float = PATIENCE_S) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(store.find(b"k", 60, patience_s)) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


async def test_of_five_hundred_that_are_the_same_one_asks_and_all_have_its_answer() -> None:
    store, clock = cache()
    lead = await led(store)
    tasks = await waiting(store, 499)
    entry = made(clock)
    store.land(lead, entry, 60)
    assert await asyncio.gather(*tasks) == [(entry, True)] * 499
    assert await store.find(b"k", 60, PATIENCE_S) == (entry, False)


async def test_another_key_is_another_request() -> None:
    store, _ = cache()
    assert await led(store, b"a") is not await led(store, b"b")


async def test_an_entry_is_given_until_its_time_is_up_and_to_who_wants_it_younger_for_less() -> None:
    store, clock = cache()
    store.land(await led(store), made(clock), 60)
    clock.advance(30)
    assert store.look(b"k", 60) is not None
    assert store.look(b"k", 30) is None, "a client may want a younger one"
    clock.advance(29)
    assert store.look(b"k", 60) is not None
    clock.advance(1)
    assert store.look(b"k", 60) is None
    assert store.look(b"k", 600) is None, "a policy that got longer does not bring back what is over"


async def test_where_it_fails_one_asks_and_the_others_wait_for_that() -> None:
    store, clock = cache()
    lead = await led(store)
    first, second, third = await waiting(store, 3)
    store.fail(lead)
    following = await first
    assert isinstance(following, Lead)
    await asyncio.sleep(0)
    assert not second.done()
    assert not third.done()
    store.land(following, made(clock), 60)
    assert [(await task)[1] for task in (second, third)] == [True, True]


async def test_where_nobody_waits_a_failure_leaves_nothing_behind() -> None:
    store, _ = cache()
    store.fail(await led(store))
    assert isinstance(await led(store), Lead)


async def test_what_cannot_be_shared_makes_each_ask_for_itself() -> None:
    store, _ = cache()
    lead = await led(store)
    tasks = await waiting(store, 3)
    store.release(lead)
    assert await asyncio.gather(*tasks) == [None] * 3
    assert isinstance(await led(store), Lead)


async def test_one_that_leaves_while_it_waits_hands_its_turn_on() -> None:
    store, _ = cache()
    lead = await led(store)
    leaving, staying = await waiting(store, 2)
    store.fail(lead)  # it is the turn of the first, which in the same moment leaves
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert isinstance(await staying, Lead)


async def test_one_that_left_before_is_passed_over() -> None:
    store, _ = cache()
    lead = await led(store)
    leaving, staying = await waiting(store, 2)
    leaving.cancel()
    await asyncio.sleep(0)
    store.fail(lead)
    assert isinstance(await staying, Lead)


async def test_nobody_waits_longer_than_it_says() -> None:
    store, _ = cache()
    await led(store)
    with pytest.raises(ProviderTimeout, match="did not come within 0 s"):
        await store.find(b"k", 60, 0)


async def test_what_was_not_asked_for_the_longest_makes_way() -> None:
    store, clock = cache(max_bytes=3 * made(FrozenClock()).size)
    for key in (b"a", b"b", b"c"):
        store.keep(key, made(clock), 60)
    assert store.look(b"a", 60) is not None
    store.keep(b"d", made(clock), 60)
    assert [key for key in (b"a", b"b", b"c", b"d") if store.look(key, 60)] == [b"a", b"c", b"d"]


async def test_what_is_too_long_is_given_to_who_waits_and_not_kept() -> None:
    store, clock = cache(max_entry_bytes=10)
    lead = await led(store)
    (task,) = await waiting(store, 1)
    store.land(lead, made(clock, b"x" * 11), 60)
    assert (await task)[1]
    assert store.look(b"k", 60) is None


# What several processes have in common --------------------------------------------------------------------------------


class Processes:
    """Stores of as many processes, which share what `Alone` keeps."""

    def __init__(self, number: int, max_bytes: int = 10_000) -> None:
        self.clock = FrozenClock()
        self.peers = Alone(self.clock.monotonic)
        self.slept = asyncio.Event()
        self.stores = [self._store(max_bytes) for _ in range(number)]

    def _store(self, max_bytes: int) -> Cache:
        shared = Entries(self.peers, self.clock, max_bytes=max_bytes, sleep=self._sleep)
        return Cache(self.clock, max_bytes=100_000, max_entry_bytes=10_000, shared=shared)

    async def _sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.slept.set()
        await asyncio.sleep(0)

    async def settled(self) -> None:
        for store in self.stores:
            await store.stop()


async def test_over_processes_one_asks_and_the_others_have_its_answer() -> None:
    both = Processes(2)
    here, there = both.stores
    lead = await led(here)
    tasks = await waiting(there, 3)
    await both.slept.wait()
    entry = made(both.clock)
    here.land(lead, entry, 60)
    await both.settled()
    assert await asyncio.gather(*tasks) == [(entry, True)] * 3
    assert await there.find(b"k", 60, PATIENCE_S) == (entry, False)


async def test_what_another_process_keeps_is_a_hit() -> None:
    both = Processes(2)
    here, there = both.stores
    entry = made(both.clock)
    here.land(await led(here), entry, 60)
    await both.settled()
    assert await there.find(b"k", 60, PATIENCE_S) == (entry, False)
    both.clock.advance(30)
    assert isinstance(await led(there, ttl_s=20), Lead), "too old for this one"


async def test_where_one_process_fails_another_asks() -> None:
    both = Processes(2)
    here, there = both.stores
    lead = await led(here)
    (task,) = await waiting(there, 1)
    await both.slept.wait()
    here.fail(lead)
    await both.settled()
    assert isinstance(await task, Lead)


async def test_another_process_is_not_waited_for_without_end() -> None:
    both = Processes(2)
    here, there = both.stores
    await led(here)
    with pytest.raises(ProviderTimeout):
        await there.find(b"k", 60, 5)
    here.fail(here._leads[b"k"])
    await both.settled()
    assert isinstance(await led(there), Lead)


@pytest.mark.parametrize("planted", [b"\x80\x04\x95\x10\x00\x00\x00.", b"running?", b"\xc0", b"[]"])
async def test_what_is_no_entry_of_ours_is_a_miss(planted: bytes) -> None:
    """A pickle, say: nothing here reads one."""
    both = Processes(1)
    await both.peers.lay(CACHE_PREFIX + b"k".hex(), planted, 60)
    assert isinstance(await led(both.stores[0]), Lead)


async def test_what_is_too_long_to_share_is_kept_where_it_was_made() -> None:
    both = Processes(2, max_bytes=10)
    here, there = both.stores
    here.land(await led(here), made(both.clock), 60)
    await both.settled()
    assert here.look(b"k", 60) is not None
    assert isinstance(await led(there), Lead)


# For how long ---------------------------------------------------------------------------------------------------------


def model(ttl_s: int) -> ModelSpec:
    return ModelSpec("id", "m", "m", "p", cache_ttl_s=ttl_s)


@pytest.mark.parametrize(
    ("route", "models", "ttl_s"),
    [
        (None, [60], 60),
        (None, [0], 0),
        (None, [60, 30], 30),
        (None, [60, 0], 0),
        (None, [], 0),
        (RouteSpec("r", ("m",)), [60], 60),
        (RouteSpec("r", ("m",), cache_ttl_s=10), [60], 10),
        (RouteSpec("r", ("m",), cache_ttl_s=10), [0], 10),
        (RouteSpec("r", ("m",), cache_ttl_s=0), [60], 0),
    ],
)
def test_what_the_route_does_not_say_its_models_do(route: RouteSpec | None, models: list[int], ttl_s: int) -> None:
    assert ttl_of(route, [(model(ttl), False) for ttl in models]) == ttl_s


def test_what_stands_in_is_not_asked() -> None:
    assert ttl_of(None, [(model(60), False), (model(0), True)]) == 60
