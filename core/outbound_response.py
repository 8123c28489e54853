"""A vendor's answer as it comes: how long it may take and how long it may be, and what is said of it where it breaks."""

from __future__ import annotations

import asyncio
import ssl
import zlib

from core.config import TimeoutSpec
from core.connector import NameUnresolved
from core.deadlines import Deadlines
from core.errors import ProviderError, ProviderNonsense, ProviderTimeout, ProviderTlsFailed, ProviderUnreachable
from core.http1 import Malformed, Origin
from core.http1_connection import Answer, Broken

MAX_BODY_BYTES = 32 * 2**20
_INFLATED_PIECE_BYTES = 64 * 2**10


class Watch:
    """One deadline for a whole call: first until the answer begins, then over silence and total time.

    It is moved lazily, when it is met: nothing is scheduled per chunk.
    """

    __slots__ = (
        *("_cancelled", "_deadlines", "_ends_s", "_least_bytes", "_loop", "_response", "_seen_bytes", "_seen_waited_s", "_task"),
        *("_timeouts", "due_s", "first_byte_s", "now"),
    )

    def __init__(self, timeouts: TimeoutSpec, deadlines: Deadlines, loop: asyncio.AbstractEventLoop, least_bytes: int = 1) -> None:
        """`loop` is the running one: finding that out is a system call each time. `least_bytes`: that have to come in `idle_s`."""
        self._loop = loop
        self._least_bytes = least_bytes
        self._seen_bytes, self._seen_waited_s = 0, 0.0
        self.now = loop.time
        self.first_byte_s = min(timeouts.first_byte_s, timeouts.total_s)
        self._timeouts = timeouts
        self._deadlines = deadlines
        self._task = asyncio.current_task(loop)
        self._cancelled = False
        self._response: GuardedResponse | None = None
        began = self.now()
        self._ends_s = began + timeouts.total_s
        self.due_s = began + self.first_byte_s
        deadlines.add(self, self._loop)

    def caused_cancellation(self) -> bool:
        """Whether the task was cancelled by this deadline and by nobody else."""
        return self._cancelled and self._task is not None and self._task.uncancel() == 0

    def follow(self, response: GuardedResponse) -> None:
        """The answer has begun. The deadline stands where it is, unless silence would be noticed too late."""
        self._response, self._task = response, None
        if self._timeouts.idle_s < self.first_byte_s:
            self.due_s = min(self.now() + self._timeouts.idle_s, self._ends_s)

    def stop(self) -> None:
        self._response = None
        self._deadlines.discard(self)

    def overdue(self) -> None:
        """See `Due.overdue`."""
        response = self._response
        if response is None:
            self._cancelled = True
            if self._task is not None:
                self._task.cancel()
            return
        now = self.now()
        silent_until = self._silent_until(response, now)
        if now >= self._ends_s:
            response.expire(f"The provider's answer was not complete after {self._timeouts.total_s:g} seconds.")
        elif now >= silent_until:
            response.expire(self._too_little(response))
        else:
            self.due_s = min(silent_until, self._ends_s)
            self._deadlines.add(self, self._loop)

    def _silent_until(self, response: GuardedResponse, now: float) -> float:
        """When what has come since the last look will have been too little for too long. Only the time for which our reader
        waited counts: one that is busy with its client is not the vendor's silence."""
        since = response.waiting_since
        if since is None:
            return now + self._timeouts.idle_s
        waited_s = response.waited_s + now - since
        if response.received_bytes - self._seen_bytes >= self._least_bytes:
            # Of what has come nobody noted when: it may all have come with the last chunk.
            self._seen_bytes, self._seen_waited_s = response.received_bytes, response.waited_s
        return now + self._timeouts.idle_s - (waited_s - self._seen_waited_s)

    def _too_little(self, response: GuardedResponse) -> str:
        came = response.received_bytes - self._seen_bytes
        what = f"only {came} of the {self._least_bytes} bytes that it has to send" if came else "nothing"
        return f"The provider sent {what} for {self._timeouts.idle_s:g} seconds in the middle of its answer."


class GuardedResponse:
    """A `Response`. `waited_s`: for all bytes so far together; since `waiting_since` (loop time) for the next, None = for none."""

    def __init__(self, answer: Answer, origin: Origin, timeouts: TimeoutSpec, watch: Watch) -> None:
        self.status = answer.status
        self.headers = answer.fields
        self.waiting_since: float | None = None
        self.waited_s, self.received_bytes = 0.0, 0
        self._answer = answer
        self._origin = origin
        self._watch = watch
        self._expired: ProviderTimeout | None = None
        if answer.complete:
            watch.stop()
        else:
            watch.follow(self)

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def read(self, limit: int = MAX_BODY_BYTES) -> bytes:
        """See `Response.read`. `limit` counts inflated bytes."""
        parts: list[bytes] = []
        size = 0
        while data := await self.next_chunk():
            size += len(data)
            if size > limit:
                self.close()
                raise ProviderNonsense(f"The provider's answer is longer than {limit} bytes.")
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def next_chunk(self) -> bytes:
        """See `Response.next_chunk`."""
        answer = self._answer
        while not (data := answer.take()):
            if answer.complete:
                self._watch.stop()
                return b""
            if answer.failure is not None:
                self._watch.stop()
                raise self._expired or failure_of(answer.failure, self._origin)
            began_s = self.waiting_since = self._watch.now()
            try:
                await answer.changed()
            except asyncio.CancelledError:
                self.close()  # whoever was reading is gone, and half an answer is of no use to the next call
                raise
            self.waiting_since = None
            self.waited_s += self._watch.now() - began_s
        self.received_bytes += len(data)
        return data

    def close(self) -> None:
        """See `Response.close`. The socket is aborted, not shut down politely, so that the vendor stops at once."""
        self._watch.stop()
        self._answer.abort()

    def expire(self, message: str) -> None:
        self._expired = ProviderTimeout(message, vendor_status=self.status)
        self.close()


class InflatedResponse(GuardedResponse):
    """For the vendor that compresses although it was asked not to. Inflates piece by piece, so that limits hold."""

    _inflater: zlib._Decompress | None = None
    _packed = b""
    _more = False

    async def next_chunk(self) -> bytes:
        """See `Response.next_chunk`."""
        while True:
            if not (self._packed or self._more):
                self._packed = await super().next_chunk()
                if not self._packed:
                    return self._end()
            try:
                data = self._inflate()
            except zlib.error as exc:
                raise self._nonsense("cannot be inflated", detail=str(exc)) from None
            if data:
                return data

    def _inflate(self) -> bytes:
        if self._inflater is None:
            self._inflater = zlib.decompressobj(self._window_bits())
        if self._inflater.eof:
            raise self._nonsense("goes on after the end of its compressed data")
        data = self._inflater.decompress(self._packed, _INFLATED_PIECE_BYTES)
        self._packed = self._inflater.unconsumed_tail or self._inflater.unused_data
        self._more = len(data) == _INFLATED_PIECE_BYTES and not self._inflater.eof  # zlib may hold back more of it
        return data

    def _end(self) -> bytes:
        if self._inflater is not None and not self._inflater.eof:
            raise self._nonsense("ends in the middle of its compressed data")
        return b""

    def _window_bits(self) -> int:
        """What zlib calls the format. `deflate` comes with a zlib header, or from some servers without."""
        match self.headers["content-encoding"].lower():
            case "gzip" | "x-gzip":
                return 16 + zlib.MAX_WBITS
            case "deflate":
                return zlib.MAX_WBITS if self._packed[0] & 15 == zlib.DEFLATED else -zlib.MAX_WBITS
            case coding:
                raise self._nonsense(f"is compressed as {coding[:20]!r}, which was not asked for")

    def _nonsense(self, what: str, detail: str | None = None) -> ProviderNonsense:
        self.close()
        return ProviderNonsense(f"The provider's answer {what}.", detail=detail)


def response_of(answer: Answer, origin: Origin, timeouts: TimeoutSpec, watch: Watch) -> GuardedResponse:
    coding = answer.fields.get("content-encoding")
    kind = InflatedResponse if coding and coding.lower() != "identity" else GuardedResponse
    return kind(answer, origin, timeouts, watch)


def failure_of(exc: Exception | None, origin: Origin) -> ProviderError:
    """The typed error of what went wrong on the way. The address goes to the detail: callers need not know it."""
    detail = f"{origin}: {type(exc).__name__}: {exc}"[:500]
    match exc:
        case Malformed():
            return ProviderNonsense("The provider's answer is not valid HTTP.", detail=detail)
        case Broken():
            return ProviderUnreachable("The connection to the provider broke before its answer was complete.", detail=detail)
        case ssl.SSLError():
            return ProviderTlsFailed("No trusted TLS connection to the provider: check its certificate and host name.", detail=detail)
        case NameUnresolved():
            return ProviderUnreachable("The provider's host name does not resolve.", detail=detail)
        case _:
            return ProviderUnreachable("The provider cannot be reached: the connection was refused or has no route.", detail=detail)
