"""OpenAI's other endpoints, passed through by vendors that have them: embeddings, completions, responses.

Pure functions by dialect name. What every endpoint shares (URL, headers, `model`, errors) is the adapter's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from core.chat import Answer, ChatRequest
from core.errors import GatewayError, InvalidRequest, ProviderFault, ProviderNonsense
from core.usage import refused_counts
from providers.adapters.base import StreamReader
from providers.adapters.openai_errors import why_not
from providers.adapters.openai_responses import ResponsesStreamReader, read_responses
from providers.adapters.openai_stream import INTERRUPTED, OpenAIStreamReader, read_usage, utf8_bytes
from providers.adapters.reading import UNREADABLE, packed

Fields = dict[str, msgspec.Raw]
_TRUE = msgspec.Raw(b"true")
_INCLUDE_USAGE = msgspec.Raw(b'{"include_usage":true}')
_FLOAT_BYTES = 4


class Endpoint(msgspec.Struct, frozen=True):
    """One endpoint below the base URL. `fields` are the client's own, all of them; `secrets` are masked in error messages.

    `to_wire` gives a changed copy of the fields, without `model`, which is the adapter's to set. `read` takes a whole
    answer: raises ProviderNonsense, or the error that hides in a 200. `stream_reader` None = the endpoint has no streams.
    """

    path: str
    to_wire: Callable[[Fields, ChatRequest], Fields]
    read: Callable[[bytes, ChatRequest, Sequence[str]], Answer]
    stream_reader: Callable[[ChatRequest, Sequence[str]], StreamReader] | None = None


def with_usage(asked: msgspec.Raw | None) -> msgspec.Raw:
    """`stream_options` with `include_usage` on and the client's other options kept. Raises InvalidRequest."""
    if asked is None:
        return _INCLUDE_USAGE
    try:
        options = msgspec.json.decode(asked, type=Fields | None) or {}
    except msgspec.DecodeError:
        raise InvalidRequest("stream_options must be an object.", param="stream_options") from None
    return msgspec.Raw(msgspec.json.encode({**options, "include_usage": True}))


def _decoded(body: bytes, decode: Callable[[bytes], Any], what: str, secrets: Sequence[str]) -> Any:
    """`body` by `decode`. Raises the error that it is instead, or ProviderNonsense: it is no `what`."""
    try:
        if not body.isascii():
            body.decode()  # skipped parts of JSON are not checked for UTF-8
        return decode(body)
    except UNREADABLE as exc:
        raise _why_not(body, exc, what, secrets) from None


def _why_not(body: bytes, problem: Exception | str, what: str, secrets: Sequence[str]) -> GatewayError:
    return why_not(body, problem, f"The provider's answer is JSON, but {what}.", secrets)


# Embeddings


class _Vector(msgspec.Struct):
    embedding: str | list[float]
    index: int | None = None
    object: str = ""


class _Embeddings(msgspec.Struct):
    data: list[_Vector]
    model: str | None = None
    object: str = ""
    usage: Any = None
    error: Any = None


_decode_embeddings = msgspec.json.Decoder(_Embeddings).decode
_decode_inputs = msgspec.json.Decoder(str | list[msgspec.Raw]).decode


def _embeddings_to_wire(fields: Fields, request: ChatRequest) -> Fields:
    return {name: value for name, value in fields.items() if name != "stream"}


def _read_embeddings(body: bytes, request: ChatRequest, secrets: Sequence[str]) -> Answer:
    """One vector for each input, in the encoding that the client asked for, whatever the vendor gave."""
    answer = _decoded(body, _decode_embeddings, "no list of embeddings", secrets)
    if answer.error or not answer.data:
        raise _why_not(body, "", "holds no embeddings", secrets)
    expected = _input_count(request.fields.get("input"))
    if expected and len(answer.data) != expected:
        raise ProviderNonsense(f"The provider gave {len(answer.data)} embeddings for {expected} inputs.")
    encoding = str if bytes(request.fields.get("encoding_format", b"")) == b'"base64"' else list
    complete = answer.object == "list" and bool(answer.model)
    for position, vector in enumerate(answer.data):
        if not vector.embedding:
            raise ProviderNonsense("The provider gave an embedding that is empty.", detail=f"data[{position}]")
        complete = complete and isinstance(vector.embedding, encoding) and vector.index is not None and vector.object == "embedding"
    usage = answer.usage if isinstance(answer.usage, dict) else {}
    counts = {**usage, "prompt_tokens": usage.get("prompt_tokens", usage.get("total_tokens")), "completion_tokens": 0}
    read = read_usage(counts)
    refused = refused_counts(answer.usage) if read is None else ""
    return Answer(body if complete else _repaired_embeddings(body, encoding), read, "", 0, refused)


def _input_count(raw: msgspec.Raw | None) -> int:
    """How many texts a client sent: a string or a list of tokens is one. 0 = cannot be told."""
    try:
        inputs = _decode_inputs(raw or b"")
    except msgspec.DecodeError:
        return 0
    if isinstance(inputs, str) or (inputs and bytes(inputs[0]).isdigit()):
        return 1
    return len(inputs)


def _repaired_embeddings(body: bytes, encoding: type) -> bytes:
    """The same answer with the keys that OpenAI's schema requires and every vector in one encoding; the rest is kept."""
    answer = msgspec.json.decode(body)
    answer["object"] = "list"
    answer["model"] = answer.get("model") or "unknown"
    for position, vector in enumerate(answer["data"]):
        vector["object"] = "embedding"
        if vector.get("index") is None:
            vector["index"] = position
        vector["embedding"] = _packed(vector["embedding"]) if encoding is str else _unpacked(vector["embedding"])
    return msgspec.json.encode(answer)


def _packed(vector: str | list[float]) -> str:
    if isinstance(vector, str):
        return vector
    try:
        return packed(vector)
    except (OverflowError, struct.error):
        raise ProviderNonsense("The provider gave an embedding with a number that is no 32-bit float.") from None


def _unpacked(vector: str | list[float]) -> list[float]:
    if isinstance(vector, list):
        return vector
    try:
        floats = base64.b64decode(vector, validate=True)
        numbers = list(struct.unpack(f"<{len(floats) // _FLOAT_BYTES}f", floats))
    except (binascii.Error, struct.error):
        raise ProviderNonsense("The provider gave an embedding that is not base64 of 32-bit floats.") from None
    if not all(map(math.isfinite, numbers)):
        raise ProviderNonsense("The provider gave an embedding with a number that JSON cannot hold.")
    return numbers


# Completions


class _TextChoice(msgspec.Struct):
    text: str | None = None
    index: int | msgspec.UnsetType = msgspec.UNSET
    finish_reason: str | msgspec.UnsetType | None = msgspec.UNSET
    logprobs: msgspec.Raw = msgspec.Raw(b"")


class _TextCompletion(msgspec.Struct):
    choices: list[_TextChoice]
    id: str | None = None
    object: str = ""
    created: int | float | None = None
    model: str | None = None
    usage: Any = None
    error: Any = None


_decode_completion = msgspec.json.Decoder(_TextCompletion).decode


def _completions_to_wire(fields: Fields, request: ChatRequest) -> Fields:
    """Usage is always asked of a stream; the reader withholds it from a client that did not."""
    if not request.stream:
        return fields
    return {**fields, "stream": _TRUE, "stream_options": with_usage(fields.get("stream_options"))}


def _read_completion(body: bytes, request: ChatRequest, secrets: Sequence[str]) -> Answer:
    answer = _decoded(body, _decode_completion, "no text completion", secrets)
    if answer.error or not answer.choices:
        raise _why_not(body, "", "no text completion", secrets)
    complete = bool(answer.id and answer.model) and answer.object == "text_completion" and isinstance(answer.created, int)
    for choice in answer.choices:
        if not isinstance(choice.text, str) or not choice.finish_reason:
            raise ProviderNonsense("The provider's answer has no text, or does not say how it ended: it has no finish_reason.")
        if choice.finish_reason in INTERRUPTED:
            raise ProviderFault("The provider broke off in the middle of the answer.", detail=f"finish_reason {choice.finish_reason}")
        complete = complete and choice.index is not msgspec.UNSET and bool(choice.logprobs)
    usage = read_usage(answer.usage)
    return Answer(
        body=body if complete else _repaired_completion(body),
        usage=usage,
        refused_counts=refused_counts(answer.usage) if usage is None else "",
        finish_reason=str(answer.choices[0].finish_reason),
        output_bytes=sum(utf8_bytes(choice.text) for choice in answer.choices),
    )


def _repaired_completion(body: bytes) -> bytes:
    """The same answer with the keys that OpenAI's schema requires; what the vendor did say is kept."""
    answer = msgspec.json.decode(body)
    answer["id"] = answer.get("id") or "cmpl-" + hashlib.sha256(body).hexdigest()[:24]
    answer["object"] = "text_completion"
    answer["created"] = int(answer.get("created") or 0)
    answer["model"] = answer.get("model") or "unknown"
    for position, choice in enumerate(answer["choices"]):
        choice.setdefault("index", position)
        choice.setdefault("logprobs", None)
    return msgspec.json.encode(answer)


class _CompletionStreamReader(OpenAIStreamReader):
    """The chat reader's rules for `text_completion` chunks, whose choices hold `text` instead of a `delta`."""

    def _read(self, event: bytes) -> bytes:
        try:
            if not event.isascii():
                event.decode()
            chunk = _decode_completion(event)
        except UNREADABLE as exc:
            return self._read_unusual(event, exc)
        if chunk.error:
            return self._read_unusual(event, None)
        if chunk.usage is not None:
            self._count(chunk.usage)
        if not chunk.choices:
            return event if chunk.usage is None or self._wants_usage else b""
        for position, choice in enumerate(chunk.choices):
            index = position if choice.index is msgspec.UNSET else choice.index
            if choice.text:
                self.output_bytes += utf8_bytes(choice.text)
                self.content_started = True
            if isinstance(choice.finish_reason, str):
                self._finish_choice(index, choice.finish_reason)
            else:
                self._started.add(index)
        return event


def _completion_stream_reader(request: ChatRequest, secrets: Sequence[str]) -> StreamReader:
    return _CompletionStreamReader(request.wants_usage, secrets)


def _as_sent(fields: Fields, request: ChatRequest) -> Fields:
    return fields


ENDPOINTS: dict[str, Endpoint] = {
    "embeddings": Endpoint("/embeddings", _embeddings_to_wire, _read_embeddings),
    "completions": Endpoint("/completions", _completions_to_wire, _read_completion, _completion_stream_reader),
    "responses": Endpoint("/responses", _as_sent, read_responses, ResponsesStreamReader),
}
