"""Reads the samples of a vendor with OpenAI's wire, and checks an adapter against one of them.

A folder holds requests.json (what a client asks, and the call that is made of it), answers.json (a body, or the events of a
stream, and what a client hears), errors.json and models.json. They are written from the vendor's documentation.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from core import errors
from core.chat import ChatRequest
from core.conversation import Conversation
from core.plain import plain_request
from core.usage import Usage
from providers.adapters.registry import adapter_for
from tests.adapters.cast import KEY, SECRET, Heard, model, provider, request, spoken

HERE = Path(__file__).parent
# The translation of OpenAI's wire has its samples under the name.
KINDS = {"openai_itself": "openai"}


def samples(folder: str, part: str) -> list[Any]:
    """pytest parameters: (kind, sample)."""
    path = HERE / folder / f"{part}.json"
    found = json.loads(path.read_text()) if path.is_file() else []
    kind = KINDS.get(folder, folder)
    names = [str(sample.get("name") or sample.get("error") or "listed") for sample in found]
    return [pytest.param(kind, sample, id=f"{folder}: {name}") for name, sample in zip(names, found, strict=True)]


def adapter_of(kind: str, sample: dict[str, Any]) -> Any:
    return adapter_for(provider(kind, sample.get("base_url") or BASE_URLS.get(kind, ""), options=sample.get("options") or {}))


BASE_URLS = {"azure": "https://my-resource.openai.azure.com"}


def asked_of(sample: dict[str, Any]) -> ChatRequest:
    if "conversation" in sample:
        return plain_request("alias", msgspec.convert(sample["conversation"], Conversation), stream=False)
    asked = request({"model": "alias", **sample["asked"]})
    if "dialect" in sample:
        asked.dialect = SimpleNamespace(NAME=sample["dialect"])  # type: ignore[assignment]
    return asked


def check_request(kind: str, sample: dict[str, Any]) -> None:
    call = adapter_of(kind, sample).chat_call(asked_of(sample), model(sample.get("model_id", "m-1")), SECRET)
    assert json.loads(call.body or b"") == sample["sent"]
    assert call.url == sample.get("url", call.url)
    expected = {name: value.replace("KEY", KEY) for name, value in sample.get("headers", {}).items()}
    assert {name: call.headers.get(name) for name in expected} == expected
    assert list(call.dropped) == sample.get("dropped", [])


def check_answer(kind: str, sample: dict[str, Any]) -> None:
    """Whole, and where it is a stream, in one piece and byte by byte."""
    adapter = adapter_of(kind, sample)
    if "error" in sample:
        with pytest.raises(errors.GatewayError) as caught:
            read(adapter, sample, 0)
        assert type(caught.value).__name__ == sample["error"]
        return
    for cut in (0, 1):
        heard, usage = read(adapter, sample, cut)
        assert heard == (
            *(sample["says"].get(name, "") for name in ("text", "reasoning")),
            sample["says"].get("tools", []),
            sample["says"]["finish"],
        )
        assert usage == (Usage(**sample["says"]["usage"]) if "usage" in sample["says"] else None)


def read(adapter: Any, sample: dict[str, Any], cut: int) -> tuple[Any, Usage | None]:
    """((text, reasoning, calls, finish reason), usage) as a client hears them."""
    if "body" in sample:
        answer = adapter.read_answer(json.dumps(sample["body"], ensure_ascii=False).encode(), request())
        (choice,) = json.loads(answer.body)["choices"]
        calls = [
            [call["id"], call["function"]["name"], call["function"]["arguments"]] for call in choice["message"].get("tool_calls") or ()
        ]
        return (*spoken(choice["message"]), calls, choice["finish_reason"]), answer.usage
    reader = adapter.stream_reader(request({"model": "alias", "stream": True}, wants_usage=True))
    body = b"".join(map(line, sample["lines"]))
    pieces = [body[start : start + cut] for start in range(0, len(body), cut)] if cut else [body]
    heard = Heard(b"".join(map(reader.feed, pieces)) + (b"" if reader.done else reader.finish()))
    tools = [[call["id"], call["name"], call["arguments"]] for call in heard.tools.values()]
    return (heard.text, heard.reasoning, tools, heard.finish[0]), reader.usage


def line(event: Any) -> bytes:
    """A comment or a blank line as it is, anything else as an event's data."""
    if isinstance(event, str) and event[:1] in ("", ":"):
        return event.encode() + b"\n"
    return b"data: " + (event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)).encode() + b"\n\n"


def check_error(kind: str, sample: dict[str, Any]) -> None:
    body = sample["body"] if isinstance(sample["body"], str) else json.dumps(sample["body"])
    found = adapter_of(kind, sample).read_error(sample["status"], sample.get("headers", {}), body.encode())
    assert type(found).__name__ == sample["error"]
    assert found.retry_after_s == sample.get("retry_after_s")


def check_models(kind: str, sample: dict[str, Any]) -> None:
    adapter = adapter_of(kind, sample)
    assert adapter.models_call(SECRET).url == sample["url"]
    assert adapter.read_models(json.dumps(sample["body"]).encode()) == sample["listed"]
