"""Our own dialect: the event model itself, as JSON. For callers inside this product (connection tests, tasks), not for clients."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from core.chat import ChatRequest
from core.conversation import Conversation
from core.errors import InvalidRequest
from core.events import Begun, Content, Counted, Ended, Result, gathered
from core.usage import Usage

_encode = msgspec.json.Encoder().encode
_EVENTS = Begun | Content | Ended | Counted
_decode_event = msgspec.json.Decoder(_EVENTS).decode
_decode_result = msgspec.json.Decoder(Result).decode


class _Writer:
    """One event a line."""

    def begin(self, begun: Begun) -> bytes:
        return _encode(begun) + b"\n"

    def write(self, event: Content) -> bytes:
        return _encode(event) + b"\n"

    def end(self, ended: Ended, usage: Usage | None) -> bytes:
        counted = _encode(Counted(usage)) + b"\n" if usage is not None else b""
        return counted + _encode(ended) + b"\n"

    def tail(self) -> bytes:
        return b""


class _Plain:
    NAME = "plain"
    SCOPE = "chat"

    def conversation(self, fields: Mapping[str, msgspec.Raw]) -> Conversation:
        raise InvalidRequest("A plain request brings its conversation along.")

    def whole(self, request: ChatRequest, result: Result) -> bytes:
        return _encode(result)

    def stream_writer(self, request: ChatRequest) -> _Writer:
        return _Writer()


PLAIN = _Plain()


def plain_request(model: str, conversation: Conversation, *, stream: bool) -> ChatRequest:
    """A request whose answer is read back with `result_of`, or its stream with `result_of_stream`."""
    return ChatRequest(
        dialect=PLAIN,
        model=model,
        stream=stream,
        wants_usage=True,
        max_output_tokens=conversation.max_output_tokens,
        body_bytes=len(_encode(conversation)),
        fields={},
        _conversation=conversation,
    )


def result_of(body: bytes) -> Result:
    return _decode_result(body)


def result_of_stream(body: bytes) -> Result:
    """Raises ValueError where the stream has no end."""
    return gathered(map(_decode_event, body.splitlines()))
