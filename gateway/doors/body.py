"""A request's body over plain ASGI: counted as it comes, bounded in size and in time."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator, MutableMapping
from functools import partial
from typing import Any

from core.errors import BodyTooLarge, ClientGone, RequestTimeout

Scope = MutableMapping[str, Any]
Receive = Callable[[], Coroutine[Any, Any, MutableMapping[str, Any]]]

# A client that is still sending reads no answer; so much of a refused body is taken in and forgotten first.
_MAX_DISCARDED_BYTES = 32 * 2**20
_MAX_DISCARD_S = 2.0
# So long a body may take whatever its pace: a connection that stumbles is none that dawdles.
SLOW_START_S = 10.0


async def read_body(scope: Scope, receive: Receive, limit: int, timeout_s: float, bytes_per_s: int = 0) -> bytes:
    """The whole body, of at most `limit` bytes, within `timeout_s`, and from SLOW_START_S on at `bytes_per_s` over all of it
    (0 = at any pace). Raises BodyTooLarge before more than the limit is held, RequestTimeout, ClientGone."""
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value) > limit):
            await discard(receive)
            raise _too_large(limit)
    pending: Coroutine[Any, Any, Any] | None = receive()
    try:
        waited_for = pending.send(None)  # type: ignore[union-attr]
    except StopIteration as arrived:  # as usual: it came with the headers, and no timer is needed
        message = arrived.value
        if message["type"] == "http.request" and not message.get("more_body") and len(message.get("body", b"")) <= limit:
            body: bytes = message.get("body", b"")
            return body
        pending = None
    pace = _Pace(timeout_s, bytes_per_s)
    try:
        async with asyncio.timeout_at(pace.ends_s(0)) as deadline:
            if pending is not None:
                message = await _resumed(pending, waited_for)
            return await _read_on(receive, message, limit, lambda size: deadline.reschedule(pace.ends_s(size)))
    except TimeoutError:
        raise RequestTimeout(pace.missed()) from None


class _Pace:
    """Until when a body has to be there, which what has come of it puts off."""

    def __init__(self, timeout_s: float, bytes_per_s: int) -> None:
        self._timeout_s, self._bytes_per_s = timeout_s, bytes_per_s
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()

    def ends_s(self, size: int) -> float:
        """Loop time, once `size` bytes are there."""
        if not self._bytes_per_s:
            return self._began_s + self._timeout_s
        return self._began_s + min(self._timeout_s, max(SLOW_START_S, size / self._bytes_per_s))

    def missed(self) -> str:
        if self._loop.time() - self._began_s >= self._timeout_s:
            return f"The body did not arrive within {self._timeout_s:g} s."
        return f"The body arrived too slowly: at less than {self._bytes_per_s} bytes a second."


@types.coroutine
def _resumed(pending: Coroutine[Any, Any, Any], waited_for: Any) -> Generator[Any, Any, Any]:
    """Goes on awaiting a coroutine that was started by hand and is waiting for `waited_for`."""
    while True:
        try:
            sent = yield waited_for
        except BaseException as exc:
            step = partial(pending.throw, exc)
        else:
            step = partial(pending.send, sent)
        try:
            waited_for = step()
        except StopIteration as done:
            return done.value


async def _read_on(receive: Receive, message: MutableMapping[str, Any], limit: int, has_come: Callable[[int], None]) -> bytes:
    parts: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        part = message.pop("body", b"")
        size += len(part)
        if size > limit:
            del part, parts  # nothing of it is held while the rest is taken in
            if message.get("more_body"):
                await discard(receive)
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
        has_come(size)
        message = await receive()
    raise ClientGone("The client left before its body was complete.")


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit} bytes, the limit here (LLM_MAX_BODY_BYTES).")


async def discard(receive: Receive) -> None:
    """Takes in a bounded rest of a refused body and forgets it, so that the client gets to read why."""
    size = 0
    try:
        async with asyncio.timeout(_MAX_DISCARD_S):
            while size < _MAX_DISCARDED_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body"):
                    return
    except TimeoutError:
        return
