"""One connection to Redis, as little as is needed: commands go out together, and their answers come back together.

A client library brings 13 MB into every process and costs each command more than Redis does. It would also try again by
itself, which must not happen here: who waits for a limit must hear within 50 ms that nobody knows it.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from gateway.sharing.redis_address import Address

TIMEOUT_S = 0.05
# Nobody waits for a connection, and names and TLS take their time.
_CONNECT_S = 1.0
# A loop that was held up finds the time over before it has looked for the answer, which may have been there for long.
_GRACE_S = 0.005
_MAX_REASON = 200

Command = tuple[Any, ...]  # of str, bytes, int and float


class Unreachable(Exception):
    """Redis cannot be reached, did not answer in time, closed the connection, or does not do what it is asked. Says which."""


class Link(asyncio.Protocol):
    """`lost` is called once, with the reason, when the connection ends in any way but `close()`; `heard` with what Redis
    says unasked, such as what was published."""

    def __init__(self, lost: Callable[[str], None], heard: Callable[[list[object]], None] | None = None) -> None:
        self._lost = lost
        self._heard = heard
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._expected = 0
        self._answers: list[Any] = []
        self._answered: Callable[[list[Any]], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.closed = False

    @property
    def busy(self) -> bool:
        return self._answered is not None

    def ask(self, commands: Sequence[Command], answered: Callable[[list[Any]], None], deadline: float) -> None:
        """`answered` gets the answers, an error as `hiredis.ReplyError`. None by `deadline`, on the loop's clock: the link
        is lost. Not while `busy`."""
        self._expected, self._answers, self._answered = len(commands), [], answered
        self._timer = self._loop.call_at(deadline - _GRACE_S, self._grace)
        self.send(commands)

    def send(self, commands: Sequence[Command]) -> None:
        """Only what has no answer but one that `heard` gets."""
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join([hiredis.pack_command(command) for command in commands]))

    async def request(self, *commands: Command) -> list[Any]:
        """The answers. Raises Unreachable, for an answer that is an error too."""
        asked: asyncio.Future[list[Any]] = self._loop.create_future()
        self.ask(commands, lambda answers: None if asked.done() else asked.set_result(answers), self._loop.time() + TIMEOUT_S)
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                answers = await asked
        except TimeoutError:
            raise Unreachable("it does not answer") from None
        for answer in answers:
            if isinstance(answer, hiredis.ReplyError):
                raise Unreachable(str(answer)[:_MAX_REASON])
        return answers

    def refuse(self, error: hiredis.ReplyError) -> None:
        """Redis answers, but not with what is needed: that is as good as no answer."""
        self._end(str(error)[:_MAX_REASON])

    def close(self) -> None:
        """At once; `lost` does not hear of it."""
        self.closed, self._answered = True, None
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        if self.closed:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("it closed the connection")

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not False:
                self._take(answer)
        except hiredis.ProtocolError:
            self._end("it does not speak Redis' protocol")

    def _take(self, answer: Any) -> None:
        if isinstance(answer, hiredis.PushNotification):
            if self._heard is not None:
                self._heard(answer)
            return
        self._answers.append(answer)
        if len(self._answers) < self._expected or self._answered is None:
            return
        assert self._timer is not None
        self._timer.cancel()
        answered, self._answered = self._answered, None
        answered(self._answers)

    def _grace(self) -> None:
        self._timer = self._loop.call_later(_GRACE_S, self._end, "it does not answer")

    def _end(self, reason: str) -> None:
        if not self.closed:
            self.close()
            self._lost(reason)


async def connect(address: Address, lost: Callable[[str], None], heard: Callable[[list[object]], None] | None = None) -> Link:
    """A link that is authenticated and on its database. Raises Unreachable."""
    loop = asyncio.get_running_loop()
    link = Link(lost, heard)
    try:
        async with asyncio.timeout(_CONNECT_S):
            if address.path:
                await loop.create_unix_connection(lambda: link, address.path)
            else:
                await loop.create_connection(lambda: link, address.host, address.port, ssl=_tls() if address.tls else None)
        await link.request(*_greeting(address))
    except TimeoutError:
        link.close()
        raise Unreachable("it cannot be reached in time") from None
    except (OSError, UnicodeError) as exc:
        link.close()
        raise Unreachable(f"it cannot be reached ({type(exc).__name__})") from None
    except BaseException:
        link.close()
        raise
    return link


def _greeting(address: Address) -> list[Command]:
    """Protocol 3, in which what is published can be told from answers: Redis 6 and later."""
    password = address.password.reveal()
    hello: Command = ("HELLO", 3, "AUTH", address.user or "default", password) if password else ("HELLO", 3)
    return [hello, ("SELECT", address.database)]


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
