"""A client that does not take what is sent to it: its connection would hold memory, and a call to a vendor, for ever."""

from __future__ import annotations

import asyncio


class Untaken:
    """Of one connection: aborts it where its client has taken nothing for `after_s` while more than the high-water mark waits.

    Closing would wait for what the client does not take. The application hears of a disconnect.
    """

    __slots__ = ("_after_s", "_loop", "_timer", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, after_s: float) -> None:
        self._transport = transport
        self._loop = loop
        self._after_s = after_s
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        left = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(self._after_s, self._look, left)

    def stop(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, before: int) -> None:
        if self._transport.get_write_buffer_size() < before:
            self.watch()  # slow, but it reads
        else:
            self._transport.abort()
