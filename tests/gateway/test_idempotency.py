"""One key, one answer: who boards, what they are given, and what is forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.clock import FrozenClock
from core.errors import InvalidRequest, ProviderFault
from gateway.idempotency import Abandoned, Flight, Flights, KeyReused, StillRunning
from monitoring.journal import AttemptOpened, AttemptSettled, RequestEnded
from tests.gateway.scripted import ANSWER, Bench, Stream
from tests.gateway.test_door import AUTH, BODY, STREAMED, Client

FAILURE = ProviderFault("The vendor failed.")
START = {"type": "http.response.start", "status": 200, "headers": []}


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def flights(*, ttl_s: float = 60, max_bytes: int = 10_000) -> tuple[Flights, FrozenClock]:
    clock = FrozenClock()
    return Flights(clock, ttl_s=ttl_s, max_bytes=max_bytes), clock


async def everything(flight: Flight) -> list[Any]:
    return [message async for message in flight.follow()]


async def test_those_who_follow_get_what_the_first_got_as_it_comes() -> None:
    kept, _ = flights()
    flight, new = kept.board("k", "a", b"body")
    assert new
    early = [asyncio.create_task(everything(kept.board("k", "a", b"body")[0])) for _ in range(50)]
    for message in (START, part(b"1", True), part(b"2")):
        kept.record(flight, message)
        await asyncio.sleep(0)
    kept.land(flight, None)
    same, new = kept.board("k", "a", b"body")
    assert not new
    expected = [START, part(b"1", True), part(b"2")]
    assert await asyncio.gather(*early, everything(same)) == [expected] * 51


def test_a_key_belongs_to_one_caller_and_one_request() -> None:
    kept, _ = flights()
    kept.board("k", "a", b"body")
    assert kept.board("other", "a", b"another body")[1]
    assert kept.board("k", "b", b"another body")[1]
    with pytest.raises(KeyReused):
        kept.board("k", "a", b"another body")


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        flights()[0].board("k", key, b"")
    assert caught.value.param == "Idempotency-Key"


async def test_a_failure_is_told_to_those_who_wait_and_not_kept() -> None:
    kept, _ = flights()
    flight, _ = kept.board("k", "a", b"body")
    waiting = asyncio.create_task(everything(kept.board("k", "a", b"body")[0]))
    await asyncio.sleep(0)
    kept.record(flight, part(b"error"))
    kept.land(flight, FAILURE)
    assert await waiting == [part(b"error")]
    assert kept.board("k", "a", b"body")[1]


async def test_when_the_first_leaves_the_next_begins_anew() -> None:
    kept, _ = flights()
    flight, _ = kept.board("k", "a", b"body")
    kept.record(flight, START)
    waiting = asyncio.create_task(everything(kept.board("k", "a", b"body")[0]))
    await asyncio.sleep(0)
    kept.abandon(flight)
    with pytest.raises(Abandoned):
        await waiting
    assert kept.board("k", "a", b"body")[1]


def test_a_success_is_kept_for_its_time() -> None:
    kept, clock = flights(ttl_s=60)
    running, _ = kept.board("k", "long", b"body")
    flight, _ = kept.board("k", "a", b"body")
    kept.land(flight, None)
    clock.advance(59.9)
    assert not kept.board("k", "a", b"body")[1]
    clock.advance(0.2)
    assert kept.board("k", "a", b"body")[1]
    assert not kept.board("k", "long", b"body")[1]
    kept.land(running, None)


def test_of_an_answer_that_is_too_long_to_share_nothing_is_held() -> None:
    kept, _ = flights(max_bytes=2_000)
    flight, _ = kept.board("k", "a", b"body")
    for _ in range(3):
        kept.record(flight, part(b"x" * 700, True))
    assert flight.overflowed
    assert not flight.messages


async def test_kept_answers_make_way_and_what_is_too_long_is_not_shared() -> None:
    kept, _ = flights(max_bytes=2_000)
    for name in ("a", "b"):
        flight, _ = kept.board("k", name, b"body")
        kept.record(flight, part(b"x" * 500))
        kept.land(flight, None)
    third, _ = kept.board("k", "c", b"body")
    kept.record(third, part(b"x" * 700))
    assert kept.board("k", "a", b"body")[1]  # the oldest has made way
    assert not kept.board("k", "b", b"body")[1]
    kept.record(third, part(b"x" * 1_500))
    with pytest.raises(StillRunning):
        await everything(kept.board("k", "c", b"body")[0])
    kept.land(third, None)
    assert kept.board("k", "c", b"body")[1]
    assert kept._bytes == 0


def test_nothing_is_counted_when_nothing_is_kept() -> None:
    kept, clock = flights(ttl_s=1)
    for number in range(100):
        flight, _ = kept.board("k", str(number), b"body")
        kept.record(flight, part(b"x"))
        kept.land(flight, None if number % 2 else FAILURE) if number % 3 else kept.abandon(flight)
    clock.advance(2)
    flight, _ = kept.board("k", "last", b"body")
    kept.abandon(flight)
    assert (kept._bytes, dict(kept._kept), kept._running) == (0, {}, {})


# Through the door ---------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def keyed(key: bytes = b"k1", body: bytes = BODY) -> Client:
    return Client(body, headers=(AUTH, (b"idempotency-key", key)))


def held(answer: Any) -> tuple[asyncio.Event, Any]:
    """A step that gives `answer` once the event is set."""
    go = asyncio.Event()

    async def step() -> Any:
        await go.wait()
        return answer

    return go, step


async def test_fifty_at_once_are_one_call_and_one_charge(bench: Bench) -> None:
    go, step = held(ANSWER)
    bench.scripts["a"] = [step]
    door = bench.door
    clients = [keyed() for _ in range(50)]
    calls = [asyncio.create_task(client.call(door)) for client in clients]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*calls)
    assert {(client.status, client.body) for client in clients} == {(200, ANSWER.body)}
    assert sorted(client.headers.get(b"x-llm-idempotent-replay", b"") for client in clients) == [b""] + [b"true"] * 49
    assert len(bench.sink.of(AttemptSettled)) == 1
    ended = bench.sink.of(RequestEnded)
    assert len(ended) == 50
    assert [record.replayed for record in ended].count(False) == 1
    assert sum(record.total_tokens for record in ended) == ANSWER.usage.total_tokens
    assert bench.settled_in_full()


async def test_the_same_request_later_gets_the_same_stream(bench: Bench) -> None:
    bench.scripts["a"] = [Stream(b"data: 1\n\n", b"data: 2\n\n")]
    door = bench.door
    first, second = await keyed(body=STREAMED).call(door), await keyed(body=STREAMED).call(door)
    assert first.body == second.body == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
    assert second.complete


async def test_a_key_for_another_request_is_refused(bench: Bench) -> None:
    bench.scripts["a"] = [ANSWER]
    door = bench.door
    await keyed().call(door)
    client = await keyed(body=STREAMED).call(door)
    assert (client.status, client.error["code"], client.error["param"]) == (422, "idempotency_key_reused", "Idempotency-Key")


async def test_asking_again_after_a_failure_is_a_new_call(bench: Bench) -> None:
    bench.scripts = {"a": [InvalidRequest("no"), ANSWER], "b": []}
    type(bench.manager.view.targets["m"][0].runtime.adapter).scripts = bench.scripts
    door = bench.door
    assert (await keyed().call(door)).status == 400
    assert (await keyed().call(door)).status == 200


async def test_who_waits_for_anothers_answer_waits_no_longer_than_it_said(bench: Bench) -> None:
    go, stuck = held(ANSWER)
    bench.scripts["a"] = [stuck]
    door = bench.door
    first, hurried = keyed(), Client(BODY, headers=(AUTH, (b"idempotency-key", b"k1"), (b"x-request-timeout-s", b"0.05")))
    leading = asyncio.create_task(first.call(door))
    await asyncio.sleep(0)
    await hurried.call(door)
    assert (hurried.status, hurried.error["code"]) == (409, "idempotency_conflict")
    assert hurried.error["message"].endswith("was not answered within 0.05 s; ask again later.")
    go.set()
    await leading
    assert (first.status, first.body) == (200, ANSWER.body)
    assert bench.settled_in_full()


async def test_a_shared_stream_is_broken_off_when_the_time_is_up_of_who_shares_it(bench: Bench) -> None:
    go, more = held(b"data: 2\n\n")
    bench.scripts["a"] = [Stream(b"data: 1\n\n", more)]
    door = bench.door
    first, hurried = keyed(body=STREAMED), Client(STREAMED, headers=(AUTH, (b"idempotency-key", b"k1"), (b"x-request-timeout-s", b"0.05")))
    leading = asyncio.create_task(first.call(door))
    async with asyncio.timeout(30):
        while len(first.sent) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await hurried.call(door)
    assert hurried.status == 200
    assert hurried.body.startswith(b"data: 1\n\n")
    assert b"was not answered within 0.05 s" in hurried.body
    assert b"[DONE]" not in hurried.body
    go.set()
    await leading
    assert first.body == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"


async def test_who_left_while_it_waited_does_not_take_over(bench: Bench) -> None:
    _, stuck = held(ANSWER)
    bench.scripts["a"] = [stuck, ANSWER, ANSWER]
    door = bench.door
    clients = [keyed() for _ in range(3)]
    tasks = []
    for client in clients:
        tasks.append(asyncio.create_task(client.call(door)))
        await asyncio.sleep(0)
    clients[1].left.set()
    clients[0].left.set()
    await asyncio.gather(*tasks)
    assert [len(client.sent) for client in clients] == [0, 0, 2]
    assert len(bench.sink.of(AttemptOpened)) == 2
    assert [ended.error_code for ended in bench.sink.of(RequestEnded)].count("client_closed_request") == 2


async def test_when_the_first_client_leaves_another_takes_over(bench: Bench) -> None:
    never, stuck = held(ANSWER)
    bench.scripts["a"] = [stuck, ANSWER]
    door = bench.door
    first, second = keyed(), keyed()
    one = asyncio.create_task(first.call(door))
    await asyncio.sleep(0)
    two = asyncio.create_task(second.call(door))
    await asyncio.sleep(0)
    first.left.set()
    await asyncio.gather(one, two)
    assert not first.sent
    assert (second.status, second.body) == (200, ANSWER.body)
    assert not never.is_set()
