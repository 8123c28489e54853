"""Alibaba's DashScope (Model Studio, Qwen) by its own wire: `POST {base_url}/api/v1/services/aigc/…`. Nothing passes through.

Facts: https://help.aliyun.com/en/model-studio/qwen-api-via-dashscope. Requests are in `dashscope_wire`, answers in
`dashscope_stream`, errors in `dashscope_errors`. Its OpenAI-compatible door is another kind, a row of the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from core.chat import Answer, ChatRequest, WireCall
from core.clock import SystemClock
from core.config import ModelSpec, ProviderSpec
from core.errors import GatewayError
from core.outbound import Response, Transport
from core.secrets import Secret
from providers.adapters import dashscope_embeddings
from providers.adapters.base import FormField
from providers.adapters.dashscope_errors import error_of_status
from providers.adapters.dashscope_stream import DashScopeWireStream, result_from_wire
from providers.adapters.dashscope_wire import is_multimodal, to_wire
from providers.adapters.reading import ModelList, listed_models
from providers.adapters.translated import Leftovers, TranslatedReader, own_names, translated_answer

__all__ = ["DashScope", "DashScopeWireStream", "result_from_wire", "to_wire"]

VENDOR = "DashScope"
_SERVICES = "/api/v1/services/"
_TEXT = _SERVICES + "aigc/text-generation/generation"
_MULTIMODAL = _SERVICES + "aigc/multimodal-generation/generation"
_EMBEDDINGS = _SERVICES + "embeddings/text-embedding/text-embedding"
_MODELS = "/compatible-mode/v1/models"  # whole, where the native list comes in pages


class DashScope:
    """`spec.base_url` is the origin; `/api/v1` and `/compatible-mode/v1` after it, as SDKs want them, are ignored."""

    dialects: ClassVar[frozenset[str]] = frozenset()
    form: ClassVar[tuple[FormField, ...]] = (
        FormField(
            "api_key",
            "API key",
            "From Model Studio, of the same region as the address: keys of one region are unknown in another.",
            required=True,
            secret=True,
        ),
        FormField(
            "base_url",
            "Address",
            "China: leave it empty. Singapore: https://dashscope-intl.aliyuncs.com. Elsewhere, as Model Studio shows it for the region.",
        ),
        FormField("workspace", "Workspace id", "Only for a key that reaches several workspaces. Starts with llm- or ws-."),
    )
    wall = staticmethod(SystemClock.wall)

    def __init__(self, spec: ProviderSpec) -> None:
        self.spec = spec
        self._origin = spec.base_url.rstrip("/").removesuffix("/api/v1").removesuffix("/compatible-mode/v1")
        self._workspace = str(spec.options.get("workspace") or "").strip()
        self._secrets = tuple(key.secret.reveal().strip() for key in spec.keys)

    def chat_call(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
        """See `Adapter.chat_call`."""
        if request.dialect.NAME == "embeddings":
            body, dropped = dashscope_embeddings.to_wire(request.fields, model, VENDOR)
            path = _EMBEDDINGS
        else:
            conversation = request.conversation()
            leftovers = Leftovers(conversation, model, VENDOR, own_names(request))
            body, dropped = to_wire(conversation, model, leftovers, stream=request.stream), leftovers.names
            path = _MULTIMODAL if is_multimodal(conversation, model) else _TEXT
        return WireCall(self._origin + path, self._headers_for(secret, request.stream), msgspec.json.encode(body), dropped=dropped)

    def _headers_for(self, secret: Secret | None, stream: bool = False) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream" if stream else "application/json"}
        if stream:
            headers["X-DashScope-SSE"] = "enable"
        if self._workspace:
            headers["X-DashScope-WorkSpace"] = self._workspace
        if secret:
            headers["Authorization"] = f"Bearer {secret.reveal().strip()}"
        return headers

    def read_answer(self, body: bytes, request: ChatRequest) -> Answer:
        """See `Adapter.read_answer`."""
        if request.dialect.NAME == "embeddings":
            return dashscope_embeddings.answer_from_wire(body, request.fields, request.model, self._secrets)
        return translated_answer(request, result_from_wire(body, self._secrets))

    def stream_reader(self, request: ChatRequest) -> TranslatedReader:
        return TranslatedReader(DashScopeWireStream(self._secrets), request)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """See `Adapter.read_error`."""
        return error_of_status(status, headers, body, secrets=self._secrets, now_s=self.wall())

    def models_call(self, secret: Secret | None) -> WireCall:
        return WireCall(self._origin + _MODELS, self._headers_for(secret), method="GET")

    def read_models(self, body: bytes) -> list[str]:
        """See `Adapter.read_models`."""
        return listed_models(body, ModelList, ModelList.ids)

    async def send(self, transport: Transport, call: WireCall) -> Response:
        """See `Adapter.send`."""
        return await transport.open(call, self.spec.timeouts)
