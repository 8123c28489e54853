"""A vendor inside this process: says back what it was told, in OpenAI's dialect, always the same. For tests and first steps.

No socket is opened. Tokens are words. A last user message that holds "call tool" makes it call the first tool offered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from core.chat import WireCall
from core.errors import ProviderNonsense
from core.outbound import Response, Transport
from providers.adapters.base import FormField
from providers.adapters.openai_compatible import OpenAICompatible
from providers.adapters.sse import frame

MODELS = ("echo-1",)
_CREATED = 1_700_000_000


class Echo(OpenAICompatible):
    form: ClassVar[tuple[FormField, ...]] = ()

    async def send(self, transport: Transport, call: WireCall) -> Response:
        """Answers from memory; `transport` is not used."""
        if call.body is None:
            models = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "echo"} for name in MODELS]
            return MemoryResponse(200, "application/json", [msgspec.json.encode({"object": "list", "data": models})])
        try:
            body = msgspec.json.decode(call.body)
        except msgspec.DecodeError as exc:
            refusal = {"message": str(exc), "type": "invalid_request_error", "code": None, "param": None}
            return MemoryResponse(400, "application/json", [msgspec.json.encode({"error": refusal})])
        if body.get("model") not in MODELS:
            error = {
                "message": f"The model {body.get('model')!r} does not exist.",
                "type": "invalid_request_error",
                "code": "model_not_found",
            }
            return MemoryResponse(404, "application/json", [msgspec.json.encode({"error": {**error, "param": "model"}})])
        reply = _Reply(body, call.body)
        if body.get("stream"):
            return MemoryResponse(200, "text/event-stream", [*map(frame, reply.events()), b"data: [DONE]\n\n"])
        return MemoryResponse(200, "application/json", [msgspec.json.encode(reply.whole())])


class MemoryResponse:
    """A `Response` whose body is already here."""

    def __init__(self, status: int, content_type: str, chunks: list[bytes]) -> None:
        self.status = status
        self.content_type = content_type
        self.headers = {"content-type": content_type}
        self._chunks = chunks[::-1]

    async def read(self, limit: int) -> bytes:
        body = b"".join(self._chunks[::-1])
        self._chunks.clear()
        if len(body) > limit:
            raise ProviderNonsense(f"The provider's answer is longer than {limit} bytes.")
        return body

    async def next_chunk(self) -> bytes:
        return self._chunks.pop() if self._chunks else b""

    def close(self) -> None:
        self._chunks.clear()


class _Reply:
    """One answer, worked out from a request body."""

    def __init__(self, body: dict[str, Any], raw: bytes) -> None:
        messages = [message for message in body.get("messages") or [] if isinstance(message, dict)]
        asked = next((_text(message) for message in reversed(messages) if message.get("role") == "user"), "")
        tools = body.get("tools") or []
        self.words = f"echo: {asked}".split(" ")
        self.tool = tools[0]["function"]["name"] if tools and "call tool" in asked else ""
        self.wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self.base = {"id": "chatcmpl-" + hashlib.sha256(raw).hexdigest()[:24], "created": _CREATED, "model": body["model"]}
        prompt = sum(len(_text(message).split()) for message in messages)
        completion = 1 if self.tool else len(self.words)
        self.usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.tool else "stop"

    def _call(self) -> dict[str, Any]:
        return {"id": "call_" + str(self.base["id"])[-8:], "type": "function", "function": {"name": self.tool, "arguments": "{}"}}

    def whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None if self.tool else " ".join(self.words), "refusal": None}
        if self.tool:
            message["tool_calls"] = [self._call()]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return {**self.base, "object": "chat.completion", "choices": [choice], "usage": self.usage}

    def events(self) -> Iterator[bytes]:
        yield self._event({"role": "assistant", "content": None if self.tool else ""})
        if self.tool:
            yield self._event({"tool_calls": [{"index": 0, **self._call()}]})
        else:
            for position, word in enumerate(self.words):
                yield self._event({"content": f" {word}" if position else word})
        yield self._event({}, self.finish_reason)
        if self.wants_usage:
            yield msgspec.json.encode({**self.base, "object": "chat.completion.chunk", "choices": [], "usage": self.usage})

    def _event(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return msgspec.json.encode({**self.base, "object": "chat.completion.chunk", "choices": [choice]})


def _text(message: dict[str, Any]) -> str:
    """The text of a message, whose content may be a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
