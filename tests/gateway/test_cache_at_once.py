"""Answers that many ask for at once, and who may have one that is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from core.chat import WireCall
from core.config import LimitSpec
from core.errors import ProviderFault
from core.outbound import Response, Transport
from gateway.doors import embeddings
from tests.gateway.test_cache_pipeline import House, Vendor, cache_of, house, until
from tests.gateway.test_door import Client

__all__ = ["house"]


async def test_a_key_that_may_not_use_the_model_is_not_given_its_answers(house: House) -> None:
    await house.ask("colleague")
    house.apply(models=frozenset({"another"}))
    assert (await house.ask()).status == 403
    house.apply(barred=frozenset({"row"}))
    assert (await house.ask()).status == 404
    house.apply(expires_at=house.clock.wall())
    assert (await house.ask()).status == 401


async def test_an_answer_from_the_cache_counts_as_a_request(house: House) -> None:
    house.apply(limits=LimitSpec(requests_per_minute=2))
    assert [(await house.ask()).status for _ in range(3)] == [200, 200, 429]


# All at once ----------------------------------------------------------------------------------------------------------------


async def at_once(house: House, number: int, stream: bool = False) -> list[asyncio.Task[Client]]:
    """As many as that wait for the answer of the first."""
    Vendor.gate.clear()
    tasks = [asyncio.create_task(house.ask(stream=stream)) for _ in range(number)]
    await until(lambda: len(Vendor.calls) == 1 and house.pipeline._in_flight == number)
    return tasks


@pytest.mark.parametrize("stream", [False, True])
async def test_five_hundred_at_once_are_one_call_and_one_charge(house: House, stream: bool) -> None:
    tasks = await at_once(house, 500, stream)
    Vendor.gate.set()
    clients = await asyncio.gather(*tasks)
    assert len({client.body for client in clients}) == 1
    assert sorted(cache_of(*clients)) == [b"miss"] + [b"shared"] * 499
    assert len(Vendor.calls) == 1
    assert sum(cost or 0 for _, cost, _ in house.logged()) == 8
    assert house.bench.settled_in_full()


async def test_where_the_first_one_leaves_another_asks_for_the_rest(house: House) -> None:
    first, *others = await at_once(house, 10)
    house.clients[0].left.set()
    await until(lambda: len(Vendor.calls) == 2)
    Vendor.gate.set()
    clients = await asyncio.gather(*others)
    assert sorted(cache_of(*clients)) == [b"miss"] + [b"shared"] * 8
    assert len(Vendor.calls) == 2
    await first
    assert house.bench.settled_in_full()


async def test_where_the_vendor_fails_one_after_the_other_asks(house: House) -> None:
    house.pipeline.max_retries = 0
    tasks = await at_once(house, 10)
    Vendor.failure = ProviderFault("down")
    Vendor.gate.set()
    clients = await asyncio.gather(*tasks)
    assert sorted(client.status for client in clients) == [200] * 9 + [502]
    assert len(Vendor.calls) == 2


async def test_who_waits_is_kept_no_longer_than_it_says(house: House) -> None:
    (first,) = await at_once(house, 1)
    late = await house.ask("mine", (b"x-request-timeout-s", b"0.01"))
    assert late.status == 504
    Vendor.gate.set()
    assert (await first).status == 200


async def test_no_cache_waits_for_nobody(house: House) -> None:
    (first,) = await at_once(house, 1)
    asking: Awaitable[Client] = house.ask("mine", (b"cache-control", b"no-cache"))
    task = asyncio.ensure_future(asking)
    await until(lambda: len(Vendor.calls) == 2)
    Vendor.gate.set()
    assert cache_of(await first, await task) == [b"miss", b"miss"]


async def test_embeddings_are_given_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.chat import Answer
    from providers.adapters.echo import MemoryResponse

    async def send(self: Vendor, transport: Transport, call: WireCall) -> Response:
        self.calls.append(call)
        return MemoryResponse(200, "application/json", [b"{}"])

    answer = Answer(b'{"data":[]}', None, "", 0)
    monkeypatch.setattr(Vendor, "send", send)
    monkeypatch.setattr(Vendor, "chat_call", lambda self, request, model, secret: WireCall("http://vendor", {}))
    monkeypatch.setattr(Vendor, "read_answer", lambda self, body, request: answer)
    house.apply(model_type="embedding")
    asked = {"dialect": embeddings, "input": "hi", "messages": None}
    answers = [await house.ask(**asked), await house.ask(**asked)]
    assert cache_of(*answers) == [b"miss", b"hit"]
    assert answers[1].body == answer.body
