"""Embeddings, completions and responses passed through: what is read of them, what is mended, what is refused."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any, cast

import msgspec
import pytest

from core import errors
from core.chat import ChatRequest, Dialect
from core.usage import Usage
from gateway.doors import completions, embeddings, responses
from providers.adapters.openai_endpoints import ENDPOINTS, with_usage
from providers.adapters.registry import adapter_for
from tests import replay
from tests.adapters.cast import KEY, SECRET, model, provider

DOORS: dict[str, Any] = {"embeddings": embeddings, "completions": completions, "responses": responses}
VECTOR = [0.5, -1.25, 3.0]
PACKED = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()
EMBED = {"model": "alias", "input": ["a", "b"]}
COMPLETE = {"model": "alias", "prompt": "Once"}
RESPOND = {"model": "alias", "input": "hi"}


def asked(dialect: str, body: dict[str, Any]) -> ChatRequest:
    request: ChatRequest = DOORS[dialect].parse(json.dumps(body).encode())
    assert request.dialect is cast(Dialect, DOORS[dialect])
    return request


def read(dialect: str, body: Any, request: dict[str, Any]) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ENDPOINTS[dialect].read(raw, asked(dialect, request), (KEY,))


def streamed(dialect: str, body: bytes, request: dict[str, Any], cut: int = 0) -> tuple[Any, bytes]:
    make = ENDPOINTS[dialect].stream_reader
    assert make is not None
    reader = make(asked(dialect, {**request, "stream": True}), (KEY,))
    pieces = [body[start : start + cut] for start in range(0, len(body), cut)] if cut else [body]
    out = b"".join([reader.feed(piece) for piece in pieces])
    return reader, out + reader.finish()


def embedded(*vectors: Any, **more: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": "e", "usage": {"prompt_tokens": 4, "total_tokens": 4}, **more}


# Embeddings ---------------------------------------------------------------------------------------------------------


def test_embeddings_as_asked_for_pass_byte_for_byte() -> None:
    body = json.dumps(embedded(VECTOR, VECTOR), indent=1).encode()
    answer = read("embeddings", body, EMBED)
    assert answer.body == body
    assert (answer.usage, answer.output_bytes, answer.finish_reason) == (Usage(input=4), 0, "")


@pytest.mark.parametrize(("given", "wanted", "expected"), [(VECTOR, "base64", PACKED), (PACKED, "float", VECTOR), (PACKED, None, VECTOR)])
def test_a_vector_comes_in_the_encoding_that_was_asked_for(given: Any, wanted: str | None, expected: Any) -> None:
    answer = json.loads(read("embeddings", embedded(given, given, extra=1), {**EMBED, "encoding_format": wanted}).body)
    assert [vector["embedding"] for vector in answer["data"]] == [expected, expected]
    assert answer["extra"] == 1


def test_base64_that_was_asked_for_is_not_touched() -> None:
    body = json.dumps(embedded(PACKED, PACKED)).encode()
    assert read("embeddings", body, {**EMBED, "encoding_format": "base64"}).body == body


def test_what_openais_schema_requires_is_filled_in() -> None:
    answer = json.loads(read("embeddings", {"data": [{"embedding": VECTOR}, {"embedding": VECTOR}]}, EMBED).body)
    assert [(vector["index"], vector["object"]) for vector in answer["data"]] == [(0, "embedding"), (1, "embedding")]
    assert answer["object"] == "list"


@pytest.mark.parametrize("usage", [{"total_tokens": 4}, {"prompt_tokens": 4, "completion_tokens": None}, {"prompt_tokens": 4}])
def test_usage_of_embeddings(usage: dict[str, Any]) -> None:
    assert read("embeddings", embedded(VECTOR, VECTOR, usage=usage), EMBED).usage == Usage(input=4)


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": -1}, {"prompt_tokens": "4"}, {"prompt_tokens": 10**10}])
def test_usage_that_makes_no_sense_is_none(usage: Any) -> None:
    assert read("embeddings", embedded(VECTOR, VECTOR, usage=usage), EMBED).usage is None


@pytest.mark.parametrize(
    ("body", "request_body"),
    [
        (b"<html>", EMBED),
        (b'{"data":', EMBED),
        ({"data": []}, EMBED),
        ({}, EMBED),
        (embedded(VECTOR), EMBED),
        (embedded(VECTOR, VECTOR, VECTOR), EMBED),
        (embedded([], VECTOR), EMBED),
        (embedded("", VECTOR), EMBED),
        (embedded([0.1, None], VECTOR), EMBED),
        (embedded("!!!!", VECTOR), EMBED),
        (embedded(base64.b64encode(b"12345").decode(), VECTOR), EMBED),
        (embedded(base64.b64encode(struct.pack("<f", float("nan"))).decode(), VECTOR), EMBED),
        (embedded([1e300], VECTOR), {**EMBED, "encoding_format": "base64"}),
        (embedded(VECTOR, VECTOR), {**EMBED, "input": [1, 2]}),
        (b'{"data":[{"embedding":[1]},{"embedding":[1]}],"x":"\xff"}', EMBED),
    ],
)
def test_what_is_no_list_of_embeddings(body: Any, request_body: dict[str, Any]) -> None:
    with pytest.raises(errors.ProviderNonsense):
        read("embeddings", body, request_body)


@pytest.mark.parametrize(("inputs", "count"), [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2]], 2)])
def test_one_vector_for_each_input(inputs: Any, count: int) -> None:
    assert read("embeddings", embedded(*[VECTOR] * count), {**EMBED, "input": inputs}).usage == Usage(input=4)


def test_embeddings_have_no_streams() -> None:
    assert ENDPOINTS["embeddings"].stream_reader is None
    assert ENDPOINTS["embeddings"].to_wire(asked("embeddings", {**EMBED, "stream": False}).fields, asked("embeddings", EMBED)).keys() == {
        "model",
        "input",
    }


# Errors that come with status 200 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "request_body"), [("embeddings", EMBED), ("completions", COMPLETE), ("responses", RESPOND)])
def test_an_error_in_a_success_is_typed(dialect: str, request_body: dict[str, Any]) -> None:
    error = {"error": {"message": f"slow down, {KEY}", "type": "x", "code": "rate_limit_exceeded"}}
    with pytest.raises(errors.ProviderLimited) as caught:
        read(dialect, error, request_body)
    assert KEY not in str(caught.value.detail)
    with pytest.raises(errors.ProviderNonsense):
        read(dialect, b"[" * 100_000, request_body)


# Completions --------------------------------------------------------------------------------------------------------


def completed(**more: Any) -> dict[str, Any]:
    choice = {"text": " upon a time", "index": 0, "logprobs": None, "finish_reason": "length", **more}
    usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def test_a_completion_passes_byte_for_byte() -> None:
    body = json.dumps(completed(), indent=1).encode()
    answer = read("completions", body, COMPLETE)
    assert (answer.body, answer.usage, answer.finish_reason, answer.output_bytes) == (body, Usage(input=1, output=3), "length", 12)


def test_a_completion_is_mended_for_openais_clients() -> None:
    answer = json.loads(read("completions", {"choices": [{"text": "é", "finish_reason": "stop"}]}, COMPLETE).body)
    assert answer["id"].startswith("cmpl-")
    assert (answer["object"], answer["created"], answer["model"]) == ("text_completion", 0, "unknown")
    assert answer["choices"] == [{"text": "é", "finish_reason": "stop", "index": 0, "logprobs": None}]


@pytest.mark.parametrize(
    "body", [completed(finish_reason=None), completed(finish_reason=""), completed(text=None), {"choices": []}, {"choices": [{}]}, b"oops"]
)
def test_what_is_no_completion(body: Any) -> None:
    with pytest.raises(errors.ProviderNonsense):
        read("completions", body, COMPLETE)


def test_a_completion_that_the_vendor_broke_off() -> None:
    with pytest.raises(errors.ProviderFault):
        read("completions", completed(finish_reason="insufficient_system_resource"), COMPLETE)


def text_chunk(text: str, finish_reason: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}
    chunk = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice], **more}
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


USAGE_CHUNK = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[],"usage":'
    b'{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
)
TEXT_STREAM = [text_chunk(" u", index=0), text_chunk("", "stop"), USAGE_CHUNK, b"data: [DONE]\n\n"]


@pytest.mark.parametrize("cut", [0, 1, 7])
@pytest.mark.parametrize("wants", [True, False])
def test_a_completion_stream(cut: int, wants: bool) -> None:
    request = {**COMPLETE, "stream_options": {"include_usage": wants}}
    reader, out = streamed("completions", b"".join(TEXT_STREAM), request, cut)
    assert out == b"".join(TEXT_STREAM[: 3 if wants else 2])
    assert (reader.tail, reader.done, reader.finish_reason) == (b"data: [DONE]\n\n", True, "stop")
    assert (reader.usage, reader.output_bytes, reader.content_started) == (Usage(input=1, output=2), 2, True)


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (text_chunk("a"), errors.ProviderNonsense),
        (text_chunk("a") + b"data: [DONE]\n\n", errors.ProviderNonsense),
        (text_chunk("a", "stop", 0) + text_chunk("b", None, 1), errors.ProviderNonsense),
        (text_chunk("a") + b'data: {"error":{"message":"m","code":"server_error"}}\n\n', errors.ProviderFault),
        (text_chunk("a") + b"data: {oops\n\n", errors.ProviderNonsense),
        (text_chunk("a") + b'data: {"no":"choices"}\n\n', errors.ProviderNonsense),
        (text_chunk("a", "network_error"), errors.ProviderFault),
        (b"", errors.ProviderNonsense),
    ],
)
def test_a_completion_stream_that_is_not_whole(stream: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        streamed("completions", stream, COMPLETE)


def test_usage_is_always_asked_of_a_stream() -> None:
    request = asked("completions", {**COMPLETE, "stream": True, "stream_options": {"x": 1}})
    sent = ENDPOINTS["completions"].to_wire(request.fields, request)
    assert json.loads(msgspec.json.encode(sent))["stream_options"] == {"x": 1, "include_usage": True}
    assert json.loads(msgspec.json.encode(request.fields))["stream_options"] == {"x": 1}
    whole = asked("completions", COMPLETE)
    assert ENDPOINTS["completions"].to_wire(whole.fields, whole) == whole.fields
    with pytest.raises(errors.InvalidRequest):
        with_usage(msgspec.Raw(b"7"))


# Responses ----------------------------------------------------------------------------------------------------------


def message(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": content}


CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"}
COUNTS = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 17,
}


def response(*output: Any, **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": "completed", "error": None, "output": list(output), "usage": COUNTS, **more}


@pytest.mark.parametrize(
    ("body", "finish_reason", "output_bytes"),
    [
        (response(message("héllo")), "stop", 6),
        (response(message("x"), CALL), "tool_calls", 4),
        (response(message("x"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}), "length", 1),
        (response(status="incomplete", incomplete_details={"reason": "content_filter"}), "content_filter", 0),
        (response(message("x"), status="incomplete"), "length", 1),
        (response({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, message("x")), "stop", 3),
    ],
)
def test_a_response_passes_byte_for_byte(body: Any, finish_reason: str, output_bytes: int) -> None:
    raw = json.dumps(body, indent=1, ensure_ascii=False).encode()
    answer = read("responses", raw, RESPOND)
    assert (answer.body, answer.finish_reason, answer.output_bytes) == (raw, finish_reason, output_bytes)
    assert answer.usage == Usage(input=5, cached_input=4, cache_write=1, output=5, reasoning=2)


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": -1, "output_tokens": 1}, "many"])
def test_usage_of_a_response_that_makes_no_sense(usage: Any) -> None:
    assert read("responses", response(message("x"), usage=usage), RESPOND).usage is None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (response(status="failed", error={"code": "server_error", "message": "m"}), errors.ProviderFault),
        (response(status="failed", error={"code": "rate_limit_exceeded", "message": "m"}), errors.ProviderLimited),
        (response(status="failed", error={"code": "invalid_prompt", "message": "m"}), errors.ProviderRefused),
        (response(status="failed", error={"code": "image_too_large", "message": "m"}), errors.ProviderRefused),
        (response(status="failed"), errors.ProviderFault),
        (response(message("x"), status="cancelled"), errors.ProviderFault),
        (response(message("x"), status="in_progress"), errors.ProviderNonsense),
        (response(message("x"), status="queued"), errors.ProviderNonsense),
        (response(), errors.ProviderNonsense),
        ({"output": []}, errors.ProviderNonsense),
        ({"status": "completed"}, errors.ProviderNonsense),
        (b"<html>", errors.ProviderNonsense),
    ],
)
def test_what_is_no_whole_response(body: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        read("responses", body, RESPOND)


def event(kind: str, **more: Any) -> bytes:
    return (
        f"event: {kind}\ndata: ".encode() + json.dumps({"type": kind, "sequence_number": 1, **more}, ensure_ascii=False).encode() + b"\n\n"
    )


OPENED = event("response.created", response=response(status="in_progress")) + event("response.output_item.added", item={"type": "message"})
SAID = event("response.output_text.delta", delta="hé", item_id="msg_1") + event("response.reasoning_summary_text.delta", delta="m")
CLOSED = event("response.completed", response=response(message("hé")))


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_response_stream_keeps_its_names_and_withholds_its_end(cut: int) -> None:
    reader, out = streamed("responses", OPENED + SAID + CLOSED + b"data: [DONE]\n\n", RESPOND, cut)
    assert out == OPENED + SAID
    assert reader.tail == CLOSED
    assert (reader.done, reader.finish_reason, reader.output_bytes, reader.content_started) == (True, "stop", 4, True)
    assert reader.usage == Usage(input=5, cached_input=4, cache_write=1, output=5, reasoning=2)


def test_a_response_stream_that_tells_all_at_its_end() -> None:
    reader, out = streamed("responses", OPENED + CLOSED, RESPOND)
    assert (out, reader.tail, reader.output_bytes) == (OPENED, CLOSED, 3)
    end = event("response.incomplete", response=response(message("x"), status="incomplete"))
    reader, _ = streamed("responses", OPENED + SAID + end, RESPOND)
    assert (reader.finish_reason, reader.tail) == ("length", end)


def test_a_call_of_a_tool_is_content() -> None:
    make = ENDPOINTS["responses"].stream_reader
    assert make is not None
    reader = make(asked("responses", RESPOND), ())
    reader.feed(OPENED)
    assert not reader.content_started
    reader.feed(event("response.output_item.added", item={**CALL, "arguments": ""}))
    assert reader.content_started


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (b"", errors.ProviderNonsense),
        (b"data: [DONE]\n\n", errors.ProviderNonsense),
        (
            event("response.failed", response=response(status="failed", error={"code": "server_error", "message": "m"})),
            errors.ProviderFault,
        ),
        (event("response.failed"), errors.ProviderFault),
        (event("response.cancelled", response=response(status="cancelled")), errors.ProviderFault),
        (event("error", code="rate_limit_exceeded", message="m", param=None), errors.ProviderLimited),
        (event("error", error={"code": "invalid_prompt", "message": "m", "type": "invalid_request_error"}), errors.ProviderRefused),
        (b'data: {"error":{"message":"m","code":"rate_limit_exceeded"}}\n\n', errors.ProviderLimited),
        (b'data: {"no":"type"}\n\n', errors.ProviderNonsense),
        (b'data: {"type":7}\n\n', errors.ProviderNonsense),
        (b"data: {oops\n\n", errors.ProviderNonsense),
        (b'data: {"type":"x","y":"\xff"}\n\n', errors.ProviderNonsense),
        (event("response.completed"), errors.ProviderNonsense),
        (event("response.completed", response=response()), errors.ProviderNonsense),
        (event("response.output_item.added", item=[]), errors.ProviderNonsense),
        (b"data: " + b"x" * 2**20 + b"\n\n", errors.ProviderNonsense),
    ],
)
def test_a_response_stream_that_is_not_whole(last: bytes, error: type[Exception]) -> None:
    make = ENDPOINTS["responses"].stream_reader
    assert make is not None
    reader = make(asked("responses", RESPOND), (KEY,))

    def to_the_end() -> None:
        reader.feed(OPENED + SAID + last)
        reader.finish()

    with pytest.raises(error):
        to_the_end()
    assert not reader.done
    assert reader.salvaged in (b"", OPENED + SAID)
    assert bool(reader.salvaged) == bool(last)


# Recorded -----------------------------------------------------------------------------------------------------------

PATHS = {"/embeddings": "embeddings", "/completions": "completions", "/responses": "responses"}
FAILED = {
    "azure-error-401-6bf19b": errors.ProviderRejectedOurKey,
    "deepseek-error-400-1d05c7": errors.ProviderRefused,
    "openai-error-401-ca454d": errors.ProviderRejectedOurKey,
    "openai-error-401-ce10a6": errors.ProviderRejectedOurKey,
    "openai-error-404-8c6458": errors.ProviderLacksModel,
    "openai-error-context-988815": errors.ContextTooLong,
}


def dialect_of(exchange: dict[str, Any]) -> str:
    path = exchange["request"]["path"].partition("?")[0]
    found = [dialect for end, dialect in PATHS.items() if path.endswith(end) and not path.endswith("/chat/completions")]
    return found[0] if found else ""


def recorded() -> list[Any]:
    vendors = ("openai", "azure", "deepseek", "vllm", "dashscope")
    found = [exchange for vendor in vendors for exchange in replay.exchanges(vendor) if dialect_of(exchange)]
    return [pytest.param(exchange, id=exchange["id"]) for exchange in found] or [pytest.param(None, marks=pytest.mark.skip(replay.ABSENT))]


EXCHANGES = recorded()


def test_the_recordings_are_there() -> None:
    replay.require()
    ids = {param.id for param in EXCHANGES}
    assert set(FAILED) <= ids
    assert len(ids) == 14


@pytest.mark.parametrize("cut", [0, 1, 7])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_recorded_exchange(exchange: dict[str, Any], cut: int) -> None:
    reply, body, dialect = exchange["response"], replay.body_of(exchange["response"]), dialect_of(exchange)
    if reply["status"] != 200:
        headers = {name.lower(): value for name, value in reply["headers"].items()}
        error = adapter_for(provider("openai")).read_error(reply["status"], headers, body)
        assert type(error) is FAILED[exchange["id"]]
    elif "lines" in reply:
        reader, out = streamed(dialect, body, exchange["request"]["body"], cut)
        assert out + reader.tail == body if body.endswith(b"\n\n") else body.startswith(out)
        assert reader.done
        check_usage(reader.usage, json.loads(reader.tail.partition(b"data: ")[2])["response"]["usage"])
        assert reader.output_bytes > 0
    else:
        answer = read(dialect, body, exchange["request"]["body"])
        given, said = json.loads(answer.body), json.loads(body)
        check_usage(answer.usage, said["usage"])
        assert given["usage"] == said["usage"]
        if dialect == "embeddings":
            assert len(given["data"]) == len(said["data"])
            assert given["data"][0]["embedding"] == said["data"][0]["embedding"]
        else:
            assert answer.output_bytes > 0
            assert answer.finish_reason in ("stop", "length")


def check_usage(usage: Usage | None, said: dict[str, Any]) -> None:
    """By the simplest reading."""
    assert usage is not None
    assert usage.prompt_tokens == said.get("prompt_tokens", said.get("input_tokens"))
    assert usage.total_tokens == said["total_tokens"]


SENT = [param for param in EXCHANGES if param.values[0] and param.values[0]["provider"] in ("openai", "vllm")]


@pytest.mark.parametrize("exchange", [param for param in SENT if not (param.values[0]["request"]["body"] or {}).get("stream")])
def test_what_we_send_is_what_was_recorded(exchange: dict[str, Any]) -> None:
    body = exchange["request"]["body"]
    request = asked(dialect_of(exchange), {**body, "model": "alias"})
    call = adapter_for(provider("openai")).chat_call(request, model(body["model"]), SECRET)
    assert call.body is not None
    assert replay.differences(body, json.loads(call.body)) == []
    assert call.url == "https://vendor.test/v1" + exchange["request"]["path"].removeprefix("/v1")
