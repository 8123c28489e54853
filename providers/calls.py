"""Short calls of a vendor on an admin's behalf, by the same adapter and the same guarded transport as a real request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import msgspec

from core.chat import Answer, ChatRequest, StreamWriter, WireCall
from core.config import ModelSpec, ProviderSpec
from core.conversation import Conversation
from core.errors import InvalidRequest, ProviderNonsense
from core.events import Result
from core.outbound import Response, Transport, trusting
from core.plain import plain_request, result_of, result_of_stream
from core.secrets import Secret
from core.usage import Usage
from providers.adapters import registry
from providers.adapters.base import StreamReader

_ANSWER_BYTES = 8 * 2**20


class _Embeddings:
    """OpenAI's embeddings, which every adapter that has any takes and gives."""

    NAME = "embeddings"
    SCOPE = "embeddings"

    def conversation(self, fields: Mapping[str, msgspec.Raw]) -> Conversation:
        raise InvalidRequest("The provider offers no embeddings.")

    def whole(self, request: ChatRequest, result: Result) -> NoReturn:
        raise InvalidRequest("The provider offers no embeddings.")

    def stream_writer(self, request: ChatRequest) -> StreamWriter:
        raise InvalidRequest("Embeddings are not streamed.")


_EMBEDDINGS = _Embeddings()


class Calls:
    """Every method raises GatewayError. `tokens_used` adds up what the vendor counted, and our estimate where it did not."""

    def __init__(self, spec: ProviderSpec, transport: Transport) -> None:
        """Raises ConfigurationError."""
        self._adapter = registry.adapter_for(spec)
        self._transport = trusting(transport, spec.ca_certificates)
        self.tokens_used = 0

    async def models(self, secret: Secret | None) -> list[str]:
        """The vendor's model ids, sorted."""
        return self._adapter.read_models(await self._body(self._adapter.models_call(secret)))

    async def chat(self, model: ModelSpec, secret: Secret | None, conversation: Conversation) -> Result:
        request = plain_request(model.model_id, conversation, stream=False)
        answer = await self._answer(request, model, secret)
        return result_of(answer.body)

    async def embed(self, model: ModelSpec, secret: Secret | None, text: str) -> Usage | None:
        """What it counted; the adapter has seen to it that there is a vector."""
        fields = {"model": msgspec.Raw(msgspec.json.encode(model.model_id)), "input": msgspec.Raw(msgspec.json.encode(text))}
        request = ChatRequest(_EMBEDDINGS, model.model_id, False, True, None, len(text), fields)
        return (await self._answer(request, model, secret)).usage

    async def stream(self, model: ModelSpec, secret: Secret | None, conversation: Conversation) -> tuple[Result, int]:
        """The answer, and in how many reads of the network it came."""
        request = plain_request(model.model_id, conversation, stream=True)
        reader, response = await self._open(request, model, secret)
        said: list[bytes] = []
        try:
            while not reader.done and await self._read_on(reader, response, said):
                pass
        finally:
            response.close()
        self._count(reader.usage, request, reader.output_bytes)
        return result_of_stream(b"".join(said) + reader.tail), len(said)

    async def cancel(self, model: ModelSpec, secret: Secret | None, conversation: Conversation) -> bool:
        """Hangs up after the first piece of a streamed answer. False where the answer was complete by then."""
        request = plain_request(model.model_id, conversation, stream=True)
        reader, response = await self._open(request, model, secret)
        try:
            while not reader.content_started and not reader.done and await self._read_on(reader, response, []):
                pass
        finally:
            response.close()
        self._count(reader.usage, request, reader.output_bytes)
        return not reader.done

    async def _answer(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> Answer:
        call = self._adapter.chat_call(request, model, secret)
        answer = self._adapter.read_answer(await self._body(call), request)
        self._count(answer.usage, request, answer.output_bytes)
        return answer

    async def _open(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> tuple[StreamReader, Response]:
        response = await self._adapter.send(self._transport, self._adapter.chat_call(request, model, secret))
        if not 200 <= response.status < 300:
            await self._refuse(response)
        return self._adapter.stream_reader(request), response

    async def _read_on(self, reader: StreamReader, response: Response, said: list[bytes]) -> bool:
        """One more read; False at the end of a whole stream."""
        data = await response.next_chunk()
        said.append(reader.feed(data) if data else reader.finish())
        if sum(map(len, said)) > _ANSWER_BYTES:
            raise ProviderNonsense(f"The provider's answer is longer than {_ANSWER_BYTES} bytes.")
        return bool(data)

    async def _body(self, call: WireCall) -> bytes:
        """The body of a 2xx answer."""
        response = await self._adapter.send(self._transport, call)
        if not 200 <= response.status < 300:
            await self._refuse(response)
        try:
            return await response.read(_ANSWER_BYTES)
        finally:
            response.close()

    async def _refuse(self, response: Response) -> NoReturn:
        try:
            body = await response.read(_ANSWER_BYTES)
        finally:
            response.close()
        raise self._adapter.read_error(response.status, response.headers, body)

    def _count(self, usage: Usage | None, request: ChatRequest, output_bytes: int) -> None:
        """Four bytes a token where the vendor did not count, as everywhere."""
        self.tokens_used += request.estimated_input_tokens + output_bytes // 4 if usage is None else usage.total_tokens
