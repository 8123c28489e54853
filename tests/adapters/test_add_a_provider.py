"""docs/add-a-provider.md, followed to the letter: its code is taken from the page, put where it says, and made to answer."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from core import errors
from core.conversation import Conversation, Image, Message, Text, Tool
from core.outbound import Guard, GuardedTransport
from core.plain import plain_request, result_of
from providers.adapters import registry
from tests.adapters.cast import KEY, SECRET, Heard, model, provider, quick, request

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add-a-provider.md"
ASKED = {"model": "alias", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(autouse=True)
def pages_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each block of the page is a module by the name in its first line, and what it registers is forgotten afterwards."""
    blocks = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE.read_text(), re.S)
    for name, code in blocks:
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_VENDORS", dict(registry._VENDORS))
    monkeypatch.setattr(registry, "_custom_allowed", {"acme_wire:Acme"})
    yield
    for name, _ in blocks:
        sys.modules.pop(name, None)
    registry._load.cache_clear()


class Vendor:
    """Answers each path with what the test laid down for it, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str, bytes]] = {}
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.address = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = head[0].split(" ")[1]
        self.seen.append((path, headers, json.loads(body) if body else None))
        status, content_type, answer = self.answers[path]
        line = f"HTTP/1.1 {status} OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(answer)}\r\nconnection: close\r\n\r\n"
        writer.write(line.encode() + answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    vendor = Vendor()
    server = await asyncio.start_server(vendor.serve, "127.0.0.1", 0)
    vendor.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield vendor


@pytest.fixture
async def transport() -> AsyncIterator[GuardedTransport]:
    transport = GuardedTransport(Guard([("127.0.0.0/8", None)]))
    yield transport
    await transport.close()


async def asked(adapter: Any, transport: GuardedTransport, body: dict[str, Any]) -> Any:
    """The answer's body, or the bytes of the stream."""
    wanted = request(body)
    response = await adapter.send(transport, adapter.chat_call(wanted, model("acme-1"), SECRET))
    try:
        if response.status != 200:
            raise adapter.read_error(response.status, response.headers, await response.read(2**16))
        if not wanted.stream:
            return json.loads(adapter.read_answer(await response.read(2**16), wanted).body)
        reader, out = adapter.stream_reader(wanted), b""
        while not reader.done and (data := await response.next_chunk()):
            out += reader.feed(data)
        return out if reader.done else out + reader.finish()
    finally:
        response.close()


async def test_a_row_makes_a_vendor(vendor: Vendor, transport: GuardedTransport) -> None:
    importlib.import_module("acme_row")
    assert ("acme", "Acme AI") in registry.kinds()
    assert [(field.name, field.required, field.secret) for field in registry.form("acme")] == [
        ("api_key", True, True),
        ("base_url", False, False),
        ("workspace", False, False),
    ]
    adapter = registry.adapter_for(provider("acme", f"{vendor.address}/v1", timeouts=quick(), options={"workspace": "w-1"}))
    choice = {"index": 0, "message": {"role": "assistant", "content": "good day"}, "finish_reason": "stop"}
    answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "acme-1", "choices": [choice]}
    vendor.answers["/v1/chat/completions"] = (200, "application/json", json.dumps(answer).encode())
    vendor.answers["/v1/models"] = (200, "application/json", b'{"data": [{"id": "acme-1"}]}')
    read = await asked(adapter, transport, {**ASKED, "max_completion_tokens": 5})
    assert read["choices"][0]["message"]["content"] == "good day"
    (_, headers, sent) = vendor.seen[0]
    assert sent == {**ASKED, "model": "acme-1", "max_tokens": 5}
    assert (headers["x-acme-key"], headers["x-acme-workspace"], "authorization" in headers) == (KEY, "w-1", False)
    response = await adapter.send(transport, adapter.models_call(SECRET))
    assert adapter.read_models(await response.read(2**16)) == ["acme-1"]


def test_a_type_is_registered_once() -> None:
    importlib.import_module("acme_row")
    with pytest.raises(errors.ConfigurationError, match="'openai' is a provider type already"):
        registry.register("openai", registry.Vendor("Another"))


@pytest.mark.parametrize("own_type", [False, True])
async def test_a_class_makes_a_vendor(vendor: Vendor, transport: GuardedTransport, own_type: bool) -> None:
    if own_type:
        registry.register("acme_wire", registry.Vendor("Acme", "acme_wire:Acme", "https://api.acme.example"))
        spec = provider("acme_wire", vendor.address, timeouts=quick())
    else:
        spec = provider("custom", vendor.address, timeouts=quick(), options={"adapter": "acme_wire:Acme"})
    adapter = registry.adapter_for(spec)
    vendor.answers["/speak"] = (200, "application/json", b'{"say": "good day", "end": "done", "read": 3, "written": 5}')
    wanted = plain_request("alias", Conversation([Message("user", [Text("hi")])], max_output_tokens=9), stream=False)
    response = await adapter.send(transport, adapter.chat_call(wanted, model("acme-1"), SECRET))
    result = result_of(adapter.read_answer(await response.read(2**16), wanted).body)
    assert (result.parts, result.ended.reason, result.usage and result.usage.total_tokens) == ([Text("good day")], "stop", 8)
    assert vendor.seen[0][2] == {"model": "acme-1", "turns": [["user", "hi"]], "most": 9, "live": False}


async def test_the_class_streams_to_a_client_of_openai(vendor: Vendor, transport: GuardedTransport) -> None:
    adapter = registry.adapter_for(provider("custom", vendor.address, timeouts=quick(), options={"adapter": "acme_wire:Acme"}))
    stream = b'data: {"say": "good"}\n\ndata: {"say": " day", "end": "cut", "read": 3, "written": 2}\n\n'
    vendor.answers["/speak"] = (200, "text/event-stream", stream)
    heard = Heard(await asked(adapter, transport, {**ASKED, "stream": True, "stream_options": {"include_usage": True}}))
    assert (heard.text, heard.finish, heard.usage["total_tokens"]) == ("good day", {0: "length"}, 5)
    vendor.answers["/speak"] = (200, "text/event-stream", stream[:24])
    with pytest.raises(errors.ProviderNonsense, match="in the middle"):
        await asked(adapter, transport, {**ASKED, "stream": True})


async def test_the_class_refuses_by_name_and_reads_errors(vendor: Vendor, transport: GuardedTransport) -> None:
    adapter = registry.adapter_for(provider("custom", vendor.address, timeouts=quick(), options={"adapter": "acme_wire:Acme"}))
    for conversation, name in (
        (Conversation([Message("user", [Text("hi")])], tools=[Tool("f")]), "tools"),
        (Conversation([Message("user", [Image(url="https://a.example/b.png")])]), "messages"),
    ):
        with pytest.raises(errors.InvalidRequest) as caught:
            adapter.chat_call(plain_request("alias", conversation, stream=False), model(), SECRET)
        assert caught.value.param == name
    vendor.answers["/speak"] = (429, "application/json", b'{"error": {"message": "slow down"}}')
    with pytest.raises(errors.ProviderLimited):
        await asked(adapter, transport, ASKED)
