"""`prompt` in a body: the template's messages take its place at every door that generates text."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from channels.testing import WebsocketCommunicator

from core.chat import ChatRequest, WireCall
from core.config import ModelSpec
from core.prompts import PromptSpec
from core.secrets import Secret
from gateway.client import get_llm
from gateway.doors import anthropic_messages, openai_chat
from gateway.doors.anthropic_count import MessagesCountDoor
from gateway.doors.azure import AzureDoor
from gateway.doors.generate import GenerateDoor
from gateway.doors.http import Gateway, GenerationDoor
from gateway.doors.ws import GenerateConsumer
from models_registry.prompts import read_template, read_version
from monitoring.journal import AttemptOpened, RequestEnded
from tests.gateway.scripted import ANSWER, KEY, PEPPER, Bench, ScriptedAdapter, Stream
from tests.gateway.test_client import answer
from tests.gateway.test_door import AUTH, Client

LIMIT = 20_000
SUPPORT = [
    {"role": "system", "content": "Be brief, {{name}}."},
    {"history": "history"},
    {"role": "user", "content": "{{question}}"},
]
DECLARED = [
    {"name": "name", "required": False, "default": "friend"},
    {"name": "history", "type": "history", "required": False},
    {"name": "question", "max_characters": 1000},
]
EXPECTED = [{"role": "system", "content": "Be brief, friend."}, {"role": "user", "content": "Why?"}]
VALUES = {"question": "Why?"}


def spec_of(name: str, *versions: Any, labels: dict[str, int] | None = None, variables: Any = DECLARED) -> PromptSpec:
    read = [read_version(at, messages, variables, None) for at, messages in enumerate(versions, 1)]
    return read_template(f"id-of-{name}", name, labels or {}, read)


class PromptBench(Bench):
    """`support` in three versions, of which the second is in production, and `secret`, which is closed to the caller."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **caller: Any) -> None:
        super().__init__(monkeypatch, hidden_prompts=frozenset({"id-of-secret"}), **caller)
        loud = [*SUPPORT[:2], {"role": "user", "content": "{{question}}!"}, {"role": "user", "content": "{{name}}"}]
        last = [*SUPPORT, {"role": "assistant", "content": "Well:"}]
        specs = (spec_of("support", loud, SUPPORT, last, labels={"production": 2, "staging": 3}), spec_of("secret", SUPPORT))
        prompts = {key: spec for spec in specs for key in (spec.id, spec.name)}
        self.snapshot = msgspec.structs.replace(self.snapshot, version=8, prompts=prompts)
        self.manager.apply(self.snapshot)
        self.asked: list[ChatRequest] = []
        asked = self.asked

        def chat_call(adapter: ScriptedAdapter, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
            asked.append(request)
            return WireCall(url="http://vendor", headers={})

        monkeypatch.setattr(ScriptedAdapter, "chat_call", chat_call)

    @property
    def gateway(self) -> Gateway:
        return Gateway(pepper=PEPPER, max_body_bytes=LIMIT, body_timeout_s=1, pipeline=self.pipeline)

    def messages(self) -> Any:
        return msgspec.json.decode(self.asked[-1].fields["messages"])

    def windows(self, tokens: int) -> None:
        models = tuple(msgspec.structs.replace(self.model(name), context_window=tokens) for name in "ab")
        self.manager.apply(msgspec.structs.replace(self.snapshot, version=9, models={"m": models}))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> PromptBench:
    return PromptBench(monkeypatch)


async def ask(bench: PromptBench, prompt: Any, *, door: Any = None, **body: Any) -> Client:
    bench.scripts["a"] = [ANSWER]
    raw = msgspec.json.encode({"model": "m", "prompt": prompt, **body})
    return await Client(raw, headers=(AUTH,)).call(door or GenerationDoor(bench.gateway, openai_chat))


# What is sent -------------------------------------------------------------------------------------------------------


async def test_the_templates_messages_are_sent_and_its_version_is_recorded(bench: PromptBench) -> None:
    client = await ask(bench, {"id": "support", "variables": VALUES}, temperature=0.5)
    assert client.status == 200, client.body
    assert bench.messages() == EXPECTED
    assert set(bench.asked[0].fields) == {"model", "temperature", "messages"}
    assert client.headers[b"x-llm-prompt"] == b"support@2"
    (ended,) = bench.sink.of(RequestEnded)
    assert (ended.prompt_name, ended.prompt_version, ended.status_code) == ("support", 2, 200)


@pytest.mark.parametrize(("version", "number"), [(None, 2), (1, 1), ("1", 1), ("production", 2), ("staging", 3), ("latest", 3), (3, 3)])
@pytest.mark.parametrize("name", ["support", "id-of-support"])
async def test_versions_go_by_number_and_by_label(bench: PromptBench, name: str, version: Any, number: int) -> None:
    client = await ask(bench, {"id": name, "version": version, "variables": VALUES})
    assert client.headers[b"x-llm-prompt"] == b"support@%d" % number


async def test_history_comes_where_it_belongs_and_own_messages_come_last(bench: PromptBench) -> None:
    history = [{"role": "user", "content": "{{name}}"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]
    own = [{"role": "user", "content": "And why not?", "name": "ann"}]
    await ask(bench, {"id": "support", "variables": {**VALUES, "history": history}}, messages=own)
    assert bench.messages() == [EXPECTED[0], *history, EXPECTED[1], *own]
    await ask(bench, {"id": "support", "variables": VALUES}, messages=[])
    assert bench.messages() == EXPECTED


async def test_a_body_without_a_prompt_is_what_it_was(bench: PromptBench) -> None:
    bench.scripts["a"] = [ANSWER]
    client = await Client(headers=(AUTH,)).call(bench.door)
    assert b"x-llm-prompt" not in client.headers
    (ended,) = bench.sink.of(RequestEnded)
    assert (ended.prompt_name, ended.prompt_version) == ("", 0)
    missing = await Client(b'{"model":"m"}', headers=(AUTH,)).call(bench.door)
    assert (missing.status, missing.error["param"]) == (400, "messages")
    for body in (b'{"model":"m","prompt":null}', b'{"model":"m","messages":[],"prompt":null}'):
        nothing = await Client(body, headers=(AUTH,)).call(bench.door)
        assert (nothing.status, nothing.error["param"]) == (400, "messages")


async def test_what_is_sent_counts_and_not_what_was_written(bench: PromptBench) -> None:
    question = "a" * 1000
    await ask(bench, {"id": "support", "variables": {"question": question}})
    request = bench.asked[0]
    assert abs(request.body_bytes - len(msgspec.json.encode(request.fields))) < 60
    repeated = spec_of("support", [{"role": "user", "content": "{{question}}" * 15}], variables=DECLARED[2:])
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, version=9, prompts={"support": repeated}))
    await ask(bench, {"id": "support", "variables": {"question": question}})
    assert bench.asked[-1].body_bytes > 15_000


# What does not fit --------------------------------------------------------------------------------------------------


async def test_history_is_fitted_into_the_smallest_window(bench: PromptBench) -> None:
    bench.windows(400)
    history = [{"role": role, "content": f"{at} " + "x" * 300} for at in range(6) for role in ("user", "assistant")]
    client = await ask(bench, {"id": "support", "variables": {**VALUES, "history": history}}, max_tokens=100)
    assert client.status == 200
    kept = bench.messages()
    assert kept[0] == EXPECTED[0]
    assert kept[-1] == EXPECTED[1]
    assert [message["content"][0] for message in kept[1:-1]] == ["5", "5"]
    assert client.headers[b"x-llm-dropped-params"] == b"prompt.variables.history[0..9]"
    assert bench.sink.of(RequestEnded)[0].dropped == "prompt.variables.history[0..9]"


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "status", "param"),
    [
        ("support", 400, "prompt"),
        ([], 400, "prompt"),
        ({}, 400, "prompt.id"),
        ({"id": ""}, 400, "prompt.id"),
        ({"id": 1}, 400, "prompt.id"),
        ({"id": "support", "version": 0}, 400, "prompt.version"),
        ({"id": "support", "version": 1.5}, 400, "prompt.version"),
        ({"id": "support", "variables": []}, 400, "prompt.variables"),
        ({"id": "support", "engine": "jinja"}, 400, "prompt"),
        ({"id": "support"}, 400, "prompt.variables.question"),
        ({"id": "support", "variables": {"question": 1}}, 400, "prompt.variables.question"),
        ({"id": "support", "variables": {"question": "x" * 1001}}, 400, "prompt.variables.question"),
        ({"id": "support", "variables": {**VALUES, "more": 1}}, 400, "prompt.variables.more"),
        ({"id": "nobody", "variables": VALUES}, 404, "prompt"),
        ({"id": "support", "version": 9, "variables": VALUES}, 404, "prompt"),
        ({"id": "support", "version": "canary", "variables": VALUES}, 404, "prompt"),
    ],
)
async def test_what_is_wrong_is_named(bench: PromptBench, prompt: Any, status: int, param: str) -> None:
    client = await ask(bench, prompt)
    assert (client.status, client.error["param"]) == (status, param), client.body
    assert set(client.error) == {"message", "type", "param", "code"}
    assert client.error["code"] == ("invalid_request" if status == 400 else "prompt_not_found")
    assert bench.asked == []
    assert bench.sink.of(RequestEnded)[0].status_code == status


async def test_a_closed_prompt_is_answered_as_one_that_is_not_there(bench: PromptBench) -> None:
    answers = [await ask(bench, {"id": name, "variables": {"x": 1}}) for name in ("secret", "nobody")]
    assert [client.status for client in answers] == [404, 404]
    assert answers[0].body.replace(b"secret", b"nobody") == answers[1].body


async def test_a_key_without_the_scope_learns_nothing_of_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = PromptBench(monkeypatch, scopes=frozenset({"models"}))
    assert {(await ask(bench, {"id": name})).status for name in ("support", "nobody")} == {403}


async def test_no_request_grows_beyond_what_a_body_may_be(bench: PromptBench) -> None:
    repeated = spec_of("support", [{"role": "user", "content": "{{question}}" * 21}], variables=DECLARED[2:])
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, version=9, prompts={"support": repeated}))
    assert (await ask(bench, {"id": "support", "variables": {"question": "x" * 1000}})).error["param"] == "prompt"
    assert (await ask(bench, {"id": "support", "variables": {"question": "\1" * 300}})).status == 413  # six bytes each, written as JSON


# Other doors --------------------------------------------------------------------------------------------------------


async def test_generate_takes_a_template_in_place_of_a_text(bench: PromptBench) -> None:
    client = await ask(bench, {"id": "support", "variables": VALUES}, door=GenerateDoor(bench.gateway))
    assert client.status == 200, client.body
    conversation = bench.asked[0].conversation()
    assert [(message.role, message.parts[0].text) for message in conversation.messages] == [  # type: ignore[union-attr]
        ("system", "Be brief, friend."),
        ("user", "Why?"),
    ]
    assert bench.sink.of(RequestEnded)[0].prompt_version == 2


async def test_azures_clients_too(bench: PromptBench) -> None:
    door = AzureDoor(bench.gateway, openai_chat)
    bench.scripts["a"] = [ANSWER]
    client = Client(msgspec.json.encode({"prompt": {"id": "support", "variables": VALUES}}), headers=(AUTH,))
    client.scope["url_route"] = {"kwargs": {"alias": "m"}}
    assert (await client.call(door)).status == 200
    assert bench.messages() == EXPECTED


@pytest.mark.parametrize("system", [None, "Own.", [{"type": "text", "text": "Own.", "cache_control": {"type": "ephemeral"}}]])
async def test_anthropics_clients_get_the_system_apart(bench: PromptBench, system: Any) -> None:
    more = {} if system is None else {"system": system}
    door = GenerationDoor(bench.gateway, anthropic_messages)
    client = await ask(bench, {"id": "support", "variables": VALUES}, door=door, max_tokens=5, **more)
    assert client.status == 200, client.body
    assert bench.messages() == EXPECTED[1:]
    own = [{"type": "text", "text": "Own."}] if isinstance(system, str) else system or []
    assert msgspec.json.decode(bench.asked[0].fields["system"]) == [{"type": "text", "text": "Be brief, friend."}, *own]
    assert bench.asked[0].conversation().messages[0].role == "system"
    unknown = await ask(bench, {"id": "nobody"}, door=door, max_tokens=5)
    assert (unknown.status, json.loads(unknown.body)["error"]["type"]) == (404, "not_found_error")


async def test_a_template_can_be_counted(bench: PromptBench) -> None:
    body = msgspec.json.encode({"model": "m", "prompt": {"id": "support", "variables": VALUES}})
    client = Client(body, headers=(AUTH,))
    await MessagesCountDoor(bench.gateway)(client.scope, client.receive, client.send)
    assert client.status == 200, client.body
    assert json.loads(client.body)["input_tokens"] > 5


async def test_models_from_python(bench: PromptBench) -> None:
    bench.scripts["a"] = [answer("Because.")]
    llm = await get_llm("m", api_key=KEY, gateway=bench.gateway)
    assert (await llm.chat(prompt={"id": "support", "variables": VALUES})).text == "Because."
    assert bench.messages() == EXPECTED
    bench.scripts["a"] = [Stream(b"Be", b"cause.")]
    stream = llm.chat_stream([{"role": "user", "content": "More."}], prompt={"id": "support", "version": 3, "variables": VALUES})
    assert [text async for text in stream] == ["Be", "cause."]
    assert bench.messages()[-1] == {"role": "user", "content": "More."}
    assert [ended.prompt_version for ended in bench.sink.of(RequestEnded)] == [2, 3]
    assert len(bench.sink.of(AttemptOpened)) == 2


async def test_sockets(bench: PromptBench) -> None:
    bench.scripts["a"] = [Stream(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n')]
    socket = WebsocketCommunicator(GenerateConsumer.as_asgi(gateway=bench.gateway), "/ws/generate", headers=[AUTH])
    async with asyncio.timeout(60):
        assert (await socket.connect())[0]
        frames = []
        for name in ("nobody", "support"):
            request = {"model": "m", "prompt": {"id": name, "variables": VALUES}}
            await socket.send_json_to({"type": "generate", "id": name, "request": request})
            frames.append(await socket.receive_json_from(30))
        await socket.disconnect()
    assert (frames[0]["type"], frames[0]["error"]["code"]) == ("error", "prompt_not_found")
    assert (frames[1]["type"], frames[1]["text"]) == ("delta", "Hi")
    assert bench.messages() == EXPECTED
