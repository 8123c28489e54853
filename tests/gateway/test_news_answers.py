"""`Idempotency-Key` at several processes: one call, one charge, one answer."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import msgspec
import pytest

from core.clock import FrozenClock
from core.errors import InvalidRequest
from gateway.doors import openai_chat
from gateway.doors.http import Gateway, GenerationDoor
from gateway.doors.idempotent import Idempotency
from gateway.idempotency import Flights
from gateway.sharing.answers import Answers
from monitoring.journal import AttemptSettled
from tests.gateway.neighbours import Town, processes, turns
from tests.gateway.scripted import ANSWER, PEPPER, Bench, Stream
from tests.gateway.test_door import AUTH, BODY, STREAMED, Client
from tests.gateway.test_idempotency import held, keyed

NAME = "idempotency:k:k1"


@pytest.fixture
def town() -> Town:
    return Town(FrozenClock())


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch, town: Town) -> list[Bench]:
    return processes(monkeypatch, town, 2)


def door(bench: Bench, town: Town, *, max_bytes: int = 10_000, ttl_s: float = 600.0, wait_s: float = 60.0) -> GenerationDoor:
    async def sleep(seconds: float) -> None:
        town.clock.advance(seconds)
        await turns(5)

    shared = Idempotency(
        clock=town.clock,
        flights=Flights(town.clock, ttl_s=ttl_s, max_bytes=max_bytes),
        answers=Answers(bench.peers, town.clock, ttl_s=ttl_s, max_bytes=max_bytes, sleep=sleep),  # type: ignore[attr-defined]
        wait_s=wait_s,
    )
    return GenerationDoor(
        Gateway(pepper=PEPPER, max_body_bytes=1000, body_timeout_s=1, pipeline=bench.pipeline, idempotency=shared), openai_chat
    )


def charges(pair: list[Bench]) -> int:
    return sum(len(bench.sink.of(AttemptSettled)) for bench in pair)


@pytest.mark.parametrize("body", [BODY, STREAMED])
async def test_fifty_at_once_at_two_processes_are_one_call(pair: list[Bench], town: Town, body: bytes) -> None:
    go, step = held(ANSWER if body is BODY else Stream(b"data: 1\n\n", b"data: 2\n\n"))
    pair[0].scripts["a"] = [step]
    doors = [door(bench, town) for bench in pair]
    clients = [keyed(body=body) for _ in range(50)]
    calls = [asyncio.create_task(client.call(doors[number % 2])) for number, client in enumerate(clients)]
    await turns()
    go.set()
    await asyncio.gather(*calls)
    assert len({(client.status, client.body) for client in clients}) == 1
    assert clients[0].status == 200
    assert sorted(client.headers.get(b"x-llm-idempotent-replay", b"") for client in clients) == [b""] + [b"true"] * 49
    assert all(client.complete for client in clients)
    assert charges(pair) == 1
    assert not town.claims


async def test_an_answer_is_given_again_by_another_process_until_its_time_is_over(pair: list[Bench], town: Town) -> None:
    pair[0].scripts["a"] = [ANSWER, ANSWER]
    first, second = (door(bench, town, ttl_s=100) for bench in pair)
    one, other = await keyed().call(first), await keyed().call(second)
    assert (other.body, other.headers[b"x-request-id"]) == (one.body, one.headers[b"x-request-id"])
    assert charges(pair) == 1
    town.clock.advance(201)  # the second process keeps it for as long from when it got it
    assert (await keyed().call(second)).status == 200
    assert charges(pair) == 2


@pytest.mark.parametrize("running", [True, False])
async def test_another_body_is_refused_by_another_process(pair: list[Bench], town: Town, running: bool) -> None:
    go, step = held(ANSWER)
    pair[0].scripts["a"] = [step]
    first, second = (door(bench, town) for bench in pair)
    call = asyncio.create_task(keyed().call(first))
    await turns()
    if not running:
        go.set()
        await call
    client = await keyed(body=STREAMED).call(second)
    assert (client.status, client.error["code"], client.error["param"]) == (422, "idempotency_key_reused", "Idempotency-Key")
    go.set()
    await call
    assert charges(pair) == 1


async def test_after_a_failure_another_process_begins_anew(pair: list[Bench], town: Town) -> None:
    go, step = held(InvalidRequest("no"))
    pair[0].scripts["a"] = [step, ANSWER]
    first, second = (door(bench, town) for bench in pair)
    one = asyncio.create_task(keyed().call(first))
    await turns()
    two = asyncio.create_task(keyed().call(second))
    await turns()
    go.set()
    assert (await one).status == 400
    assert (await two).status == 200
    assert not town.claims


async def test_when_the_first_client_leaves_another_process_takes_over(pair: list[Bench], town: Town) -> None:
    _, stuck = held(ANSWER)
    pair[0].scripts["a"] = [stuck, ANSWER]
    gateway = [door(bench, town) for bench in pair]
    client = keyed()
    one = asyncio.create_task(client.call(gateway[0]))
    await turns()
    two = asyncio.create_task(keyed().call(gateway[1]))
    client.left.set()
    await one
    assert (await two).status == 200
    assert charges(pair) == 2


async def test_a_process_that_dies_stands_in_the_way_for_no_longer_than_its_lease(pair: list[Bench], town: Town) -> None:
    town.claims[NAME] = (town.clock.monotonic() + 10, pair[0].peers)  # type: ignore[attr-defined]
    running = msgspec.msgpack.encode(["running", hashlib.sha256(b"/v1/chat/completions" + BODY).digest()])
    town.laid[NAME] = (town.clock.monotonic() + 10, running)
    pair[0].scripts["a"] = [ANSWER]
    began = town.clock.monotonic()
    assert (await keyed().call(door(pair[1], town))).status == 200
    assert 10 <= town.clock.monotonic() - began < 10.5


async def test_a_process_that_answers_for_long_is_waited_for(pair: list[Bench], town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sharing.answers._RENEW_S", 0.001)
    go, step = held(ANSWER)
    pair[0].scripts["a"] = [step]
    first, second = (door(bench, town) for bench in pair)
    one = asyncio.create_task(keyed().call(first))
    await turns()
    for _ in range(5):  # it outlives its claim, and each of its leases
        town.clock.advance(9)
        until = town.laid[NAME][0]
        for _ in range(5000):
            if town.laid[NAME][0] > until:
                break
            await asyncio.sleep(0.001)
    two = asyncio.create_task(keyed().call(second))
    await turns(10)
    go.set()
    await asyncio.gather(one, two)
    assert charges(pair) == 1


@pytest.mark.parametrize(("wait_s", "headers"), [(3.0, ()), (60.0, ((b"x-request-timeout-s", b"3"),))])
async def test_who_has_waited_long_enough_is_told_to_ask_again(pair: list[Bench], town: Town, wait_s: float, headers: Any) -> None:
    go, step = held(ANSWER)
    pair[0].scripts["a"] = [step]
    first, second = (door(bench, town, wait_s=wait_s) for bench in pair)
    one = asyncio.create_task(keyed().call(first))
    await turns()
    began = town.clock.monotonic()
    refused = await Client(BODY, headers=(AUTH, (b"idempotency-key", b"k1"), *headers)).call(second)
    assert (refused.status, refused.error["code"]) == (409, "idempotency_conflict")
    assert town.clock.monotonic() - began == pytest.approx(3.0)
    go.set()
    await one


async def test_what_is_too_long_is_not_given_again(pair: list[Bench], town: Town) -> None:
    pair[0].scripts["a"] = [Stream(b"data: " + b"x" * 900 + b"\n\n")]
    first, second = door(pair[0], town), door(pair[1], town)
    first._gateway.idempotency.answers._max_bytes = 500  # type: ignore[union-attr]
    assert (await keyed(body=STREAMED).call(first)).status == 200
    refused = await keyed(body=STREAMED).call(second)
    assert refused.status == 409
    assert "too long to be given again" in refused.error["message"]
    assert (await keyed(body=STREAMED).call(first)).status == 200  # where it was made, it is still there
    assert charges(pair) == 1


async def test_an_answer_that_was_laid_down_between_looking_and_claiming_is_found(
    pair: list[Bench], town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[0].scripts["a"] = [ANSWER]
    await keyed().call(door(pair[0], town))
    peer = pair[1].peers  # type: ignore[attr-defined]

    async def too_soon(name: str) -> None:
        monkeypatch.undo()

    monkeypatch.setattr(peer, "look", too_soon)
    assert (await keyed().call(door(pair[1], town))).body == ANSWER.body
    assert charges(pair) == 1
    assert not town.claims


async def test_a_server_that_goes_down_answers_who_waits(pair: list[Bench], town: Town) -> None:
    go, step = held(ANSWER)
    pair[0].scripts["a"] = [step]
    one = asyncio.create_task(keyed().call(door(pair[0], town)))
    await turns()
    client = keyed()
    two = asyncio.create_task(client.call(door(pair[1], town)))
    await turns(10)
    two.cancel()
    await two
    assert (client.status, client.error["code"]) == (503, "server_busy")
    go.set()
    await one


async def test_without_the_header_nobody_is_asked(pair: list[Bench], town: Town) -> None:
    pair[0].scripts["a"] = [ANSWER]
    await Client().call(door(pair[0], town))
    assert (town.asked, town.laid) == ([], {})
