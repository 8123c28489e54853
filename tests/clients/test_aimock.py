"""aimock behind the gateway in every vendor's wire that it knows, and before it the official OpenAI and Anthropic clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.clients.conftest import answer
from tests.e2e import wire
from tests.e2e.control import Control, unique

pytestmark = pytest.mark.process

MODEL = "a-model"
# Name of the case → (provider type, base URL's path, further fields of its form, path that the vendor is to be called at).
VENDORS: dict[str, tuple[str, str, dict[str, str], str]] = {
    "openai": ("openai", "/v1", {}, "/v1/chat/completions"),
    "azure-v1": ("azure", "", {"style": "v1"}, "/openai/v1/chat/completions"),
    "azure-classic": ("azure", "", {"style": "classic"}, f"/openai/deployments/{MODEL}/chat/completions"),
    "anthropic": ("anthropic", "", {}, "/v1/messages"),
    "gemini": ("gemini", "/v1beta", {}, f"/v1beta/models/{MODEL}:"),
    "ark": ("ark", "/api/v3", {}, "/api/v3/chat/completions"),
    "dashscope": ("dashscope_compatible", "/compatible-mode/v1", {}, "/compatible-mode/v1/chat/completions"),
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OPENAI_TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
ANTHROPIC_TOOLS: Any = [{"name": "get_weather", "input_schema": SCHEMA}]
PLAIN, WEATHER, AFTER_TOOLS = answer("hello"), answer("weather"), answer("weather", after_tools=True)
CALLS = [(call["name"], call["arguments"]) for call in WEATHER["toolCalls"]]


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def alias(vendor: str, control: Control, aimock: str) -> str:
    kind, path, form, _ = VENDORS[vendor]
    provider = control.provider("", kind=kind, config={"base_url": aimock + path, "api_key": "sk-of-the-vendor", **form})
    alias = control.model(provider, MODEL)["alias"]
    control.apply()
    return alias


@pytest.fixture
def of_openai(control: Control) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{control.base_url}/v1", api_key=control.key, max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
def of_anthropic(control: Control) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=control.base_url, api_key=control.key, max_retries=0, timeout=30) as client:
        yield client


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


def expected_usage(fixture: dict[str, Any]) -> list[int]:
    return [fixture["usage"]["prompt_tokens"], fixture["usage"]["completion_tokens"]]


def test_openai_chat(of_openai: openai.OpenAI, alias: str, vendor: str, aimock: str) -> None:
    """In one piece and streamed; and at the address that this vendor has for it."""
    mark = unique("mark")
    whole = of_openai.chat.completions.create(model=alias, messages=user(f"hello {mark}"))
    with of_openai.chat.completions.stream(model=alias, messages=user(f"hello {mark}"), stream_options={"include_usage": True}) as stream:
        streamed = stream.get_final_completion()
    for said in (whole, streamed):
        assert (said.choices[0].message.content, said.choices[0].finish_reason) == (PLAIN["content"], "stop")
        assert said.usage is not None
        assert [said.usage.prompt_tokens, said.usage.completion_tokens] == expected_usage(PLAIN)
    journal = wire.call(aimock, "GET", "/__aimock/journal").json
    paths = [entry["path"] for entry in journal if mark in json.dumps(entry["body"])]
    assert len(paths) == 2
    assert all(path.startswith(VENDORS[vendor][3]) for path in paths), paths


def test_openai_parallel_tools(of_openai: openai.OpenAI, alias: str) -> None:
    asked = user("weather")
    whole = of_openai.chat.completions.create(model=alias, messages=asked, tools=OPENAI_TOOLS)
    with of_openai.chat.completions.stream(model=alias, messages=asked, tools=OPENAI_TOOLS) as stream:
        streamed = stream.get_final_completion()
    for said in (whole, streamed):
        assert said.choices[0].finish_reason == "tool_calls"
        calls: Any = said.choices[0].message.tool_calls or []
        assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == CALLS
        assert len({call.id for call in calls}) == len(CALLS)
    results = [{"role": "tool", "tool_call_id": call.id, "content": "12 degrees"} for call in calls]
    after = of_openai.chat.completions.create(
        model=alias, messages=[*asked, streamed.choices[0].message.to_dict(), *results], tools=OPENAI_TOOLS
    )
    assert after.choices[0].message.content == AFTER_TOOLS["content"]


@pytest.mark.parametrize("stream", [True, False])
def test_openai_error(of_openai: openai.OpenAI, alias: str, stream: bool) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        of_openai.chat.completions.create(model=alias, messages=user("too busy"), stream=stream)
    assert caught.value.code == "rate_limit_exceeded"


def test_anthropic_chat(of_anthropic: anthropic.Anthropic, alias: str) -> None:
    whole = of_anthropic.messages.create(model=alias, max_tokens=200, messages=user("hello"))
    with of_anthropic.messages.stream(model=alias, max_tokens=200, messages=user("hello")) as stream:
        streamed = stream.get_final_message()
    for said in (whole, streamed):
        assert ([getattr(block, "text", "") for block in said.content], said.stop_reason) == ([PLAIN["content"]], "end_turn")
        assert [said.usage.input_tokens, said.usage.output_tokens] == expected_usage(PLAIN)


def test_anthropic_parallel_tools(of_anthropic: anthropic.Anthropic, alias: str) -> None:
    asked = user("weather")
    fields: Any = {"model": alias, "max_tokens": 200, "tools": ANTHROPIC_TOOLS}
    whole = of_anthropic.messages.create(messages=asked, **fields)
    with of_anthropic.messages.stream(messages=asked, **fields) as stream:
        streamed = stream.get_final_message()
    for said in (whole, streamed):
        calls = [block for block in said.content if block.type == "tool_use"]
        assert [(call.name, call.input) for call in calls] == CALLS
        assert len({call.id for call in calls}) == len(CALLS)
        assert said.stop_reason == "tool_use"
    results: Any = [{"type": "tool_result", "tool_use_id": call.id, "content": "12 degrees"} for call in calls]
    turns: Any = [*asked, {"role": "assistant", "content": streamed.content}, {"role": "user", "content": results}]
    after = of_anthropic.messages.create(messages=turns, **fields)
    assert [getattr(block, "text", "") for block in after.content] == [AFTER_TOOLS["content"]]


@pytest.mark.parametrize("stream", [True, False])
def test_anthropic_error(of_anthropic: anthropic.Anthropic, alias: str, stream: bool) -> None:
    with pytest.raises(anthropic.RateLimitError) as caught:
        of_anthropic.messages.create(model=alias, max_tokens=200, messages=user("too busy"), stream=stream)
    assert caught.value.type == "rate_limit_error"
