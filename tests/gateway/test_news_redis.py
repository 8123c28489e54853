"""The same by way of a real Redis: one trial, one answer, whichever machine a process is on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from core.clock import FrozenClock
from core.config import BreakerSpec
from core.errors import ProviderFault, ProviderPaused
from gateway.sharing.peers import Alone
from gateway.sharing.redis_address import read_address
from gateway.sharing.redis_peers import RedisPeers
from monitoring.journal import AttemptSettled
from tests.gateway.neighbours import Town, processes
from tests.gateway.redis_server import RedisServer, redis_server
from tests.gateway.scripted import ANSWER, Bench
from tests.gateway.test_idempotency import held, keyed
from tests.gateway.test_news import breaker
from tests.gateway.test_news_answers import door
from tests.gateway.test_resilience import calls, outcome


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
async def pair(monkeypatch: pytest.MonkeyPatch, redis: RedisServer) -> AsyncIterator[list[Bench]]:
    peers = [RedisPeers(read_address(redis.url), name, b"secret" * 6, Alone(), 100_000) for name in ("one", "other")]
    for one in peers:
        await one.start()
    town = Town(FrozenClock())
    monkeypatch.setattr("gateway.retry.backoff_s", lambda *_: 0)
    made = processes(monkeypatch, town, 2, peers, providers="a")
    for one in made:
        one.manager._runtimes["a"].apply(one.provider("a", breaker=BreakerSpec(1, 10.0)))
        one.town = town  # type: ignore[attr-defined]
    yield made
    for one in peers:
        await one.stop()


async def until(what: Callable[[], Any]) -> None:
    ends = time.monotonic() + 5
    while not what():
        assert time.monotonic() < ends
        await asyncio.sleep(0.005)


async def test_500_calls_are_one_trial(pair: list[Bench]) -> None:
    first, second = pair
    first.scripts["a"] = [ProviderFault("it failed")]
    await outcome(first.generation())
    await until(lambda: breaker(second).state == "open")
    first.clock.advance(10)
    go, step = held(ANSWER)
    first.scripts["a"] = [step]
    tasks = [asyncio.create_task(outcome(pair[number % 2].generation())) for number in range(500)]
    await until(lambda: sum(task.done() for task in tasks) == 499)
    assert calls(first) + calls(second) == 2
    assert all(isinstance(task.result(), ProviderPaused) for task in tasks if task.done())
    go.set()
    await asyncio.gather(*tasks)
    await until(lambda: {breaker(one).state for one in pair} == {"closed"})


async def test_one_key_is_one_call(pair: list[Bench]) -> None:
    go, step = held(ANSWER)
    pair[0].scripts["a"] = [step]
    doors = [door(one, one.town) for one in pair]  # type: ignore[attr-defined]
    for one in doors:
        one._gateway.idempotency.answers._sleep = asyncio.sleep  # type: ignore[union-attr]
    clients = [keyed() for _ in range(50)]
    tasks = [asyncio.create_task(client.call(doors[number % 2])) for number, client in enumerate(clients)]
    await asyncio.sleep(0.05)
    go.set()
    await asyncio.gather(*tasks)
    assert {(client.status, client.body) for client in clients} == {(200, ANSWER.body)}
    assert sum(len(one.sink.of(AttemptSettled)) for one in pair) == 1
