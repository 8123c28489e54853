"""The wire that most of the world speaks: `POST {base_url}/chat/completions`, as OpenAI defined it.

Where client and server speak one dialect, bytes pass through: a request changes only in `model`, `stream_options` and what
the server's quirks demand, an answer only where a client of OpenAI's could not read it. Every other dialect is translated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from core.chat import Answer, ChatRequest, WireCall
from core.clock import SystemClock
from core.config import ModelSpec, ProviderSpec
from core.errors import GatewayError, InvalidRequest
from core.outbound import Response, Transport
from core.secrets import Secret
from providers.adapters import openai_wire
from providers.adapters.base import FormField, StreamReader
from providers.adapters.openai_answers import read_chat_answer
from providers.adapters.openai_endpoints import ENDPOINTS, Endpoint, with_usage
from providers.adapters.openai_errors import error_of_status
from providers.adapters.openai_stream import OpenAIStreamReader
from providers.adapters.quirks import CHAT, EMBEDDINGS, Quirks
from providers.adapters.reading import ModelList, listed_models
from providers.adapters.translated import Leftovers, TranslatedReader, own_names, translated_answer

Fields = dict[str, msgspec.Raw]

# Ours, not OpenAI's: a vendor would refuse them. `prompt` is ours in a chat request only.
OUR_FIELDS = ("task_type", "models", "cache")
_TRUE, _NULL, _SYSTEM = msgspec.Raw(b"true"), msgspec.Raw(b"null"), msgspec.Raw(b'"system"')
_PLAIN = Quirks()
_CHAT_PATH = "/chat/completions"
_messages = msgspec.json.Decoder(list[msgspec.Raw]).decode
_message = msgspec.json.Decoder(Fields).decode
_calls = msgspec.json.Decoder(list[Fields] | None).decode
_options = msgspec.json.Decoder(Fields | None).decode
# What answers of other vendors put into a conversation: earlier thought, and Gemini's seals.
_NOT_OPENAIS = {name: f'"{name}"'.encode() for name in ("reasoning_content", "thinking_blocks", "extra_content")}


class OpenAICompatible:
    """Any server with OpenAI's chat API. `spec.base_url` is complete: the registry has put in the vendor's own where it was empty.

    A vendor with addresses of its own overrides `url` and `wire_model_id`. Of `dialects`, those pass through that the quirks
    say the server has.
    """

    dialects: ClassVar[frozenset[str]] = frozenset({CHAT, *ENDPOINTS})
    form: ClassVar[tuple[FormField, ...]] = (FormField("api_key", "API key", "Leave empty where the server asks for none.", secret=True),)
    wall = staticmethod(SystemClock.wall)

    def __init__(self, spec: ProviderSpec, quirks: Quirks = _PLAIN) -> None:
        self.spec = spec
        self.quirks = quirks
        self._base_url = spec.base_url.rstrip("/")
        self._secrets = tuple(key.secret.reveal().strip() for key in spec.keys)
        headers = {header: str(spec.options[option]) for option, header in quirks.option_headers if spec.options.get(option)}
        self._headers = {"Content-Type": "application/json", **headers}
        self._needles = _needles(quirks)
        self._endpoints = {name: endpoint for name, endpoint in ENDPOINTS.items() if name in quirks.endpoints}

    def url(self, path: str, model_id: str) -> str:
        """Where `path` ("/chat/completions", …) is for the model, whose id is the one that `wire_model_id` gave."""
        return self._base_url + path

    def wire_model_id(self, model: ModelSpec) -> str:
        """What the vendor calls the model."""
        return model.model_id

    def chat_call(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
        """See `Adapter.chat_call`. Usage is always asked of a stream; the reader withholds it from a client that did not."""
        dialect = request.dialect.NAME
        if dialect == CHAT:
            path, (fields, dropped) = _CHAT_PATH, self._chat_fields(request)
        elif endpoint := self._endpoints.get(dialect):
            path, (fields, dropped) = endpoint.path, self._endpoint_fields(endpoint, request)
        elif dialect == EMBEDDINGS:
            raise InvalidRequest(f"A provider of type {self.spec.kind} offers no {dialect}: choose a model of another provider.")
        else:
            return self._translated_call(request, model, secret)
        model_id = self.wire_model_id(model)
        fields["model"] = msgspec.Raw(msgspec.json.encode(model_id))
        return self._call(self.url(path, model_id), fields, request.stream, secret, dropped)

    def _chat_fields(self, request: ChatRequest) -> tuple[Fields, tuple[str, ...]]:
        """The client's own fields as this server takes them, and what is left out of them."""
        fields = _without_ours(request.fields)
        fields.pop("prompt", None)
        if self.quirks.renames:
            _rename(fields, self.quirks)
        dropped: tuple[str, ...] = ()
        if self._needles:
            messages = bytes(fields.get("messages", b""))
            if any(needle in messages for needle in self._needles):
                fields["messages"], dropped = _fitted(messages, self.quirks)
        if request.stream:
            fields["stream"] = _TRUE
            fields["stream_options"] = with_usage(fields.get("stream_options"))
        return fields, dropped + self._without_stream_options(fields)

    def _endpoint_fields(self, endpoint: Endpoint, request: ChatRequest) -> tuple[Fields, tuple[str, ...]]:
        fields = dict(endpoint.to_wire(_without_ours(request.fields), request))
        return fields, self._without_stream_options(fields)

    def _without_stream_options(self, fields: Fields) -> tuple[str, ...]:
        """Takes them out for a server that does not know them: its usage comes unasked, so that losing more is what is reported."""
        if self.quirks.stream_usage:
            return ()
        options = fields.pop("stream_options", _NULL)
        return ("stream_options",) if (_options(options) or {}).keys() - {"include_usage"} else ()

    def _translated_call(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
        conversation, quirks = request.conversation(), self.quirks
        leftovers = Leftovers(conversation, model, self.spec.kind, own_names(request))
        body = openai_wire.to_wire(conversation, model, leftovers, quirks)
        model_id = body["model"] = self.wire_model_id(model)
        if request.stream:
            body["stream"] = True
            if quirks.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return self._call(self.url(_CHAT_PATH, model_id), body, request.stream, secret, leftovers.names)

    def _call(self, url: str, fields: object, stream: bool, secret: Secret | None, dropped: tuple[str, ...]) -> WireCall:
        accept = "text/event-stream" if stream else "application/json"
        return WireCall(url, self._headers_for(secret, accept), msgspec.json.encode(fields), dropped=dropped)

    def _headers_for(self, secret: Secret | None, accept: str) -> dict[str, str]:
        headers = {**self._headers, "Accept": accept}
        if secret and (name := self.quirks.key_header):
            key = secret.reveal().strip()
            headers[name] = "Bearer " + key if name == "Authorization" else key
        return headers

    def read_answer(self, body: bytes, request: ChatRequest) -> Answer:
        """See `Adapter.read_answer`."""
        dialect = request.dialect.NAME
        if dialect == CHAT:
            return read_chat_answer(body, self._secrets)
        if endpoint := self._endpoints.get(dialect):
            return endpoint.read(body, request, self._secrets)
        return translated_answer(request, openai_wire.result_from_wire(body, self._secrets))

    def stream_reader(self, request: ChatRequest) -> StreamReader:
        """See `Adapter.stream_reader`."""
        dialect = request.dialect.NAME
        if dialect == CHAT:
            return OpenAIStreamReader(request.wants_usage, self._secrets)
        endpoint = self._endpoints.get(dialect)
        if endpoint is not None and endpoint.stream_reader is not None:
            return endpoint.stream_reader(request, self._secrets)
        return TranslatedReader(openai_wire.OpenAIWireStream(self._secrets), request)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """See `Adapter.read_error`."""
        return error_of_status(status, headers, body, secrets=self._secrets, now_s=self.wall())

    def models_call(self, secret: Secret | None) -> WireCall:
        return WireCall(self.url("/models", ""), self._headers_for(secret, "application/json"), method="GET")

    def read_models(self, body: bytes) -> list[str]:
        """See `Adapter.read_models`."""
        return listed_models(body, ModelList, ModelList.ids)

    async def send(self, transport: Transport, call: WireCall) -> Response:
        """See `Adapter.send`."""
        return await transport.open(call, self.spec.timeouts)


def _without_ours(fields: Fields) -> Fields:
    kept = dict(fields)
    for name in OUR_FIELDS:
        kept.pop(name, None)
    return kept


def _rename(fields: Fields, quirks: Quirks) -> None:
    """A field by its newer name wins over the same one by its older."""
    for name, theirs in quirks.renames:
        value = fields.pop(name, _NULL)
        if value != _NULL:
            fields[theirs] = value


def _needles(quirks: Quirks) -> tuple[bytes, ...]:
    """One of these is in the messages wherever something in them may not fit this server."""
    roles = () if quirks.developer_role else (b'"developer"',)
    return (*roles, *_NOT_OPENAIS.values()) if quirks.strict_messages else roles


def _fitted(text: bytes, quirks: Quirks) -> tuple[msgspec.Raw, tuple[str, ...]]:
    """The messages as this server takes them, and what was left out of them. Those that fit keep every byte. Raises InvalidRequest."""
    strange = [name for name, key in _NOT_OPENAIS.items() if key in text] if quirks.strict_messages else []
    dropped: list[str] = []
    fitting: list[msgspec.Raw | Fields] = []
    try:
        for given in _messages(text):
            message = _message(given)
            renamed = not quirks.developer_role and bytes(message.get("role", b"")) == b'"developer"'
            if renamed:
                message["role"] = _SYSTEM
            left_out = _leave_out(message, strange)
            dropped += [name for name in left_out if name not in dropped]
            fitting.append(message if renamed or left_out else given)
    except msgspec.DecodeError as exc:
        raise InvalidRequest(f"The messages cannot be read: {exc}.", param="messages") from None
    return msgspec.Raw(msgspec.json.encode(fitting)), tuple(dropped)


def _leave_out(message: Fields, names: list[str]) -> list[str]:
    """Takes the keys `names` out of a message and out of its tool calls. Returns those that were there."""
    left_out = [name for name in names if message.pop(name, None) is not None]
    if names and "tool_calls" in message:
        calls = _calls(message["tool_calls"]) or []
        left_out_of_calls = {name for name in names for call in calls if call.pop(name, None) is not None}
        if left_out_of_calls:
            message["tool_calls"] = msgspec.Raw(msgspec.json.encode(calls))
        left_out += left_out_of_calls
    return left_out
