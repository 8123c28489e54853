"""The official `openai` client, unmodified, against a live gateway: whatever it can read and raise, it reads and raises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.e2e import wire
from tests.e2e.control import ECHO, Control, unique
from tests.e2e.schema import Schema
from tests.e2e.vendor import Vendor

pytestmark = pytest.mark.process

HELLO: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello to the world."}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city. Ünïcödé 天气.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
            "strict": True,
        },
    }
]


@pytest.fixture(scope="module")
def client(control: Control) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{control.base_url}/v1", api_key=control.key, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def vendor_alias(control: Control, vendor: Vendor) -> str:
    """The fault vendor at its best behaviour."""
    alias = control.model(control.provider(vendor.base_url), "ok@tokens=6")["alias"]
    control.apply()
    return alias


@pytest.fixture(params=["echo", "vendor"])
def alias(request: pytest.FixtureRequest, vendor_alias: str) -> str:
    return ECHO if request.param == "echo" else vendor_alias


def test_chat(client: openai.OpenAI, alias: str, schema: Schema) -> None:
    raw = client.chat.completions.with_raw_response.create(model=alias, messages=HELLO)
    schema.check("CreateChatCompletionResponse", json.loads(raw.content))
    answer = raw.parse()
    assert isinstance(answer, ChatCompletion)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id == raw.headers["x-request-id"]
    assert raw.headers["x-llm-alias"] == alias
    assert raw.headers["x-llm-attempts"] == "1"


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI, alias: str, schema: Schema) -> None:
    whole = client.chat.completions.create(model=alias, messages=HELLO)
    with client.chat.completions.create(model=alias, messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    for chunk in chunks:
        assert isinstance(chunk, ChatCompletionChunk)
        assert chunk.choices, "a usage chunk that nobody asked for"
        assert chunk.usage is None
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert len({(chunk.id, chunk.model, chunk.created) for chunk in chunks}) == 1


@pytest.mark.parametrize("asked", [True, False, None])
def test_the_chunks_on_the_wire(control: Control, alias: str, asked: bool | None, schema: Schema) -> None:
    """Asked for, usage comes exactly once: last, with no choices. Not asked for, it does not come at all."""
    options = {} if asked is None else {"stream_options": {"include_usage": asked}}
    answer = wire.chat(control.base_url, control.key, alias, stream=True, **options)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *data, end = answer.events
    assert end == "[DONE]"
    chunks = [json.loads(item) for item in data]
    for chunk in chunks:
        schema.check("CreateChatCompletionStreamResponse", chunk)
    with_usage = [chunk for chunk in chunks if chunk.get("usage")]
    without_choices = [chunk for chunk in chunks if not chunk["choices"]]
    assert with_usage == without_choices == ([chunks[-1]] if asked else [])
    assert len(chunks) > 2


def test_usage_in_a_stream_equals_usage_of_the_whole(client: openai.OpenAI, alias: str) -> None:
    whole = client.chat.completions.create(model=alias, messages=HELLO)
    with client.chat.completions.create(model=alias, messages=HELLO, stream=True, stream_options={"include_usage": True}) as stream:
        *_, last = stream
    assert last.choices == []
    assert whole.usage is not None
    assert last.usage is not None
    counted = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [getattr(last.usage, name) for name in counted] == [getattr(whole.usage, name) for name in counted]


def test_the_stream_helper_accumulates_an_answer(client: openai.OpenAI, alias: str) -> None:
    with client.chat.completions.stream(model=alias, messages=HELLO, stream_options={"include_usage": True}) as stream:
        seen = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert final.choices[0].message.content == seen
    assert seen
    assert final.usage is not None


async def test_the_async_client(control: Control, alias: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{control.base_url}/v1", api_key=control.key, max_retries=0) as client:

        async def whole() -> str:
            return (await client.chat.completions.create(model=alias, messages=HELLO)).choices[0].message.content or ""

        async def streamed() -> str:
            async with await client.chat.completions.create(model=alias, messages=HELLO, stream=True) as stream:
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        said = await asyncio.gather(*(whole() for _ in range(5)), *(streamed() for _ in range(5)))
        assert len(set(said)) == 1
        assert said[0]
        assert alias in [model.id async for model in client.models.list()]
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="no-such-model", messages=HELLO)


def recorded_alias(control: Control, replay_url: str, exchange: str) -> str:
    """A recorded vendor, which keeps the bodies it was sent."""
    alias = control.model(control.provider(f"{replay_url}/{exchange}/v1"), "vendors-own-name")["alias"]
    control.apply()
    return alias


def sent_to_vendor(replay_url: str, mark: str) -> dict[str, Any]:
    bodies = [request["body"] for request in wire.call(replay_url, "GET", "/__requests").json]
    (body,) = [body for body in bodies if isinstance(body, dict) and body.get("safety_identifier") == mark]
    return body


def test_what_the_client_sent_is_what_the_vendor_gets(client: openai.OpenAI, control: Control, replay_url: str) -> None:
    """But for the model's name. Fields that we do not know are kept too, numbers as they were written."""
    mark, alias = unique("mark"), recorded_alias(control, replay_url, "openai-chat-897eb5")
    extra: Any = {"safety_identifier": mark, "x_unknown": {"deep": [1, 2.50, None, "ü"]}}
    messages: Any = [*HELLO, {"role": "user", "content": [{"type": "text", "text": "and again"}]}]
    fields: Any = {
        "messages": messages,
        "temperature": 0.5,
        "seed": 7,
        "max_completion_tokens": 50,
        "tools": TOOLS,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "response_format": {"type": "text"},
        "metadata": {"a": "b"},
    }
    client.chat.completions.create(model=alias, **fields, extra_body=extra)
    assert sent_to_vendor(replay_url, mark) == {"model": "vendors-own-name", **fields, **extra}


def test_a_stream_asks_the_vendor_for_usage_and_changes_nothing_else(control: Control, replay_url: str) -> None:
    mark, alias = unique("mark"), recorded_alias(control, replay_url, "openai-chat-stream-1984a5")
    options = {"include_obfuscation": False}
    wire.chat(control.base_url, control.key, alias, stream=True, safety_identifier=mark, stream_options=options)
    assert sent_to_vendor(replay_url, mark) == {
        "model": "vendors-own-name",
        "messages": wire.HELLO,
        "stream": True,
        "stream_options": {"include_obfuscation": False, "include_usage": True},
        "safety_identifier": mark,
    }


@pytest.mark.parametrize("exchange", ["openai-tool-call-56c654", "openai-parallel-tools-55306d"])
def test_tool_calls_come_back(client: openai.OpenAI, control: Control, replay_url: str, recorded: Any, exchange: str) -> None:
    alias = recorded_alias(control, replay_url, exchange)
    message = client.chat.completions.create(model=alias, messages=HELLO, tools=TOOLS).choices[0].message
    expected = wire.said_whole(recorded(exchange)["response"]["body"])
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []] == expected.tool_calls[0]  # type: ignore[union-attr]
    assert expected.tool_calls[0]


@pytest.mark.parametrize("exchange", ["openai-tool-call-stream-35a56d", "openai-parallel-tools-stream-dfe8df"])
def test_streamed_tool_calls_come_back(client: openai.OpenAI, control: Control, replay_url: str, recorded: Any, exchange: str) -> None:
    alias = recorded_alias(control, replay_url, exchange)
    with client.chat.completions.stream(model=alias, messages=HELLO) as stream:
        message = stream.get_final_completion().choices[0].message
    lines = "\n".join(recorded(exchange)["response"]["lines"])
    expected = wire.said_streamed(json.loads(data) for data in wire.events(lines) if data != "[DONE]")
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []] == expected.tool_calls[0]
    assert expected.tool_calls[0]


# Models -------------------------------------------------------------------------------------------------------------


def test_models(client: openai.OpenAI, control: Control, alias: str, schema: Schema) -> None:
    raw = client.models.with_raw_response.list()
    schema.check("ListModelsResponse", json.loads(raw.content))
    listed = {model.id: model for model in client.models.list()}
    assert listed.keys() >= {alias}
    one = client.models.with_raw_response.retrieve(alias)
    schema.check("Model", json.loads(one.content))
    assert one.parse() == listed[alias]
    assert listed[alias].object == "model"
    assert listed[alias].created > 1_700_000_000


# Errors -------------------------------------------------------------------------------------------------------------


def with_key(client: openai.OpenAI, key: str) -> openai.OpenAI:
    return client.with_options(api_key=key)


def test_a_wrong_key_is_an_authentication_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        with_key(client, "sk-llmc-wrong").chat.completions.create(model=ECHO, messages=HELLO)
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (401, "invalid_api_key", None)
    assert caught.value.request_id
    with pytest.raises(openai.AuthenticationError):
        with_key(client, "sk-llmc-wrong").models.list()


def test_a_model_that_the_key_may_not_use_is_permission_denied(client: openai.OpenAI, control: Control) -> None:
    key = control.new_key(models=["another"])["key"]
    control.apply()
    with pytest.raises(openai.PermissionDeniedError) as caught:
        with_key(client, key).chat.completions.create(model=ECHO, messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("not_permitted", "model")


@pytest.mark.parametrize("stream", [True, False])
def test_an_unknown_model_is_not_found(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=HELLO, stream=stream)
    assert (caught.value.code, caught.value.param, caught.value.type) == ("model_not_found", "model", "invalid_request_error")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_an_unknown_route_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.files.list()
    assert caught.value.code == "unknown_url"


@pytest.mark.parametrize(("field", "value"), [("temperature", 9), ("messages", []), ("max_tokens", 0), ("n", 1_000_000)])
def test_a_bad_field_is_a_bad_request_that_names_it(client: openai.OpenAI, field: str, value: Any) -> None:
    arguments: Any = {"model": ECHO, "messages": HELLO, field: value}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**arguments)
    assert (caught.value.param, caught.value.code, caught.value.type) == (field, "invalid_request", "invalid_request_error")


def test_the_callers_limit_is_a_rate_limit_error_with_the_wait(client: openai.OpenAI, control: Control) -> None:
    key = control.new_key(rate_limit={"requests_per_minute": 1})["key"]
    control.apply()
    limited = with_key(client, key)
    headers = limited.chat.completions.with_raw_response.create(model=ECHO, messages=HELLO).headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("1", "0")
    with pytest.raises(openai.RateLimitError) as caught:
        limited.chat.completions.create(model=ECHO, messages=HELLO)
    assert caught.value.code == "rate_limit_exceeded"
    assert 50 < int(caught.value.response.headers["retry-after"]) <= 60


@pytest.mark.parametrize("stream", [True, False])
def test_a_vendor_that_fails_is_an_internal_server_error(client: openai.OpenAI, control: Control, vendor: Vendor, stream: bool) -> None:
    alias = control.model(control.provider(vendor.base_url, breaker={"fail_max": 1000, "reset_timeout_s": 1}), "fault-500")["alias"]
    control.apply()
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=alias, messages=HELLO, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_error")
    assert caught.value.request_id


@pytest.mark.parametrize("stream", [True, False])
def test_a_vendor_that_limits_is_a_rate_limit_error_with_its_wait(
    client: openai.OpenAI, control: Control, vendor: Vendor, stream: bool
) -> None:
    alias = control.model(control.provider(vendor.base_url), "fault-429@retry_after=7")["alias"]
    control.apply()
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model=alias, messages=HELLO, stream=stream)
    assert 6 <= int(caught.value.response.headers["retry-after"]) <= 7


def test_an_error_inside_a_stream_is_raised(client: openai.OpenAI, control: Control, vendor: Vendor) -> None:
    alias = control.model(control.provider(vendor.base_url), "fault-error-midstream@delay=0.03")["alias"]
    control.apply()
    with client.chat.completions.create(model=alias, messages=HELLO, stream=True) as stream:
        seen = next(stream)
        with pytest.raises(openai.APIError) as caught:
            list(stream)
    assert seen
    assert not isinstance(caught.value, openai.APIStatusError)
    assert caught.value.code


def test_what_a_request_cost_is_on_record(client: openai.OpenAI, control: Control, vendor: Vendor) -> None:
    model = control.model(control.provider(vendor.base_url), "ok@tokens=9")
    control.price(model, input="2.00", output="8.00")
    control.apply()
    answer = client.chat.completions.create(model=model["alias"], messages=HELLO)
    assert answer.usage is not None
    (record,) = control.records(answer._request_id or "")
    micros = answer.usage.prompt_tokens * 2 + answer.usage.completion_tokens * 8
    assert float(record["cost"]) == pytest.approx(micros / 1e6)
    assert record["currency"] == "USD"
