"""A Responses request in our own words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.conversation import (
    Audio,
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
from gateway.doors import responses

GOOD = {"model": "m", "input": "hi"}
FUNCTION = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}


def parse(**changes: Any) -> Any:
    return responses.parse(json.dumps({**GOOD, **changes}).encode())


def asked(**changes: Any) -> Any:
    return responses.conversation(parse(**changes).fields)


def said(*items: dict[str, Any], **more: Any) -> list[Message]:
    messages: list[Message] = asked(input=[*items], **more).messages
    return messages


def refused(**changes: Any) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        asked(**changes)
    return caught.value.param


def test_what_we_read() -> None:
    request = parse(stream=True, max_output_tokens=9, brand_new=[1], instructions="be brief")
    assert (request.model, request.stream, request.wants_usage, request.max_output_tokens) == ("m", True, True, 9)
    assert bytes(request.fields["brand_new"]) == b"[1]"
    assert (request.dialect.NAME, request.dialect.SCOPE) == ("responses", "chat")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": ""}, "model"),
        ({"input": 7}, "input"),
        ({"background": True}, "background"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": "x"}, "top_p"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {}}, "tools"),
        ({"instructions": 7}, "instructions"),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**changes)
    assert caught.value.param == param


def test_what_only_openai_keeps_passes_to_it() -> None:
    fields = parse(previous_response_id="resp_1", conversation="conv_1", prompt={"id": "p"}, background=False, input=None).fields
    assert {"previous_response_id", "conversation", "prompt"} <= set(fields)


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "prompt"])
def test_what_only_openai_keeps_has_no_translation(name: str) -> None:
    assert refused(**{name: {"id": "x"} if name == "prompt" else "x"}) == name


def test_plain_text() -> None:
    assert asked().messages == [Message("user", [Text("hi")])]
    assert asked(instructions="be brief").messages == [Message("system", [Text("be brief")]), Message("user", [Text("hi")])]
    found = asked(max_output_tokens=5, temperature=0.5, top_p=0.1, user="u", parallel_tool_calls=False)
    assert (found.max_output_tokens, found.temperature, found.top_p, found.user, found.parallel_tool_calls) == (5, 0.5, 0.1, "u", False)
    assert (found.foreign, found.hints, found.tools, found.tool_choice, found.json_output, found.reasoning) == (
        [],
        [],
        [],
        None,
        None,
        None,
    )


def test_messages_of_every_role() -> None:
    assert said(
        {"role": "developer", "content": "rules"},
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "more"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "phase": "final_answer",
            "content": [{"type": "output_text", "text": "yes", "annotations": [], "logprobs": []}, {"type": "refusal", "refusal": "no"}],
        },
        {"role": "user", "content": "go"},
    ) == [
        Message("system", [Text("rules")]),
        Message("system", [Text("more")]),
        Message("user", [Text("one"), Text("two")]),
        Message("assistant", [Text("yes"), Text("no")]),
        Message("user", [Text("go")]),
    ]


def test_images_files_and_sound() -> None:
    (message,) = said(
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "low"},
                {"type": "input_image", "image_url": "data:image/PNG;base64,AAAA"},
                {"type": "input_file", "file_url": "https://x.test/a.pdf", "filename": "a.pdf"},
                {"type": "input_file", "file_data": "data:application/pdf;base64,BBBB", "filename": "b.pdf"},
                {"type": "input_file", "file_id": "file_1"},
                {"type": "input_audio", "input_audio": {"data": "CCCC", "format": "wav"}},
            ],
        }
    )
    assert message.parts == [
        Image(url="https://x.test/a.png", detail="low"),
        Image(data="AAAA", media_type="image/png"),
        File(url="https://x.test/a.pdf", name="a.pdf"),
        File(data="BBBB", media_type="application/pdf", name="b.pdf"),
        File(file_id="file_1"),
        Audio("CCCC", "wav"),
    ]


def test_what_one_turn_of_an_assistant_said_is_one_message() -> None:
    assert said(
        {"role": "user", "content": "weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "signature:SEAL"},
        {"role": "assistant", "content": "Let me look."},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"a":1}', "status": "completed"},
        {"type": "function_call", "call_id": "call_2", "name": "g", "arguments": ""},
        {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
        {
            "type": "function_call_output",
            "call_id": "call_2",
            "output": [{"type": "input_text", "text": "sun"}, {"type": "input_image", "image_url": "https://x.test/a.png"}],
        },
    ) == [
        Message("user", [Text("weather?")]),
        Message("assistant", [Reasoning("hm", "SEAL"), Text("Let me look."), ToolUse("call_1", "f", '{"a":1}'), ToolUse("call_2", "g")]),
        Message("tool", [ToolResult("call_1", [Text("rain")])]),
        Message("tool", [ToolResult("call_2", [Text("sun"), Image(url="https://x.test/a.png")])]),
    ]


@pytest.mark.parametrize(
    ("item", "thought"),
    [
        ({"summary": [], "encrypted_content": "redacted:DATA"}, Reasoning(redacted="DATA")),
        ({"summary": [], "content": [{"type": "reasoning_text", "text": "raw"}]}, Reasoning("raw")),
        ({"summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]}, Reasoning("a\n\nb")),
        ({"summary": [{"type": "summary_text", "text": "a"}], "encrypted_content": "gAAAA-openai"}, Reasoning("a")),
        ({"summary": [], "encrypted_content": None}, Reasoning()),
    ],
)
def test_thoughts(item: dict[str, Any], thought: Reasoning) -> None:
    messages = said({"type": "reasoning", "id": "rs_1", **item}, {"role": "user", "content": "go"})
    assert messages[0] == Message("assistant", [thought])


def test_the_seal_of_a_call_goes_back_to_its_call() -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": "tool:SEAL"}
    (message,) = said(sealed, call, {**call, "call_id": "call_2"})
    assert message.parts == [ToolUse("call_1", "f", "{}", "SEAL"), ToolUse("call_2", "f", "{}")]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "input.0"),
        ({"type": "web_search_call", "id": "ws_1"}, "input.0.type"),
        ({"type": "custom_tool_call", "call_id": "c", "name": "n", "input": "x"}, "input.0.type"),
        ({"role": "robot", "content": "x"}, "input.0.role"),
        ({"content": "x"}, "input.0.role"),
        ({"role": "system", "content": [{"type": "input_image", "image_url": "https://x.test/a"}]}, "input.0.content.0"),
        ({"role": "user", "content": [{"type": "input_image", "image_url": "ftp://x"}]}, "input.0.content.0.image_url"),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}, "input.0.content.0.image_url"),
        ({"role": "user", "content": [{"type": "input_file"}]}, "input.0.content.0"),
        ({"role": "user", "content": [{"type": "input_file", "file_data": "AAAA"}]}, "input.0.content.0.file_data"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input.0.content.0.input_text"),
        ({"role": "user", "content": [{"type": "output_text"}]}, "input.0.content.0.text"),
        ({"role": "user", "content": [{"type": "hologram"}]}, "input.0.content.0"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input.0.call_id"),
        ({"type": "function_call", "call_id": "c", "arguments": "{}"}, "input.0.name"),
        ({"type": "function_call_output", "output": "x"}, "input.0.call_id"),
        (
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_audio", "input_audio": {"data": "", "format": ""}}],
            },
            "input.0.output.0",
        ),
        ({"type": 7}, "input[0].type"),
    ],
)
def test_items_without_a_translation_are_named(item: dict[str, Any], param: str) -> None:
    assert refused(input=[item]) == param


@pytest.mark.parametrize("nothing", [[], "", None, [{"role": "system", "content": "rules"}]])
def test_nothing_to_answer(nothing: Any) -> None:
    if nothing == "":
        assert asked(input=nothing).messages == [Message("user", [Text("")])]
    else:
        assert refused(input=nothing, instructions="be brief") == "input"


# Tools --------------------------------------------------------------------------------------------------------------


def test_functions() -> None:
    found = asked(tools=[FUNCTION, {"type": "function", "name": "g", "parameters": None, "strict": None}])
    assert found.tools == [Tool("f", "d", found.tools[0].parameters, True), Tool("g")]
    assert json.loads(bytes(found.tools[0].parameters)) == {"type": "object"}
    assert refused(tools=[{"type": "function", "parameters": {}}]) == "tools.0.name"


OFFERS = [{"type": "web_search", "external_web_access": False}, {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}}]


def test_other_tools_beside_functions_are_left_out_with_a_report() -> None:
    found = asked(tools=[*OFFERS, FUNCTION], tool_choice="auto")
    assert [tool.name for tool in found.tools] == ["f"]
    assert (found.foreign, found.hints) == ([], ["tools.web_search", "tools.custom"])


def test_other_tools_alone_are_foreign() -> None:
    found = asked(tools=OFFERS)
    assert (found.tools, found.foreign, found.hints) == ([], ["tools"], [])


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "name": "f"}, ToolChoice("tool", "f")),
    ],
)
def test_tool_choice(choice: Any, found: ToolChoice) -> None:
    assert asked(tools=[FUNCTION], tool_choice=choice).tool_choice == found


@pytest.mark.parametrize(
    "choice", ["mostly", {"type": "web_search"}, {"type": "custom", "name": "f"}, {"type": "allowed_tools", "mode": "auto"}]
)
def test_a_tool_choice_without_a_translation_is_foreign(choice: Any) -> None:
    found = asked(tools=[FUNCTION], tool_choice=choice)
    assert (found.tool_choice, found.foreign) == (None, ["tool_choice"])


# Output, thought, and the rest --------------------------------------------------------------------------------------


def test_json_output() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"}
    found = asked(text={"format": schema, "verbosity": "medium"})
    assert found.json_output == JsonOutput(found.json_output.schema, "n", "d", True)
    assert json.loads(bytes(found.json_output.schema)) == {"type": "object"}
    assert asked(text={"format": {"type": "json_object"}}).json_output == JsonOutput()
    assert asked(text={"format": {"type": "text"}}).json_output is None
    assert asked(text={"format": {"type": "grammar"}, "verbosity": "low"}).foreign == ["text.verbosity", "text.format"]


def test_how_much_to_think() -> None:
    assert asked(reasoning={"effort": "low", "summary": "auto"}).reasoning == ReasoningWish(True, "low")
    assert asked(reasoning={"effort": "none"}).reasoning == ReasoningWish(False, "none")
    assert asked(reasoning={"summary": "detailed"}).reasoning is None
    assert asked(reasoning=None).reasoning is None
    assert asked(reasoning={"effort": "boundless", "mode": "pro"}).foreign == ["reasoning.mode", "reasoning.effort"]


def test_hints_are_reported_and_what_is_unknown_is_foreign() -> None:
    found = asked(
        store=True,
        metadata={"a": "b"},
        prompt_cache_key="k",
        client_metadata={"x": "y"},
        service_tier="flex",
        safety_identifier="s",
        include=["reasoning.encrypted_content", "web_search_call.results"],
        truncation="auto",
        max_tool_calls=3,
        top_logprobs=2,
        moderation={"model": "m"},
        stream=True,
        stream_options={"include_obfuscation": False},
        reasoning={"context": "all_turns"},
    )
    assert sorted(found.foreign) == ["moderation", "top_logprobs"]
    assert sorted(found.hints) == [
        *("client_metadata", "include", "max_tool_calls", "metadata", "prompt_cache_key", "reasoning.context"),
        *("safety_identifier", "service_tier", "store", "truncation"),
    ]


def test_what_changes_nothing_is_not_reported() -> None:
    """What an agent sends by default, and what is true of every answer here."""
    found = asked(
        store=False, include=["reasoning.encrypted_content"], truncation="disabled", top_logprobs=0, background=False, metadata=None
    )
    assert (found.foreign, found.hints) == ([], [])
