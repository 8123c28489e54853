"""What every reader of a stream does that is not OpenAI's chat to OpenAI's clients: whole events out of pieces, and what was read
before a bad one kept."""

from __future__ import annotations

from core.errors import GatewayError
from core.usage import Usage
from providers.adapters.sse import EventTooLong, SseDecoder


class Relay:
    """The part of a `base.StreamReader` that is the same whatever the events say."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.refused_counts = ""
        self.finish_reason = ""
        self.output_bytes = 0
        self.content_started = False
        self.done = False
        self.salvaged = b""
        self.tail = b""
        self._sse = SseDecoder()

    def feed(self, data: bytes) -> bytes:
        """See `base.StreamReader.feed`."""
        if self.done:
            return b""
        pieces: list[bytes] = []
        try:
            try:
                events = self._sse.feed(data)
            except EventTooLong as exc:
                self._read_all(exc.complete, pieces)
                raise
            self._read_all(events, pieces)
        except GatewayError:
            self.salvaged = b"".join(pieces)
            raise
        return b"".join(pieces)

    def _read_all(self, events: list[bytes], pieces: list[bytes]) -> None:
        """Appends to `pieces` what goes on to the client, event by event: what is there when it raises was whole."""
        raise NotImplementedError

    def _hear(self, said_bytes: int) -> None:
        self.output_bytes += said_bytes
        self.content_started = self.content_started or said_bytes > 0
