"""Google Gemini by its own wire: `POST {base_url}/{api_version}/models/{model}:generateContent`. Nothing passes through.

Facts: https://ai.google.dev/api. Requests are in `gemini_wire`, answers in `gemini_stream`, errors in `gemini_errors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar
from urllib.parse import quote

import msgspec

from core.chat import Answer, ChatRequest, WireCall
from core.clock import SystemClock
from core.config import ModelSpec, ProviderSpec
from core.errors import GatewayError
from core.outbound import Response, Transport
from core.secrets import Secret
from core.shapes import known
from providers.adapters import gemini_embeddings
from providers.adapters.base import FormField
from providers.adapters.gemini_errors import error_of_status
from providers.adapters.gemini_stream import GeminiWireStream, result_from_wire
from providers.adapters.gemini_wire import to_wire
from providers.adapters.reading import listed_models
from providers.adapters.translated import Leftovers, TranslatedReader, own_names, translated_answer

__all__ = ["Gemini", "GeminiWireStream", "result_from_wire", "to_wire"]

VENDOR = "Google Gemini"
DEFAULT_API_VERSION = "v1beta"
_MODELS_A_PAGE = 1000  # the most that Google gives, and far more than it has


class Gemini:
    """`spec.base_url` with or without the version, which comes from the form. The key travels in a header, never in the address."""

    dialects: ClassVar[frozenset[str]] = frozenset()
    form: ClassVar[tuple[FormField, ...]] = (
        FormField("api_key", "API key", "From Google AI Studio.", required=True, secret=True),
        FormField(
            "api_version",
            "API version",
            "v1beta has every model; v1 lacks previews and the aliases that end in -latest.",
            default=DEFAULT_API_VERSION,
        ),
    )
    wall = staticmethod(SystemClock.wall)

    def __init__(self, spec: ProviderSpec) -> None:
        self.spec = spec
        version = str(spec.options.get("api_version") or DEFAULT_API_VERSION).strip("/")
        self._base_url = spec.base_url.rstrip("/").removesuffix("/" + version) + "/" + version
        self._secrets = tuple(key.secret.reveal().strip() for key in spec.keys)

    def chat_call(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
        """See `Adapter.chat_call`."""
        address = f"{self._base_url}/{quote(gemini_embeddings.resource(model.model_id), safe='/')}:"
        if request.dialect.NAME == "embeddings":
            body, dropped = gemini_embeddings.to_wire(request.fields, model, VENDOR)
            address += "batchEmbedContents"
        else:
            conversation = request.conversation()
            leftovers = Leftovers(conversation, model, VENDOR, own_names(request))
            body, dropped = to_wire(conversation, model, leftovers), leftovers.names
            address += "streamGenerateContent?alt=sse" if request.stream else "generateContent"
        return WireCall(address, self._headers_for(secret, request.stream), msgspec.json.encode(body), dropped=dropped)

    def _headers_for(self, secret: Secret | None, stream: bool = False) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream" if stream else "application/json"}
        if secret:
            headers["x-goog-api-key"] = secret.reveal().strip()
        return headers

    def read_answer(self, body: bytes, request: ChatRequest) -> Answer:
        """See `Adapter.read_answer`."""
        if request.dialect.NAME == "embeddings":
            return gemini_embeddings.answer_from_wire(body, request.fields, request.model, self._secrets)
        return translated_answer(request, result_from_wire(body, self._secrets))

    def stream_reader(self, request: ChatRequest) -> TranslatedReader:
        return TranslatedReader(GeminiWireStream(self._secrets), request)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """See `Adapter.read_error`."""
        return error_of_status(status, headers, body, secrets=self._secrets, now_s=self.wall())

    def models_call(self, secret: Secret | None) -> WireCall:
        return WireCall(f"{self._base_url}/models?pageSize={_MODELS_A_PAGE}", self._headers_for(secret), method="GET")

    def read_models(self, body: bytes) -> list[str]:
        """See `Adapter.read_models`."""
        return listed_models(body, _ModelList, _ModelList.ids)

    async def send(self, transport: Transport, call: WireCall) -> Response:
        """See `Adapter.send`."""
        return await transport.open(call, self.spec.timeouts)


class _Model(msgspec.Struct):
    name: str


class _ModelList(msgspec.Struct):
    models: list[_Model]

    def ids(self) -> Iterable[str]:
        return (model.name.removeprefix("models/") for model in self.models)


known(_ModelList)
