"""Anthropic's request bodies in our own words."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from core.conversation import (
    Conversation,
    File,
    Image,
    JsonOutput,
    Message,
    Reasoning,
    ReasoningWish,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from core.errors import InvalidRequest
from gateway.doors import anthropic_messages
from gateway.doors.anthropic_marks import shown_id

HI = [{"role": "user", "content": "hi"}]
CACHED = {"cache_control": {"type": "ephemeral"}}


def read(**fields: Any) -> Conversation:
    body = {"model": "m", "max_tokens": 100, "messages": HI, **fields}
    return anthropic_messages.parse(json.dumps(body).encode()).conversation()


def said(*content: dict[str, Any], role: str = "user") -> list[Message]:
    return read(messages=[{"role": role, "content": list(content)}]).messages


def test_plain_words_and_numbers() -> None:
    found = read(system="Be brief.", temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END"], metadata={"user_id": "u-1"}, stream=True)
    assert found == Conversation(
        messages=[Message("system", [Text("Be brief.")]), Message("user", [Text("hi")])],
        max_output_tokens=100,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop=["END"],
        user="u-1",
    )


def test_system_blocks_keep_their_borders_and_report_cache_marks() -> None:
    found = read(system=[{"type": "text", "text": "One."}, {"type": "text", "text": "Two.", **CACHED}])
    assert found.messages[0] == Message("system", [Text("One."), Text("Two.")])
    assert (found.hints, found.foreign) == (["cache_control"], [])


def test_a_system_message_in_the_middle_stays_there() -> None:
    messages = [*HI, {"role": "assistant", "content": "yes?"}, {"role": "system", "content": "Speak French."}]
    assert [message.role for message in read(messages=messages).messages] == ["user", "assistant", "system"]


def test_pictures_and_documents() -> None:
    (message,) = said(
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}, "title": "T"},
        {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}, "context": "Old."},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Words."}, "title": "Title"},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "Inner."}]}},
        {"type": "search_result", "source": "https://s", "title": "Found", "content": [{"type": "text", "text": "Snippet."}]},
    )
    assert message.parts == [
        Image(data="AAAA", media_type="image/png"),
        Image(url="https://x/y.png"),
        File(data="BBBB", media_type="application/pdf", name="T"),
        *(Text("Old."), File(url="https://x/y.pdf")),
        File(file_id="file_1"),
        *(Text("Title"), Text("Words.")),
        Text("Inner."),
        *(Text("Found\nhttps://s"), Text("Snippet.")),
    ]


def test_tool_results_become_a_turn_of_their_own_before_the_users_words() -> None:
    found = said(
        {"type": "tool_result", "tool_use_id": "a", "content": "12 °C"},
        {"type": "text", "text": "And tomorrow?"},
        {
            "type": "tool_result",
            "tool_use_id": "b",
            "is_error": True,
            "content": [{"type": "text", "text": "no"}, {"type": "image", "source": {"type": "url", "url": "https://x"}}],
        },
        {"type": "tool_result", "tool_use_id": "c"},
    )
    assert found == [
        Message(
            "tool",
            [ToolResult("a", [Text("12 °C")]), ToolResult("b", [Text("no"), Image(url="https://x")], is_error=True), ToolResult("c", [])],
        ),
        Message("user", [Text("And tomorrow?")]),
    ]


def test_what_an_assistant_said() -> None:
    (message,) = said(
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "hidden"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": [1, 2.50]}},
        {"type": "thinking", "thinking": "", "signature": "tool:seal"},
        {"type": "tool_use", "id": "b", "name": "g", "input": {}},
        {"type": "tool_use", "id": "c", "name": "h", "input": {}},
        role="assistant",
    )
    assert message.parts == [
        Reasoning("Hm.", "sig"),
        Reasoning(redacted="hidden"),
        Text("I look."),
        ToolUse("a", "f", '{"x": [1, 2.5]}'),
        ToolUse("b", "g", "{}", "seal"),
        ToolUse("c", "h", "{}"),
    ]


def test_ids_come_back_as_the_vendor_wrote_them() -> None:
    shown = shown_id("get_weather:0")
    messages = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": shown, "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": shown, "content": "x"}]},
    ]
    called, answered = read(messages=messages).messages
    assert called.parts == [ToolUse("get_weather:0", "f", "{}")]
    assert answered.parts == [ToolResult("get_weather:0", [Text("x")])]


def test_tools_and_choices() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [
        {"name": "f", "description": "d", "input_schema": schema, "strict": True, **CACHED},
        {"name": "g", "type": "custom", "input_schema": {}},
    ]
    found = read(tools=tools, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    assert [(tool.name, tool.description, msgspec.json.decode(tool.parameters), tool.strict) for tool in found.tools] == [
        ("f", "d", schema, True),
        ("g", "", {}, None),
    ]
    assert isinstance(found.tools[0], Tool)
    assert (found.tool_choice, found.parallel_tool_calls) == (ToolChoice("required"), False)
    assert (found.hints, found.foreign) == (["cache_control"], [])


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, ToolChoice("auto"), None),
        ({"type": "none"}, ToolChoice("none"), None),
        ({"type": "tool", "name": "f"}, ToolChoice("tool", "f"), None),
        ({"type": "auto", "disable_parallel_tool_use": False}, ToolChoice("auto"), True),
    ],
)
def test_tool_choices(choice: dict, expected: ToolChoice, parallel: bool | None) -> None:
    found = read(tool_choice=choice)
    assert (found.tool_choice, found.parallel_tool_calls) == (expected, parallel)


def test_tools_that_run_at_anthropic_are_foreign() -> None:
    tools = [
        {"type": "web_search_20260318", "name": "web_search", "max_uses": 3},
        {"name": "f", "input_schema": {}, "input_examples": [{}]},
    ]
    found = read(tools=tools)
    assert [tool.name for tool in found.tools] == ["f"]
    assert found.foreign == ["tools", "tools[1].input_examples"]


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, ReasoningWish(True, budget_tokens=2048)),
        ({"thinking": {"type": "disabled"}}, ReasoningWish(False)),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}}, ReasoningWish(True, "medium")),
        ({"output_config": {"effort": "max"}}, ReasoningWish(None, "xhigh")),
        ({"output_config": {}}, None),
    ],
)
def test_how_much_to_think(fields: dict, wish: ReasoningWish | None) -> None:
    assert read(**fields).reasoning == wish


@pytest.mark.parametrize("place", ["output_config", "output_format"])
def test_json_output(place: str) -> None:
    schema = {"type": "object"}
    wanted = {"type": "json_schema", "schema": schema}
    found = read(**{place: {"format": wanted} if place == "output_config" else wanted})
    assert isinstance(found.json_output, JsonOutput)
    assert msgspec.json.decode(found.json_output.schema) == schema
    assert found.foreign == []


def test_what_has_no_word_here_is_named() -> None:
    found = read(
        context_management={"edits": []},
        service_tier="auto",
        container="c",
        mcp_servers=[{"type": "url"}],
        inference_geo="us",
        brand_new=1,
        thinking={"type": "adaptive", "display": "omitted"},
        output_config={"task_budget": {"type": "tokens", "total": 9}},
        speed=None,
        fallbacks=None,
    )
    assert found.hints == ["context_management", "service_tier", "container", "thinking.display"]
    assert found.foreign == ["mcp_servers", "inference_geo", "brand_new", "output_config.task_budget"]
    assert read(max_tokens=0).foreign == ["max_tokens"]
    assert read(max_tokens=0).max_output_tokens is None


def test_blocks_that_exist_at_anthropic_only_are_named() -> None:
    messages = [
        {"role": "user", "content": [{"type": "container_upload", "file_id": "f"}, {"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": {"type": "error"}},
                {"type": "text", "text": "Found.", "citations": [{"type": "char_location"}]},
            ],
        },
        {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]},
        {
            "role": "user",
            "content": [
                {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}},
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference", "tool_name": "x"}]},
            ],
        },
    ]
    found = read(messages=messages)
    assert found.foreign == [
        *("messages[0].content[0]", "messages[1].content[0]", "messages[1].content[1]", "messages[2].content[0].source"),
        *("citations", "messages[3].content[1].content[0]"),
    ]
    assert [(message.role, message.parts) for message in found.messages] == [
        ("user", [Text("hi")]),
        ("assistant", [Text("Found.")]),
        ("tool", [ToolResult("t", [])]),
        ("user", [Text("x")]),
    ]


NESTED: dict[str, Any] = {"type": "text", "text": "x"}
for _ in range(50):
    NESTED = {"type": "search_result", "content": [NESTED]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "developer", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].source"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url"}}]}]}, "messages[0].content[0].source.url"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].content[0].tool_use_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": {}}]}]},
            "messages[0].content[0].content",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": []}]}]},
            "messages[0].content[0].input",
        ),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}]}, "messages[0].content[0].id"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": {"type": "all"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": {"type": "deeply"}}, "thinking.type"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "xml", "schema": {}}}}, "output_config.format.type"),
    ],
)
def test_what_cannot_be_read_is_named(fields: dict, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.param == param
    assert param in refused.value.message


def test_blocks_within_blocks_end_somewhere() -> None:
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        said(NESTED)
