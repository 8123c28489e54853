"""What every adapter is: pure translation between a `ChatRequest` and one vendor's wire, plus a declaration of its form.

An adapter holds no connection, no loop and no Django. It gets a frozen `ProviderSpec` and turns values into values, so it
can be tested from a JSON file. The one method that touches the network, `send`, only hands the call to the transport.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

import msgspec

from core.chat import Answer, ChatRequest, Usage, WireCall
from core.config import ModelSpec, ProviderSpec
from core.errors import GatewayError
from core.outbound import Response, Transport
from core.secrets import Secret


class FormField(msgspec.Struct, frozen=True):
    """One field of the form an admin fills in for this vendor. Secret fields become ProviderKey rows, others `options`.

    `base_url` is the one name that is a column of its own: declaring it puts this vendor's help beside the address.
    `choices` are (value, label); without them any line of text will do, or, where `mapping` is set, a JSON object of texts.
    """

    name: str
    label: str
    help_text: str = ""
    required: bool = False
    secret: bool = False
    default: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    mapping: bool = False

    def refusal(self, value: object) -> str:
        """Why an option cannot have this value, in a plain sentence; "" where it can. An empty text is no value at all."""
        if value == "":
            return ""
        if self.mapping:
            fits = isinstance(value, dict) and all(isinstance(text, str) and text for text in [*value, *value.values()])
            return "" if fits else 'Write an object of names and texts, e.g. {"gpt-4o": "my-deployment"}.'
        if self.choices:
            values = [choice for choice, _ in self.choices]
            return "" if value in values else f"Choose one of {', '.join(values)}."
        # Options end up in headers and addresses.
        return "" if isinstance(value, str) and value.isprintable() else "Write one line of text."


class StreamReader(Protocol):
    """Reads one streamed answer, strictly. Bytes in as they arrive, bytes for the client out; facts gathered on the way."""

    usage: Usage | None
    refused_counts: str
    """Of the last numbers that were not believed, see `core.usage`; "" = there were none."""
    finish_reason: str
    output_bytes: int
    content_started: bool
    done: bool
    tail: bytes
    """What tells the client that the answer is whole; known once `done`, sent when the books are settled."""

    def feed(self, data: bytes) -> bytes:
        """Whole events of the client's dialect that `data` completed; b"" where none is complete or all are withheld.

        The vendor's end mark is swallowed (`done` becomes true): the door writes `tail` once the books are settled.
        Raises a GatewayError for an error event, broken JSON, a shape that is none, a line over the limit, or an end
        mark that comes before the end. What came before the bad event in the same read is in `salvaged`.
        """
        ...

    def finish(self) -> bytes:
        """The vendor closed the stream. What is left for the client before `tail`. Raises ProviderNonsense unless the answer is whole."""
        ...

    @property
    def salvaged(self) -> bytes:
        """What was whole before the bad event of the read that raised."""
        ...


class Adapter(Protocol):
    """One vendor's wire. Requests of the client dialects in `dialects` pass through, with their answers, byte for byte;
    all others go through `core.conversation` and `core.events`."""

    dialects: ClassVar[frozenset[str]]
    form: ClassVar[tuple[FormField, ...]]

    def __init__(self, spec: ProviderSpec) -> None: ...

    def chat_call(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
        """The HTTP call for one generation. Raises InvalidRequest for a parameter this wire cannot carry, and for a dialect that has
        no translation to it (embeddings, completions)."""
        ...

    def read_answer(self, body: bytes, request: ChatRequest) -> Answer:
        """A whole, non-streamed answer, in the client's dialect. Raises ProviderNonsense, or the error that hides in a 200."""
        ...

    def stream_reader(self, request: ChatRequest) -> StreamReader: ...

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """The typed error of a non-2xx answer; `headers` in lower case. Never raises, never repeats the vendor's body unchecked.

        A ProviderError, or the CallerError that the vendor found: ContextTooLong, ContentBlocked.
        """
        ...

    def models_call(self, secret: Secret | None) -> WireCall:
        """The HTTP call that lists the vendor's models."""
        ...

    def read_models(self, body: bytes) -> list[str]:
        """Model ids, sorted. Raises ProviderNonsense."""
        ...

    async def send(self, transport: Transport, call: WireCall) -> Response:
        """Raises ProviderUnreachable, ProviderTimeout. The caller closes the response."""
        ...
