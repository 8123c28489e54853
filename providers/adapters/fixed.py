"""The last link of a route's chain: a text that stands ready, for when no vendor can be had.

No socket is opened and no token is used. Every dialect gets it through its own writer, whole or in one piece of a stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import msgspec

from core.chat import Answer, ChatRequest, WireCall
from core.config import ModelSpec, ProviderSpec
from core.conversation import Text
from core.errors import GatewayError, InvalidRequest, ProviderFault, ProviderNonsense
from core.events import ChatEvent, Ended, Result, told
from core.outbound import Response, Transport
from core.secrets import Secret
from core.usage import Usage
from providers.adapters.base import FormField
from providers.adapters.echo import MemoryResponse
from providers.adapters.registry import FIXED_ANSWER
from providers.adapters.sse import frame
from providers.adapters.translated import TranslatedReader, translated_answer

_NOWHERE = "http://fixed.invalid"


class Fixed:
    """`options` of its provider are the texts, by the model's alias. The text, as JSON, is the body of the call and of its answer."""

    dialects: ClassVar[frozenset[str]] = frozenset()
    form: ClassVar[tuple[FormField, ...]] = ()

    def __init__(self, spec: ProviderSpec) -> None:
        self._texts = spec.options

    def chat_call(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
        """Nothing of the request is read: this answer fits every conversation."""
        if request.dialect.SCOPE == "embeddings":
            raise InvalidRequest("A fixed answer is a text, and no embedding.", param="model")
        text = msgspec.json.encode(self._texts[model.alias])
        return WireCall(_NOWHERE, {}, frame(text) if request.stream else text)

    async def send(self, transport: Transport, call: WireCall) -> Response:
        """Answers from memory; `transport` is not used."""
        return MemoryResponse(200, "text/plain", [call.body or b""])

    def read_answer(self, body: bytes, request: ChatRequest) -> Answer:
        return translated_answer(request, _result(body))

    def stream_reader(self, request: ChatRequest) -> TranslatedReader:
        return TranslatedReader(_Stream(), request)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        return ProviderFault("A fixed answer failed.")

    def models_call(self, secret: Secret | None) -> WireCall:
        return WireCall(_NOWHERE, {}, method="GET")

    def read_models(self, body: bytes) -> list[str]:
        return sorted(self._texts)


class _Stream:
    """The whole text as one event of a stream."""

    def __init__(self) -> None:
        self.done = False

    def read(self, event: bytes) -> Iterable[ChatEvent]:
        self.done = True
        return told(_result(event))

    def finish(self) -> None:
        raise ProviderNonsense("A fixed answer was cut.")


def _result(text: bytes) -> Result:
    return Result([Text(msgspec.json.decode(text, type=str))], Ended("stop", "stop"), model=FIXED_ANSWER, usage=Usage())
