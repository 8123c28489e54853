"""F50: many sockets at `/ws`, some of them not reading, and more events than those can take."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.faults.backends import POSTGRES
from tests.faults.figures import iso
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.processes import until
from tests.faults.raw_clients import connected, has_ended
from tests.faults.stage import Stage

RECEIVE_BYTES = 4096
SLOW_AFTER_S = 10.0
EVERY_S = 0.1
LOCK = 0x6C6C6D65  # of telling.events: numbers are given out in the order of commits
LARGE = 100_000  # bytes, ten times a second: more than the kernel keeps for a socket that does not read, within seconds


class Crowd(NamedTuple):
    readers: int
    deaf: int
    keys: int
    events_per_s: int


FULL, SHORT = Crowd(980, 20, 100, 1000), Crowd(95, 5, 10, 100)


class Reader:
    """One socket, and every frame that it was sent: (type, seq)."""

    def __init__(self, key_id: str, connection: ClientConnection) -> None:
        self.key_id = key_id
        self.frames: list[tuple[str, int]] = []
        self._connection = connection

    @property
    def up_to(self) -> int:
        return self.frames[-1][1] if self.frames else 0

    async def read(self) -> None:
        with suppress(ConnectionClosed):
            async for frame in self._connection:
                told = json.loads(frame)
                self.frames.append((told["type"], told["seq"]))

    def gaps(self, meant: Sequence[int]) -> int:
        """Of the events that were `meant` for it since its hello, those that neither came nor are covered by a marker."""
        seen, missing = 0, 0
        waiting = iter(sorted(meant))
        after = next(waiting, None)
        for kind, seq in self.frames:
            while after is not None and after <= seq:
                missing += kind == "task" and after < seq and after > seen
                after = next(waiting, None)
            seen = max(seen, seq)
        return missing + (after is not None) + sum(1 for _ in waiting)


class Readers:
    """In a thread of its own, all at once."""

    def __init__(self, port: int, keys: Sequence[dict[str, Any]], count: int) -> None:
        self.readers: list[Reader] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(port, [keys[n % len(keys)] for n in range(count)])))
        self._thread.start()
        until(lambda: len([each for each in self.readers if each.frames]) == count, "all sockets have said hello", timeout_s=120)

    async def _run(self, port: int, keys: Sequence[dict[str, Any]]) -> None:
        self._loop, self._enough = asyncio.get_running_loop(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(self._read(port, key)) for key in keys]
            await self._enough.wait()
            for each in reading:
                each.cancel()

    async def _read(self, port: int, key: dict[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {key['key']}"}
        options: dict[str, Any] = {"proxy": None, "compression": None, "open_timeout": 60, "ping_interval": None}
        async with connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers, **options) as connection:
            self.readers.append(reader := Reader(key["id"], connection))
            await reader.read()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._enough.set)
        self._thread.join()


class Events:
    """So many events a second, for one key after the other, written as `telling.events.add` writes them; and large ones that only those
    hear of who may see everything."""

    def __init__(self, stage: Stage, keys: Sequence[dict[str, Any]], crowd: Crowd) -> None:
        self._stage, self._keys, self._crowd = stage, keys, crowd
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_all)
        self._thread.start()

    def _write_all(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self._write(round(self._crowd.events_per_s * EVERY_S))
            due = max(due + EVERY_S, time.monotonic() - 1.0)  # a machine that is too slow is not asked for all of it afterwards

    def _write(self, count: int) -> None:
        at = datetime.now(UTC).isoformat(sep=" ")
        rows = [f"""('alert', '["task.all"]', '{{"more": "{"x" * LARGE}"}}', '{at}')"""]
        for _ in range(count):
            key = self._keys[self._number % len(self._keys)]
            topics, data = json.dumps(["task.all", f"task.key.{key['id']}"]), json.dumps({"number": self._number})
            rows.append(f"('task', '{topics}', '{data}', '{at}')")
            self._number += 1
        lock = f"SELECT pg_advisory_xact_lock({LOCK}); " if self._stage.backend == POSTGRES else ""
        self._stage.database.change(f"{lock}INSERT INTO telling_event (type, topics, data, at) VALUES {', '.join(rows)}")

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self._number


def deaf(stage: Stage) -> socket.socket:
    """A person's socket, that may hear of everything and reads nothing."""
    ticket = stage.control.call("POST", "/api/v1/ws-ticket")["ticket"]
    client = connected(stage.machine.port, RECEIVE_BYTES)
    lines = [
        "GET /ws HTTP/1.1",
        f"host: 127.0.0.1:{stage.machine.port}",
        "upgrade: websocket",
        "connection: upgrade",
        f"sec-websocket-key: {base64.b64encode(secrets.token_bytes(16)).decode()}",
        "sec-websocket-version: 13",
        f"sec-websocket-protocol: llmcontrol, ticket.{ticket}",
    ]
    client.send(("\r\n".join(lines) + "\r\n\r\n").encode())
    client.settimeout(20)
    assert client.recv(12) == b"HTTP/1.1 101"
    client.setblocking(False)
    return client


@pytest.mark.short
def test_f50_sockets_that_do_not_read(stage: Stage, judge: Judge, size: LoadSize) -> None:
    crowd = FULL if size.seconds > 30 else SHORT
    alias = stage.model("ok@tokens=5")
    keys = [stage.control.new_key(scopes=["tasks"]) for _ in range(crowd.keys)]
    stage.secrets += [key["key"] for key in keys]
    stage.apply()
    readers = Readers(stage.machine.port, keys, crowd.readers)
    unheard: list[socket.socket] = []
    try:
        usual = stage.load(alias, size).history()
        with stage.rss() as rss:
            unheard = [deaf(stage) for _ in range(crowd.deaf)]
            events = Events(stage, keys, crowd)
            began_s = time.monotonic()
            met = stage.load(alias, size).history()
            until(lambda: time.monotonic() - began_s > SLOW_AFTER_S * 2, "who does not read has had its time", timeout_s=60, every_s=0.5)
            count = events.stop()
            meant = meant_for(stage, keys)
            last = {key_id: max(seqs) for key_id, seqs in meant.items()}
            until(lambda: all(each.up_to >= last[each.key_id] for each in readers.readers), "all is told", timeout_s=120, every_s=0.1)
        until(lambda: sum(map(has_ended, unheard)) == crowd.deaf, "who does not read is cut off", timeout_s=60)
        cut = sum(map(has_ended, unheard))
        gaps = sum(each.gaps(meant[each.key_id]) for each in readers.readers)
        markers = sum(kind == "resync" for each in readers.readers for kind, _ in each.frames)
    finally:
        readers.close()
        for client in unheard:
            client.close()
    figures = stage.check(usual + met)
    told = f"{count} events, {crowd.readers} that read and {crowd.deaf} that do not, {markers} markers"
    judge("F50", "gaps without a marker", gaps, equals=0, why=told)
    judge("F50", "sockets that do not read and were not cut off", crowd.deaf - cut, equals=0, why=told)
    judge("F50", "RSS", rss.over_mb, at_most=64, unit="MB", why=told)
    judge("F50", "ISO of `/v1`", iso(met, usual), at_most=1.2, unit="×", timed=True, why=f"{told}\n{figures.explain()}")
    judge("F50", "failed requests of `/v1`", len(met) - len(met.ok), equals=0, why=figures.explain())


def meant_for(stage: Stage, keys: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """The numbers of all events by the key that may hear of them."""
    found: dict[str, list[int]] = {key["id"]: [] for key in keys}
    number = "data->>'number'" if stage.backend == POSTGRES else "json_extract(data, '$.number')"
    for seq, at in stage.database.rows(f"SELECT seq, {number} FROM telling_event WHERE type = 'task' ORDER BY seq"):
        found[keys[int(at) % len(keys)]["id"]].append(int(seq))
    return found
