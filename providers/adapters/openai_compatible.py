"""The wire that most of the world speaks: `POST {base_url}/chat/completions`, as OpenAI defined it.

Where both sides speak it, bytes pass through: a request changes only in `model` and `stream_options`, an answer only
where it lacks a key that OpenAI's published schema requires.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from core.chat import Answer, ChatRequest, WireCall
from core.clock import SystemClock
from core.config import ModelSpec, ProviderSpec
from core.errors import GatewayError, InvalidRequest, ProviderFault, ProviderNonsense
from core.outbound import Response, Transport
from core.secrets import Secret
from providers.adapters.base import FormField
from providers.adapters.openai_errors import error_in_success, error_of_status
from providers.adapters.openai_stream import INTERRUPTED, OpenAIStreamReader, Text, is_error, read_usage

# Ours, not OpenAI's: a vendor would refuse them.
OUR_FIELDS = ("task_type", "models", "prompt", "cache")
_ABSENT = msgspec.Raw(b"")
_TRUE = msgspec.Raw(b"true")
_INCLUDE_USAGE = msgspec.Raw(b'{"include_usage":true}')


class _Message(Text):
    content: str | list[Any] | msgspec.UnsetType | None = msgspec.UNSET  # type: ignore[assignment]
    refusal: str | msgspec.UnsetType | None = msgspec.UNSET  # type: ignore[assignment]
    role: str = ""


class _Choice(msgspec.Struct):
    index: int | msgspec.UnsetType = msgspec.UNSET
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _ABSENT
    usage: Any = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    id: str | None = None
    object: str = ""
    created: int | float | None = None
    model: str | None = None
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Completion).decode


class OpenAICompatible:
    """Any server with OpenAI's chat API. `spec.base_url` is complete: the registry has put in the vendor's own where it was empty."""

    dialect: ClassVar[str] = "openai"
    form: ClassVar[tuple[FormField, ...]] = (FormField("api_key", "API key", "Leave empty where the server asks for none.", secret=True),)
    wall = staticmethod(SystemClock.wall)

    def __init__(self, spec: ProviderSpec) -> None:
        self.spec = spec
        self._base_url = spec.base_url.rstrip("/")
        self._chat_url = self._base_url + "/chat/completions"
        self._secrets = tuple(key.secret.reveal().strip() for key in spec.keys)
        self._headers = {"Content-Type": "application/json", **self.extra_headers(spec.options)}

    @staticmethod
    def extra_headers(options: Mapping[str, Any]) -> dict[str, str]:
        """Headers that a vendor wants from its form's non-secret fields."""
        return {}

    def chat_call(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
        """See `Adapter.chat_call`. Usage is always asked of a stream; the reader withholds it from a client that did not."""
        fields = dict(request.fields)
        for name in OUR_FIELDS:
            fields.pop(name, None)
        fields["model"] = msgspec.Raw(msgspec.json.encode(model.model_id))
        if request.stream:
            fields["stream"] = _TRUE
            fields["stream_options"] = _with_usage(fields.get("stream_options"))
        accept = "text/event-stream" if request.stream else "application/json"
        return WireCall(self._chat_url, self._headers_for(secret, accept), msgspec.json.encode(fields))

    def _headers_for(self, secret: Secret | None, accept: str) -> dict[str, str]:
        headers = {**self._headers, "Accept": accept}
        if secret:
            headers["Authorization"] = "Bearer " + secret.reveal().strip()
        return headers

    def read_answer(self, body: bytes) -> Answer:
        """See `Adapter.read_answer`. The vendor's bytes as they are, unless a key of OpenAI's schema is missing."""
        try:
            if not body.isascii():
                body.decode()  # skipped parts of JSON are not checked for UTF-8
            answer = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise self._why_not_an_answer(body, exc) from None
        if answer.error or not answer.choices:
            raise self._why_not_an_answer(body, None)
        complete = bool(answer.id and answer.model) and answer.object == "chat.completion" and isinstance(answer.created, int)
        output_bytes = 0
        usage = answer.usage
        for choice in answer.choices:
            if not choice.finish_reason:
                raise ProviderNonsense("The provider's answer does not say how it ended: it has no finish_reason.")
            if choice.finish_reason in INTERRUPTED:
                raise ProviderFault("The provider broke off in the middle of the answer.", detail=f"finish_reason {choice.finish_reason}")
            usage = choice.usage if usage is None else usage
            message = choice.message
            complete = complete and message is not None and _conforms(choice, message)
            if message is not None:
                output_bytes += message.count_bytes()
        return Answer(
            body=body if complete else _repaired(body),
            usage=read_usage(usage),
            finish_reason=answer.choices[0].finish_reason or "",
            output_bytes=output_bytes,
        )

    def _why_not_an_answer(self, body: bytes, problem: Exception | None) -> GatewayError:
        try:
            content = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ProviderNonsense("The provider's answer is not JSON.", detail=f"{len(body)} bytes, {type(problem).__name__}")
        if is_error(content):
            return error_in_success(content, secrets=self._secrets)
        detail = str(problem)[:200] if problem is not None else "no choices"
        return ProviderNonsense("The provider's answer is JSON, but not a chat answer.", detail=detail)

    def stream_reader(self, request: ChatRequest) -> OpenAIStreamReader:
        return OpenAIStreamReader(request.wants_usage, self._secrets)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """See `Adapter.read_error`."""
        return error_of_status(status, headers, body, secrets=self._secrets, now_s=self.wall())

    def models_call(self, secret: Secret | None) -> WireCall:
        return WireCall(self._base_url + "/models", self._headers_for(secret, "application/json"), method="GET")

    def read_models(self, body: bytes) -> list[str]:
        """See `Adapter.read_models`."""
        try:
            found = msgspec.json.decode(body, type=_ModelList)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ProviderNonsense("The provider's list of models cannot be read.", detail=str(exc)[:200]) from None
        return sorted({model.id for model in found.data if model.id})

    async def send(self, transport: Transport, call: WireCall) -> Response:
        """See `Adapter.send`."""
        return await transport.open(call, self.spec.timeouts)


class _Model(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Model]


def _with_usage(asked: msgspec.Raw | None) -> msgspec.Raw:
    """`stream_options` with `include_usage` on and the client's other options kept."""
    if asked is None:
        return _INCLUDE_USAGE
    try:
        options = msgspec.json.decode(asked, type=dict[str, msgspec.Raw] | None) or {}
    except msgspec.DecodeError:
        raise InvalidRequest("stream_options must be an object.", param="stream_options") from None
    return msgspec.Raw(msgspec.json.encode({**options, "include_usage": True}))


def _conforms(choice: _Choice, message: _Message) -> bool:
    return (
        choice.index is not msgspec.UNSET
        and choice.logprobs is not _ABSENT
        and message.refusal is not msgspec.UNSET
        and message.content is not msgspec.UNSET
        and message.role == "assistant"
    )


def _repaired(body: bytes) -> bytes:
    """The same answer with the keys that OpenAI's schema requires; what the vendor did say is kept."""
    answer = msgspec.json.decode(body)
    answer["id"] = answer.get("id") or "chatcmpl-" + hashlib.sha256(body).hexdigest()[:24]
    answer["object"] = "chat.completion"
    answer["created"] = int(answer.get("created") or 0)
    answer["model"] = answer.get("model") or "unknown"
    for position, choice in enumerate(answer["choices"]):
        choice.setdefault("index", position)
        choice.setdefault("logprobs", None)
        message = choice["message"] = choice.get("message") or {}
        message["role"] = "assistant"
        message.setdefault("content", None)
        message.setdefault("refusal", None)
    return msgspec.json.encode(answer)
