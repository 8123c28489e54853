"""Anthropic's own wire, `POST {base_url}/v1/messages`, at Anthropic and at those who imitate it.

Clients of the same dialect pass through: a request changes only in `model`, an answer not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from core.chat import Answer, ChatRequest, WireCall
from core.clock import SystemClock
from core.config import ModelSpec, ProviderSpec
from core.errors import ConfigurationError, GatewayError, InvalidRequest, ProviderNonsense
from core.outbound import Response, Transport
from core.secrets import Secret
from core.shapes import known
from providers.adapters.anthropic_answer import result_from_wire
from providers.adapters.anthropic_errors import error_of_answer
from providers.adapters.anthropic_stream import AnthropicStreamReader, AnthropicWireStream
from providers.adapters.anthropic_wire import to_wire
from providers.adapters.base import FormField, StreamReader
from providers.adapters.openai_compatible import OUR_FIELDS
from providers.adapters.reading import UNREADABLE, ModelList, listed_models
from providers.adapters.translated import Leftovers, TranslatedReader, own_names, require_calls, translated_answer

# Taken by Anthropic and all who imitate it. The next one, 2026-10-21, refuses temperature, top_p and top_k.
VERSION = "2023-06-01"
_AUTH = (("x-api-key", "x-api-key"), ("bearer", "Authorization: Bearer"))
_OURS = frozenset({*OUR_FIELDS, "prompt"})
_EMBEDDINGS = "embeddings"


class Anthropic:
    """`spec.base_url` with or without `/v1`. Both kinds of credential header reach Anthropic itself under every version;
    x-api-key is the one that its imitators know."""

    dialects: ClassVar[frozenset[str]] = frozenset({"anthropic"})
    form: ClassVar[tuple[FormField, ...]] = (
        FormField("api_key", "API key", "Starts with sk-ant- at Anthropic.", required=True, secret=True),
        FormField(
            "auth",
            "Key header",
            "Every server of this kind knows x-api-key; OAuth tokens want the other.",
            default="x-api-key",
            choices=_AUTH,
        ),
        FormField("version", "API version", "For a server that knows one only. Empty: what the client says, else 2023-06-01."),
    )
    wall = staticmethod(SystemClock.wall)

    def __init__(self, spec: ProviderSpec) -> None:
        """Raises ConfigurationError for an option that cannot be."""
        self.spec = spec
        base_url = spec.base_url.rstrip("/").removesuffix("/v1")
        self._messages_url = base_url + "/v1/messages"
        self._count_url = self._messages_url + "/count_tokens"
        self._models_url = base_url + "/v1/models?limit=1000"
        self._secrets = tuple(key.secret.reveal().strip() for key in spec.keys)
        self._auth = str(spec.options.get("auth") or "x-api-key")
        self._version = str(spec.options.get("version") or "").strip()
        if self._auth not in dict(_AUTH):
            raise ConfigurationError(f"auth is {self._auth!r}; choose {' or '.join(dict(_AUTH))}")

    def chat_call(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
        """See `Adapter.chat_call`. A translated call is of version 2023-06-01 whatever the client says, for its body is."""
        name = request.dialect.NAME
        if name in self.dialects:
            return WireCall(self._messages_url, self._headers_for(secret, request), _with_model(request, model))
        if name == _EMBEDDINGS:
            raise InvalidRequest(f"A provider of type {self.spec.kind} offers no {name}: choose a model of another provider.")
        conversation = request.conversation()
        leftovers = Leftovers(conversation, model, "Anthropic", own_names(request))
        wire = to_wire(conversation, model, leftovers)
        if request.stream:
            wire["stream"] = True
        headers = self._headers_for(secret, request)
        return WireCall(self._messages_url, headers, msgspec.json.encode(wire), dropped=leftovers.names)

    def _headers_for(self, secret: Secret | None, request: ChatRequest | None = None) -> dict[str, str]:
        sent = request.headers if request is not None else ()
        passes = request is not None and request.dialect.NAME in self.dialects
        version = next((value for name, value in sent if name == "anthropic-version" and passes), VERSION)
        accept = "text/event-stream" if request is not None and request.stream else "application/json"
        headers = {"Content-Type": "application/json", "Accept": accept, "anthropic-version": self._version or version}
        if beta := ",".join(value for name, value in sent if name == "anthropic-beta"):
            headers["anthropic-beta"] = beta
        if secret:
            key = secret.reveal().strip()
            headers.update({"x-api-key": key} if self._auth == "x-api-key" else {"Authorization": "Bearer " + key})
        return headers

    def read_answer(self, body: bytes, request: ChatRequest) -> Answer:
        """See `Adapter.read_answer`."""
        result = result_from_wire(body, self._secrets)
        if request.dialect.NAME in self.dialects:
            if not result.parts:
                require_calls(result.ended.native)
            return Answer(body, result.usage, result.ended.reason, result.output_bytes, result.refused_counts)
        return translated_answer(request, result)

    def stream_reader(self, request: ChatRequest) -> StreamReader:
        if request.dialect.NAME in self.dialects:
            return AnthropicStreamReader(self._secrets)
        return TranslatedReader(AnthropicWireStream(self._secrets), request)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """See `Adapter.read_error`."""
        return error_of_answer(status, headers, body, secrets=self._secrets, now_s=self.wall())

    def count_call(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
        """The HTTP call that counts the input tokens of a body of `/v1/messages/count_tokens`, a client's own."""
        return WireCall(self._count_url, self._headers_for(secret, request), _with_model(request, model))

    def read_count(self, body: bytes) -> int:
        """Input tokens. Raises ProviderNonsense."""
        try:
            count = msgspec.json.decode(body, type=_Count).input_tokens
        except UNREADABLE as exc:
            raise ProviderNonsense("The provider's count of tokens cannot be read.", detail=str(exc)[:200]) from None
        if count < 0:
            raise ProviderNonsense("The provider's count of tokens is negative.")
        return count

    def models_call(self, secret: Secret | None) -> WireCall:
        """See `Adapter.models_call`. A page holds a thousand at most, more than there are."""
        return WireCall(self._models_url, self._headers_for(secret), method="GET")

    def read_models(self, body: bytes) -> list[str]:
        """See `Adapter.read_models`."""
        return listed_models(body, ModelList, ModelList.ids)

    async def send(self, transport: Transport, call: WireCall) -> Response:
        """See `Adapter.send`."""
        return await transport.open(call, self.spec.timeouts)


class _Count(msgspec.Struct):
    input_tokens: int


def _with_model(request: ChatRequest, model: ModelSpec) -> bytes:
    """The client's own body, with the vendor's name of the model and without the fields that are ours."""
    fields = {name: value for name, value in request.fields.items() if name not in _OURS}
    fields["model"] = msgspec.Raw(msgspec.json.encode(model.model_id))
    return msgspec.json.encode(fields)


known(_Count)
