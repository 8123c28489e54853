"""Gemini's wire from samples written after Google's documentation: no loop, no network."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from core import errors
from core.conversation import Conversation, File, Message, ReasoningWish, Text, Tool, ToolChoice, ToolResult, ToolUse
from core.events import Ended, Result, ToolBegun, gathered
from core.plain import plain_request, result_of, result_of_stream
from core.usage import Usage
from providers.adapters.gemini import GeminiWireStream, result_from_wire, to_wire
from providers.adapters.gemini_usage import read_usage
from providers.adapters.translated import Leftovers
from tests.wire.gemini_cast import KEY, SECRET, adapter, embeddings, model, names, sample, sent


def user(*parts: Any, **more: Any) -> Conversation:
    return Conversation([Message("user", list(parts) or [Text("hi")])], **more)


def event(*parts: Any, finish: str | None = None, **more: Any) -> bytes:
    candidate = {"content": {"parts": list(parts), "role": "model"}, **({"finishReason": finish} if finish else {})}
    return json.dumps({"candidates": [candidate], **more}).encode()


def told(events: Iterable[bytes]) -> Result:
    wire = GeminiWireStream()
    said = [said for data in events for said in wire.read(data)]
    wire.finish()
    return gathered(said)


@pytest.mark.parametrize("name", names("request"))
def test_a_request_is_written_as_documented(name: str) -> None:
    expected = sample(name)
    conversation = msgspec.json.decode(json.dumps(expected["conversation"]), type=Conversation)
    before = msgspec.json.encode(conversation)
    body, dropped = sent(conversation, model(expected["model"]))
    assert body == expected["wire"]
    assert dropped == sorted(expected["dropped"])
    assert msgspec.json.encode(conversation) == before


def test_numbers_of_arguments_keep_their_digits() -> None:
    arguments = '{"n": 1.10, "big": 12345678901234567890123}'
    conversation = Conversation([Message("assistant", [ToolUse("c", "f", arguments)])])
    wire = to_wire(conversation, model(), Leftovers(conversation, model(), "Google Gemini"))
    assert arguments.encode() in msgspec.json.encode(wire)


@pytest.mark.parametrize(
    ("conversation", "param"),
    [
        (user(n=2), "n"),
        (user(tools=[Tool("f")], parallel_tool_calls=False), "parallel_tool_calls"),
        (user(foreign=["logit_bias"]), "logit_bias"),
    ],
)
def test_what_has_no_place_is_refused_by_name_or_dropped_with_a_report(conversation: Conversation, param: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="Google Gemini") as refused:
        sent(conversation, model())
    assert refused.value.param == param
    body, dropped = sent(conversation, model(drop_params=True))
    assert dropped == [param]
    assert body["contents"] == [{"role": "user", "parts": [{"text": "hi"}]}]


@pytest.mark.parametrize(
    "messages",
    [
        [Message("assistant", [ToolUse("c", "f", "[1]")])],
        [Message("assistant", [ToolUse("c", "f", '{"a": ')])],
        [Message("assistant", [ToolUse("c", "f", "[" * 100_000)])],
        [Message("tool", [ToolResult("c", [Text("x")])])],
        [Message("user", [File(data="aGk=")])],
        [Message("user", [File(file_id="file-abc123")])],
    ],
)
def test_a_message_that_cannot_be_carried_is_refused_even_where_parameters_are_dropped(messages: list[Message]) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        sent(Conversation(messages), model(drop_params=True))
    assert refused.value.param == "messages"


@pytest.mark.parametrize(
    ("model_id", "wish", "config"),
    [
        ("gemini-2.5-flash", ReasoningWish(), None),
        ("gemini-2.5-flash", ReasoningWish(enabled=True), {"includeThoughts": True}),
        ("gemini-2.5-flash", ReasoningWish(enabled=False), {"thinkingBudget": 0}),
        ("gemini-3-flash-preview", ReasoningWish(effort="none"), {"thinkingBudget": 0}),
        (
            "gemini-2.5-flash",
            ReasoningWish(enabled=True, effort="high", budget_tokens=200),
            {"includeThoughts": True, "thinkingBudget": 200},
        ),
        ("gemini-3-flash-preview", ReasoningWish(budget_tokens=200), {"includeThoughts": True, "thinkingBudget": 200}),
        ("gemini-2.5-flash", ReasoningWish(effort="high"), {"includeThoughts": True, "thinkingBudget": 24576}),
        ("gemini-3-flash-preview", ReasoningWish(effort="high"), {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        ("gemini-flash-latest", ReasoningWish(effort="minimal"), {"includeThoughts": True, "thinkingLevel": "MINIMAL"}),
    ],
)
def test_a_wish_to_think_is_said_in_the_models_own_words(model_id: str, wish: ReasoningWish, config: Any) -> None:
    body, _ = sent(user(reasoning=wish), model(model_id))
    assert body.get("generationConfig") == (config and {"thinkingConfig": config})


def test_a_choice_of_tools_is_sent_only_where_there_are_tools_to_choose() -> None:
    assert "toolConfig" not in sent(user(tool_choice=ToolChoice("auto")), model())[0]
    body, _ = sent(user(tools=[Tool("f")], tool_choice=ToolChoice("none")), model())
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "NONE"}}


@pytest.mark.parametrize("name", names("answer"))
def test_an_answer_is_read_as_documented(name: str) -> None:
    expected = sample(name)
    events = [json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() for event in expected["events"]]
    result = msgspec.convert(expected["result"], Result)
    assert told(events) == result
    if len(events) == 1:
        assert result_from_wire(events[0]) == result


@pytest.mark.parametrize("model_id", ["gemini-2.5-flash", "gemini-3-flash-preview"])
def test_a_tool_call_and_its_seals_survive_a_second_turn(model_id: str) -> None:
    parts = [
        {"text": "Let me see.", "thought": True},
        {"text": "I ask.", "thoughtSignature": "c2VhbDE="},
        {"functionCall": {"name": "f", "args": {"a": 1}, "id": "fc-1"}, "thoughtSignature": "c2VhbDI="},
        {"functionCall": {"name": "f", "args": {}, "id": "fc-2"}},
        {"text": "", "thoughtSignature": "c2VhbDM="},
    ]
    result = told([event(part) for part in parts] + [event(finish="STOP")])
    answered = Message("tool", [ToolResult("fc-1", [Text("one")]), ToolResult("fc-2", [Text("two")])])
    body, dropped = sent(Conversation([Message("assistant", [*result.parts]), answered]), model(model_id))
    assert body["contents"][0] == {"role": "model", "parts": parts}
    assert [part["functionResponse"]["id"] for part in body["contents"][1]["parts"]] == ["fc-1", "fc-2"]
    assert dropped == []


@pytest.mark.parametrize(
    ("model_id", "sealed"),
    [("gemini-3-flash", True), ("models/gemini-flash-latest", True), ("gemini-2.5-pro", False), ("gemma-3-27b-it", False)],
)
def test_a_call_that_another_model_made_is_sealed_for_models_that_insist(model_id: str, sealed: bool) -> None:
    body, _ = sent(Conversation([Message("assistant", [ToolUse("c1", "f"), ToolUse("c2", "f")])]), model(model_id))
    first, second = body["contents"][0]["parts"]
    assert ("thoughtSignature" in first, "thoughtSignature" in second) == (sealed, False)


def test_ids_made_up_are_distinct_and_the_same_each_time() -> None:
    call = {"functionCall": {"name": "f", "args": {"a": 1}}}
    events = [event(call, call, responseId="r1"), event(finish="STOP")]
    first, second = (part.id for part in told(events).parts if isinstance(part, ToolUse))
    assert first != second
    assert all(len(made) == 29 and made.startswith("call_") for made in (first, second))
    assert [part.id for part in told(events).parts if isinstance(part, ToolUse)] == [first, second]
    other = told([event(call, responseId="r2", finish="STOP")]).parts[0]
    assert isinstance(other, ToolUse)
    assert other.id not in (first, second)


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter"),
        ("BLOCKLIST", "content_filter"), ("PROHIBITED_CONTENT", "content_filter"), ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"), ("LANGUAGE", "content_filter"), ("OTHER", "stop"), ("NEW_IN_2027", "stop"),
    ],
)  # fmt: skip
def test_reasons_to_end(native: str, reason: str) -> None:
    assert told([event({"text": "x"}, finish=native)]).ended == Ended(reason, native)


@pytest.mark.parametrize(
    ("native", "error"),
    [
        ("MALFORMED_FUNCTION_CALL", errors.ProviderNonsense),
        ("UNEXPECTED_TOOL_CALL", errors.ProviderNonsense),
        ("MALFORMED_RESPONSE", errors.ProviderNonsense),
        ("OTHER", errors.ProviderNonsense),
        ("NEW_IN_2027", errors.ProviderNonsense),
        ("MISSING_THOUGHT_SIGNATURE", errors.ProviderRefused),
        ("PUP_LIMITED_DISABLED", errors.ProviderRejectedOurKey),
    ],
)
def test_an_answer_that_is_none_is_an_error(native: str, error: type[errors.GatewayError]) -> None:
    with pytest.raises(error):
        told([event(finish=native)])
    with pytest.raises(error):
        result_from_wire(event(finish=native))


def test_a_broken_tool_call_is_an_error_after_words_too() -> None:
    wire = GeminiWireStream()
    assert len(list(wire.read(event({"text": "I will call"})))) == 2
    with pytest.raises(errors.ProviderNonsense):
        list(wire.read(event(finish="MALFORMED_FUNCTION_CALL")))


@pytest.mark.parametrize(
    "data",
    [
        b"<html>", b"{", b"[]", b"7", b'"x"', b"null", b"{}", b'{"choices": []}', b'{"candidates": {}}', b'{"candidates": [7]}',
        event({"functionCall": {"args": {}}}), event({"functionCall": {"name": "f", "args": [1]}}), event({"text": 7}),
        event({"inlineData": {"mimeType": "image/png", "data": "aGk="}}), b'{"candidates": [{"x": "\xff"}]}',
        b'{"usageMetadata": ' + b"[" * 100_000, event({"functionCall": {"name": "f", "willContinue": True}}, finish="STOP"),
        *(event({"functionCall": {"name": "f", "partialArgs": [{"jsonPath": path, "boolValue": True}]}})
          for path in ("", "$", "a", "$.a[1]", "$[0]", "$.a..b", "$.a[999999999]", "$" + ".a" * 40)),
    ],
)  # fmt: skip
def test_an_event_that_is_no_part_of_an_answer_is_nonsense(data: bytes) -> None:
    with pytest.raises(errors.ProviderNonsense):
        list(GeminiWireStream().read(data))
    with pytest.raises(errors.ProviderNonsense):
        result_from_wire(data)


@pytest.mark.parametrize(
    "data", [event({"text": "x"}), b'{"candidates": []}', b'{"usageMetadata": {"promptTokenCount": 1}}', b'{"promptFeedback": {}}']
)
def test_an_answer_without_an_end_is_nonsense(data: bytes) -> None:
    wire = GeminiWireStream()
    list(wire.read(data))
    with pytest.raises(errors.ProviderNonsense, match="ended in the middle"):
        wire.finish()
    with pytest.raises(errors.ProviderNonsense, match="finishReason"):
        result_from_wire(data)


def test_a_finish_reason_in_every_event_ends_the_stream_only_at_its_close() -> None:
    call = {"functionCall": {"name": "f", "args": {}}}
    result = told([event({"text": "a"}, finish="STOP"), event({"text": "b"}, finish="STOP"), event(call, finish="STOP")])
    assert result.parts[0] == Text("ab")
    assert result.ended.reason == "tool_calls"


def test_events_come_as_the_wire_gives_them() -> None:
    wire = GeminiWireStream()
    said = list(wire.read(event({"functionCall": {"name": "f", "id": "fc-1", "args": {}}}, responseId="r", modelVersion="m")))
    assert said[1] == ToolBegun(0, "fc-1", "f")
    assert not wire.done


@pytest.mark.parametrize(
    ("metadata", "usage"),
    [
        (None, None), ([], None), ({}, None), ({"trafficType": "ON_DEMAND"}, None), ({"promptTokenCount": -1}, None),
        ({"promptTokenCount": 1.5}, None), ({"promptTokenCount": True}, None), ({"promptTokenCount": 10**10}, None),
        ({"promptTokenCount": 5, "thoughtsTokenCount": -1}, None), ({"promptTokenCount": 5, "candidatesTokenCount": "3"}, None),
        ({"promptTokenCount": 5}, Usage(input=5)),
        ({"promptTokenCount": 5, "candidatesTokenCount": None, "thoughtsTokenCount": 2}, Usage(input=5, reasoning=2)),
        ({"promptTokenCount": 5, "cachedContentTokenCount": 6}, Usage(input=5)),
        ({"promptTokenCount": 10, "cachedContentTokenCount": 8, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 9}]},
         Usage(input=0, cached_input=8, input_audio=2)),
        ({"promptTokenCount": 10, "promptTokensDetails": [{"modality": "IMAGE", "tokenCount": "x"}, 7, {"modality": "VIDEO"}]},
         Usage(input=10)),
        ({"promptTokenCount": 1, "candidatesTokenCount": 9, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 8}]},
         Usage(input=1, output=1, output_image=8)),
    ],
)  # fmt: skip
def test_token_counts_are_disjoint_or_absent(metadata: Any, usage: Usage | None) -> None:
    assert read_usage(metadata) == usage


@pytest.mark.parametrize("row", sample("errors.json"), ids=lambda row: f"{row['status']}-{row['expect']}")
@pytest.mark.parametrize("as_list", [False, True])
def test_errors_are_classified_by_googles_codes(row: dict[str, Any], as_list: bool) -> None:
    content = {"error": row["error"]}
    body = json.dumps([content] if as_list else content).encode()
    error = adapter().read_error(row["status"], row.get("headers", {}), body)
    assert type(error) is getattr(errors, row["expect"])
    assert row.get("says", "") in error.message
    assert error.retry_after_s == row.get("retry_after_s")
    if isinstance(error, errors.ProviderError):
        assert error.vendor_status == row["status"]
    if not row.get("headers"):
        for read in (lambda: result_from_wire(body), lambda: list(GeminiWireStream().read(body))):
            with pytest.raises(type(error)) as hidden:
                read()
            assert hidden.value.message == error.message
            assert hidden.value.retry_after_s == error.retry_after_s


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, b"<html>", errors.ProviderNonsense),
        (401, b"", errors.ProviderRejectedOurKey),
        (429, b"{", errors.ProviderLimited),
        (502, b"Bad gateway", errors.ProviderFault),
        (400, b'{"error": {"status": 7}}', errors.ProviderRefused),
        (500, b'{"error": {"status": "SOMETHING_NEW", "message": "m", "code": 500}}', errors.ProviderFault),
        (400, b"[" * 100_000, errors.ProviderRefused),
    ],
)
def test_an_error_that_is_not_in_googles_shape_is_read_by_its_status(status: int, body: bytes, expected: type) -> None:
    assert type(adapter().read_error(status, {}, body)) is expected


def test_an_error_never_shows_our_key() -> None:
    body = json.dumps({"error": {"code": 400, "message": f"bad {KEY} in key", "status": "INVALID_ARGUMENT"}}).encode()
    with pytest.raises(errors.ProviderRefused) as hidden:
        result_from_wire(body, (KEY,))
    for error in (adapter().read_error(400, {}, body), hidden.value):
        assert "****" in error.message
        assert KEY not in f"{error.message} {error.detail}"


def test_addresses_and_headers() -> None:
    request = plain_request("alias", user(), stream=False)
    call = adapter().chat_call(request, model(), SECRET)
    assert call.url == "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent"
    assert call.headers == {"Content-Type": "application/json", "Accept": "application/json", "x-goog-api-key": KEY}
    assert adapter("https://generativelanguage.googleapis.com/v1beta/").chat_call(request, model(), SECRET).url == call.url
    stream = adapter("http://vendor.test/", api_version="v1").chat_call(
        plain_request("alias", user(user="u"), stream=True), model("tunedModels/my model?"), None
    )
    assert stream.url == "http://vendor.test/v1/tunedModels/my%20model%3F:streamGenerateContent?alt=sse"
    assert stream.headers["Accept"] == "text/event-stream"
    assert "x-goog-api-key" not in stream.headers
    assert stream.dropped == ("user",)
    models = adapter().models_call(SECRET)
    assert (models.method, models.url) == ("GET", "https://generativelanguage.googleapis.com/v1beta/models?pageSize=1000")
    assert models.headers["x-goog-api-key"] == KEY


def test_the_list_of_models() -> None:
    body = b'{"models": [{"name": "models/gemini-b", "displayName": "B"}, {"name": "tunedModels/a"}, {"name": "models/"}]}'
    assert adapter().read_models(body) == ["gemini-b", "tunedModels/a"]
    for broken in (b"{}", b"<html>", b'{"models": [{}]}'):
        with pytest.raises(errors.ProviderNonsense):
            adapter().read_models(broken)


def test_whole_and_streamed_through_the_adapter() -> None:
    answer = adapter().read_answer(event({"text": "hi"}, finish="STOP"), plain_request("alias", user(), stream=False))
    assert (answer.finish_reason, answer.usage, answer.output_bytes) == ("stop", None, 2)
    assert result_of(answer.body).parts == [Text("hi")]
    reader = adapter().stream_reader(plain_request("alias", user(), stream=True))
    said = reader.feed(b"data: " + event({"text": "hi"}, finish="STOP", usageMetadata={"promptTokenCount": 2}) + b"\r\n\r\n")
    said += reader.finish()
    assert result_of_stream(said).parts == [Text("hi")]
    assert (reader.usage, reader.finish_reason, reader.output_bytes) == (Usage(input=2), "stop", 2)


def test_embeddings_are_translated() -> None:
    request = embeddings(input=["a", "ü"], dimensions=2, user="u", encoding_format="float")
    call = adapter().chat_call(request, model("gemini-embedding-001"), SECRET)
    assert call.url.endswith("/v1beta/models/gemini-embedding-001:batchEmbedContents")
    assert call.dropped == ("user",)
    common = {"model": "models/gemini-embedding-001", "outputDimensionality": 2}
    assert json.loads(call.body or b"") == {
        "requests": [{**common, "content": {"parts": [{"text": "a"}]}}, {**common, "content": {"parts": [{"text": "ü"}]}}]
    }
    answer = adapter().read_answer(b'{"embeddings": [{"values": [0.25, -1]}, {"values": [1e-3, 2]}]}', request)
    assert answer.usage is None
    assert json.loads(answer.body) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.25, -1]},
            {"object": "embedding", "index": 1, "embedding": [0.001, 2]},
        ],
        "model": "alias",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


def test_embeddings_in_base64_are_little_endian_float32_and_usage_is_googles_where_it_is_given() -> None:
    request = embeddings(input="a", encoding_format="base64")
    assert "outputDimensionality" not in json.loads(adapter().chat_call(request, model(), None).body or b"")["requests"][0]
    answer = adapter().read_answer(b'{"embeddings": [{"values": [0.5, -2, 3]}], "usageMetadata": {"promptTokenCount": 4}}', request)
    found = json.loads(answer.body)
    assert struct.unpack("<3f", base64.b64decode(found["data"][0]["embedding"])) == (0.5, -2, 3)
    assert found["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert answer.usage == Usage(input=4)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [1, 2]}, "input"), ({"input": [[1]]}, "input"), ({"input": []}, "input"), ({}, "input"), ({"input": 7}, "input"),
        ({"input": "a", "dimensions": "x"}, "dimensions"), ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "truncate": True}, "truncate"),
    ],
)  # fmt: skip
def test_embeddings_that_cannot_be_asked_for_are_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        adapter().chat_call(embeddings(**body), model(), SECRET)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", errors.ProviderNonsense), (b"<html>", errors.ProviderNonsense), (b'{"embeddings": []}', errors.ProviderNonsense),
        (b'{"embeddings": [{"values": []}]}', errors.ProviderNonsense), (b'{"embeddings": [{"values": ["x"]}]}', errors.ProviderNonsense),
        (b'{"embeddings": [{"values": [1e300]}]}', errors.ProviderNonsense),
        (b'{"embeddings": [{"values": [1]}, {"values": [1]}]}', errors.ProviderNonsense),
        (b'{"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}', errors.ProviderFault),
    ],
)  # fmt: skip
def test_embeddings_that_are_none_are_an_error(body: bytes, expected: type[errors.GatewayError]) -> None:
    with pytest.raises(expected):
        adapter().read_answer(body, embeddings(input="a", encoding_format="base64"))
