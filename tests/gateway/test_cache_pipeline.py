"""Answers that are given again, from the body of a request to its records: through the doors, with a vendor that counts its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec
import pytest

from access import keys
from core.chat import WireCall
from core.config import CallerSpec, ModelSpec, PriceSpec, ProviderSpec, RouteSpec, Snapshot
from core.errors import ProviderFault
from core.outbound import Response, Transport
from gateway.cache import Cache
from gateway.doors import anthropic_messages, openai_chat, responses
from gateway.doors.answer import DoorDialect
from gateway.doors.http import Gateway, GenerationDoor
from monitoring.journal import AttemptOpened, RequestEnded
from providers.adapters.echo import Echo
from tests.gateway.scripted import PEPPER, Bench
from tests.gateway.test_door import Client

KEYS = {"mine": "sk-llmc-mine", "colleague": "sk-llmc-colleague", "other": "sk-llmc-other"}
PRICE = PriceSpec("p", "USD", 0.0, None, input=1_000_000, cached_input=0, cache_write=0, output=2_000_000)
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi there"}]}


class Vendor(Echo):
    """Answers once `gate` is open; a `failure` is raised once."""

    calls: list[WireCall]
    gate: asyncio.Event
    failure: Exception | None

    async def send(self, transport: Transport, call: WireCall) -> Response:
        self.calls.append(call)
        await self.gate.wait()
        failure, Vendor.failure = Vendor.failure, None
        if failure is not None:
            raise failure
        return await super().send(transport, call)


class House:
    """A gateway with one model `m`; two keys of one team and one of another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ttl_s: int = 60, **cache: int) -> None:
        self.bench = Bench(monkeypatch)
        self.clients: list[Client] = []
        Vendor.calls, Vendor.gate, Vendor.failure = [], asyncio.Event(), None
        Vendor.gate.set()
        monkeypatch.setattr("gateway.runtime.adapter_for", Vendor)
        self.pipeline, self.clock, self.sink = self.bench.pipeline, self.bench.clock, self.bench.sink
        self.pipeline._max_in_flight = 1000
        self.pipeline.cache = Cache(self.clock, **{"max_bytes": 100_000, "max_entry_bytes": 10_000, **cache})
        self.apply(ttl_s)

    def apply(self, ttl_s: int = 60, *, route: RouteSpec | None = None, model_type: str = "chat", **caller: Any) -> None:
        callers = {
            keys.digest(PEPPER, KEYS["mine"].encode()): self.caller("mine", "t", **caller),
            keys.digest(PEPPER, KEYS["colleague"].encode()): self.caller("colleague", "t"),
            keys.digest(PEPPER, KEYS["other"].encode()): self.caller("other", "u"),
        }
        model = ModelSpec("row", "m", "echo-1", "v", model_type=model_type, prices=(PRICE,), cache_ttl_s=ttl_s)
        provider = ProviderSpec(id="v", name="v", kind="echo", base_url="http://vendor")
        routes = {route.alias: route} if route else {}
        self.bench.manager.apply(Snapshot(7, 0.0, callers, {"m": (model,)}, {"v": provider}, routes=routes))

    def caller(self, name: str, team: str, **changes: Any) -> CallerSpec:
        values = {"key_name": name, "prefix": "sk", "team_name": team, "scopes": frozenset({"chat", "embeddings"})}
        return CallerSpec(key_id=name, team_id=team, **{**values, **changes})

    async def ask(self, key: str = "mine", *headers: tuple[bytes, bytes], dialect: ModuleType = openai_chat, **changes: Any) -> Client:
        body = {**ASK, **changes}
        client = Client(msgspec.json.encode(body), headers=((b"authorization", b"Bearer " + KEYS[key].encode()), *headers))
        self.clients.append(client)
        return await client.call(self.door(dialect))

    def door(self, dialect: ModuleType = openai_chat) -> GenerationDoor:
        door: DoorDialect = dialect  # type: ignore[assignment]
        return GenerationDoor(Gateway(pepper=PEPPER, max_body_bytes=100_000, body_timeout_s=1, pipeline=self.pipeline), door)

    def logged(self) -> list[tuple[str, int | None, int | None]]:
        return [(ended.cache, ended.cost_micros, ended.saved_micros) for ended in self.sink.of(RequestEnded)]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    return House(monkeypatch)


def cache_of(*clients: Client) -> list[bytes]:
    return [client.headers[b"x-llm-cache"] for client in clients]


async def until(there: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not there():  # noqa: ASYNC110  (what is looked at has no event)
            await asyncio.sleep(0)


# What is given again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_request_is_given_the_same_answer_and_pays_nothing(house: House, stream: bool) -> None:
    first = await house.ask(stream=stream)
    house.clock.advance(5)
    again = await house.ask("colleague", stream=stream)
    assert again.body == first.body
    assert again.complete
    assert cache_of(first, again) == [b"miss", b"hit"]
    assert len(Vendor.calls) == len(house.sink.of(AttemptOpened)) == 1
    cost = 2 + 3 * 2
    assert house.logged() == [("miss", cost, None), ("hit", 0, cost)]
    assert again.headers[b"age"] == b"5"
    assert again.headers[b"x-llm-cost"] == b"0 USD"
    assert again.headers[b"x-llm-saved"] == b"0.000008 USD"
    assert again.headers[b"x-llm-attempts"] == b"0"
    assert again.headers[b"x-llm-model"] == b"echo-1"
    assert house.bench.settled_in_full()


def said(client: Client, *, stream: bool) -> tuple[str, str]:
    if not stream:
        (choice,) = msgspec.json.decode(client.body)["choices"]
        return choice["message"]["content"], choice["finish_reason"]
    assert client.body.endswith(b"data: [DONE]\n\n")
    chunks = [msgspec.json.decode(line[6:]) for line in client.body.split(b"\n\n")[:-2]]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    return text, next(chunk["choices"][0]["finish_reason"] for chunk in chunks[::-1] if chunk["choices"])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_whole_answer_is_given_as_a_stream_and_the_other_way_round(house: House, stream: bool) -> None:
    first = await house.ask(stream=stream)
    again = await house.ask(stream=not stream)
    assert cache_of(first, again) == [b"miss", b"hit"]
    assert said(first, stream=stream) == said(again, stream=not stream) == ("echo: hi there", "stop")
    if stream:
        assert msgspec.json.decode(again.body)["usage"]["total_tokens"] == 5


async def test_usage_is_told_to_a_stream_that_asks_for_it(house: House) -> None:
    await house.ask(stream=True)
    again = await house.ask(stream=True, stream_options={"include_usage": True})
    assert cache_of(again) == [b"hit"]
    assert b'"total_tokens":5' in again.body
    assert b'"total_tokens":5' not in (await house.ask(stream=True)).body


@pytest.mark.parametrize("stream", [False, True])
async def test_what_has_no_words_of_ours_is_given_again_in_its_own_form_alone(house: House, stream: bool) -> None:
    answers = [await house.ask(stream=form, logit_bias={"1": 2}) for form in (stream, not stream, stream)]
    assert cache_of(*answers) == [b"miss", b"miss", b"hit"]


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls_are_given_again(house: House, stream: bool) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    asked = {"tools": tools, "messages": [{"role": "user", "content": "please call tool"}]}
    await house.ask(stream=stream, **asked)
    again = await house.ask(stream=not stream, **asked)
    assert cache_of(again) == [b"hit"]
    assert b'"name":"look"' in again.body


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_dialect_is_given_again_in_both_forms(house: House, stream: bool) -> None:
    first = await house.ask(dialect=anthropic_messages, max_tokens=50, stream=stream)
    again = await house.ask(dialect=anthropic_messages, max_tokens=50, stream=not stream)
    third = await house.ask(dialect=anthropic_messages, max_tokens=50, stream=stream)
    assert cache_of(first, again, third) == [b"miss", b"hit", b"hit"]
    assert third.body == first.body
    streamed, whole = (first, again) if stream else (again, first)
    assert msgspec.json.decode(whole.body)["content"][0]["text"] == "echo: hi there"
    assert streamed.body.rstrip().endswith(b'data: {"type":"message_stop"}')
    assert b'"text":"echo' in streamed.body


async def test_a_dialect_that_is_no_vendors_is_given_again_as_it_was(house: House) -> None:
    asked = {"messages": None, "input": "hi there"}
    door = {"dialect": responses}
    answers = [await house.ask(**door, **asked, stream=form) for form in (False, True, False, True)]
    assert cache_of(*answers) == [b"miss", b"miss", b"hit", b"hit"]
    assert [answer.body for answer in answers[:2]] == [answer.body for answer in answers[2:]]


# What is asked anew ------------------------------------------------------------------------------------------------------


async def test_another_team_is_never_given_it(house: House) -> None:
    answers = [await house.ask(key) for key in ("mine", "other", "other")]
    assert cache_of(*answers) == [b"miss", b"miss", b"hit"]
    assert len(Vendor.calls) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "hi  there"}]},
        {"temperature": 0.5},
        {"max_tokens": 9},
        {"seed": 1},
        {"user": "ann"},
        {"a_field_that_nobody_knows": 1},
    ],
)
async def test_any_other_word_makes_another_request(house: House, change: dict[str, Any]) -> None:
    assert cache_of(await house.ask(), await house.ask(**change)) == [b"miss", b"miss"]


async def test_fields_may_come_in_any_order(house: House) -> None:
    await house.ask(temperature=0.5)
    body = msgspec.json.encode({"temperature": 0.5, **{name: ASK[name] for name in reversed(ASK)}})
    client = Client(body, headers=((b"authorization", b"Bearer " + KEYS["mine"].encode()),))
    assert cache_of(await client.call(house.door())) == [b"hit"]


async def test_what_the_vendor_is_told_besides_the_body_counts_too(house: House) -> None:
    version = (b"anthropic-beta", b"other")
    asked = {"dialect": anthropic_messages, "max_tokens": 5}
    assert cache_of(await house.ask(**asked), await house.ask("mine", version, **asked)) == [b"miss", b"miss"]


async def test_its_time_is_up(house: House) -> None:
    await house.ask()
    house.clock.advance(60)
    assert cache_of(await house.ask()) == [b"miss"]


async def test_other_models_behind_the_name_are_asked_anew_and_another_price_is_not(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.ask()
    house.apply(50)
    assert cache_of(await house.ask()) == [b"hit"]
    monkeypatch.setitem(globals(), "PRICE", msgspec.structs.replace(PRICE, input=7))
    house.apply()
    assert cache_of(await house.ask()) == [b"hit"]
    house.apply(route=RouteSpec("m", ("m",), fixed_answer="sorry"))
    assert cache_of(await house.ask()) == [b"miss"]


async def test_the_policy_is_the_rows(house: House) -> None:
    house.apply(0)
    answers = [await house.ask(), await house.ask()]
    assert cache_of(*answers) == [b"off", b"off"]
    assert house.logged() == [("", 8, None)] * 2
    house.apply(0, route=RouteSpec("m", ("m",), cache_ttl_s=60))
    assert cache_of(await house.ask(), await house.ask()) == [b"miss", b"hit"]
    house.apply(60, route=RouteSpec("m", ("m",), cache_ttl_s=0))
    assert cache_of(await house.ask()) == [b"off"]


@pytest.mark.parametrize("dialect", [openai_chat, anthropic_messages])
async def test_a_request_may_not_turn_on_what_its_policy_has_off(house: House, dialect: ModuleType) -> None:
    house.apply(0)
    asked = {"dialect": dialect, "max_tokens": 5, "cache": {"enabled": True, "ttl_s": 60}}
    answers = [await house.ask(**asked), await house.ask(**asked)]
    assert [answer.status for answer in answers] == [200, 200]
    assert cache_of(*answers) == [b"off", b"off"]
    assert b"cache" not in (Vendor.calls[0].body or b"")


@pytest.mark.parametrize("how", [{"cache": {"enabled": False}}, (b"cache-control", b"no-store"), {"cache": {"ttl_s": 0}}])
async def test_a_request_may_stay_out(house: House, how: Any) -> None:
    await house.ask()
    outside = await (house.ask(**how) if isinstance(how, dict) else house.ask("mine", how))
    assert cache_of(outside, await house.ask()) == [b"off", b"hit"]
    assert len(Vendor.calls) == 2
    house.clock.advance(60)
    assert cache_of(await (house.ask(**how) if isinstance(how, dict) else house.ask("mine", how)), await house.ask()) == [b"off", b"miss"]


async def test_no_cache_asks_anew_and_its_answer_takes_the_place_of_the_old(house: House) -> None:
    await house.ask()
    house.clock.advance(30)
    assert cache_of(await house.ask("mine", (b"cache-control", b"no-cache"))) == [b"miss"]
    house.clock.advance(40)
    assert cache_of(await house.ask()) == [b"hit"]


@pytest.mark.parametrize("how", [{"cache": {"ttl_s": 30}}, (b"cache-control", b"max-age=30")])
async def test_a_request_may_want_it_younger_and_never_older(house: House, how: Any) -> None:
    async def ask() -> Client:
        return await (house.ask(**how) if isinstance(how, dict) else house.ask("mine", how))

    await house.ask()
    house.clock.advance(29)
    assert cache_of(await ask()) == [b"hit"]
    house.clock.advance(1)
    assert cache_of(await ask()) == [b"miss"]
    house.clock.advance(31)
    assert cache_of(await house.ask(cache={"ttl_s": 600})) == [b"miss"], "what it kept, it kept for as long as it said"


@pytest.mark.parametrize("wish", [True, "off", {"ttl_s": -1}, {"ttl_s": "60"}, {"enabled": 0}, {"ttl": 60}])
async def test_a_wish_that_is_none_is_refused_by_name(house: House, wish: Any) -> None:
    answer = await house.ask(cache=wish)
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert answer.error["param"].startswith("cache")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_cut_short_is_not_the_answer(house: House, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    monkeypatch.setattr("providers.adapters.echo._Reply.finish_reason", "length")
    assert cache_of(await house.ask(stream=stream), await house.ask(stream=stream)) == [b"miss", b"miss"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_too_long_is_not_kept(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    house = House(monkeypatch, max_entry_bytes=100)
    answers = [await house.ask(stream=stream) for _ in range(2)]
    assert cache_of(*answers) == [b"miss", b"miss"]
    assert answers[0].body == answers[1].body


async def test_what_stands_in_for_models_that_failed_is_not_kept(house: House) -> None:
    house.apply(route=RouteSpec("m", ("m",), fixed_answer="sorry"))
    house.pipeline.max_retries = 0
    Vendor.failure = ProviderFault("down")
    degraded = await house.ask()
    assert (degraded.headers[b"x-llm-degraded"], *cache_of(degraded)) == (b"1", b"miss")
    assert cache_of(await house.ask(), await house.ask()) == [b"miss", b"hit"]


async def test_no_error_is_kept(house: House) -> None:
    house.pipeline.max_retries = 0
    Vendor.failure = ProviderFault("down")
    assert (await house.ask()).status == 502
    assert cache_of(await house.ask(), await house.ask()) == [b"miss", b"hit"]


# Who may have it ----------------------------------------------------------------------------------------------------------
