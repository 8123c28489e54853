"""The shared limits against a real Redis: the same decisions as in one process, and what happens when Redis goes."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from core.clock import FrozenClock, SystemClock
from core.config import LimitSpec, RateSpec
from core.errors import CallerLimited
from gateway.limits import Gate
from gateway.rates import Bucket, Window
from gateway.sharing.cluster import ClusterDown, Line
from gateway.sharing.passage import ClusterGate, Passage
from gateway.sharing.redis_address import read_address
from gateway.sharing.redis_cluster import RedisCluster
from gateway.sharing.redis_link import TIMEOUT_S
from gateway.sharing.redis_script import PREFIX
from tests.gateway.redis_server import RedisServer, redis_server

_names = (f"limit:{number}" for number in itertools.count())
# A walk of 400 steps takes far less: nothing refills while it lasts, but for this share of a second.
SLOW = 1e-4
# Where it is not the failure that is looked at: a busy machine is no reason to fail.
PATIENCE_S = 5.0


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@asynccontextmanager
async def joined(server: RedisServer, machine: str = "a", process: str = "1", timeout_s: float = PATIENCE_S) -> AsyncIterator[RedisCluster]:
    cluster = RedisCluster(read_address(server.url), machine, process, lambda machines: None, timeout_s=timeout_s)
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.stop()


async def until(what, within_s: float = 3.0) -> None:
    ends = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


async def admitted(cluster: RedisCluster, line: Line, times: int) -> int:
    return sum([(await cluster.take([line])).admitted for _ in range(times)])


@pytest.mark.parametrize("seed", range(5))
async def test_a_bucket_decides_as_in_one_process(redis: RedisServer, seed: int) -> None:
    chance, now = random.Random(seed), 1000.0
    name, capacity = next(_names), chance.choice([1, 7, 60])
    local = Bucket(capacity, SLOW)
    async with joined(redis) as cluster:
        for _ in range(80):
            amount = chance.choice([0, 1, 1, 3, 100])
            line = Line(name, "bucket", capacity, SLOW, amount)
            step = chance.random()
            if step < 0.6:
                taken = await cluster.take([line])
                wait_s = local.wait_s(amount, now)
                assert taken.admitted == local.take(amount, now)
                assert taken.waits_s[0] == pytest.approx(wait_s, abs=30)
            elif step < 0.8:
                taken = await cluster.take([line._replace(patience_s=1e9)])
                assert taken.admitted
                assert taken.waits_s[0] == pytest.approx(local.book(amount, now), abs=30)
            else:
                amount = chance.choice([-2, 1])
                if local.used(now) >= max(1, amount):  # a full one is not filled, nor taken from at a moment gone by
                    local.give_back(amount)
                    cluster.give_back([line._replace(amount=amount)])
            seen = (await cluster.take([line._replace(amount=0, patience_s=1e9)])).seen[0]
            assert seen == pytest.approx(local.full_in_s(now), abs=30)


@pytest.mark.parametrize("seed", range(5))
async def test_a_window_decides_as_in_one_process(redis: RedisServer, seed: int) -> None:
    chance, now = random.Random(seed), 1000.0
    name, spec = next(_names), RateSpec("sliding_window", chance.choice([1, 3, 20]), 1.0)
    spec = RateSpec("sliding_window", spec.capacity, spec.capacity / 1000)
    local, booked = Window(spec), []
    line = Line(name, "window", spec.capacity, spec.capacity / spec.window_s, patience_s=1e9)
    async with joined(redis) as cluster:
        for _ in range(80):
            if chance.random() < 0.75 or not booked:
                taken, wait_s = await cluster.take([line]), local.book(1, now)
                assert taken.waits_s[0] == pytest.approx(wait_s, abs=1)
                if wait_s:
                    booked.append((wait_s, taken.places[0]))
                assert taken.seen[0] == local.used(now)
            else:
                wait_s, place = booked.pop(chance.randrange(len(booked)))
                local.give_back(1, now + wait_s)
                cluster.give_back([line._replace(place=place)])


async def test_a_window_and_a_bucket_free_up_as_time_goes_by(redis: RedisServer) -> None:
    window, bucket = Line(next(_names), "window", 2, 20), Line(next(_names), "bucket", 2, 20)
    async with joined(redis) as cluster:
        for line in (window, bucket):
            assert await admitted(cluster, line, 3) == 2
            wait_s = (await cluster.take([line])).waits_s[0]
            assert 0 < wait_s <= 0.1
            await asyncio.sleep(wait_s)
            assert (await cluster.take([line])).admitted


async def test_all_lines_or_none(redis: RedisServer) -> None:
    full, free, slots = (Line(next(_names), "bucket", 1, SLOW), Line(next(_names), "bucket", 5, SLOW), Line(next(_names), "slots", 1))
    window = Line(next(_names), "window", 5, SLOW)
    async with joined(redis) as cluster:
        assert (await cluster.take([full, free, slots, window])).admitted
        refused = await cluster.take([free, window, full])
        assert not refused.admitted
        assert refused.seen[1] == 1
        assert refused.seen[0] == pytest.approx(1 / SLOW, abs=5)
        assert refused.waits_s[2] == pytest.approx(1 / SLOW, abs=5)
        assert not (await cluster.take([free, slots])).admitted
        cluster.give_back([slots])
        assert (await cluster.take([free, slots])).admitted


async def test_a_changed_limit_applies_to_the_same_state(redis: RedisServer) -> None:
    line = Line(next(_names), "bucket", 10, 10 * SLOW)
    async with joined(redis) as cluster:
        assert await admitted(cluster, line, 4) == 4
        assert await admitted(cluster, line._replace(capacity=6, rate=6 * SLOW), 5) == 2
        assert await admitted(cluster, line._replace(capacity=12, rate=12 * SLOW), 10) == 6


async def test_the_script_comes_back_when_redis_has_forgotten_it(redis: RedisServer) -> None:
    async with joined(redis) as cluster:
        redis.cli("script", "flush")
        assert (await cluster.take([Line(next(_names), "bucket", 1, 1)])).admitted
        assert cluster.up


async def test_nothing_stays_for_ever(redis: RedisServer) -> None:
    async with joined(redis) as cluster:
        lines = [Line(next(_names), "bucket", 5, 100), Line(next(_names), "window", 5, 100), Line(next(_names), "slots", 5)]
        await cluster.take(lines)
        keys = [f"{PREFIX}{line.name}" for line in lines] + [f"{PREFIX}live"]
        assert [0 < int(redis.cli("pttl", key)) <= 60_000 for key in keys] == [True] * 4


async def failure_of(cluster: RedisCluster, line: Line) -> ClusterDown | None:
    try:
        await cluster.take([line])
    except ClusterDown as exc:
        return exc
    return None


def _take_in_process(url: str, line: Line, times: int, counts: multiprocessing.Queue) -> None:
    async def run() -> int:
        cluster = RedisCluster(
            read_address(url), "a", str(multiprocessing.current_process().pid), lambda machines: None, timeout_s=PATIENCE_S
        )
        await cluster.start()
        found = await asyncio.gather(*(cluster.take([line]) for _ in range(times)))
        await cluster.stop()
        return sum(taken.admitted for taken in found)

    counts.put(asyncio.run(run()))


@pytest.mark.process
def test_several_processes_admit_exactly_the_limit(redis: RedisServer) -> None:
    context = multiprocessing.get_context("spawn")
    counts, line = context.Queue(), Line(next(_names), "bucket", 60, SLOW)
    processes = [context.Process(target=_take_in_process, args=(redis.url, line, 150, counts)) for _ in range(3)]
    for process in processes:
        process.start()
    assert sum(counts.get(timeout=120) for _ in processes) == 60
    for process in processes:
        process.join(10)


async def test_slots_of_a_process_that_died_are_free_within_five_seconds(redis: RedisServer) -> None:
    line = Line(next(_names), "slots", 2)
    dead = RedisCluster(read_address(redis.url), "b", "2", lambda machines: None)
    await dead.start()
    assert await admitted(dead, line, 3) == 2
    dead._stop_waiting()  # no beat any more
    dead._keeper.link.close()
    async with joined(redis) as cluster:
        assert not (await cluster.take([line])).admitted
        died_at = time.monotonic()
        for _ in range(50):
            if (await cluster.take([line])).admitted:
                break
            await asyncio.sleep(0.1)
        assert time.monotonic() - died_at < 5


async def test_slots_of_a_process_that_ends_are_free_at_once(redis: RedisServer) -> None:
    line = Line(next(_names), "slots", 1)
    async with joined(redis, process="2") as other:
        assert (await other.take([line])).admitted
    async with joined(redis) as cluster:
        assert (await cluster.take([line])).admitted


async def test_who_gives_up_waiting_takes_nothing(redis: RedisServer) -> None:
    line = Line(next(_names), "slots", 1)
    async with joined(redis) as cluster:
        taking = asyncio.create_task(cluster.take([line]))
        await asyncio.sleep(0)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        await cluster.take([Line(next(_names), "bucket", 1, 1)])
        assert (await cluster.take([line])).admitted


async def test_the_machines_are_counted(redis: RedisServer) -> None:
    told: list[int] = []
    cluster = RedisCluster(read_address(redis.url), "count-a", "1", told.append)
    await cluster.start()
    async with joined(redis, "count-b", "1"), joined(redis, "count-b", "2"):
        before = cluster.machines
        await until(lambda: cluster.machines > before)
    assert told[-1] == cluster.machines
    await cluster.stop()


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_the_first_failure_tells_everybody_and_redis_comes_back(own_redis: RedisServer, how: str) -> None:
    line, slots = Line("bucket", "bucket", 1e6, SLOW), Line("slots", "slots", 3)
    async with joined(own_redis, timeout_s=TIMEOUT_S) as cluster:
        assert (await cluster.take([line, slots])).admitted
        getattr(own_redis, how)()
        began_at = time.monotonic()
        failure = None
        while failure is None:
            failure = await failure_of(cluster, line)
        assert time.monotonic() - began_at < 1
        assert not cluster.up
        results = await asyncio.gather(*(cluster.take([line]) for _ in range(10)), return_exceptions=True)
        assert all(isinstance(result, ClusterDown) for result in results)
        cluster.hold([slots])
        own_redis.thaw() if how == "freeze" else own_redis.start()
        await until(lambda: cluster.up)
        # What is held is told anew, also to a Redis that forgot: two slots of three.
        assert await admitted(cluster, slots, 2) == 1


@pytest.mark.parametrize("fault", [("replicaof", "127.0.0.1", "1"), ("config", "set", "requirepass", "secret")])
async def test_a_redis_that_refuses_is_as_good_as_none(own_redis: RedisServer, fault: tuple[str, ...]) -> None:
    async with joined(own_redis) as cluster:
        own_redis.cli(*fault)
        if "requirepass" in fault:
            cluster._keeper.link._end("cut")
        with pytest.raises(ClusterDown):
            await cluster.take([Line("bucket", "bucket", 1, 1)])
        await asyncio.sleep(0.4)
        assert not cluster.up


async def test_it_starts_without_redis() -> None:
    cluster = RedisCluster(read_address("redis://127.0.0.1:1"), "a", "1", lambda machines: None)
    await cluster.start()
    assert not cluster.up
    with pytest.raises(ClusterDown):
        await cluster.take([Line("bucket", "bucket", 1, 1)])
    await cluster.stop()


def machine_of(cluster: RedisCluster, limits: LimitSpec, share: LimitSpec) -> tuple[RedisCluster, ClusterGate]:
    return cluster, ClusterGate("key:1", limits, Gate("This key", share))


async def ask(machine: tuple[RedisCluster, ClusterGate], tokens: int = 0) -> Passage:
    passage = Passage(machine[0], (machine[1],), tokens, SystemClock())
    await passage.enter()
    return passage


async def test_a_refusal_names_what_all_machines_have_used(redis: RedisServer) -> None:
    limits, share = LimitSpec(requests_per_minute=4), LimitSpec(requests_per_minute=2)
    async with joined(redis, "a") as a, joined(redis, "b") as b:
        one, other = machine_of(a, limits, share), machine_of(b, limits, share)
        for _ in range(4):
            await ask(one)
        with pytest.raises(CallerLimited, match=r"This key has used 4 of 4 requests per minute; try again in 1\d\.\d{3} s\.") as refused:
            await ask(other)
        assert refused.value.retry_after_s == pytest.approx(15, abs=2)
        passage = Passage(b, (other[1],), 0, SystemClock())
        with pytest.raises(CallerLimited):
            await passage.enter()
        assert dict(passage.headers(time.monotonic()))[b"x-ratelimit-limit-requests"] == b"4"


async def test_estimated_tokens_are_corrected_and_undone_everywhere(own_redis: RedisServer) -> None:
    limits = LimitSpec(tokens_per_minute=100, max_concurrency=1)
    async with joined(own_redis, "a") as a, joined(own_redis, "b") as b:
        one, other = machine_of(a, limits, limits), machine_of(b, limits, limits)
        (await ask(one, 90)).leave(10)
        await asyncio.sleep(0.05)
        (await ask(other, 80)).undo()
        await asyncio.sleep(0.05)
        passage = await ask(one, 90)
        with pytest.raises(CallerLimited, match="1 of 1 concurrent requests"):
            await ask(other, 1)
        passage.leave(90)


async def test_without_redis_two_machines_admit_what_is_left(own_redis: RedisServer) -> None:
    """Each goes on from what all had used, whoever had used it: not from what passed through itself."""
    limits, share = LimitSpec(requests_per_minute=60), LimitSpec(requests_per_minute=30)
    async with joined(own_redis, "a", timeout_s=0.5) as a, joined(own_redis, "b", timeout_s=0.5) as b:
        machines = [machine_of(a, limits, share), machine_of(b, limits, share)]
        count = 0
        for number in range(40):
            await ask(machines[0] if number < 39 else machines[1])
            count += 1
        own_redis.freeze()
        for machine in machines * 40:
            try:
                await ask(machine)
                count += 1
            except CallerLimited:
                pass
        assert 56 <= count <= 63
        own_redis.thaw()


async def test_a_passage_is_left_once(redis: RedisServer) -> None:
    limits = LimitSpec(max_concurrency=2)
    async with joined(redis) as cluster:
        gate = ClusterGate(next(_names), limits, Gate("This key", limits))
        passages = [Passage(cluster, (gate,), 0, FrozenClock()) for _ in range(3)]
        for passage in passages[:2]:
            await passage.enter()
        passages[0].leave(0)
        passages[0].leave(0)
        passages[0].undo()
        await passages[2].enter()
        assert gate.here.in_flight == 2
        assert gate.seen.in_flight == 2
