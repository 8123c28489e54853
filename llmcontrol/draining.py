"""uvicorn's server with an end in good order.

  1. the first SIGTERM or SIGINT: /ready says 503, answers say `connection: close`, everything is still served, for
     `delay_s`: so long does whoever distributes requests need to notice;
  2. the listener closes. Idle connections stay open for a moment, for what is already on the wire. Answers and sockets
     that are under way get `grace_s`;
  3. what still runs then is cancelled: the doors settle it and end it with an error in the client's dialect;
  4. the application shuts down: the journal is written.

A second signal ends the waiting of 1 and 2. Under a supervisor that is SIGQUIT alone: whoever signals a whole group of
processes (a terminal, systemd) would otherwise end the waiting with the first.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import uvicorn

from llmcontrol.http_protocol import BoundedConfig
from llmcontrol.supervisor import DRAINING, READY, SERVING

_log = logging.getLogger(__name__)
_TICK_S = 0.1
# For a cancelled request to say so to its client, then for one whose client does not read to give up.
_CUT_S, _GIVE_UP_S = 1.0, 0.3


class Drainable(Protocol):
    """What the server asks of its application, beside ASGI."""

    @property
    def ready(self) -> bool: ...
    def drain(self) -> None:
        """Not ready from now on; requests are served as before."""
        ...


class DrainingServer(uvicorn.Server):
    """`tell` is given the worker's condition as `llmcontrol.supervisor` names it: when it changes, and each second."""

    config: BoundedConfig

    def __init__(
        self,
        config: BoundedConfig,
        application: Callable[[], Drainable],
        *,
        delay_s: float,
        grace_s: float,
        tell: Callable[[bytes], None] | None = None,
    ) -> None:
        """`application` is called once `config` is loaded."""
        super().__init__(config)
        self._application = application
        self._delay_s = delay_s
        self._grace_s = grace_s
        self._tell = tell
        self._told = b""
        self._hurried = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Does not note the signal for uvicorn, which would raise it again once everything is done."""
        if sig == signal.SIGQUIT or (self.should_exit and self._tell is None):
            self._hurried = True
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Beside uvicorn's two. A terminal that closes ends a process that runs alone; a worker's supervisor knows better."""
        wanted: dict[signal.Signals, Any] = {signal.SIGQUIT: self.handle_exit}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup stays nohup
            wanted[signal.SIGHUP] = self.handle_exit if self._tell is None else signal.SIG_IGN
        before = {sig: signal.signal(sig, handler) for sig, handler in wanted.items()}
        try:
            with super().capture_signals():
                yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    async def on_tick(self, counter: int) -> bool:
        if self._tell is not None:
            condition = DRAINING if self.config.draining else READY if self._application().ready else SERVING
            if condition != self._told or counter % 10 == 0:
                self._told = condition
                self._tell(condition)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.draining = True
        self._application().drain()
        _log.info("draining: %d connections, %d requests", len(self.server_state.connections), len(self.server_state.tasks))
        await self._wait(lambda: False, self._delay_s)
        self._close(sockets or [])
        await self._wait(lambda: not self.server_state.connections and not self.server_state.tasks, self._grace_s)
        await self._cut()
        await self.lifespan.shutdown()

    def _close(self, sockets: list[socket.socket]) -> None:
        for server in self.servers:
            server.close()
        for sock in sockets:
            sock.close()
        self.config.closed = True
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def _wait(self, over: Callable[[], bool], timeout_s: float) -> None:
        loop, ticks = asyncio.get_running_loop(), 0
        give_up_at = loop.time() + timeout_s
        await self.on_tick(0)
        while not (over() or self._hurried or loop.time() >= give_up_at):
            await asyncio.sleep(_TICK_S)
            ticks += 1
            await self.on_tick(ticks)

    async def _cut(self) -> None:
        for patience_s in (_CUT_S, _GIVE_UP_S):
            if not (running := list(self.server_state.tasks)):
                break
            _log.warning("ending %d requests that are still running", len(running))
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=patience_s)
        for connection in list(self.server_state.connections):
            connection.transport.close()
