"""What ends at a bad moment, or changes in the middle, leaves nothing behind that stands in the way of others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.clock import FrozenClock
from core.config import BreakerSpec, KeySpec, LimitSpec, RateSpec
from core.errors import CallerLimited, ProviderFault, ProviderRejectedOurKey
from core.secrets import Secret
from gateway.idempotency import Flight
from gateway.limits import Gate, Slots, refusal
from gateway.rates import Bucket
from gateway.sharing import places
from gateway.sharing.answers import Answers, Lead
from gateway.sharing.cluster import Line, Taken, placed
from gateway.sharing.machine_peers import MachinePeers
from gateway.sharing.peers import Alone
from gateway.sharing.redis_address import read_address
from gateway.sharing.redis_cluster import RedisCluster
from gateway.sharing.redis_link import Link
from gateway.sharing.redis_peers import RedisPeers
from tests.gateway.neighbours import Town, processes, turns
from tests.gateway.redis_server import RedisServer, redis_server
from tests.gateway.scripted import ANSWER, Bench

FLIGHT = Flight(("k", "k1"), b"fingerprint")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def town() -> Town:
    return Town(FrozenClock())


async def until(what: Callable[[], bool], within_s: float = 3.0) -> None:
    ends = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


async def cancelled_after(steps: int, coroutine: Any) -> bool:
    """Whether it was still under way after so many turns of the loop."""
    task = asyncio.create_task(coroutine)
    await turns(steps)
    task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    return isinstance(outcome, asyncio.CancelledError)


@pytest.mark.parametrize("steps", range(1, 6))
async def test_whoever_is_cancelled_while_it_asks_for_an_answer_holds_nothing(
    town: Town, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    leads: list[Lead] = []
    begin = Lead.begin

    async def beginning(lead: Lead) -> None:
        leads.append(lead)
        await begin(lead)

    monkeypatch.setattr(Lead, "begin", beginning)
    answers = Answers(town.peer(), town.clock, ttl_s=600, max_bytes=1000)
    if await cancelled_after(steps, answers.find(FLIGHT, 0.0)):
        assert town.claims == {}
        assert all(lead._timer is None or lead._timer.cancelled() for lead in leads)
        assert isinstance(await Answers(town.peer(), town.clock, ttl_s=600, max_bytes=1000).find(FLIGHT, 0.0), Lead)
    for lead in leads:
        await lead.end(b"", 0.0)


async def test_an_answer_that_is_cancelled_while_it_is_laid_down_is_claimed_no_longer(town: Town) -> None:
    answers = Answers(town.peer(), town.clock, ttl_s=600, max_bytes=1000)
    lead = await answers.find(FLIGHT, 0.0)
    assert isinstance(lead, Lead)
    assert await cancelled_after(1, answers.finish(lead, FLIGHT, success=False))
    assert town.claims == {}


async def joined(server: RedisServer, process: str) -> RedisPeers:
    peers = RedisPeers(read_address(server.url), process, b"secret" * 6, Alone(), 1000)
    await peers.start()
    return peers


async def test_a_claim_whose_caller_was_cancelled_is_free(redis: RedisServer) -> None:
    first, second = await joined(redis, "1"), await joined(redis, "2")
    try:
        assert await cancelled_after(2, first.claim("cancelled", 60))
        await first.look("what was asked before is answered before")
        assert await second.claim("cancelled", 60)
    finally:
        await first.stop()
        await second.stop()


async def test_a_claim_that_redis_made_too_late_is_free(redis: RedisServer) -> None:
    first, second = await joined(redis, "1"), await joined(redis, "2")
    try:
        link = first._keeper.link
        assert link is not None
        answered, link._answered = link._answered, lambda answers: None  # busy, as if an answer were under way
        assert await first.claim("late", 60)  # by this machine's own word
        link._answered = answered
        first._flush()
        await first.look("what was asked before is answered before")
        assert await second.claim("late", 60)
    finally:
        await first.stop()
        await second.stop()


async def test_workers_that_could_not_start_claim_by_themselves(tmp_path: Path) -> None:
    peers = MachinePeers(tmp_path / "gone", b"secret" * 8, lambda: 0.0, 2**20)
    with pytest.raises(OSError, match="gone"):
        await peers.start()
    assert await peers.claim("n", 60)
    assert not await peers.claim("n", 60)
    peers.release("n")
    assert await peers.claim("n", 60)
    await peers.stop()
    assert await peers.claim("n", 60)
    peers.release("n")


async def cluster_of(server: RedisServer, process: str = "1") -> RedisCluster:
    cluster = RedisCluster(read_address(server.url), "a", process, lambda machines: None, timeout_s=5)
    await cluster.start()
    return cluster


async def test_a_process_that_ends_while_it_asks_gives_its_slots_up_all_the_same(redis: RedisServer) -> None:
    line = Line("ending", "slots", 1)
    cluster, other = await cluster_of(redis), await cluster_of(redis, "2")
    try:
        taking = asyncio.create_task(cluster.take([line]))
        await turns(2)
        assert cluster._asked
        await cluster.stop()
        await asyncio.gather(taking, return_exceptions=True)
        assert (await other.take([line])).admitted
    finally:
        await other.stop()


async def test_more_than_fits_is_given_back_as_it_was_taken(redis: RedisServer) -> None:
    large = Line("large", "bucket", 10, 1e-4, 50)
    cluster = await cluster_of(redis)
    try:
        taken = await cluster.take([large])
        cluster.give_back([large._replace(amount=-5)])  # another one used more than it had booked
        cluster.give_back(placed([large], taken))
        seen = (await cluster.take([large._replace(amount=0)])).seen[0]
        assert seen * 1e-4 == pytest.approx(5, abs=0.01)
    finally:
        await cluster.stop()


def test_what_was_overused_counts_from_now_on() -> None:
    gate = Gate("This key", LimitSpec(tokens_per_minute=60))
    gate.enter(10, 0.0)
    gate.leave(10, 60, 100.0)  # it was full again long ago
    assert dict(gate.headers(100.0))[b"x-ratelimit-remaining-tokens"] == b"10"


def test_a_refusal_that_nothing_stands_for_any_more_is_one_all_the_same() -> None:
    """Another process, or the last bit of a float, has freed the limit meanwhile."""
    with pytest.raises(CallerLimited, match=r"This key has used a limit up; try again\.") as refused:
        raise refusal([Gate("This key", LimitSpec(max_concurrency=1))], 1, 0.0)
    assert refused.value.retry_after_s == 0.1


class Nobody:
    """A cluster that is only there."""

    up = True


def of_a_team(bench: Bench, of_team: LimitSpec, **caller: Any) -> Any:
    changed = msgspec.structs.replace(bench.caller, team_limits=of_team, **caller)
    return msgspec.structs.replace(bench.snapshot, callers=dict.fromkeys(bench.snapshot.callers, changed))


@pytest.mark.parametrize("removed", [False, True])
def test_a_request_that_began_before_its_limits_were_removed_goes_on(monkeypatch: pytest.MonkeyPatch, removed: bool) -> None:
    bench = Bench(monkeypatch)
    bench.manager._cluster = Nobody()  # type: ignore[assignment]
    before = of_a_team(bench, LimitSpec(requests_per_minute=5), limits=LimitSpec(requests_per_minute=5))
    bench.manager.apply(before)
    (caller,) = before.callers.values()
    after = of_a_team(bench, LimitSpec())
    bench.manager.apply(msgspec.structs.replace(after, callers={}) if removed else after)
    passage = bench.manager.passage(caller, 1)
    assert (passage is None) is not removed  # by then it has no limits, or is not known and keeps its own


def test_the_first_request_of_a_key_does_not_bring_limits_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    (before,) = bench.snapshot.callers.values()
    bench.manager.apply(of_a_team(bench, LimitSpec(), limits=LimitSpec(requests_per_minute=1)))
    gate = bench.manager.gate(before)
    gate.enter(1, 0.0)
    with pytest.raises(CallerLimited, match="1 of 1 requests"):
        gate.enter(1, 0.0)


async def test_a_place_is_given_back_where_it_was_booked(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    runtime, model = bench.manager._runtimes["a"], bench.snapshot.models["m"][0]
    runtime.apply(bench.provider("a", rate=RateSpec("token_bucket", 5, 1.0)))
    booked = runtime._rate
    assert booked is not None
    gate = runtime.breaker("key-a", "vendor-a")
    gate.failed(False, ProviderFault("it failed"), 0.0)
    gate.opened_elsewhere(0.0, 0.0, 10.0, 0, "", bench.clock.monotonic())

    async def fails(*_: object) -> None:
        runtime.apply(bench.provider("a", rate=RateSpec("sliding_window", 5, 60.0)))
        raise ProviderFault("it failed")

    monkeypatch.setattr(runtime.trials, "begin", fails)
    with pytest.raises(ProviderFault):
        await runtime.acquire(model, lambda: 1.0)
    assert runtime._rate is not booked
    assert runtime._rate is not None
    assert not runtime._rate._freed  # type: ignore[attr-defined]


async def test_a_secret_that_was_replaced_makes_no_other_process_rest_the_new_one(monkeypatch: pytest.MonkeyPatch, town: Town) -> None:
    first, second = processes(monkeypatch, town, 2, providers="a")
    go = asyncio.Event()

    async def rejected() -> Any:
        await go.wait()
        return ProviderRejectedOurKey("it refused the key")

    first.scripts["a"] = [rejected, ANSWER]
    generation = first.generation()
    call = asyncio.create_task(generation.start())
    await turns()
    for bench in (first, second):
        bench.manager._runtimes["a"].apply(bench.provider("a", keys=(KeySpec("key-a", "", Secret("new")),)))
    go.set()
    (error,) = await asyncio.gather(call, return_exceptions=True)
    generation.end(error)
    await turns()
    assert [bench.manager._runtimes["a"].trouble() for bench in (first, second)] == [{}, {}]


async def test_a_server_that_was_replaced_opens_no_breaker_of_the_new_one(monkeypatch: pytest.MonkeyPatch, town: Town) -> None:
    first, second = processes(monkeypatch, town, 2, providers="a")
    go, moved = asyncio.Event(), {"base_url": "http://another", "breaker": BreakerSpec(1, 10.0)}
    for bench in (first, second):
        bench.manager._runtimes["a"].apply(bench.provider("a", breaker=BreakerSpec(1, 10.0)))

    async def fails() -> Any:
        await go.wait()
        return ProviderFault("it failed")

    first.scripts["a"] = [fails, ANSWER]
    generation = first.generation()
    call = asyncio.create_task(generation.start())
    await turns()
    for bench in (first, second):
        bench.manager._runtimes["a"].apply(bench.provider("a", **moved))
    go.set()
    (error,) = await asyncio.gather(call, return_exceptions=True)
    generation.end(error)
    await turns()
    assert [bench.manager._runtimes["a"].trouble() for bench in (first, second)] == [{}, {}]


async def test_news_that_nobody_understands_cost_no_connection(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    first, second = await joined(redis, "1"), await joined(redis, "2")
    heard: list[Any] = []

    def listener(message: Any) -> None:
        heard.append(message)
        raise RuntimeError("not like this")

    try:
        second.listen("kind", listener)
        link = second._keeper.link
        first.tell("kind", {"a": 1})
        await until(lambda: bool(heard))
        await second.look("anything")
        assert second._keeper.link is link
        assert "about kind was not understood" in caplog.text
    finally:
        await first.stop()
        await second.stop()


@pytest.mark.parametrize("kind", [RedisCluster, RedisPeers])
async def test_a_process_that_ends_while_it_greets_keeps_no_connection(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    part = (
        RedisCluster(read_address(redis.url), "a", "1", lambda machines: None)
        if kind is RedisCluster
        else RedisPeers(read_address(redis.url), "1", b"secret" * 6, Alone(), 1000)
    )
    links: list[Link] = []

    async def greets_for_ever(link: Link) -> None:
        links.append(link)
        await asyncio.Event().wait()

    monkeypatch.setattr(part._keeper, "_greet", greets_for_ever)
    part._keeper._probe()
    await until(lambda: bool(links))
    await part._keeper.stop()
    assert links[0].closed


async def test_a_link_that_ended_as_it_greeted_beats_no_longer(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sharing.redis_cluster._BEAT_S", 0.01)
    request, beats = Link.request, []
    cluster = RedisCluster(read_address(redis.url), "a", "1", lambda machines: None)

    async def ends_with_the_answer(link: Link, *commands: Any) -> Any:
        answers = await request(link, *commands)
        if commands[0][0] == "SCRIPT":
            link.connection_lost(None)
        return answers

    monkeypatch.setattr(Link, "request", ends_with_the_answer)
    beat = cluster._beat
    monkeypatch.setattr(cluster, "_beat", lambda *of: (beats.append(of), beat(*of)))
    cluster._loop = asyncio.get_running_loop()
    await cluster._keeper._try()
    assert not cluster.up
    await asyncio.sleep(0.1)
    assert len(beats) <= 1
    await cluster.stop()


async def test_what_was_seen_before_a_wait_is_as_of_then() -> None:
    bucket = Bucket(10, 1.0)
    places.mirror(Taken(True, (1.0, 8.0), (0.0, 3.0)), Slots(2), bucket, 100.0)
    assert bucket.full_in_s(100.0) == pytest.approx(5.0)
