"""The official `anthropic` client, unmodified, against a live gateway: in front of vendors that speak its dialect, and of others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, ToolUseBlock

from tests import replay
from tests.e2e import wire
from tests.e2e.control import ECHO, Control, unique
from tests.e2e.vendor import Vendor
from tests.live import LiveServer

pytestmark = pytest.mark.process

HELLO: Any = [{"role": "user", "content": "Say hello to the world."}]
TOOLS: Any = [
    {
        "name": "weather",
        "description": "The weather in a city. Ünïcödé 天气.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]
OLD = "2023-06-01"


def bearer(base_url: str, key: str) -> anthropic.Anthropic:
    """As the client is by itself: Authorization, and the newest version."""
    return anthropic.Anthropic(base_url=base_url, api_key=key, max_retries=0, timeout=30)


def x_api_key(base_url: str, key: str) -> anthropic.Anthropic:
    """As Claude Code and older clients are."""
    headers = {"X-Api-Key": key, "anthropic-version": OLD}
    return anthropic.Anthropic(base_url=base_url, api_key=None, auth_token=None, default_headers=headers, max_retries=0, timeout=30)


@pytest.fixture(scope="module")
def client(control: Control) -> Iterator[anthropic.Anthropic]:
    with bearer(control.base_url, control.key) as client:
        yield client


@pytest.fixture(scope="module")
def vendor_alias(control: Control, vendor: Vendor) -> str:
    """The fault vendor at its best behaviour; it speaks OpenAI's dialect, as echo does."""
    alias = control.model(control.provider(vendor.base_url), "ok@tokens=6")["alias"]
    control.apply()
    return alias


@pytest.fixture(params=["echo", "vendor"])
def alias(request: pytest.FixtureRequest, vendor_alias: str) -> str:
    return ECHO if request.param == "echo" else vendor_alias


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def ask(client: anthropic.Anthropic, alias: str, **fields: Any) -> Message:
    return client.messages.create(**{"model": alias, "max_tokens": 500, "messages": HELLO, **fields})


# Vendors of another dialect -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("connect", [bearer, x_api_key])
def test_a_message(control: Control, alias: str, connect: Callable[[str, str], anthropic.Anthropic]) -> None:
    with connect(control.base_url, control.key) as client:
        raw = client.messages.with_raw_response.create(model=alias, max_tokens=500, messages=HELLO, system="Be brief.")
    message = raw.parse()
    assert (message.type, message.role, message.stop_reason, message.stop_sequence) == ("message", "assistant", "end_turn", None)
    assert message.id.startswith("msg_")
    assert text_of(message)
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0
    assert message._request_id == raw.headers["request-id"] == raw.headers["x-request-id"]
    assert raw.headers["x-llm-alias"] == alias


def test_a_stream_says_what_the_whole_message_says(client: anthropic.Anthropic, alias: str) -> None:
    whole = ask(client, alias)
    with client.messages.stream(model=alias, max_tokens=500, messages=HELLO) as stream:
        seen = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert seen == text_of(final) == text_of(whole)
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == (
        *(whole.stop_reason, whole.usage.input_tokens),
        whole.usage.output_tokens,
    )


def test_the_events_on_the_wire(client: anthropic.Anthropic, alias: str) -> None:
    with ask(client, alias, stream=True) as stream:  # type: ignore[attr-defined]
        kinds = [event.type for event in stream]
    deltas = kinds.count("content_block_delta")
    assert deltas > 1
    assert kinds == [
        *("message_start", "content_block_start", *["content_block_delta"] * deltas),
        *("content_block_stop", "message_delta", "message_stop"),
    ]


async def test_the_async_client(control: Control, alias: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=control.base_url, api_key=control.key, max_retries=0) as client:
        whole = await client.messages.create(model=alias, max_tokens=500, messages=HELLO)
        async with client.messages.stream(model=alias, max_tokens=500, messages=HELLO) as stream:
            final = await stream.get_final_message()
    assert text_of(whole) == text_of(final)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_round_with_a_tool(client: anthropic.Anthropic, streamed: bool) -> None:
    asked: Any = [{"role": "user", "content": "Please call tool."}]
    fields: Any = {"model": ECHO, "max_tokens": 500, "tools": TOOLS, "messages": asked}
    if streamed:
        with client.messages.stream(**fields) as stream:
            message = stream.get_final_message()
    else:
        message = client.messages.create(**fields)
    (call,) = message.content
    assert isinstance(call, ToolUseBlock)
    assert (message.stop_reason, call.name, call.input) == ("tool_use", "weather", {})
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "12 degrees"}
    turns = [
        *asked,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
    ]
    answer = ask(client, ECHO, tools=TOOLS, messages=turns)
    assert (answer.stop_reason, text_of(answer)) == ("end_turn", "echo: So?")


def recorded_alias(control: Control, replay_url: str, exchange: str, *, kind: str, path: str) -> str:
    """A recorded vendor, which keeps the bodies it was sent."""
    provider = control.provider(f"{replay_url}/{exchange}{path}", kind=kind, api_key="sk-recorded-0123456789")
    alias = control.model(provider, "vendors-own-name")["alias"]
    control.apply()
    return alias


@pytest.mark.parametrize(("exchange", "streamed"), [("openai-parallel-tools-55306d", False), ("openai-parallel-tools-stream-dfe8df", True)])
def test_parallel_calls_of_another_vendor(
    client: anthropic.Anthropic, control: Control, replay_url: str, recorded: Any, exchange: str, streamed: bool
) -> None:
    alias = recorded_alias(control, replay_url, exchange, kind="openai", path="/v1")
    if streamed:
        with client.messages.stream(model=alias, max_tokens=500, messages=HELLO, tools=TOOLS) as stream:
            message = stream.get_final_message()
        lines = "\n".join(recorded(exchange)["response"]["lines"])
        expected = wire.said_streamed(json.loads(data) for data in wire.events(lines) if data != "[DONE]")
    else:
        message = ask(client, alias, tools=TOOLS)
        expected = wire.said_whole(recorded(exchange)["response"]["body"])
    calls = [block for block in message.content if isinstance(block, ToolUseBlock)]
    assert [(call.id, call.name, call.input) for call in calls] == [
        (id_, name, json.loads(said)) for id_, name, said in expected.tool_calls[0]
    ]
    assert len(calls) > 1
    assert message.stop_reason == "tool_use"


def test_the_seal_of_gemini_survives_a_second_turn(client: anthropic.Anthropic, control: Control, replay_url: str, recorded: Any) -> None:
    exchange = "gemini-tool-call-thought-signature-dac6f2"
    alias = recorded_alias(control, replay_url, exchange, kind="gemini", path="/v1beta")
    with client.messages.stream(model=alias, max_tokens=500, messages=HELLO, tools=TOOLS) as stream:
        message = stream.get_final_message()
    seal = next(block for block in message.content if block.type == "thinking")
    call = next(block for block in message.content if isinstance(block, ToolUseBlock))
    assert seal.signature.startswith("tool:")
    mark = unique("mark")
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": mark}
    turns: Any = [*HELLO, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    with client.messages.stream(model=alias, max_tokens=500, messages=turns, tools=TOOLS) as stream:
        stream.until_done()
    bodies = [json.dumps(request["body"]) for request in wire.call(replay_url, "GET", "/__requests").json]
    (sent,) = [body for body in bodies if mark in body]
    assert json.dumps(seal.signature.removeprefix("tool:")) in sent


# Vendors of its own dialect -----------------------------------------------------------------------------------------


def sent_to_vendor(replay_url: str, mark: str) -> dict[str, Any]:
    bodies = [request["body"] for request in wire.call(replay_url, "GET", "/__requests").json]
    (body,) = [body for body in bodies if isinstance(body, dict) and body.get("metadata") == {"user_id": mark}]
    return body


def test_what_the_client_sent_is_what_the_vendor_gets(client: anthropic.Anthropic, control: Control, replay_url: str) -> None:
    alias = recorded_alias(control, replay_url, "anthropic-messages-4c7141", kind="anthropic", path="")
    mark = unique("mark")
    fields: Any = {
        "max_tokens": 50,
        "messages": HELLO,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "metadata": {"user_id": mark},
        "tools": [*TOOLS, {"type": "web_search_20250305", "name": "web_search"}],
        "thinking": {"type": "adaptive"},
    }
    extra: Any = {"temperature": 0.50, "context_management": {"edits": []}, "x_unknown": [1, None, "ü"]}
    client.beta.messages.create(model=alias, **fields, extra_body=extra, betas=["context-management-2025-06-27"])
    assert sent_to_vendor(replay_url, mark) == {"model": "vendors-own-name", **fields, **extra}


def test_what_the_vendor_said_is_what_the_client_gets(control: Control, replay_url: str, recorded: Any) -> None:
    exchange = "anthropic-reasoning-tools-stream-dfa00f"
    alias = recorded_alias(control, replay_url, exchange, kind="anthropic", path="")
    body = {"model": alias, "max_tokens": 500, "messages": HELLO, "stream": True}
    answer = wire.call(control.base_url, "POST", "/v1/messages?beta=true", key=control.key, body=body)
    vendors = wire.events(replay.body_of(recorded(exchange)["response"]).decode())
    told = [event for event in map(json.loads, vendors) if event["type"] != "ping"]
    assert [event for event in map(json.loads, answer.events) if event["type"] != "ping"] == told


def test_the_vendor_counts(client: anthropic.Anthropic, control: Control, replay_url: str, recorded: Any) -> None:
    exchange = "anthropic-count-tokens-df8436"
    alias = recorded_alias(control, replay_url, exchange, kind="anthropic", path="")
    raw = client.messages.with_raw_response.count_tokens(model=alias, messages=HELLO)
    assert raw.parse().input_tokens == recorded(exchange)["response"]["body"]["input_tokens"]
    assert raw.headers["x-llm-token-count"] == "exact"


def test_where_no_vendor_counts_the_gateway_does(client: anthropic.Anthropic) -> None:
    raw = client.messages.with_raw_response.count_tokens(model=ECHO, messages=HELLO, system="Be brief.", tools=TOOLS)
    assert 10 < raw.parse().input_tokens < 200
    assert raw.headers["x-llm-token-count"] == "estimated"


# Models -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connect", [bearer, x_api_key])
def test_models(control: Control, alias: str, connect: Callable[[str, str], anthropic.Anthropic]) -> None:
    with connect(control.base_url, control.key) as client:
        listed = {model.id: model for model in client.models.list()}
        one = client.models.retrieve(alias)
    assert one == listed[alias]
    assert (one.type, one.display_name, one.lifecycle) == ("model", alias, "active")
    assert one.created_at.year > 2000


def test_the_probe_before_the_first_request(control: Control) -> None:
    assert wire.call(control.base_url, "HEAD", "/").status == 200


# Errors -------------------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_an_authentication_error(control: Control) -> None:
    with bearer(control.base_url, "sk-llmc-wrong") as client:
        for call in (lambda: ask(client, ECHO), client.models.list, lambda: client.messages.count_tokens(model=ECHO, messages=HELLO)):
            with pytest.raises(anthropic.AuthenticationError) as caught:
                call()
            assert (caught.value.status_code, caught.value.type, caught.value.error_code) == (
                401,
                "authentication_error",
                "invalid_api_key",
            )
            assert caught.value.request_id
            assert caught.value.body["request_id"] == caught.value.request_id  # type: ignore[index]


def test_a_model_that_the_key_may_not_use_is_permission_denied(control: Control) -> None:
    key = control.new_key(models=["another"])["key"]
    control.apply()
    with bearer(control.base_url, key) as client, pytest.raises(anthropic.PermissionDeniedError) as caught:
        ask(client, ECHO)
    assert caught.value.type == "permission_error"


@pytest.mark.parametrize("stream", [True, False])
def test_an_unknown_model_is_not_found(client: anthropic.Anthropic, stream: bool) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        ask(client, "no-such-model", stream=stream)
    assert (caught.value.type, caught.value.error_code) == ("not_found_error", "model_not_found")
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("no-such-model")


@pytest.mark.parametrize(("field", "value"), [("messages", []), ("max_tokens", -1), ("tool_choice", {"type": "all"})])
def test_a_bad_field_is_a_bad_request_that_names_it(client: anthropic.Anthropic, field: str, value: Any) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(client, ECHO, **{field: value})
    assert caught.value.type == "invalid_request_error"
    assert field in (caught.value.api_message or "")


def test_what_another_vendor_cannot_take_is_named(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="mcp_servers"):
        ask(client, ECHO, extra_body={"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]})


def test_the_callers_limit_is_a_rate_limit_error_with_the_wait(control: Control) -> None:
    key = control.new_key(rate_limit={"requests_per_minute": 1})["key"]
    control.apply()
    with bearer(control.base_url, key) as client:
        ask(client, ECHO)
        with pytest.raises(anthropic.RateLimitError) as caught:
            ask(client, ECHO)
    assert caught.value.type == "rate_limit_error"
    assert 50 < int(caught.value.response.headers["retry-after"]) <= 60


@pytest.mark.parametrize("stream", [True, False])
def test_a_vendor_that_fails_is_an_internal_server_error(
    client: anthropic.Anthropic, control: Control, vendor: Vendor, stream: bool
) -> None:
    alias = control.model(control.provider(vendor.base_url, breaker={"fail_max": 1000, "reset_timeout_s": 1}), "fault-500")["alias"]
    control.apply()
    with pytest.raises(anthropic.InternalServerError) as caught:
        ask(client, alias, stream=stream)
    assert (caught.value.status_code, caught.value.type) == (502, "api_error")


def test_an_error_inside_a_stream_is_raised(client: anthropic.Anthropic, control: Control, vendor: Vendor) -> None:
    alias = control.model(control.provider(vendor.base_url), "fault-error-midstream@delay=0.03")["alias"]
    control.apply()
    with ask(client, alias, stream=True) as stream:  # type: ignore[attr-defined]
        first = next(stream)
        with pytest.raises(anthropic.APIStatusError) as caught:
            list(stream)
    assert first.type == "message_start"
    assert (caught.value.status_code, caught.value.type) == (200, "api_error")
    assert caught.value.body["request_id"] == caught.value.request_id  # type: ignore[index]


# The real local model -----------------------------------------------------------------------------------------------


@pytest.mark.local_model
def test_the_local_model_knows_the_capital_of_france(live_local: LiveServer) -> None:
    asked: Any = [{"role": "user", "content": "What is the capital of France?"}]
    with bearer(live_local.base_url, live_local.api_key or "") as client:
        whole = client.messages.create(model=live_local.model or "", max_tokens=30, messages=asked)
        with client.messages.stream(model=live_local.model or "", max_tokens=30, messages=asked) as stream:
            streamed = stream.get_final_message()
    for message in (whole, streamed):
        assert "Paris" in text_of(message)
        assert message.stop_reason in ("end_turn", "max_tokens")
        assert message.usage.output_tokens > 0
