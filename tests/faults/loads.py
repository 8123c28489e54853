"""Clients in closed loops, in a thread of their own, so that a test can break things meanwhile."""

from __future__ import annotations

import asyncio
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.faults.client import Client, request
from tests.faults.history import History, Row

AFTER_A_FAILURE_S = 0.05  # a closed loop over failures is otherwise a flood


class LoadSize(NamedTuple):
    clients: int
    seconds: float
    fault_at_s: float
    fault_until_s: float


SHORT = LoadSize(10, 8.0, 2.5, 5.0)
FULL = LoadSize(50, 60.0, 20.0, 40.0)


def new_row(alias: str, stream: bool, prompt: str = "") -> Row:
    """A prompt that nobody else has."""
    nonce = f"nonce:{uuid.uuid4()}"
    return Row(nonce, alias, stream, f"{nonce} {prompt}".strip())


class Load:
    """Runs from its making on. It is bounded: `size.seconds`, and `timeout_s` for the requests that are then on their way."""

    def __init__(
        self,
        alias: str,
        size: LoadSize,
        *,
        ports: Sequence[int],
        key: str,
        stream: bool | None = None,
        prompt: str = "",
        timeout_s: float = 30.0,
        pause_s: float = 0.0,
        spread_s: float = 0.0,
        reconnect_every: int = 0,
        abandon: Callable[[random.Random], int] | None = None,
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, Any] | None = None,
        heard: History | None = None,
    ) -> None:
        """`heard` also gets every row. `reconnect_every`: requests on one connection, 0 = as many as the server lets it have.
        See README.md for the rest."""
        self.size = size
        self._alias, self._ports, self._key, self._stream, self._prompt = alias, ports, key, stream, prompt
        self._timeout_s, self._pause_s, self._abandon = timeout_s, pause_s, abandon
        self._spread_s = spread_s
        self._reconnect_every = reconnect_every
        self._headers, self._fields = headers or {}, fields or {}
        self._rows = History()
        self._heard = History() if heard is None else heard
        self._stopped = threading.Event()
        self._trouble: BaseException | None = None
        self.began = time.time()
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def wait_until(self, seconds: float) -> None:
        """Since its start."""
        time.sleep(max(0.0, self._began_s + seconds - time.monotonic()))

    def stop(self) -> None:
        self._stopped.set()

    def so_far(self) -> History:
        return History(self._rows)

    def history(self) -> History:
        """Of everything; waits for the end."""
        self._thread.join(self.size.seconds + self._timeout_s + 10)
        assert not self._thread.is_alive(), "the load did not come to its end"
        if self._trouble is not None:
            raise self._trouble
        return History(self._rows)

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as exc:
            self._trouble = exc

    async def _all(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.size.clients)))

    async def _client(self, number: int) -> None:
        client = Client(self._ports[number // 2 % len(self._ports)])  # each gets both kinds
        stream = number % 2 == 0 if self._stream is None else self._stream
        dice, asked = random.Random(number), 0
        await asyncio.sleep(self._spread_s * number / self.size.clients)
        while not self._stopped.is_set() and time.monotonic() < self._began_s + self.size.seconds:
            row = new_row(self._alias, stream, self._prompt)
            tokens = self._abandon(dice) if self._abandon and stream else None
            leave = None if tokens is None else lambda row, tokens=tokens: row.tokens >= tokens
            await client.ask(row, request(row, self._ports[0], self._key, self._headers, self._fields), self._timeout_s, leave)
            asked += 1
            if self._reconnect_every and asked % self._reconnect_every == 0:
                client.close()
            self._rows.append(row)
            self._heard.append(row)
            await asyncio.sleep(self._pause_s + (AFTER_A_FAILURE_S if row.outcome == "fail" else 0))
        client.close()
