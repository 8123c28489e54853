"""The fixed answer: in every dialect, whole and streamed, without a socket."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from core.config import ModelSpec, ProviderSpec
from core.errors import InvalidRequest
from core.outbound import Guard, GuardedTransport
from core.usage import Usage
from gateway.doors import completions, embeddings
from providers.adapters import registry
from tests.wire.clients_cast import asked, told_in_stream, told_whole

TEXT = 'Closed until 9:00.\r\n\r\ndata: [DONE]\n"Tomorrow" – 明天\u2028'
SPEC = ProviderSpec(registry.FIXED_ANSWER, registry.FIXED_ANSWER, registry.FIXED_ANSWER, "", options={"support": TEXT, "sales": "Buy."})
MODEL = ModelSpec(registry.FIXED_ANSWER, "support", registry.FIXED_ANSWER, registry.FIXED_ANSWER)


@pytest.fixture
def transport() -> GuardedTransport:
    """Lets nothing through."""
    return GuardedTransport(Guard(()))


async def whole(transport: GuardedTransport, request: Any) -> Any:
    adapter = registry.adapter_for(SPEC)
    response = await adapter.send(transport, adapter.chat_call(request, MODEL, None))
    assert response.status == 200
    return adapter.read_answer(await response.read(100_000), request)


async def streamed(transport: GuardedTransport, request: Any) -> tuple[bytes, Any]:
    adapter = registry.adapter_for(SPEC)
    response = await adapter.send(transport, adapter.chat_call(request, MODEL, None))
    reader = adapter.stream_reader(request)
    body = b""
    while not reader.done and (data := await response.next_chunk()):
        body += reader.feed(data)
    assert reader.done
    return body + reader.tail, reader


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "responses"])
async def test_every_dialect_gets_the_text_whole(transport: GuardedTransport, dialect: str) -> None:
    answer = await whole(transport, asked(dialect))
    told = told_whole(dialect, answer.body)
    assert told.text == TEXT
    assert told.finish in ("stop", "end_turn", "completed")
    assert (answer.usage, answer.finish_reason) == (Usage(), "stop")


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "responses"])
async def test_every_dialect_gets_the_text_as_a_stream(transport: GuardedTransport, dialect: str) -> None:
    body, reader = await streamed(transport, asked(dialect, stream=True))
    told = told_in_stream(dialect, body)
    assert told.text == TEXT
    assert told.finish in ("stop", "end_turn", "completed")
    assert (reader.usage, reader.finish_reason, reader.content_started) == (Usage(), "stop", True)


async def test_completions_get_it_too(transport: GuardedTransport) -> None:
    body = {"model": "support", "prompt": "hi", "stream_options": {"include_usage": True}, "stream": True}
    stream, _ = await streamed(transport, completions.parse(msgspec.json.encode(body)))
    events = [json.loads(event[6:]) for event in stream.decode().split("\n\n") if event.startswith("data: {")]
    assert "".join(choice["text"] for event in events for choice in event["choices"]) == TEXT
    assert events[-1]["usage"]["total_tokens"] == 0
    answer = await whole(transport, completions.parse(b'{"model":"support","prompt":"hi"}'))
    assert json.loads(answer.body)["choices"][0]["text"] == TEXT


def test_a_text_is_no_embedding() -> None:
    request = embeddings.parse(b'{"model":"support","input":"hi"}')
    with pytest.raises(InvalidRequest, match="no embedding"):
        registry.adapter_for(SPEC).chat_call(request, MODEL, None)


def test_it_is_none_of_the_types_that_an_admin_chooses_from() -> None:
    assert registry.FIXED_ANSWER not in dict(registry.kinds())
    assert registry.adapter_for(SPEC).read_models(b"") == ["sales", "support"]
