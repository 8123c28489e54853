"""Claims, news and values by way of a real Redis, and by way of the machine's own peers where it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.sharing import redis_link, redis_peers
from gateway.sharing.peers import Alone
from gateway.sharing.redis_address import read_address
from gateway.sharing.redis_peers import RedisPeers
from gateway.sharing.redis_script import PREFIX
from tests.gateway.redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def running_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(running_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """It is there, however long a busy machine lets it wait: after TIMEOUT_S it would be as good as away, and everybody alone."""
    for module in (redis_link, redis_peers):
        monkeypatch.setattr(module, "TIMEOUT_S", 10.0)
    return running_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


class Here(Alone):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, Any]] = []

    def tell(self, kind: str, message: Any) -> None:
        self.told.append((kind, message))


@asynccontextmanager
async def joined(server: RedisServer, process: str, secret: bytes = b"secret" * 6) -> AsyncIterator[RedisPeers]:
    peers = RedisPeers(read_address(server.url), process, secret, Here(), 1000)
    await peers.start()
    try:
        yield peers
    finally:
        await peers.stop()


async def until(what, within_s: float = 3.0) -> None:
    ends = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


async def test_a_claim_is_one_processs_until_it_is_released_or_over(redis: RedisServer) -> None:
    async with joined(redis, "1") as one, joined(redis, "2") as other:
        assert await one.claim("a", 10)
        assert not await one.claim("a", 10)
        assert not await other.claim("a", 10)
        other.release("a")
        assert not await other.claim("a", 10)
        one.release("a")
        await one.look("anything")
        assert await other.claim("a", 0.05)
        await asyncio.sleep(0.1)
        assert await one.claim("a", 10)
        other.release("a")  # its own claim was over
        await other.look("anything")
        assert not await other.claim("a", 10)


async def test_what_a_process_has_claimed_is_free_when_it_ends(redis: RedisServer) -> None:
    async with joined(redis, "2") as other:
        async with joined(redis, "1") as one:
            assert await one.claim("b", 10)
        assert await other.claim("b", 10)


async def test_news_reach_the_others_alone(redis: RedisServer) -> None:
    heard: list[tuple[str, Any]] = []
    async with joined(redis, "1") as one, joined(redis, "2") as other:
        one.listen("breaker", lambda message: heard.append(("one", message)))
        other.listen("breaker", lambda message: heard.append(("other", message)))
        redis.cli("publish", f"{PREFIX}news", "not ours")
        one.tell("nobody listens", {})
        one.tell("breaker", {"open": [1, "é"]})
        await until(lambda: heard)
        await one.look("anything")
    assert heard == [("other", {"open": [1, "é"]})]


async def test_values_are_sealed_bounded_and_kept_for_their_time(redis: RedisServer) -> None:
    async with joined(redis, "1") as one, joined(redis, "2") as other, joined(redis, "3", b"another" * 6) as stranger:
        await one.lay("prompt of ada", b"a private answer", 10)
        assert await other.look("prompt of ada") == b"a private answer"
        assert await other.look("prompt of bob") is None
        assert await stranger.look("prompt of ada") is None
        (key,) = redis.cli("keys", f"{PREFIX}laid:*").split()
        assert "ada" not in key
        assert "private" not in redis.cli("get", key)
        assert 0 < int(redis.cli("pttl", key)) <= 10_000
        redis.cli("set", key, "altered")
        assert await other.look("prompt of ada") is None
        await one.lay("long", b"x" * 1001, 10)
        assert await other.look("long") is None
        assert await one.look("long") == b"x" * 1001
        await one.lay("short", b"x", 0.05)
        await asyncio.sleep(0.1)
        assert await other.look("short") is None


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_without_redis_the_machines_own_serve(own_redis: RedisServer, how: str) -> None:
    heard: list[Any] = []
    async with joined(own_redis, "1") as one, joined(own_redis, "2") as other:
        other.listen("news", heard.append)
        getattr(own_redis, how)()
        began_at = time.monotonic()
        assert await one.claim("c", 10)
        await one.lay("value", b"1", 10)
        assert await one.look("value") == b"1"
        assert time.monotonic() - began_at < 1
        one.release("c")
        assert await one.claim("c", 10)
        one.tell("news", {"n": 1})
        assert one._here.told == [("news", {"n": 1})]
        own_redis.thaw() if how == "freeze" else own_redis.start()
        await until(lambda: one._keeper.link is not None and other._keeper.link is not None)
        one.tell("news", {"n": 2})
        await until(lambda: heard)
        assert heard == [{"n": 2}]
