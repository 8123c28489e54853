"""Many sockets at `/ws` that read all they are sent, in a process of their own: beside the load's clients they would wait for each other.

    python -m tests.faults.event_readers PORT COUNT < keys

The first line of its input is a list of keys, used in turn. It writes `[count]` once all have said hello, and for each further line of
input a line with what each socket has read so far: [[[type, seq], …], …].
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

_SAID_HELLO_WITHIN_S = 120


class Sockets:
    def __init__(self) -> None:
        self.frames: list[list[tuple[str, int]]] = []

    async def read(self, port: int, key: str, frames: list[tuple[str, int]]) -> None:
        options: dict[str, Any] = {"proxy": None, "compression": None, "open_timeout": 60, "ping_interval": None}
        headers = {"Authorization": f"Bearer {key}"}
        async with connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers, **options) as connection:
            with suppress(ConnectionClosed):
                async for frame in connection:
                    told = json.loads(frame)
                    frames.append((told["type"], told["seq"]))

    async def run(self, port: int, keys: list[str], count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                self.frames.append([])
                group.create_task(self.read(port, keys[number % len(keys)], self.frames[-1]))
            async with asyncio.timeout(_SAID_HELLO_WITHIN_S):
                while not all(self.frames):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            say([count])
            while await asyncio.to_thread(sys.stdin.readline):
                say(self.frames)
            raise asyncio.CancelledError  # who wanted to know is gone


def say(what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    with suppress(asyncio.CancelledError):
        asyncio.run(Sockets().run(int(sys.argv[1]), json.loads(sys.stdin.readline()), int(sys.argv[2])))
