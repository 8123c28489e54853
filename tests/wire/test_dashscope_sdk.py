"""The official client, dashscope 2.0, as judge: what it sends is what our adapter sends, and what it reads is what we read."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from core.conversation import (
    Audio,
    Conversation,
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
from core.outbound import Guard, GuardedTransport
from core.plain import plain_request, result_of_stream
from tests import replay
from tests.wire.dashscope_cast import KEY, SECRET, adapter, embeddings, model

WHOLE = b'{"output":{"choices":[{"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]},"request_id":"r"}'
EMBEDDED = b'{"output":{"embeddings":[{"text_index":0,"embedding":[1.0]}]},"usage":{"total_tokens":1},"request_id":"r"}'
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
PICTURE = {"image": "data:image/png;base64,aGk="}


def user(*parts: Any) -> Message:
    return Message("user", list(parts))


# What the SDK is asked, and the same in our own words.
ASKED: dict[str, tuple[dict[str, Any], Conversation]] = {
    "everything in words": (
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好"}],
            "temperature": 0.5, "top_p": 0.9, "top_k": 3, "max_tokens": 10, "seed": 3, "stop": ["x"], "presence_penalty": 0.1,
            "enable_thinking": True, "thinking_budget": 100, "response_format": FORMAT,
        },
        Conversation(
            [Message("system", [Text("Be brief.")]), user(Text("你好"))],
            max_output_tokens=10, temperature=0.5, top_p=0.9, top_k=3, stop=["x"], seed=3, presence_penalty=0.1,
            json_output=JsonOutput(msgspec.Raw(json.dumps(SCHEMA).encode()), strict=True), reasoning=ReasoningWish(budget_tokens=100),
        ),
    ),
    "tools": (
        {
            "messages": [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [CALL]},
                {"role": "tool", "content": "rain", "tool_call_id": "c1"},
            ],
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "parallel_tool_calls": False,
        },
        Conversation(
            [
                user(Text("Weather?")),
                Message("assistant", [Reasoning("hm"), ToolUse("c1", "weather", '{"city": "Rome"}')]),
                Message("tool", [ToolResult("c1", [Text("rain")])]),
            ],
            tools=[Tool("weather", "The weather.", msgspec.Raw(json.dumps(SCHEMA).encode()))],
            tool_choice=ToolChoice("required"), parallel_tool_calls=False,
        ),
    ),
    "pictures and sound": (
        {
            "messages": [
                {"role": "system", "content": [{"text": "Look."}]},
                {"role": "user", "content": [PICTURE, {"type": "audio", "data": "aGk=", "format": "wav"}, {"text": "?"}]},
            ]
        },
        Conversation(
            [Message("system", [Text("Look.")]), user(Image(data="aGk=", media_type="image/png"), Audio("aGk=", "wav"), Text("?"))]
        ),
    ),
}  # fmt: skip


class Capture:
    """A server that keeps what it is sent and answers with `answer`, or with a stream where one is asked for."""

    def __init__(self, answer: bytes = WHOLE, stream: bytes = b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:" + WHOLE + b"\n\n") -> None:
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.base = ""
        self._answer, self._stream = answer, stream

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        told = {name: headers[name] for name in ("authorization", "content-type", "x-dashscope-sse") if name in headers}
        self.seen.append((head[0], told, json.loads(body) if body else None))
        stream = "x-dashscope-sse" in headers
        answer, kind = (self._stream, b"text/event-stream") if stream else (self._answer, b"application/json")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (kind, len(answer)))
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Capture]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self


@pytest.fixture(scope="module")
def sdk() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns of its own
        import dashscope
    return dashscope


async def heard_by_the_sdk(sdk: Any, base: str, **body: Any) -> str:
    """The text, and the arguments of tool calls, that the SDK reads."""
    async with sdk.AsyncClient(api_key=KEY, base_url=base + "/api/v1", max_retries=0) as client:
        found = await client.chat.completions.create(**body)
        if not body.get("stream"):
            return str(found.output_text)
        deltas = [chunk.delta async for chunk in found]
    pieces = [call.function.arguments for delta in deltas for call in delta.tool_calls or ()]
    return "".join(delta.content or "" for delta in deltas) + "".join(pieces)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("body", "conversation"), ASKED.values(), ids=ASKED)
async def test_a_conversation_is_what_the_sdk_sends_of_it(sdk: Any, body: dict[str, Any], conversation: Conversation, stream: bool) -> None:
    async with Capture().running() as capture:
        assert await heard_by_the_sdk(sdk, capture.base, model="qwen-plus", stream=stream, **body) == "hi"
        transport = GuardedTransport(Guard([("127.0.0.0/8", None)]))
        vendor, asked = adapter(capture.base), plain_request("alias", conversation, stream=stream)
        response = await vendor.send(transport, vendor.chat_call(asked, model(), SECRET))
        assert response.status == 200
        response.close()
        await transport.close()
    theirs, ours = capture.seen
    assert ours == theirs


async def test_embeddings_are_what_the_sdk_sends_of_them(sdk: Any) -> None:
    async with Capture(EMBEDDED).running() as capture:
        async with sdk.AsyncClient(api_key=KEY, base_url=capture.base + "/api/v1", max_retries=0) as client:
            await client.embeddings.create(model="text-embedding-v4", input=["a"], dimension=8, output_type="dense")
    ((line, headers, body),) = capture.seen
    call = adapter(capture.base).chat_call(embeddings(input="a", dimensions=8), model("text-embedding-v4"), SECRET)
    assert f"POST {call.url.removeprefix(capture.base)} HTTP/1.1" == line
    assert headers == {name.lower(): value for name, value in call.headers.items() if name != "Accept"}
    assert json.loads(call.body or b"") == body


STREAMS = [exchange for exchange in replay.exchanges("dashscope") if "native" in exchange["id"] and "lines" in exchange["response"]]


@pytest.mark.parametrize(
    "exchange",
    [pytest.param(exchange, id=exchange["id"]) for exchange in STREAMS if exchange["request"]["body"]["parameters"]]
    or [pytest.param(None, marks=pytest.mark.skip(replay.ABSENT))],
)
async def test_a_recorded_stream_is_what_the_sdk_reads(sdk: Any, exchange: dict[str, Any]) -> None:
    recorded = replay.body_of(exchange["response"])
    async with Capture(stream=recorded).running() as capture:
        theirs = await heard_by_the_sdk(sdk, capture.base, model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
    reader = adapter().stream_reader(plain_request("alias", Conversation([user(Text("hi"))]), stream=True))
    result = result_of_stream(reader.feed(recorded) + reader.finish())
    assert "".join(part.arguments if isinstance(part, ToolUse) else part.text for part in result.parts) == theirs
