"""One request on its way through the gateway, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

import msgspec

from core.conversation import Conversation
from core.errors import InvalidRequest
from core.events import Begun, Content, Ended, Result
from core.prompts import PromptUse
from core.usage import Usage

__all__ = ["Answer", "CacheWish", "ChatRequest", "Dialect", "StreamWriter", "Usage", "WireCall"]


class StreamWriter(Protocol):
    """Writes one streamed answer in a client's dialect: events in, bytes out. Used only where the vendor speaks another."""

    def begin(self, begun: Begun) -> bytes:
        """Once, before anything else."""
        ...

    def write(self, event: Content) -> bytes: ...

    def end(self, ended: Ended, usage: Usage | None) -> bytes:
        """Everything after the last content but the `tail`. Once."""
        ...

    def tail(self) -> bytes:
        """The bytes that tell the client that the answer is whole. After `end`; sent when the books are settled."""
        ...


class Dialect(Protocol):
    """The language of one kind of client: `NAME` is what adapters compare with their own. Modules of `gateway.doors` are these."""

    @property
    def NAME(self) -> str: ...

    @property
    def SCOPE(self) -> str:
        """What a caller's key must hold to use it."""
        ...

    def conversation(self, fields: Mapping[str, msgspec.Raw]) -> Conversation:
        """The body's top level in our own words. Raises InvalidRequest naming what cannot be read."""
        ...

    def whole(self, request: ChatRequest, result: Result) -> bytes:
        """The body of a whole answer."""
        ...

    def stream_writer(self, request: ChatRequest) -> StreamWriter: ...


def unreadable(exc: msgspec.DecodeError) -> InvalidRequest:
    """A value that could travel on unread, but not be translated: 1e400, say, is JSON and no number that a program can hold."""
    return InvalidRequest(f"A value in the body cannot be carried to the provider that serves this model: {exc}.")


class CacheWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a body's `cache` says: not `enabled` = neither given from the cache nor kept there; `ttl_s` = no answer older than that."""

    enabled: bool = True
    ttl_s: Annotated[float, msgspec.Meta(ge=0)] | None = None


class ChatRequest(msgspec.Struct):
    """What a client asked for. `fields` is the top level of its body, each value as sent: unknown fields travel on.

    `served_by` is the name of the provider that is being asked; the pipeline sets it. `tag` is what the header `x-llm-tag` says,
    `task_type` the type of the queued task that asks, or what the body says. `template` is what the body says of a prompt template,
    until `gateway.prompting` has put its messages among the fields; `prompt` is which one that was. `fallbacks`: names to try after
    `model`. `explain`: the answer's headers are to say why this model was chosen.
    """

    dialect: Dialect
    model: str
    stream: bool
    wants_usage: bool
    max_output_tokens: int | None
    body_bytes: int
    fields: dict[str, msgspec.Raw]
    headers: tuple[tuple[str, str], ...] = ()
    served_by: str = ""
    tag: str = ""
    task_type: str = ""
    template: msgspec.Raw | None = None
    prompt: PromptUse | None = None
    cache: CacheWish | None = None
    fallbacks: tuple[str, ...] = ()
    explain: bool = False
    _conversation: Conversation | None = None

    @property
    def estimated_input_tokens(self) -> int:
        """Four bytes a token: a guess, used where no vendor count exists and for token rates before the call."""
        return self.body_bytes // 4 + 1

    def conversation(self) -> Conversation:
        """In our own words, worked out once: adapters must not change it. Raises InvalidRequest."""
        if self._conversation is None:
            try:
                self._conversation = self.dialect.conversation(self.fields)
            except msgspec.DecodeError as exc:
                raise unreadable(exc) from None
        return self._conversation


class Answer(msgspec.Struct):
    """A whole, valid answer: `body` is ready for a client of the request's dialect. `usage` is None where none came, or
    only `refused_counts`, see `core.usage`."""

    body: bytes
    usage: Usage | None
    finish_reason: str
    output_bytes: int
    refused_counts: str = ""


class WireCall(msgspec.Struct):
    """One HTTP call to a vendor, fully spelled out. `headers` hold the credential: never log this.

    `dropped` names what the client asked for and this call does not carry.
    """

    url: str
    headers: dict[str, str]
    body: bytes | None = None
    method: str = "POST"
    dropped: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"WireCall({self.method} {self.url}, {len(self.body or b'')} bytes)"
