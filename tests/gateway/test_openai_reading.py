"""OpenAI's chat requests in our own words: what a body asks for, and what it asks for that has none."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from core.chat import ChatRequest
from core.conversation import (
    Audio,
    Conversation,
    File,
    Image,
    JsonOutput,
    Message,
    Part,
    Reasoning,
    ReasoningWish,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from core.errors import InvalidRequest
from gateway.doors import openai_chat

HI: dict[str, Any] = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object"}


def read(*messages: Any, **fields: Any) -> Conversation:
    return request({"model": "alias", "messages": list(messages) or [HI], **fields}).conversation()


def request(body: dict[str, Any]) -> ChatRequest:
    return openai_chat.parse(json.dumps(body).encode())


def parts(content: Any, role: str = "user") -> list[Part]:
    return read({"role": role, "content": content}).messages[0].parts


def test_roles_and_names() -> None:
    spoken = [{"role": role, "content": "x", "name": "n"} for role in ("system", "developer", "user", "assistant")]
    assert read(*spoken).messages == [Message(role, [Text("x")], "n") for role in ("system", "system", "user", "assistant")]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("part", "ours"),
    [
        ({"type": "text", "text": "a"}, Text("a")),
        (
            {"type": "image_url", "image_url": {"url": "https://p.test/a.png", "detail": "high"}},
            Image("https://p.test/a.png", detail="high"),
        ),
        ({"type": "image_url", "image_url": "http://p.test/a.png"}, Image("http://p.test/a.png")),
        ({"type": "image_url", "image_url": {"url": "data:Image/PNG;base64,AA=="}}, Image(data="AA==", media_type="image/png")),
        ({"type": "image_url", "image_url": {"url": "data:image/svg+xml;x=y;base64,AA"}}, Image(data="AA", media_type="image/svg+xml")),
        ({"type": "input_audio", "input_audio": {"data": "AA", "format": "mp3"}}, Audio("AA", "mp3")),
        ({"type": "file", "file": {"file_id": "f-1", "filename": "a"}}, File(file_id="f-1", name="a")),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
            File(data="AA", media_type="application/pdf", name="a.pdf"),
        ),
    ],
)
def test_parts_of_content(part: dict[str, Any], ours: Part) -> None:
    assert parts([part]) == [ours]


def test_empty_text_is_no_part() -> None:
    assert parts("") == parts([{"type": "text", "text": ""}]) == parts(None, "assistant") == []


def test_what_an_assistant_said() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    sealed = {**call, "id": "2", "extra_content": {"google": {"thought_signature": "seal"}}}
    message = {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}], "refusal": "c"}
    said = read({**message, "reasoning_content": "hm", "tool_calls": [call, sealed]}).messages[0].parts
    assert said == [Reasoning("hm"), Text("a"), Text("b"), Text("c"), ToolUse("1", "f", "{}"), ToolUse("2", "f", "{}", "seal")]


def test_sealed_thoughts_win_over_those_that_repeat_them() -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "seal"}, {"type": "redacted_thinking", "data": "opaque"}]
    message = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    assert read({**message, "thinking_blocks": blocks}).messages[0].parts == [
        Reasoning("hm", "seal"),
        Reasoning(redacted="opaque"),
        Text("a"),
    ]
    assert read({"role": "assistant", "content": "a", "reasoning": "hm"}).messages[0].parts == [Reasoning("hm"), Text("a")]


def test_tool_results() -> None:
    texts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "https://p.test/a.png"}}]
    told = read({"role": "tool", "tool_call_id": "1", "content": texts}, {"role": "tool", "tool_call_id": "2", "name": "f", "content": "b"})
    assert told.messages == [
        Message("tool", [ToolResult("1", [Text("a"), Image("https://p.test/a.png")])]),
        Message("tool", [ToolResult("2", [Text("b")], "f")]),
    ]


def test_legacy_functions() -> None:
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    result = {"role": "function", "name": "f", "content": "b"}
    asked = read(HI, call, result, call, result, functions=[{"name": "f", "parameters": SCHEMA}], function_call={"name": "f"})
    first, second = asked.messages[1].parts[0], asked.messages[3].parts[0]
    assert isinstance(first, ToolUse)
    assert isinstance(second, ToolUse)
    assert first.id != second.id
    assert asked.messages[2] == Message("tool", [ToolResult(first.id, [Text("b")], "f")])
    assert asked.messages[4] == Message("tool", [ToolResult(second.id, [Text("b")], "f")])
    assert asked.tools == [Tool("f", parameters=msgspec.Raw(b'{"type": "object"}'))]
    assert asked.tool_choice == ToolChoice("tool", "f")


def test_options() -> None:
    asked = read(max_tokens=5, temperature=0, top_p=0.5, top_k=7, stop="x", seed=3, presence_penalty=1, frequency_penalty=-1, n=2, user="u")
    assert (asked.max_output_tokens, asked.temperature, asked.top_p, asked.top_k, asked.stop, asked.seed) == (5, 0, 0.5, 7, ["x"], 3)
    assert (asked.presence_penalty, asked.frequency_penalty, asked.n, asked.user) == (1, -1, 2, "u")
    assert read(max_tokens=5, max_completion_tokens=6).max_output_tokens == 6
    assert read(stop=["x", "y"]).stop == ["x", "y"]
    assert read(top_k=-1).top_k is None


def test_nothing_asked_is_nothing_said() -> None:
    silent = Conversation([Message("user", [Text("hi")])])
    assert read() == silent
    nulls = "max_tokens stop tools tool_choice response_format reasoning_effort thinking reasoning user logit_bias seed n top_k store"
    assert read(**dict.fromkeys(nulls.split())) == silent
    idle = {"logprobs": False, "n": 1, "modalities": ["text"], "store": False, "top_logprobs": 0, "logit_bias": {}, "metadata": {}}
    assert read(**idle, stream=True, stream_options={"include_usage": True}, tools=[], stop=[], response_format={"type": "text"}) == silent


def test_tools() -> None:
    function = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": False}
    asked = read(
        tools=[{"type": "function", "function": function}, {"type": "function", "function": {"name": "g"}}], parallel_tool_calls=False
    )
    assert asked.tools == [Tool("f", "d", msgspec.Raw(b'{"type": "object"}'), False), Tool("g")]
    assert asked.parallel_tool_calls is False
    assert asked.foreign == []


@pytest.mark.parametrize(
    ("choice", "ours"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("tool", "f")),
    ],
)
def test_tool_choice(choice: Any, ours: ToolChoice) -> None:
    assert read(tool_choice=choice).tool_choice == ours


def test_json_output() -> None:
    assert read(response_format={"type": "json_object"}).json_output == JsonOutput()
    named = {"name": "n", "description": "d", "schema": SCHEMA, "strict": True}
    asked = read(response_format={"type": "json_schema", "json_schema": named}).json_output
    assert asked == JsonOutput(msgspec.Raw(b'{"type": "object"}'), "n", "d", True)


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({"reasoning_effort": "low"}, ReasoningWish(effort="low")),
        ({"reasoning_effort": "max"}, ReasoningWish(effort="xhigh")),
        ({"reasoning_effort": "none"}, ReasoningWish(enabled=False, effort="none")),
        ({"reasoning_effort": "default"}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, ReasoningWish(enabled=True, budget_tokens=9)),
        ({"thinking": {"type": "disabled"}}, ReasoningWish(enabled=False)),
        ({"thinking": {"type": "adaptive"}}, ReasoningWish(enabled=True)),
        ({"thinking": {"type": "auto"}}, None),
        ({"enable_thinking": True, "thinking_budget": 9}, ReasoningWish(enabled=True, budget_tokens=9)),
        ({"enable_thinking": False}, ReasoningWish(enabled=False)),
        ({"reasoning": {"effort": "high", "max_tokens": 9, "enabled": True}}, ReasoningWish(True, "high", 9)),
        ({"reasoning_effort": "low", "reasoning": {"effort": "high"}, "enable_thinking": True}, ReasoningWish(True, "low")),
    ],
)
def test_how_much_to_think(fields: dict[str, Any], wish: ReasoningWish | None) -> None:
    asked = read(**fields)
    assert asked.reasoning == wish
    assert asked.foreign == []


@pytest.mark.parametrize(
    ("fields", "foreign"),
    [
        ({"logprobs": True, "top_logprobs": 2}, ["logprobs", "top_logprobs"]),
        ({"logit_bias": {"5": 1}}, ["logit_bias"]),
        ({"modalities": ["text", "audio"], "audio": {"voice": "v", "format": "wav"}}, ["modalities", "audio"]),
        ({"web_search_options": {"search_context_size": "low"}, "verbosity": "low"}, ["web_search_options", "verbosity"]),
        ({"min_p": 0}, ["min_p"]),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}, {"type": "web_search"}]}, ["tools"]),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, ["tool_choice"]),
        ({"response_format": {"type": "grammar", "grammar": "x"}}, ["response_format"]),
        ({"reasoning": {"effort": "low", "exclude": True}}, ["reasoning.exclude"]),
    ],
)
def test_fields_that_have_no_word_of_ours(fields: dict[str, Any], foreign: list[str]) -> None:
    asked = read(**fields)
    assert (asked.foreign, asked.hints) == (foreign, [])


def test_keys_of_messages_that_have_no_word_of_ours() -> None:
    marked = {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}
    earlier = {"role": "assistant", "content": "b", "annotations": [{"type": "url_citation"}], "audio": None}
    begun = {"role": "assistant", "content": "c", "prefix": True, "audio": {"id": "x"}}
    asked = read(marked, marked, earlier, begun)
    assert (asked.foreign, asked.hints) == (["prefix", "audio"], ["cache_control", "annotations"])
    assert read(tools=[{"type": "function", "function": {"name": "f"}, "cache_control": {"type": "ephemeral"}}]).hints == ["cache_control"]


def test_hints() -> None:
    given = {"metadata": {"a": "b"}, "service_tier": "flex", "prompt_cache_key": "k", "safety_identifier": "s", "store": True}
    asked = read(**given)
    assert (asked.foreign, asked.hints) == ([], list(given))


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "video_url"}]}, "messages.1.content.1"),
        ({"role": "user", "content": [{"type": "text", "text": 7}]}, "messages.1.content.0.text"),
        ({"role": "user", "content": [7]}, "messages.1.content.0"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.1.content.0.text"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]}, "messages.1.content.0.image_url.url"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}, "messages.1.content.0.image_url.url"),
        ({"role": "user", "content": [{"type": "file", "file": {"filename": "x"}}]}, "messages.1.content.0.file"),
        ({"role": "user", "content": [{"type": "file", "file": {"file_data": "AA"}}]}, "messages.1.content.0.file.file_data"),
        (
            {"role": "system", "content": [{"type": "image_url", "image_url": {"url": "https://p.test/a.png"}}]},
            "messages.1.content.0",
        ),
        ({"role": "tool", "content": "x"}, "messages.1.tool_call_id"),
        (
            {"role": "tool", "tool_call_id": "1", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]},
            "messages.1.content.0",
        ),
        ({"role": "function", "name": "f", "content": "x"}, "messages.1.name"),
        ({"role": "narrator", "content": "x"}, "messages.1.role"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, "messages.1.tool_calls.0.id"),
        ({"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {}}]}, "messages.1.tool_calls.0"),
        ({"role": "assistant", "tool_calls": [{"id": "1", "function": {}}]}, "messages.1.tool_calls.0.function.name"),
        ({"role": "assistant", "thinking_blocks": [{"type": "redacted_thinking"}]}, "messages.1.thinking_blocks.0"),
    ],
)
def test_a_message_that_cannot_be_read_is_named(message: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(HI, message)
    assert caught.value.param == param
    assert param in caught.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "function", "function": {"name": 7}}]}, "tools.0.function.name"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"reasoning_effort": "utter"}, "reasoning_effort"),
        ({"reasoning": {"effort": "utter"}}, "reasoning.effort"),
        ({"thinking": {"type": "perhaps"}}, "thinking.type"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_an_option_that_cannot_be_read_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert caught.value.param == param


def test_deep_nesting_is_a_plain_refusal() -> None:
    messages = b'[{"role": "user", "content": "x", "extra": %b}]' % (b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        openai_chat.conversation({"messages": msgspec.Raw(messages)})
