"""The official `openai` client, unmodified, on the endpoints beside chat: responses, embeddings, completions, Azure's URLs.

Echo has chat alone, so what it answers elsewhere is translated; the recorded vendors' own endpoints pass through.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai.types import Completion
from openai.types.responses import Response

from tests.e2e import wire
from tests.e2e.control import ECHO, Control, unique

pytestmark = pytest.mark.process

Recorded = Callable[[str], dict[str, Any]]
RECORDED = {
    "openai-responses-66a899": "chat",
    "azure-responses-bfd142": "chat",
    "openai-completions-6f1434": "chat",
    "openai-embeddings-5f9822": "embedding",
    "azure-embeddings-7af96f": "embedding",
    "openai-error-404-8c6458": "embedding",
}
TOOLS: Any = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}]


@pytest.fixture(scope="module")
def client(control: Control) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{control.base_url}/v1", api_key=control.key, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def azure(control: Control) -> Iterator[openai.AzureOpenAI]:
    with openai.AzureOpenAI(
        azure_endpoint=control.base_url, api_key=control.key, api_version="2024-10-21", max_retries=0, timeout=20
    ) as client:
        yield client


@pytest.fixture(scope="module")
def aliases(control: Control, replay_url: str, recorded: Recorded) -> dict[str, str]:
    """A vendor of its own for each recorded exchange."""
    found = {}
    for id_, model_type in RECORDED.items():
        provider = control.provider(f"{replay_url}/{id_}/v1", kind="openai", name=unique(id_), api_key="sk-recorded-0123456789")
        found[id_] = control.model(provider, recorded(id_)["model"], alias=unique(id_), model_type=model_type)["alias"]
    control.apply()
    return found


def body_of(exchange: dict[str, Any]) -> Any:
    return exchange["response"]["body"]


# Responses ----------------------------------------------------------------------------------------------------------


def test_a_response_of_a_model_that_has_chat_alone(client: openai.OpenAI, control: Control) -> None:
    raw = client.responses.with_raw_response.create(model=ECHO, input="Say hello.", instructions="Be brief.", store=False)
    answer = raw.parse()
    Response.model_validate(json.loads(raw.content))
    assert (answer.output_text, answer.status, answer.object, answer.instructions) == (
        "echo: Say hello.",
        "completed",
        "response",
        "Be brief.",
    )
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (4, 3, 7)
    (record,) = control.records(raw.headers["x-request-id"])
    assert (record["usage_source"], record["input_tokens"], record["output_tokens"]) == ("vendor", 4, 3)
    assert control.request(raw.headers["x-request-id"])["dialect"] == "responses"


def test_a_streamed_response(client: openai.OpenAI) -> None:
    with client.responses.create(model=ECHO, input=[{"role": "user", "content": "Say hello."}], stream=True) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "echo: Say hello."
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert events[-1].response.output_text == "echo: Say hello."
    assert events[-1].response.usage.total_tokens > 0


def test_the_clients_own_gathering_of_a_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model=ECHO, input="please call tool", tools=TOOLS) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    (call,) = [item for item in final.output if item.type == "function_call"]
    assert (call.name, call.arguments, call.status) == ("weather", "{}", "completed")


def test_a_second_turn_with_a_tools_answer(client: openai.OpenAI) -> None:
    history: list[Any] = [{"role": "user", "content": "please call tool"}]
    first = client.responses.create(model=ECHO, input=history, tools=TOOLS)
    (call,) = first.output
    assert call.type == "function_call"
    history += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    history.append({"role": "user", "content": "thanks"})
    assert client.responses.create(model=ECHO, input=history, tools=TOOLS).output_text == "echo: thanks"


def test_what_an_agent_offers_beside_its_functions_is_left_out_with_a_report(client: openai.OpenAI) -> None:
    tools: Any = [*TOOLS, {"type": "web_search"}]
    raw = client.responses.with_raw_response.create(model=ECHO, input="hi", tools=tools, store=False, prompt_cache_key="k")
    assert raw.headers["x-llm-dropped-params"] == "prompt_cache_key, tools.web_search"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=ECHO, input="hi", tools=[{"type": "web_search"}])
    assert caught.value.param == "tools"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=ECHO, input="hi", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"


def test_a_recorded_response_passes_as_it_was(client: openai.OpenAI, aliases: dict[str, str], recorded: Recorded, control: Control) -> None:
    id_ = "openai-responses-66a899"
    raw = client.responses.with_raw_response.create(model=aliases[id_], input="Reply with exactly: pong")
    assert json.loads(raw.content) == body_of(recorded(id_))
    assert raw.parse().output_text == "pong"
    (record,) = control.records(raw.headers["x-request-id"])
    assert (record["usage_source"], record["input_tokens"], record["output_tokens"], record["finish_reason"]) == ("vendor", 11, 5, "stop")


def test_a_recorded_stream_of_a_response_passes_as_it_was(control: Control, aliases: dict[str, str], recorded: Recorded) -> None:
    id_ = "azure-responses-bfd142"
    body = {"model": aliases[id_], "input": "What is 1 + 1?", "stream": True}
    answer = wire.call(control.base_url, "POST", "/v1/responses", key=control.key, body=body)
    assert answer.body.decode().strip() == "\n".join(recorded(id_)["response"]["lines"]).strip()
    (record,) = control.records(answer.request_id)
    assert (record["usage_source"], record["status"], record["finish_reason"]) == ("vendor", "ok", "stop")
    assert record["reasoning_tokens"] > 0


def test_a_broken_stream_raises_in_the_client(client: openai.OpenAI, control: Control, replay_url: str, recorded: Recorded) -> None:
    id_ = "azure-responses-bfd142"
    provider = control.provider(f"{replay_url}/{id_};cut=8/v1", kind="openai", name=unique("cut"), api_key="sk-recorded-0123456789")
    alias = control.model(provider, recorded(id_)["model"], alias=unique("cut"))["alias"]
    control.apply()
    seen: list[str] = []

    def listen() -> None:
        with client.responses.create(model=alias, input="What is 1 + 1?", stream=True) as stream:
            seen.extend(event.type for event in stream)

    with pytest.raises(openai.APIError) as caught:
        listen()
    assert caught.value.code in ("upstream_invalid_response", "upstream_unreachable")
    assert seen[0] == "response.created"
    assert seen[-1] == "response.failed"


# Embeddings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings(client: openai.OpenAI, aliases: dict[str, str], recorded: Recorded, encoding: Any) -> None:
    """The client asks for base64 where it is told nothing, and unpacks it; this vendor answered in plain numbers."""
    id_ = "openai-embeddings-5f9822"
    more = {"encoding_format": encoding} if encoding else {}
    raw = client.embeddings.with_raw_response.create(model=aliases[id_], input="Ruby is a programmer's best friend", dimensions=768, **more)
    given, said = json.loads(raw.content)["data"][0]["embedding"], body_of(recorded(id_))["data"][0]["embedding"]
    if encoding == "float":
        assert given == said
    else:
        assert struct.unpack(f"<{len(said)}f", base64.b64decode(given)) == pytest.approx(said)
    if encoding != "base64":
        assert raw.parse().data[0].embedding == pytest.approx(said)


def test_embeddings_under_azures_url(azure: openai.AzureOpenAI, aliases: dict[str, str], recorded: Recorded, control: Control) -> None:
    id_ = "azure-embeddings-7af96f"
    raw = azure.embeddings.with_raw_response.create(model=aliases[id_], input="Tell me a joke about opentelemetry")
    answer = raw.parse()
    packed = base64.b64decode(body_of(recorded(id_))["data"][0]["embedding"])
    assert answer.data[0].embedding == pytest.approx(struct.unpack(f"<{len(packed) // 4}f", packed))
    (record,) = control.records(raw.headers["x-request-id"])
    assert (record["usage_source"], record["input_tokens"], record["output_tokens"]) == ("vendor", answer.usage.prompt_tokens, 0)


def test_an_embedding_model_that_the_vendor_does_not_know(client: openai.OpenAI, aliases: dict[str, str]) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.embeddings.create(model=aliases["openai-error-404-8c6458"], input="x")
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_model_not_found")


def test_chat_models_do_not_embed(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=ECHO, input="x")
    assert caught.value.param == "model"


def test_embeddings_want_their_own_scope(control: Control, aliases: dict[str, str]) -> None:
    key = control.new_key(scopes=["chat", "models"])
    control.apply()
    body = {"model": aliases["openai-embeddings-5f9822"], "input": "x"}
    assert wire.call(control.base_url, "POST", "/v1/embeddings", key=key["key"], body=body).status == 403


# Completions --------------------------------------------------------------------------------------------------------


def test_a_recorded_completion_passes_as_it_was(client: openai.OpenAI, aliases: dict[str, str], recorded: Recorded) -> None:
    id_ = "openai-completions-6f1434"
    raw = client.completions.with_raw_response.create(model=aliases[id_], prompt="Who won?", max_tokens=1000)
    assert json.loads(raw.content) == body_of(recorded(id_))
    assert "France" in raw.parse().choices[0].text


def test_a_completion_of_a_chat_model(client: openai.OpenAI) -> None:
    raw = client.completions.with_raw_response.create(model=ECHO, prompt="Once upon a time", max_tokens=9)
    answer = Completion.model_validate(json.loads(raw.content))
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("echo: Once upon a time", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 5)
    with client.completions.create(model=ECHO, prompt="Once upon a time", stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == answer.choices[0].text
    assert chunks[-1].usage == answer.usage
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=ECHO, prompt=["one", "two"])
    assert caught.value.param == "prompt"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=ECHO, prompt="one", echo=True)
    assert caught.value.param == "echo"


# Azure's URLs -------------------------------------------------------------------------------------------------------


def test_chat_under_azures_url(azure: openai.AzureOpenAI) -> None:
    hello: Any = [{"role": "user", "content": "Say hello."}]
    answer = azure.chat.completions.create(model=ECHO, messages=hello)
    assert answer.choices[0].message.content == "echo: Say hello."
    with azure.chat.completions.create(model=ECHO, messages=hello, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "echo: Say hello."
    with pytest.raises(openai.NotFoundError) as caught:
        azure.chat.completions.create(model="gone", messages=hello)
    assert caught.value.code == "model_not_found"
    assert azure.responses.create(model=ECHO, input="Say hello.").output_text == "echo: Say hello."
    assert ECHO in {model.id for model in azure.models.list()}


def test_the_v1_of_azure(control: Control) -> None:
    with openai.OpenAI(base_url=f"{control.base_url}/openai/v1/", api_key=control.key, max_retries=0, timeout=20) as client:
        hello: Any = [{"role": "user", "content": "hi"}]
        assert client.chat.completions.create(model=ECHO, messages=hello).choices[0].message.content == "echo: hi"
        assert client.responses.create(model=ECHO, input="hi").output_text == "echo: hi"
        assert client.completions.create(model=ECHO, prompt="hi").choices[0].text == "echo: hi"
        assert ECHO in {model.id for model in client.models.list()}
        with pytest.raises(openai.NotFoundError):
            client.audio.speech.create(model=ECHO, input="hi", voice="alloy")


def test_a_deployment_needs_no_model_in_the_body(control: Control) -> None:
    path = f"/openai/deployments/{ECHO}/chat/completions?api-version=2024-10-21"
    body = {"messages": [{"role": "user", "content": "hi"}]}
    answer = wire.call(control.base_url, "POST", path, body=body, headers={"api-key": control.key})
    assert answer.json["choices"][0]["message"]["content"] == "echo: hi"


# /api/generate ------------------------------------------------------------------------------------------------------


def test_generate(control: Control) -> None:
    answer = wire.call(
        control.base_url, "POST", "/api/generate", key=control.key, body={"prompt": "Say hello.", "model": ECHO, "max_tokens": 9}
    )
    assert answer.json == {
        "text": "echo: Say hello.",
        "model": "echo-1",
        "provider": answer.headers["x-llm-provider"],
        "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
        "finish_reason": "stop",
    }
    assert answer.json["provider"]


def test_generate_streamed(control: Control) -> None:
    body = {"prompt": "Say hello.", "model": ECHO, "stream": True}
    answer = wire.call(control.base_url, "POST", "/api/generate", key=control.key, body=body)
    assert answer.body.decode() == (
        'data: {"delta": "echo:"}\n\ndata: {"delta": " Say"}\n\ndata: {"delta": " hello."}\n\n'
        'data: {"delta": "", "finish_reason": "stop"}\n\ndata: [DONE]\n\n'
    )


def test_generate_chooses_a_model_where_none_is_named(control: Control) -> None:
    key = control.new_key(models=[ECHO])
    control.apply()
    answer = wire.call(control.base_url, "POST", "/api/generate", key=key["key"], body={"prompt": "hi"})
    assert (answer.status, answer.json["text"], answer.headers["x-llm-alias"]) == (200, "echo: hi", ECHO)
    answer = wire.call(control.base_url, "POST", "/api/generate", key=key["key"], body={"prompt": "hi", "system": "x"})
    assert (answer.status, answer.json["error"]["param"]) == (400, "system")
