"""Requests through the pipeline where all machines count together, on a real Redis; the other machine is a second cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from core.config import LimitSpec, RateSpec
from core.errors import CallerLimited, GatewayError, ProviderLimited
from gateway.sharing.cluster import Line
from gateway.sharing.redis_address import read_address
from gateway.sharing.redis_cluster import RedisCluster
from tests.gateway.redis_server import RedisServer, redis_server
from tests.gateway.scripted import ANSWER, Bench


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    server.cli("flushall")
    return server


@asynccontextmanager
async def shared(bench: Bench, redis: RedisServer) -> AsyncIterator[RedisCluster]:
    """`bench` as one machine; yields another one. At the end nothing may be held."""
    own, other = (RedisCluster(read_address(redis.url), name, "1", lambda machines: None, timeout_s=5) for name in "ab")
    await own.start()
    await other.start()
    bench.manager._cluster = own
    try:
        yield other
        assert bench.settled_in_full()
        assert not any(own._held.values())
    finally:
        await own.stop()
        await other.stop()


def configure(bench: Bench, *, limits: LimitSpec | None = None, **provider: object) -> None:
    """Limits of the models, and fields of the providers."""
    models = tuple(msgspec.structs.replace(model, limits=limits or LimitSpec()) for model in bench.snapshot.models["m"])
    providers = {id_: msgspec.structs.replace(spec, **provider) for id_, spec in bench.snapshot.providers.items()}
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, models={"m": models}, providers=providers))


async def answer(bench: Bench) -> dict[bytes, bytes]:
    """The headers of one request."""
    generation = bench.generation()
    try:
        await generation.start()
    except GatewayError as error:
        generation.end(error)
        raise
    generation.end(None)
    return dict(generation.headers())


async def test_a_key_has_one_limit_on_all_machines(monkeypatch: pytest.MonkeyPatch, redis: RedisServer) -> None:
    bench = Bench(monkeypatch, limits=LimitSpec(requests_per_minute=3, tokens_per_minute=1000, max_concurrency=1))
    bench.scripts["a"] = [ANSWER] * 3
    async with shared(bench, redis) as other:
        await other.take([Line("key:k:requests", "bucket", 3, 0.05)])
        headers = await answer(bench)
        assert headers[b"x-ratelimit-remaining-requests"] == b"1"
        await answer(bench)
        with pytest.raises(CallerLimited, match=r"This key has used 3 of 3 requests per minute; try again in \d+\.\d{3} s\."):
            await answer(bench)
        await other.take([])
        tokens = (await other.take([Line("key:k:tokens", "bucket", 1000, 1000 / 60, 0)])).seen[0] * 1000 / 60
        assert tokens == pytest.approx(30, abs=3)  # what two answers really used


async def test_calls_in_flight_count_on_all_machines(monkeypatch: pytest.MonkeyPatch, redis: RedisServer) -> None:
    bench = Bench(monkeypatch, limits=LimitSpec(max_concurrency=2))
    bench.scripts["a"] = [ANSWER] * 2
    line = Line("key:k:calls", "slots", 2)
    async with shared(bench, redis) as other:
        assert (await other.take([line])).admitted
        await answer(bench)
        assert (await other.take([line])).admitted
        with pytest.raises(CallerLimited, match="This key has 2 of 2 concurrent requests in flight"):
            await answer(bench)


async def test_a_models_limit_leads_to_the_next_target(monkeypatch: pytest.MonkeyPatch, redis: RedisServer) -> None:
    bench = Bench(monkeypatch)
    configure(bench, limits=LimitSpec(requests_per_minute=1))
    bench.scripts["b"] = [ANSWER]
    async with shared(bench, redis) as other:
        await other.take([Line("model:m-a:requests", "bucket", 1, 1 / 60)])
        assert (await answer(bench))[b"x-llm-provider"] == b"b"
        with pytest.raises(ProviderLimited, match=r"Model m at provider . has used 1 of 1 requests per minute"):
            await answer(bench)


async def test_a_providers_slots_are_waited_for(monkeypatch: pytest.MonkeyPatch, redis: RedisServer) -> None:
    bench = Bench(monkeypatch, providers="a")
    configure(bench, max_concurrency=1)
    bench.scripts["a"] = [ANSWER]
    line = Line("provider:a:calls", "slots", 1)
    async with shared(bench, redis) as other:
        await other.take([line])
        waiting = asyncio.create_task(answer(bench))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        other.give_back([line])
        await waiting


async def test_a_providers_slots_are_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch, redis: RedisServer) -> None:
    bench = Bench(monkeypatch, providers="a")
    configure(bench, max_concurrency=1)

    async def sleep(seconds: float) -> None:
        bench.clock.advance(seconds)

    monkeypatch.setattr("gateway.runtime._sleep", sleep)
    async with shared(bench, redis) as other:
        await other.take([Line("provider:a:calls", "slots", 1)])
        with pytest.raises(ProviderLimited, match="Provider a has 1 calls in flight, its limit; none ended within 1 s"):
            await answer(bench)


@pytest.mark.parametrize(
    ("rate", "line", "state"),
    [
        (RateSpec("token_bucket", 1, 0.1), Line("provider:a:rate", "bucket", 1, 0.1, patience_s=0), "used 1 of 1 calls, refilled at 0.1"),
        (RateSpec("sliding_window", 1, 0.1), Line("provider:a:window", "window", 1, 0.1, patience_s=0), "used 1 of 1 calls in 10 s"),
    ],
)
async def test_a_providers_rate_is_one(monkeypatch: pytest.MonkeyPatch, redis: RedisServer, rate: RateSpec, line: Line, state: str) -> None:
    bench = Bench(monkeypatch, providers="a")
    configure(bench, rate=rate, max_concurrency=5)
    async with shared(bench, redis) as other:
        assert (await other.take([line])).admitted
        with pytest.raises(ProviderLimited, match=rf"Provider a has {state}.*; a call could start in (9\.\d+|10\.000) s"):
            await answer(bench)
        # It was not booked by who did not wait for it.
        assert (await other.take([line])).waits_s[0] == pytest.approx(10, abs=1)


async def test_without_redis_this_machine_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, limits=LimitSpec(requests_per_minute=2, max_concurrency=1))
    configure(bench, limits=LimitSpec(max_concurrency=2), max_concurrency=3, rate=RateSpec("token_bucket", 5, 1))
    bench.scripts["a"] = [ANSWER] * 3
    bench.manager._cluster = cluster = RedisCluster(read_address("redis://127.0.0.1:1"), "a", "1", lambda machines: None)
    await cluster.start()
    await answer(bench)
    headers = await answer(bench)
    assert headers[b"x-ratelimit-remaining-requests"] == b"0"
    with pytest.raises(CallerLimited, match="This key has used 2 of 2 requests per minute"):
        await answer(bench)
    assert bench.settled_in_full()
    assert not any(cluster._held.values())
    await cluster.stop()
