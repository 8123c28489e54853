"""The official client as judge: what it sends to OpenAI and to Azure is what our adapters send, path, key and body alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from core.outbound import Guard, GuardedTransport
from providers.adapters.base import Adapter
from providers.adapters.registry import adapter_for
from tests.adapters.cast import KEY, SECRET, model, provider, quick, request

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "hi", "refusal": None}, "logprobs": None, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()
SYSTEM = {"role": "developer", "content": "Answer in one word."}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"北京"}'}}
BODIES: dict[str, dict[str, Any]] = {
    "plain": {"messages": [{"role": "user", "content": "你好"}]},
    "limits": {
        "messages": [SYSTEM, {"role": "user", "content": "hi"}],
        "max_completion_tokens": 20,
        "temperature": 0.5,
        "stop": ["\n"],
        "seed": 7,
    },
    "tools": {
        "messages": [
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ],
        "tools": [TOOL],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
    },
    "json": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "what is this?"}, IMAGE]}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": {"type": "object"}}},
    },
}


class Capture:
    """A server that keeps what it is sent and always gives the same answer."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Any]] = []
        self.base = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        auth = {name: headers[name] for name in ("authorization", "api-key") if name in headers}
        self.seen.append((head[0], json.dumps(auth), json.loads(body) if body else None))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(ANSWER))
        writer.write(ANSWER)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Capture]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        async with server:
            yield self


async def ours(adapter: Adapter, body: dict[str, Any], model_id: str) -> None:
    transport = GuardedTransport(Guard([("127.0.0.0/8", None)]))
    asked = request({"model": "alias", **body})
    response = await adapter.send(transport, adapter.chat_call(asked, model(model_id), SECRET))
    assert adapter.read_answer(await response.read(2**16), asked).finish_reason == "stop"
    response.close()
    await transport.close()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_openai(body: dict[str, Any]) -> None:
    async with Capture().running() as capture:
        async with AsyncOpenAI(api_key=KEY, base_url=capture.base + "/v1", max_retries=0) as client:
            await client.chat.completions.create(model="gpt-4o", **body)
        await ours(adapter_for(provider("openai", capture.base + "/v1", timeouts=quick())), body, "gpt-4o")
    theirs, sent = capture.seen
    assert sent == theirs


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_azure_classic(body: dict[str, Any]) -> None:
    options = {"style": "classic", "api_version": "2024-12-01-preview", "deployments": {"gpt-4o": "my deployment"}}
    async with Capture().running() as capture:
        async with AsyncAzureOpenAI(api_key=KEY, azure_endpoint=capture.base, api_version=options["api_version"], max_retries=0) as client:
            await client.chat.completions.create(model="my deployment", **body)
        await ours(adapter_for(provider("azure", capture.base, options=options, timeouts=quick())), body, "gpt-4o")
    theirs, sent = capture.seen
    assert sent == theirs
    assert "api-key" in sent[1]


async def test_azure_v1_is_openai_with_another_address_and_azures_key_header() -> None:
    async with Capture().running() as capture:
        base = capture.base + "/openai/v1/"
        async with AsyncOpenAI(api_key=KEY, base_url=base, max_retries=0) as client:
            await client.chat.completions.create(model="my-deployment", **BODIES["limits"])
        options = {"style": "v1", "deployments": {"gpt-4o": "my-deployment"}}
        await ours(adapter_for(provider("azure", base, options=options, timeouts=quick())), BODIES["limits"], "gpt-4o")
    (their_line, _, their_body), (line, auth, body) = capture.seen
    assert (line, body) == (their_line, their_body)
    assert json.loads(auth) == {"api-key": KEY}
