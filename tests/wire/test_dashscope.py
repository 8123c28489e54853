"""DashScope's own wire from samples written after its documentation: no loop, no network."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from core import errors
from core.conversation import Conversation, File, Image, JsonOutput, Message, Reasoning, ReasoningWish, Text, Tool, ToolChoice, ToolUse
from core.events import Begun, Ended, Result, TextDelta, ToolBegun, ToolDelta, gathered
from core.plain import plain_request, result_of, result_of_stream
from core.usage import Usage
from providers.adapters.dashscope import DashScopeWireStream, result_from_wire
from providers.adapters.dashscope_usage import read_usage
from tests.wire.dashscope_cast import KEY, SECRET, adapter, embeddings, model, names, sample, sent


def user(*parts: Any, **more: Any) -> Conversation:
    return Conversation([Message("user", list(parts) or [Text("hi")])], **more)


def event(content: Any = None, finish: Any = "null", **message: Any) -> bytes:
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return json.dumps({"output": {"choices": [choice]}, "request_id": "r"}).encode()


def call(name: str | None = None, arguments: str | None = None, **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}, **more}]}


def told(events: Iterable[bytes]) -> Result:
    wire = DashScopeWireStream()
    said = [said for data in events for said in wire.read(data)]
    wire.finish()
    return gathered(said)


@pytest.mark.parametrize("name", names("request"))
def test_a_request_is_written_as_documented(name: str) -> None:
    expected = sample(name)
    conversation = msgspec.json.decode(json.dumps(expected["conversation"]), type=Conversation)
    before = msgspec.json.encode(conversation)
    body, dropped = sent(conversation, model(expected["model"]), expected["stream"])
    assert body == expected["wire"]
    assert dropped == sorted(expected["dropped"])
    assert msgspec.json.encode(conversation) == before
    made = adapter().chat_call(plain_request("alias", conversation, stream=expected["stream"]), model(expected["model"]), SECRET)
    assert made.url == f"https://dashscope.aliyuncs.com/api/v1/services/aigc/{expected['service']}/generation"
    assert json.loads(made.body or b"") == expected["wire"]
    assert sorted(made.dropped) == expected["dropped"]


@pytest.mark.parametrize(
    ("conversation", "param"),
    [
        (user(n=2), "n"),
        (user(frequency_penalty=0.5), "frequency_penalty"),
        (user(foreign=["logit_bias"]), "logit_bias"),
        (user(tool_choice=ToolChoice("required")), "tool_choice"),
        (user(Text("hi"), File(data="aGk=", media_type="application/pdf")), "file"),
        (user(Text("hi"), File(file_id="file-1", media_type="image/png")), "file"),
    ],
)
def test_what_has_no_place_is_refused_by_name_or_dropped_with_a_report(conversation: Conversation, param: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="DashScope") as refused:
        sent(conversation, model())
    assert refused.value.param == param
    body, dropped = sent(conversation, model(drop_params=True))
    assert dropped == [param]
    assert body["input"]["messages"][0]["content"] in ("hi", [{"text": "hi"}])
    assert body["parameters"] == {"result_format": "message"}


@pytest.mark.parametrize(
    ("model_id", "multimodal"),
    [
        ("qwen-plus", False), ("qwen3-max", False), ("qwen2.5-72b-instruct", False), ("deepseek-r1", False), ("qwen3.7-max", False),
        ("evl-x", False), ("qwen-vl-plus", True), ("qwen2.5-vl-72b-instruct", True), ("qwen3-vl-plus", True), ("qvq-max", True),
        ("qwen3-omni-flash", True), ("qwen-audio-turbo", True), ("qwen-vl-ocr", True), ("qwen3-asr-flash", True), ("qwen3.5-plus", True),
        ("qwen3.6-35b-a3b", True),
    ],
)  # fmt: skip
def test_the_service_is_chosen_by_what_is_said_then_by_the_model(model_id: str, multimodal: bool) -> None:
    def service(conversation: Conversation, **row: Any) -> str:
        return adapter().chat_call(plain_request("alias", conversation, stream=False), model(model_id, **row), SECRET).url.split("/")[-2]

    assert service(user()) == ("multimodal-generation" if multimodal else "text-generation")
    assert service(user(), capabilities=("tools", "images")) == "multimodal-generation"
    assert service(user(Text("?"), Image(url="https://pictures.test/a.png"))) == "multimodal-generation"
    body, _ = sent(user(), model(model_id))
    assert body["input"]["messages"] == [{"role": "user", "content": [{"text": "hi"}] if multimodal else "hi"}]


@pytest.mark.parametrize(
    ("wish", "parameters"),
    [
        (ReasoningWish(), {}),
        (ReasoningWish(enabled=True), {"enable_thinking": True}),
        (ReasoningWish(enabled=False, budget_tokens=9), {"enable_thinking": False}),
        (ReasoningWish(effort="none"), {"enable_thinking": False}),
        (ReasoningWish(budget_tokens=0), {"enable_thinking": False}),
        (ReasoningWish(budget_tokens=300), {"enable_thinking": True, "thinking_budget": 300}),
        (ReasoningWish(effort="high", budget_tokens=300), {"enable_thinking": True, "thinking_budget": 300}),
        (ReasoningWish(effort="minimal"), {"enable_thinking": True, "thinking_budget": 1024}),
        (ReasoningWish(effort="high"), {"enable_thinking": True, "thinking_budget": 16384}),
        (ReasoningWish(effort="xhigh"), {"enable_thinking": True}),
    ],
)
def test_a_wish_to_think_is_said_in_its_own_words(wish: ReasoningWish, parameters: dict[str, Any]) -> None:
    assert sent(user(reasoning=wish), model())[0]["parameters"] == {"result_format": "message", **parameters}


@pytest.mark.parametrize(
    ("tools", "choice", "expected"),
    [
        (["f", "g"], ToolChoice("auto"), "auto"),
        (["f", "g"], ToolChoice("none"), "none"),
        (["f", "g"], ToolChoice("tool", "g"), {"type": "function", "function": {"name": "g"}}),
        (["f"], ToolChoice("required"), {"type": "function", "function": {"name": "f"}}),
        ([], ToolChoice("auto"), None),
    ],
)
def test_choices_of_tools(tools: list[str], choice: ToolChoice, expected: Any) -> None:
    body, dropped = sent(user(tools=[Tool(name) for name in tools], tool_choice=choice, parallel_tool_calls=False), model())
    assert body["parameters"].get("tool_choice") == expected
    assert ("parallel_tool_calls" in body["parameters"]) is bool(tools)
    assert dropped == []


def test_that_some_tool_of_several_be_called_cannot_be_said() -> None:
    conversation = user(tools=[Tool("f"), Tool("g")], tool_choice=ToolChoice("required"))
    with pytest.raises(errors.InvalidRequest) as refused:
        sent(conversation, model())
    assert refused.value.param == "tool_choice"
    body, dropped = sent(conversation, model(drop_params=True))
    assert dropped == ["tool_choice"]
    assert "tool_choice" not in body["parameters"]


def test_schemas_travel_as_they_were_written() -> None:
    schema = b'{"type": "object", "properties": {"n": {"maximum": 1.10}}}'
    conversation = user(
        tools=[Tool("f", "", msgspec.Raw(schema)), Tool("g", "", msgspec.Raw(b"null"))], json_output=JsonOutput(msgspec.Raw(schema))
    )
    wire = adapter().chat_call(plain_request("alias", conversation, stream=False), model(), SECRET).body or b""
    assert wire.count(schema) == 2
    assert b'"function":{"name":"g"}' in wire


@pytest.mark.parametrize("name", names("answer"))
def test_an_answer_is_read_as_documented(name: str) -> None:
    expected = sample(name)
    events = [json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() for event in expected["events"]]
    result = msgspec.convert(expected["result"], Result)
    assert told(events) == result
    if len(events) == 1:
        assert result_from_wire(events[0]) == result


def test_a_conversation_goes_on_with_what_was_answered() -> None:
    expected = sample("answer-thinking-tools.json")
    result = told(json.dumps(event).encode() for event in expected["events"])
    body, dropped = sent(Conversation([Message("assistant", [*result.parts])]), model())
    message = body["input"]["messages"][0]
    assert (message["content"], message["reasoning_content"]) == ("Wait.", "Two calls.")
    assert [found["id"] for found in message["tool_calls"]] == [part.id for part in result.parts if isinstance(part, ToolUse)]
    assert dropped == []


def test_ids_made_up_are_distinct_and_the_same_each_time() -> None:
    events = [event(**call("f", "{}", index=0)), event(**call("f", "{}", index=1)), event(finish="tool_calls")]
    first, second = (part.id for part in told(events).parts if isinstance(part, ToolUse))
    assert first != second
    assert all(len(made) == 29 and made.startswith("call_") for made in (first, second))
    assert [part.id for part in told(events).parts if isinstance(part, ToolUse)] == [first, second]


@pytest.mark.parametrize(
    "pieces",
    [
        [call("f", '{"a"', index=0, id="c0"), call("g", "{}", index=1, id="c1"), call(None, ": 1}", index=0, id="")],
        [call("f", '{"a": 1}', id="c0"), call("g", "{}", id="c1")],
        [call("f", '{"a": ', index=0, id="c0"), call(None, "1}", index=0, id=""), call("g", "{}", index=0, id="c1")],
        [{"tool_calls": call("f", '{"a": 1}', id="c0")["tool_calls"] + call("g", "{}", id="c1")["tool_calls"]}],
        [call("f", '{"a": 1}', index=3, id="c0"), call(None, None, index=7, id="c1"), call("g", "", index=7, id="")],
    ],
    ids=["alternating", "no index", "one index", "at once", "odd indexes and a late name"],
)
def test_pieces_find_their_call(pieces: list[dict[str, Any]]) -> None:
    result = told([*(event(**piece) for piece in pieces), event(finish="stop")])
    assert result.parts == [ToolUse("c0", "f", '{"a": 1}'), ToolUse("c1", "g", "{}")]
    assert result.ended == Ended("tool_calls", "stop")


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["1", "1,", "1, 2", "1, 2, 3"], "1, 2, 3"),
        (["It is fine today", "It is fine today in", "It is fine today in", "It is fine today in Rome."], "It is fine today in Rome."),
        (["It is fine today", "It is fine today in", "It is", "It is fine today in Rome."], "It is fine today in Rome."),
        (["", "Hello", "", "Hello, all", "Hello, all of you", ""], "Hello, all of you"),
        (["ha", "ha", "ha", "!"], "hahaha!"),
        (["ha", "ha", "ha"], "hahaha"),
        (["a", "ab", "c", "cd"], "aabccd"),
        (["The weather in Rome", "The weather", " is fine", " is fine too"], "The weather in RomeThe weather is fine is fine too"),
        (["Hi"], "Hi"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["text", "thought", "arguments", "old format"])
def test_a_stream_that_repeats_what_was_said_is_told_once(pieces: list[str], text: str, where: str) -> None:
    def spelt(piece: str, finish: str) -> bytes:
        if where == "old format":
            return json.dumps({"output": {"text": piece, "finish_reason": finish}}).encode()
        if where == "arguments":
            return event("", finish, **call("f", piece, index=0, id="c"))
        return event(piece, finish) if where == "text" else event("", finish, reasoning_content=piece)

    result = told(spelt(piece, "null" if place < len(pieces) - 1 else "stop") for place, piece in enumerate(pieces))
    (part,) = result.parts
    assert (part.arguments if isinstance(part, ToolUse) else part.text) == text


def test_a_stream_that_repeats_what_was_said_is_told_as_it_comes() -> None:
    wire = DashScopeWireStream()
    pieces = ["It", "It is fine today", "It is fine today in", "It is fine today in Rome"]
    said = [[found.text for found in wire.read(event(piece)) if isinstance(found, TextDelta)] for piece in pieces]
    assert said == [["It"], [], [" is fine today in"], [" Rome"]]


def test_what_is_kept_back_is_told_before_what_follows() -> None:
    wire = DashScopeWireStream()
    events = [event("ha"), event("ha"), event(**call("f", "{}", index=0, id="c")), event(finish="tool_calls")]
    said = [said for data in events for said in wire.read(data)]
    assert said == [
        Begun("r"), TextDelta("ha"), TextDelta("ha"), ToolBegun(0, "c", "f"), ToolDelta(0, "{}"), Ended("tool_calls", "tool_calls"),
    ]  # fmt: skip
    assert told([event(reasoning_content="m"), event(reasoning_content="m"), event("x", "stop")]).parts == [Reasoning("mm"), Text("x")]


@pytest.mark.parametrize(
    ("native", "reason"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("content_filter", "content_filter"), ("new_in_2027", "stop")],
)
def test_reasons_to_end(native: str, reason: str) -> None:
    assert told([event("x", native)]).ended == Ended(reason, native)


def test_an_empty_answer_needs_a_reason_that_is_known() -> None:
    assert told([event("", "stop")]).parts == []
    for read in (lambda: told([event("", "new_in_2027")]), lambda: result_from_wire(event("", "new_in_2027"))):
        with pytest.raises(errors.ProviderNonsense, match="empty"):
            read()


@pytest.mark.parametrize(
    "data",
    [
        b"<html>", b"{", b"[]", b"7", b'"x"', b"null", b"{}", b'{"output": null}', b'{"output": []}', b'{"output": {"choices": [7]}}',
        b'{"usage": {"input_tokens": 1}}', b'{"choices": []}', event(7), event([7]), event([{"text": 7}]), event("x", 7),
        event([{"image": "https://pictures.test/a.png"}]), event([{"audio": {"data": "aGk="}}]), event(**call(None, "{}", index=0)),
        event("", "stop", **call(None, None, index=0)), b'{"output": {"x": "\xff"}}', b'{"output": ' + b"[" * 100_000,
        b'{"code": 7, "output": {}}',
    ],
)  # fmt: skip
def test_an_event_that_is_no_part_of_an_answer_is_nonsense(data: bytes) -> None:
    with pytest.raises(errors.ProviderNonsense):
        list(DashScopeWireStream().read(data))
    with pytest.raises(errors.ProviderNonsense):
        result_from_wire(data)


@pytest.mark.parametrize("data", [event("x"), event("x", None), event("x", ""), b'{"output": {}}', b'{"output": {"text": "x"}}'])
def test_an_answer_without_an_end_is_nonsense(data: bytes) -> None:
    wire = DashScopeWireStream()
    list(wire.read(data))
    assert not wire.done
    with pytest.raises(errors.ProviderNonsense, match="ended in the middle"):
        wire.finish()
    with pytest.raises(errors.ProviderNonsense, match="finish_reason"):
        result_from_wire(data)


def test_a_finish_reason_in_every_event_ends_the_stream_only_at_its_close() -> None:
    result = told([event("a", "stop"), event("b", "stop", **call("f", index=0, id="c")), event("", "stop")])
    assert result.parts == [Text("ab"), ToolUse("c", "f", "{}")]
    assert result.ended.reason == "tool_calls"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None), ([], None), ({}, None), ({"output_tokens": 1}, None), ({"input_tokens": -1}, None), ({"input_tokens": 1.5}, None),
        ({"input_tokens": True}, None), ({"input_tokens": 10**10}, None), ({"input_tokens": 1, "output_tokens": "3"}, None),
        ({"input_tokens": 5}, Usage(input=5)),
        ({"input_tokens": 5, "audio_tokens": 9, "image_tokens": 9}, Usage(input_audio=5)),
        ({"input_tokens": 5, "output_tokens": None, "image_tokens": None, "prompt_tokens_details": None}, Usage(input=5)),
        ({"input_tokens": 50, "output_tokens": 9, "audio_tokens": 20, "image_tokens": 10},
         Usage(20, input_audio=20, input_image=10, output=9)),
        ({"input_tokens": 50, "output_tokens": 9, "prompt_tokens_details": {"cached_tokens": 20, "cache_creation_input_tokens": 25}},
         Usage(5, cached_input=20, cache_write=25, output=9)),
        ({"input_tokens": 50, "prompt_tokens_details": {"cached_tokens": 51}}, Usage(50)),
        ({"input_tokens": 50, "prompt_tokens_details": {"cached_tokens": 40}, "input_tokens_details": {"image_tokens": 45}},
         Usage(0, cached_input=40, input_image=10)),
        ({"input_tokens": 5, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 2}},
         Usage(5, output=3, reasoning=4, output_audio=2)),
        ({"input_tokens": 5, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 12, "audio_tokens": 2}},
         Usage(5, reasoning=9)),
    ],
)  # fmt: skip
def test_token_counts_are_disjoint_or_absent(usage: Any, expected: Usage | None) -> None:
    assert read_usage(msgspec.Raw(json.dumps(usage).encode())) == expected


def test_the_last_counts_hold_and_those_that_make_no_sense_change_nothing() -> None:
    counts: list[Any] = [{"input_tokens": 4, "output_tokens": 1}, {"input_tokens": 4, "output_tokens": 2}, {"input_tokens": -1}, None]
    events = [{"output": {"text": "x" * place, "finish_reason": "stop"}, "usage": usage} for place, usage in enumerate(counts)]
    assert told(json.dumps(event).encode() for event in events).usage == Usage(4, output=2)


@pytest.mark.parametrize("row", sample("errors.json"), ids=lambda row: f"{row['code']}-{row['expect']}")
@pytest.mark.parametrize("wrapped", [False, True])
def test_errors_are_classified_by_dashscopes_codes(row: dict[str, Any], wrapped: bool) -> None:
    content = {"code": row["code"], "message": row["message"]}
    body = json.dumps({"error": content, "request_id": "r"} if wrapped else {**content, "request_id": "r"}).encode()
    error = adapter().read_error(row["status"], row.get("headers", {}), body)
    assert type(error) is getattr(errors, row["expect"])
    assert row.get("says", "") in error.message
    assert error.retry_after_s == row.get("retry_after_s")
    if isinstance(error, errors.ProviderError):
        assert error.vendor_status == row["status"]
    for read in (lambda: result_from_wire(body), lambda: list(DashScopeWireStream().read(body))):
        with pytest.raises(type(error)) as hidden:
            read()
        assert row.get("says", "") in hidden.value.message


def test_an_error_beside_an_output_is_an_error() -> None:
    body = b'{"output": {"text": "x", "finish_reason": "stop"}, "code": "InternalError", "message": "broken"}'
    with pytest.raises(errors.ProviderFault):
        result_from_wire(body)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, b"<html>", errors.ProviderNonsense),
        (401, b"", errors.ProviderRejectedOurKey),
        (429, b"{", errors.ProviderLimited),
        (502, b"Bad gateway", errors.ProviderFault),
        (400, b'{"code": 7}', errors.ProviderRefused),
        (500, b'{"code": "SomethingNew", "message": "m"}', errors.ProviderFault),
        (403, b'{"code": "SomethingNew", "message": "m"}', errors.ProviderRejectedOurKey),
        (400, b"[" * 100_000, errors.ProviderRefused),
    ],
)
def test_an_error_that_is_not_in_dashscopes_shape_is_read_by_its_status(status: int, body: bytes, expected: type) -> None:
    assert type(adapter().read_error(status, {}, body)) is expected


def test_an_error_of_an_unknown_code_inside_a_success_is_the_providers_fault() -> None:
    with pytest.raises(errors.ProviderFault):
        list(DashScopeWireStream().read(b'{"code": "SomethingNew", "message": "m", "request_id": "r"}'))


def test_an_error_never_shows_our_key() -> None:
    body = json.dumps({"code": "InvalidParameter", "message": f"bad {KEY} in key"}).encode()
    with pytest.raises(errors.ProviderRefused) as hidden:
        result_from_wire(body, (KEY,))
    for error in (adapter().read_error(400, {}, body), hidden.value):
        assert "****" in error.message
        assert KEY not in f"{error.message} {error.detail}"


def test_addresses_and_headers() -> None:
    request = plain_request("alias", user(), stream=False)
    made = adapter().chat_call(request, model(), SECRET)
    assert made.url == "https://dashscope.aliyuncs.com/api/v1/services/aigc/text-generation/generation"
    assert made.headers == {"Content-Type": "application/json", "Accept": "application/json", "Authorization": f"Bearer {KEY}"}
    for suffix in ("/", "/api/v1", "/api/v1/", "/compatible-mode/v1"):
        assert adapter("https://dashscope.aliyuncs.com" + suffix).chat_call(request, model(), SECRET).url == made.url
    stream = adapter("http://vendor.test", workspace="llm-1").chat_call(plain_request("alias", user(), stream=True), model(), None)
    assert stream.headers == {
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        "X-DashScope-SSE": "enable",
        "X-DashScope-WorkSpace": "llm-1",
    }
    models = adapter().models_call(SECRET)
    assert (models.method, models.url) == ("GET", "https://dashscope.aliyuncs.com/compatible-mode/v1/models")
    assert models.headers["Authorization"] == f"Bearer {KEY}"


def test_the_list_of_models() -> None:
    body = b'{"object": "list", "data": [{"id": "qwen-plus", "object": "model"}, {"id": "qwen-max"}, {"id": ""}]}'
    assert adapter().read_models(body) == ["qwen-max", "qwen-plus"]
    for broken in (b"{}", b"<html>", b'{"data": [{}]}'):
        with pytest.raises(errors.ProviderNonsense):
            adapter().read_models(broken)


def test_whole_and_streamed_through_the_adapter() -> None:
    answer = adapter().read_answer(event("hi", "stop"), plain_request("alias", user(), stream=False))
    assert (answer.finish_reason, answer.usage, answer.output_bytes) == ("stop", None, 2)
    assert result_of(answer.body).parts == [Text("hi")]
    reader = adapter().stream_reader(plain_request("alias", user(), stream=True))
    said = reader.feed(b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:" + event("h\u2028i") + b"\n\n")
    said += reader.feed(b"id:2\nevent:result\n:HTTP_STATUS/200\ndata:" + event("", "stop") + b"\n\n")
    assert not reader.done
    said += reader.finish()
    assert result_of_stream(said).parts == [Text("h\u2028i")]
    assert (reader.done, reader.finish_reason, reader.output_bytes) == (True, "stop", 5)


def test_an_error_inside_a_stream_is_raised_after_what_was_said() -> None:
    reader = adapter().stream_reader(plain_request("alias", user(), stream=True))
    failed = b'id:2\nevent:error\n:HTTP_STATUS/429\ndata:{"code":"Throttling","message":"m","request_id":"r"}\n\n'
    with pytest.raises(errors.ProviderLimited):
        reader.feed(b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:" + event("half") + b"\n\n" + failed)
    assert b"half" in reader.salvaged


def test_embeddings_are_translated() -> None:
    request = embeddings(input=["a", "ü"], dimensions=2, user="u", encoding_format="float")
    made = adapter().chat_call(request, model("text-embedding-v4"), SECRET)
    assert made.url == "https://dashscope.aliyuncs.com/api/v1/services/embeddings/text-embedding/text-embedding"
    assert made.dropped == ("user",)
    assert json.loads(made.body or b"") == {
        "model": "text-embedding-v4",
        "input": {"texts": ["a", "ü"]},
        "parameters": {"output_type": "dense", "dimension": 2},
    }
    found = [{"text_index": 1, "embedding": [1e-3, 2]}, {"text_index": 0, "embedding": [0.25, -1]}]
    body = json.dumps({"output": {"embeddings": found}, "usage": {"total_tokens": 6}, "request_id": "r", "code": ""}).encode()
    answer = adapter().read_answer(body, request)
    assert answer.usage == Usage(input=6)
    assert json.loads(answer.body) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.25, -1]},
            {"object": "embedding", "index": 1, "embedding": [0.001, 2]},
        ],
        "model": "alias",
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    }


def test_embeddings_in_base64_are_little_endian_float32() -> None:
    request = embeddings(input="a", encoding_format="base64")
    assert json.loads(adapter().chat_call(request, model(), None).body or b"")["parameters"] == {"output_type": "dense"}
    answer = adapter().read_answer(b'{"output": {"embeddings": [{"text_index": 0, "embedding": [0.5, -2, 3]}]}}', request)
    found = json.loads(answer.body)
    assert struct.unpack("<3f", base64.b64decode(found["data"][0]["embedding"])) == (0.5, -2, 3)
    assert answer.usage is None
    assert found["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [1, 2]}, "input"), ({"input": []}, "input"), ({}, "input"), ({"input": "a", "dimensions": "x"}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"), ({"input": "a", "text_type": "query"}, "text_type"),
    ],
)  # fmt: skip
def test_embeddings_that_cannot_be_asked_for_are_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        adapter().chat_call(embeddings(**body), model(), SECRET)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", errors.ProviderNonsense), (b"<html>", errors.ProviderNonsense),
        (b'{"output": {"embeddings": []}}', errors.ProviderNonsense),
        (b'{"output": {"embeddings": [{"text_index": 0, "embedding": []}]}}', errors.ProviderNonsense),
        (b'{"output": {"embeddings": [{"text_index": 1, "embedding": [1]}]}}', errors.ProviderNonsense),
        (b'{"output": {"embeddings": [{"text_index": 0, "embedding": [1e300]}]}}', errors.ProviderNonsense),
        (b'{"output": {"embeddings": [{"text_index": 0, "embedding": [1]}, {"text_index": 1, "embedding": [2]}]}}',
         errors.ProviderNonsense),
        (b'{"code": "ServiceUnavailable", "message": "m"}', errors.ProviderFault),
    ],
)  # fmt: skip
def test_embeddings_that_are_none_are_an_error(body: bytes, expected: type[errors.GatewayError]) -> None:
    with pytest.raises(expected):
        adapter().read_answer(body, embeddings(input="a", encoding_format="base64"))
