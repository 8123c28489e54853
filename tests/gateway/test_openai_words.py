"""OpenAI's dialect ↔ our own words: what a body asks for, and how an answer is spelled."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

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
from core.events import Begun, Content, Ended, ReasoningDelta, RefusalDelta, Result, TextDelta, ToolBegun, ToolDelta
from core.usage import Usage
from gateway.doors import openai_chat, openai_writing
from providers.adapters.openai_wire import result_from_wire
from tests.e2e.schema import Schema

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


# Answers ------------------------------------------------------------------------------------------------------------

USAGE = Usage(input=3, cached_input=4, cache_write=5, cache_write_1h=1, input_audio=2, output=6, reasoning=7, output_audio=1)
ANSWER = Result([Reasoning("hm"), Text("a"), Text("b")], Ended("stop", "end_turn"), "msg_1", "vendor-model", 7, usage=USAGE)


@pytest.fixture(autouse=True)
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_writing, "wall", lambda: 1_800_000_000.5)


def whole(result: Result) -> Any:
    return json.loads(openai_chat.whole(request({"model": "alias", "messages": [HI]}), result))


def test_a_whole_answer() -> None:
    assert whole(ANSWER) == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 7,
        "model": "vendor-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "ab", "refusal": None, "reasoning_content": "hm"},
                "logprobs": None,
                "finish_reason": "stop",
                "native_finish_reason": "end_turn",
            }
        ],
        "usage": {
            "prompt_tokens": 15,
            "completion_tokens": 14,
            "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 6, "audio_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 7, "audio_tokens": 1},
        },
    }


def test_what_the_vendor_does_not_say_is_made_up() -> None:
    answer = whole(Result([Text("a")], Ended("stop")))
    assert answer["id"].startswith("chatcmpl-")
    assert answer["id"] != whole(Result([Text("a")], Ended("stop")))["id"]
    assert (answer["created"], answer["model"]) == (1_800_000_000, "alias")
    assert "usage" not in answer
    assert "native_finish_reason" not in answer["choices"][0]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Result([], Ended("stop")), {"content": "", "refusal": None}),
        (Result([], Ended("stop"), refusal="no"), {"content": None, "refusal": "no"}),
        (
            Result([ToolUse("1", "f", "{}", "seal")], Ended("tool_calls")),
            {
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}"},
                        "extra_content": {"google": {"thought_signature": "seal"}},
                    }
                ],
            },
        ),
        (
            Result([Reasoning("hm", "seal"), Reasoning(redacted="opaque"), Text("a")], Ended("stop")),
            {
                "content": "a",
                "refusal": None,
                "reasoning_content": "hm",
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "hm", "signature": "seal"},
                    {"type": "redacted_thinking", "data": "opaque"},
                ],
            },
        ),
    ],
)
def test_messages(result: Result, message: dict[str, Any]) -> None:
    assert whole(result)["choices"][0]["message"] == {"role": "assistant", **message}


def streamed(wants_usage: bool, usage: Usage | None = USAGE, reason: str = "stop", native: str = "") -> list[Any]:
    asked = request({"model": "alias", "messages": [HI], "stream": True, "stream_options": {"include_usage": wants_usage}})
    writer = openai_chat.stream_writer(asked)
    body = writer.begin(Begun("msg_1", "vendor-model", 7))
    for event in (
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningDelta("", "seal"),
        ReasoningDelta(redacted="opaque"),
        TextDelta('"ä\u2028'),
        RefusalDelta("no"),
        ToolBegun(0, "1", "f", "seal"),
        ToolDelta(0, '{"a"'),
    ):
        body += writer.write(event)
    body += writer.end(Ended(reason, native), usage)
    assert writer.tail() == b"data: [DONE]\n\n"
    events = body.split(b"\n\n")
    assert events.pop() == b""
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def test_the_chunks_of_a_stream() -> None:
    chunks = streamed(wants_usage=False)
    assert all({key: chunk[key] for key in chunk if key != "choices"} == HEAD for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "seal"}]},
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "opaque"}]},
        {"content": '"ä\u2028'},
        {"refusal": "no"},
        {"tool_calls": [CALL_BEGUN]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None] * 9 + ["stop"]
    assert all(choice["index"] == 0 and choice["logprobs"] is None for choice in choices)


HEAD = {"id": "msg_1", "object": "chat.completion.chunk", "created": 7, "model": "vendor-model"}
CALL_BEGUN = {
    "index": 0,
    "id": "1",
    "type": "function",
    "function": {"name": "f", "arguments": ""},
    "extra_content": {"google": {"thought_signature": "seal"}},
}


def test_usage_for_a_client_that_asked() -> None:
    *chunks, last = streamed(wants_usage=True)
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)
    assert last == {**HEAD, "choices": [], "usage": whole(ANSWER)["usage"]}
    assert all(chunk["choices"] for chunk in streamed(wants_usage=True, usage=None))


def test_the_vendors_own_word_for_the_end() -> None:
    assert streamed(False, reason="length", native="max_tokens")[-1]["choices"][0]["native_finish_reason"] == "max_tokens"
    assert "native_finish_reason" not in streamed(False, reason="length", native="length")[-1]["choices"][0]


@pytest.mark.parametrize("between", [TextDelta("a"), ToolBegun(0, "1", "f"), ReasoningDelta("", "other"), ReasoningDelta(redacted="x")])
def test_a_thought_that_something_followed_is_not_sealed_with_the_next(between: Content) -> None:
    writer = openai_chat.stream_writer(request({"model": "alias", "messages": [HI]}))
    writer.begin(Begun())
    for event in (ReasoningDelta("old"), between, ReasoningDelta("new")):
        writer.write(event)
    assert b'"thinking_blocks":[{"type":"thinking","thinking":"new","signature":"s"}]' in writer.write(ReasoningDelta("", "s"))
    assert writer.write(ReasoningDelta()) == b""


def test_openais_schema_and_sdk_take_what_is_written(shared_dir: Any) -> None:
    schema = Schema(shared_dir)
    for result in (ANSWER, Result([ToolUse("1", "f")], Ended("tool_calls"), refusal="no"), Result([], Ended("content_filter", "SAFETY"))):
        schema.check("CreateChatCompletionResponse", whole(result))
        ChatCompletion.model_validate(whole(result), strict=True)
    for chunk in streamed(wants_usage=True) + streamed(wants_usage=False):
        schema.check("CreateChatCompletionStreamResponse", chunk)
        ChatCompletionChunk.model_validate(chunk, strict=True)


words = st.text(min_size=1, max_size=12)
counts = st.integers(0, 10**6)


@settings(deadline=None)
@given(
    thoughts=st.lists(st.builds(Reasoning, words, words) | st.builds(Reasoning, redacted=words), max_size=3)
    | st.lists(st.builds(Reasoning, words), max_size=1),
    text=st.text(max_size=12),
    calls=st.lists(st.builds(ToolUse, words, words, st.text(max_size=12), st.text(max_size=3)), max_size=3),
    refusal=st.text(max_size=12),
    usage=st.none() | st.builds(Usage, counts, counts, counts, st.just(0), counts, counts, counts, counts, counts, counts),
)
def test_a_whole_answer_is_read_back(thoughts: list[Reasoning], text: str, calls: list[ToolUse], refusal: str, usage: Usage | None) -> None:
    said = [*thoughts, *([Text(text)] if text else []), *calls]
    result = Result(said, Ended("tool_calls" if calls else "stop", "native"), "id", "m", 7, refusal, usage)
    body = openai_chat.whole(request({"model": "alias", "messages": [HI]}), result)
    assert result_from_wire(body) == result


@settings(deadline=None)
@given(
    thoughts=st.lists(st.builds(Reasoning, words, words) | st.builds(Reasoning, redacted=words), max_size=3),
    text=st.text(max_size=12),
    calls=st.lists(st.builds(ToolUse, words, words, st.text(max_size=12), st.text(max_size=3)), max_size=3),
)
def test_an_answer_survives_into_the_next_turn(thoughts: list[Reasoning], text: str, calls: list[ToolUse]) -> None:
    said: list[Any] = [*thoughts, *([Text(text)] if text else []), *calls]
    message = whole(Result(said, Ended("stop")))["choices"][0]["message"]
    again = read(HI, message)
    assert again.messages[1].parts == said
    assert (again.foreign, again.hints) == ([], [])
