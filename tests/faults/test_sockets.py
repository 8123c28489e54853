"""F50: many sockets at `/ws`, some of them not reading, and more events than those can take."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from tests.faults.backends import POSTGRES
from tests.faults.figures import iso
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.processes import bound, until
from tests.faults.raw_clients import connected, has_ended
from tests.faults.stage import Stage
from tests.live import ROOT

RECEIVE_BYTES = 4096
SLOW_AFTER_S = 10.0
PAUSE_S = 0.3  # clients that ask without one take the whole machine, and whatever else it does makes them slower


class Crowd(NamedTuple):
    readers: int
    deaf: int
    keys: int
    events_per_s: int


FULL, SHORT = Crowd(980, 20, 100, 1000), Crowd(95, 5, 10, 100)


class Reader(NamedTuple):
    """One socket, and every frame that it was sent: (type, seq)."""

    key_id: str
    frames: list[tuple[str, int]]

    @property
    def up_to(self) -> int:
        return self.frames[-1][1] if self.frames else 0

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


class Beside:
    """A process that is asked and answers, a line of JSON each."""

    def __init__(self, module: str, *arguments: object, nice: int = 0) -> None:
        command = [sys.executable, "-m", f"tests.faults.{module}", *map(str, arguments)]
        self._process = subprocess.Popen(
            bound(["nice", "-n", str(nice), *command]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
        )

    def tell(self, what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def asked(self, what: Any) -> Any:
        self.tell(what)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self._process.args} ended: {self._process.wait()}"
        return json.loads(line)

    def close(self) -> None:
        """Idempotent."""
        self._process.kill()
        self._process.communicate()


class Readers(Beside):
    """All at once; made when each of them has said hello. They get what time is left: elsewhere they would be on other machines."""

    def __init__(self, port: int, keys: Sequence[dict[str, Any]], count: int) -> None:
        super().__init__("event_readers", port, count, nice=19)
        self._key_ids = [keys[number % len(keys)]["id"] for number in range(count)]
        assert self.asked([key["key"] for key in keys]) == [count]

    def so_far(self) -> list[Reader]:
        return [
            Reader(key_id, [(kind, seq) for kind, seq in frames]) for key_id, frames in zip(self._key_ids, self.asked("?"), strict=True)
        ]


class Events(Beside):
    def __init__(self, stage: Stage, keys: Sequence[dict[str, Any]], crowd: Crowd) -> None:
        super().__init__("event_writer", stage.database.address, crowd.events_per_s)
        self.tell([key["id"] for key in keys])

    def stop(self) -> int:
        """How many there were."""
        written: int = self.asked("enough")
        self.close()
        return written


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
    events: Events | None = None
    unheard: list[socket.socket] = []
    try:
        usual = stage.load(alias, size, pause_s=PAUSE_S).history()
        with stage.rss() as rss:
            unheard = [deaf(stage) for _ in range(crowd.deaf)]
            events = Events(stage, keys, crowd)
            began_s = time.monotonic()
            met = stage.load(alias, size, pause_s=PAUSE_S).history()
            until(lambda: time.monotonic() - began_s > SLOW_AFTER_S * 2, "who does not read has had its time", timeout_s=60, every_s=0.5)
            count = events.stop()
            meant = meant_for(stage, keys)
            last = {key_id: max(seqs) for key_id, seqs in meant.items()}
            until(lambda: all(each.up_to >= last[each.key_id] for each in readers.so_far()), "all is told", timeout_s=120, every_s=2)
        until(lambda: sum(map(has_ended, unheard)) == crowd.deaf, "who does not read is cut off", timeout_s=60)
        cut = sum(map(has_ended, unheard))
        heard = readers.so_far()
        gaps = sum(each.gaps(meant[each.key_id]) for each in heard)
        markers = sum(kind == "resync" for each in heard for kind, _ in each.frames)
    finally:
        readers.close()
        if events is not None:
            events.close()
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
