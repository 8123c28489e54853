"""Models from Python: what HTTP callers have, without HTTP."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, Literal

import msgspec
import pytest

from core.chat import Answer, Usage
from core.conversation import Text, ToolUse
from core.errors import InvalidRequest, NotAuthenticated, ProviderNonsense, ProviderTimeout, UnknownModel
from core.events import Begun, Ended, RefusalDelta, Result, TextDelta
from gateway import client
from gateway.client import Llm, Reply, get_llm, llm_function
from gateway.doors.http import Gateway
from gateway.functions import unfenced
from monitoring.journal import AttemptSettled, RequestEnded
from tests.gateway.scripted import KEY, PEPPER, USAGE, Bench, Stream


def answer(text: str, *, tool: bool = False) -> Answer:
    parts: list[Any] = [Text(text), *([ToolUse("call_1", "look", "{}")] if tool else [])]
    result = Result(parts, Ended("stop"), model="vendor-a", usage=USAGE)
    return Answer(body=msgspec.json.encode(result), usage=USAGE, finish_reason="stop", output_bytes=len(text))


async def llm_of(bench: Bench, model: str = "m", key: str = KEY) -> Llm:
    gateway = Gateway(pepper=PEPPER, max_body_bytes=1000, body_timeout_s=1, pipeline=bench.pipeline)
    return await get_llm(model, api_key=key, gateway=gateway)


async def test_a_whole_answer_is_metered_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.scripts["a"] = [answer("Hello", tool=True)]
    reply = await (await llm_of(bench)).chat("hi", temperature=0.1)
    (ended,) = bench.sink.of(RequestEnded)
    assert (reply.text, str(reply), reply.finish_reason, reply.model, reply.provider) == ("Hello", "Hello", "stop", "vendor-a", "a")
    assert (reply.usage, reply.tool_calls, reply.request_id) == (USAGE, (ToolUse("call_1", "look", "{}"),), ended.request_id)
    assert (ended.status_code, ended.dialect, ended.alias) == (200, "python", "m")
    (settled,) = bench.sink.of(AttemptSettled)
    assert settled.cost_micros == 20
    assert bench.settled_in_full()


@pytest.mark.parametrize(("name", "alias"), [("m", "m"), ("a/vendor-a", "m"), ("b/m", "m")])
async def test_models_go_by_alias_or_by_provider(monkeypatch: pytest.MonkeyPatch, name: str, alias: str) -> None:
    assert (await llm_of(Bench(monkeypatch), name)).alias == alias


async def test_of_several_aliases_the_one_that_asks_the_provider_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    models = {"m": (bench.model("a"), bench.model("b")), "other": (bench.model("b"),)}
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, version=8, models=models))
    assert (await llm_of(bench, "b/vendor-b")).alias == "other"


async def test_what_cannot_be_had_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    with pytest.raises(NotAuthenticated):
        await llm_of(bench, key="sk-llmc-wrong")
    with pytest.raises(UnknownModel, match=r"'gpt'.*'nobody'"):
        await llm_of(bench, "nobody/gpt")
    with pytest.raises(UnknownModel):
        await (await llm_of(bench, "gpt")).chat("hi")
    with pytest.raises(InvalidRequest, match="JSON"):
        await (await llm_of(bench)).chat([{"role": "user", "content": object()}])
    with pytest.raises(InvalidRequest) as refused:
        await (await llm_of(bench)).chat("hi", temperature=9)
    assert refused.value.param == "temperature"


async def test_a_stream_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.scripts["a"] = [Stream(b"Hel", "lo é".encode())]
    assert [text async for text in (await llm_of(bench)).chat_stream("hi")] == ["Hel", "lo é"]
    (ended,) = bench.sink.of(RequestEnded)
    assert (ended.status_code, ended.streamed) == (200, True)
    assert bench.settled_in_full()


async def test_who_stops_reading_pays_for_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.scripts["a"] = [Stream(b"one", b"two", b"three")]
    async with aclosing((await llm_of(bench)).chat_stream("hi")) as texts:
        assert await anext(texts) == "one"
    (settled,) = bench.sink.of(AttemptSettled)
    (ended,) = bench.sink.of(RequestEnded)
    assert ended.status_code == 499
    assert settled.cost_micros > 0
    assert bench.settled_in_full()


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_time_given_is_the_time_taken(monkeypatch: pytest.MonkeyPatch, streamed: bool) -> None:
    bench = Bench(monkeypatch)

    async def never() -> Any:
        await asyncio.Event().wait()

    bench.scripts["a"] = [never]
    llm = await llm_of(bench)
    asked = anext(llm.chat_stream("hi", timeout=0.01)) if streamed else llm.chat("hi", timeout=0.01)
    with pytest.raises(ProviderTimeout, match=r"0\.01 s"):
        await asked
    (ended,) = bench.sink.of(RequestEnded)
    assert ended.status_code == 499  # no fault of the vendor
    assert bench.settled_in_full()


def test_the_dialect_says_text_alone() -> None:
    writer = client._Text()
    assert writer.write(TextDelta("é")) == "é".encode()
    assert writer.begin(Begun()) + writer.write(RefusalDelta("no")) + writer.end(Ended("stop"), Usage()) + writer.tail() == b""


# Functions ----------------------------------------------------------------------------------------------------------


class Model:
    """Says what it is told to, and keeps what it was asked."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.asked: list[Any] = []

    async def chat(self, messages: Any, **options: Any) -> Reply:
        self.asked.append((messages, options))
        return Reply(self.texts.pop(0), "stop", "m", "p", "req_1")


class City(msgspec.Struct):
    name: str
    people: int


async def test_a_function_is_answered_in_its_return_type() -> None:
    model = Model('```json\n{"name": "Rome", "people": 3}\n```')

    @llm_function(llm=model, temperature=0)
    async def largest(country: str, *, year: int = 2026) -> City:
        """The largest city of a country."""
        raise AssertionError("the body is never run")

    assert await largest("Italy") == City("Rome", 3)
    ((messages, options),) = model.asked
    assert messages[0]["content"].startswith("The largest city of a country.\n")
    assert '"people"' in messages[0]["content"]
    assert (messages[1]["content"], options) == ('{"country":"Italy","year":2026}', {"temperature": 0})
    assert largest.__name__ == "largest"


async def test_bare_values_travel_in_an_object() -> None:
    @llm_function(llm=Model('{"value": "good"}'))
    async def sentiment(text: str) -> Literal["good", "bad"]:
        """How the writer feels."""
        raise AssertionError

    assert await sentiment("wonderful") == "good"


async def test_an_answer_of_another_shape_is_shown_to_the_model_once() -> None:
    model = Model("Rome!", '{"name": "Rome", "people": 3}')

    @llm_function(llm=model)
    async def largest(country: str) -> City:
        """The largest city of a country."""
        raise AssertionError

    assert (await largest("Italy")).people == 3
    again = model.asked[1][0]
    assert again[2] == {"role": "assistant", "content": "Rome!"}
    assert "does not fit" in again[3]["content"]

    model.texts = ["Rome!", '{"name": "Rome", "people": "many"}']
    with pytest.raises(ProviderNonsense, match="people"):
        await largest("Italy")


def test_a_function_says_what_it_lacks() -> None:
    async def bare(text: str) -> str:
        raise AssertionError

    async def untyped(text):  # type: ignore[no-untyped-def]
        """A task."""

    async def odd(text: str) -> asyncio.Event:
        """A task."""
        raise AssertionError

    for function in (bare, untyped):
        with pytest.raises(TypeError, match="docstring"):
            llm_function(llm=Model())(function)
    with pytest.raises(TypeError, match="JSON"):
        llm_function(llm=Model())(odd)


FENCED = [(' {"a": 1} ', '{"a": 1}'), ("```\n[1]\n```", "[1]"), ("```json", "```json"), ("``````", "``````")]


@pytest.mark.parametrize(("text", "inner"), FENCED)
def test_marks_of_code_blocks_are_taken_off(text: str, inner: str) -> None:
    assert unfenced(text) == inner
