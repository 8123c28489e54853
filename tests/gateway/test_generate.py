"""POST /api/generate: the shape that the contract promises, and the model that is chosen where none is named."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from core.conversation import Message, Reasoning, Text
from core.errors import InvalidRequest, ProviderFault
from core.events import Begun, Ended, ReasoningDelta, RefusalDelta, Result, TextDelta
from core.usage import Usage
from gateway.doors import generate
from gateway.doors.generate import GenerateDoor
from gateway.doors.http import Gateway
from monitoring.journal import RequestEnded
from tests.gateway.scripted import ANSWER, PEPPER, Bench, ScriptedAdapter
from tests.gateway.test_door import Client


def parse(**body: Any) -> Any:
    return generate.parse(json.dumps({"prompt": "hi", **body}).encode())


def test_what_we_read() -> None:
    request = parse(model="m", max_tokens=9, temperature=0.5, stream=True)
    assert (request.model, request.stream, request.max_output_tokens) == ("m", True, 9)
    assert (request.dialect.NAME, request.dialect.SCOPE) == ("generate", "chat")
    found = generate.conversation(request.fields)
    assert (found.messages, found.max_output_tokens, found.temperature) == ([Message("user", [Text("hi")])], 9, 0.5)
    assert parse().model == parse(model=None).model == ""


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["hi"]}, "prompt"),
        ({"model": ""}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": 1}, "stream"),
        ({"top_p": 1}, "top_p"),
        ({"messages": []}, "messages"),
    ],
)
def test_wrong_and_unknown_fields_are_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**body)
    assert refused.value.param == param


def test_the_operators_defaults_where_the_body_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    door = GenerateDoor(bench.door._gateway, max_tokens=7, temperature=0.25)
    plain = door.read(b'{"prompt": "hi", "model": "m"}', {}, None, None)  # type: ignore[arg-type]
    found = generate.conversation(plain.fields)
    assert (plain.max_output_tokens, found.max_output_tokens, found.temperature) == (7, 7, 0.25)
    asked = door.read(b'{"prompt": "hi", "model": "m", "max_tokens": 3, "temperature": 0}', {}, None, None)  # type: ignore[arg-type]
    found = generate.conversation(asked.fields)
    assert (asked.max_output_tokens, found.max_output_tokens, found.temperature) == (3, 3, 0)


def test_a_whole_answer() -> None:
    request = parse(model="m")
    request.served_by = "main"
    result = Result(
        [Reasoning("hm"), Text("hello "), Text("é")], Ended("length"), model="vendor-m", usage=Usage(input=3, output=4, reasoning=1)
    )
    assert json.loads(generate.whole(request, result)) == {
        "text": "hello é",
        "model": "vendor-m",
        "provider": "main",
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        "finish_reason": "length",
    }
    bare = json.loads(generate.whole(request, Result([], Ended("stop"), refusal="no")))
    assert (bare["text"], bare["model"], bare["usage"]) == ("no", "m", None)


def test_a_stream_is_spelled_as_the_contract_spells_it() -> None:
    writer = generate.stream_writer(parse(stream=True))
    said = [ReasoningDelta("hm"), TextDelta('a"é'), TextDelta(""), RefusalDelta("no")]
    body = writer.begin(Begun()) + b"".join(map(writer.write, said)) + writer.end(Ended("stop"), None) + writer.tail()
    assert body.decode() == (
        'data: {"delta": "a\\"é"}\n\ndata: {"delta": "no"}\n\ndata: {"delta": "", "finish_reason": "stop"}\n\ndata: [DONE]\n\n'
    )


def door(bench: Bench) -> GenerateDoor:
    return GenerateDoor(Gateway(pepper=PEPPER, max_body_bytes=1000, body_timeout_s=1, pipeline=bench.pipeline))


async def ask(bench: Bench, **body: Any) -> Client:
    client = Client(msgspec.json.encode({"prompt": "hi", **body}))
    await door(bench)(client.scope, client.receive, client.send)
    return client


@pytest.mark.parametrize("body", [{}, {"model": "m"}])
async def test_the_model_may_be_left_out(monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]) -> None:
    bench = Bench(monkeypatch)
    bench.scripts["a"] = [ANSWER]
    await ask(bench, **body)
    (ended,) = bench.sink.of(RequestEnded)
    assert (ended.status_code, ended.alias, ended.dialect, ended.provider_name) == (200, "m", "generate", "a")


async def test_the_model_that_is_named_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    client = await ask(Bench(monkeypatch), model="another")
    assert client.sent[0]["status"] == 404


async def test_a_key_that_may_call_nothing_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, models=frozenset({"elsewhere"}))
    client = await ask(bench)
    assert client.sent[0]["status"] == 400
    assert json.loads(client.sent[1]["body"])["error"]["param"] == "model"
    (ended,) = bench.sink.of(RequestEnded)
    assert (ended.status_code, ended.error_code) == (400, "invalid_request")


async def test_the_provider_that_answered_is_known_to_the_dialect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after another one failed."""
    bench = Bench(monkeypatch)
    bench.scripts["a"], bench.scripts["b"] = [ProviderFault("down")], [ANSWER]
    told: list[str] = []
    read_answer = ScriptedAdapter.read_answer

    def listening(self: ScriptedAdapter, body: bytes, request: Any) -> Any:
        told.append(request.served_by)
        return read_answer(self, body, request)

    monkeypatch.setattr(ScriptedAdapter, "read_answer", listening)
    await ask(bench)
    assert told == ["b"]
