"""Bodies are kept of keys that want it, whatever the end; of other keys nothing is."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import ProviderNonsense, ProviderUnreachable
from gateway.doors.http import GenerationDoor
from monitoring import metrics
from monitoring.bodies import headers_of
from monitoring.body_queue import Bodies, BodyQueue
from tests.gateway.scripted import ANSWER, Bench, Refusal, Stream
from tests.gateway.test_door import AUTH, BODY, STREAMED, Client


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch, store_bodies=True)


def keeping(bench: Bench, max_bytes: int = 65_536) -> tuple[GenerationDoor, BodyQueue]:
    door, queue = bench.door, BodyQueue(max_bytes, 2**20)
    door._gateway.bodies = queue
    return door, queue


async def test_an_answer_as_it_was_asked_for_and_sent(bench: Bench) -> None:
    door, queue = keeping(bench)
    bench.scripts["a"] = [ANSWER]
    client = await Client().call(door)
    (kept,) = queue.first(10)
    assert (kept.request, kept.response) == (BODY, ANSWER.body) == (BODY, client.body)
    assert (kept.request_bytes, kept.response_bytes) == (len(BODY), len(ANSWER.body))
    assert kept.request_id.encode() == client.headers[b"x-request-id"]
    assert AUTH[1] not in kept.request + kept.response


async def test_a_stream_and_one_that_breaks(bench: Bench) -> None:
    door, queue = keeping(bench)
    bench.scripts["a"] = [Stream(b"data: 1\n\n"), Stream(b"data: 1\n\n", ProviderNonsense("The vendor's stream broke off."))]
    clients = [await Client(STREAMED).call(door) for _ in range(2)]
    assert [kept.response for kept in queue.first(10)] == [client.body for client in clients]
    assert b"upstream_invalid_response" in clients[1].body


async def test_of_one_that_leaves_what_it_was_sent(bench: Bench) -> None:
    (door, queue), waiting = keeping(bench), asyncio.Event()

    async def never() -> bytes:
        waiting.set()
        await asyncio.Event().wait()
        return b""

    bench.scripts["a"] = [Stream(b"data: 1\n\n", never)]
    client = Client(STREAMED)
    call = asyncio.create_task(client.call(door))
    await waiting.wait()
    client.left.set()
    await call
    assert [kept.response for kept in queue.first(10)] == [b"data: 1\n\n"]


async def test_long_ones_are_cut_and_their_length_is_known(bench: Bench) -> None:
    door, queue = keeping(bench, max_bytes=5)
    bench.scripts["a"] = [ANSWER]
    await Client().call(door)
    (kept,) = queue.first(10)
    assert (kept.request, kept.response) == (BODY[:5], ANSWER.body[:5])
    assert (kept.request_bytes, kept.response_bytes) == (len(BODY), len(ANSWER.body))


async def test_the_answer_to_a_repeated_request_is_kept_too(bench: Bench) -> None:
    door, queue = keeping(bench)
    bench.scripts["a"] = [ANSWER]
    for _ in range(2):
        await Client(headers=(AUTH, (b"idempotency-key", b"once"))).call(door)
    assert [kept.response for kept in queue.first(10)] == [ANSWER.body] * 2


async def test_headers_of_both_and_of_each_vendor(bench: Bench) -> None:
    door, queue = keeping(bench)
    bench.scripts["a"] = [Refusal(503, **{"retry-after": "0", "x-request-id": "req_1"}), ProviderUnreachable("gone")]
    bench.scripts["b"] = [ANSWER] * 2
    for _ in range(2):
        await Client(headers=(AUTH, (b"user-agent", b"cli/1"))).call(door)
    found = [headers_of(kept.headers) for kept in queue.first(2)]
    for headers in found:
        assert headers is not None
        assert headers.request == [("authorization", "[redacted]"), ("user-agent", "cli/1")]
        assert dict(headers.response)["x-llm-attempts"] == "2"
    assert [[(each.attempt, each.status, each.headers) for each in headers.attempts] for headers in found if headers] == [
        [(1, 503, [("retry-after", "0"), ("x-request-id", "req_1")]), (2, 200, [])],
        [(1, 0, []), (2, 200, [])],
    ]


async def test_of_other_keys_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    door, queue = keeping(bench)
    bench.scripts["a"] = [ANSWER]
    with monkeypatch.context() as untouched:
        untouched.setattr("gateway.upstream.Upstream.heard", lambda *known: pytest.fail("headers are looked at"))
        assert (await Client().call(door)).status == 200
    assert queue.first(10) == []


async def test_where_none_may_be_kept_the_key_is_served_all_the_same(bench: Bench) -> None:
    bench.scripts["a"] = [ANSWER]
    assert (await Client().call(bench.door)).body == ANSWER.body


def test_what_waits_is_bounded() -> None:
    queue, before = BodyQueue(10, 20), metrics.BODIES_DROPPED._value.get()
    for name in "abc":
        queue.put(Bodies(name, 0.0, "k", b"12345", b"12345", 5, 5))
    assert [kept.request_id for kept in queue.first(10)] == ["a", "b"]
    assert metrics.BODIES_DROPPED._value.get() == before + 1
    queue.put(Bodies("c", 0.0, "k", b"", b"", 5, 5, b"1"))
    queue.done(1)
    queue.put(Bodies("d", 0.0, "k", b"12345", b"1234", 5, 5, b"5"))
    assert [kept.request_id for kept in queue.first(10)] == ["b", "d"]
