"""kill -9 under load loses no record of a request that was answered, and no replay counts anything twice."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e import wire
from tests.e2e.control import Control, until
from tests.e2e.vendor import Vendor
from tests.live import LiveServer, environment, manage

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
KILLS = 10
CLIENTS = 12
LOAD_S = 0.5
MIN_ANSWERED_PER_ROUND = 10


class Served:
    """`manage.py serve` on a state folder, killed and started again."""

    def __init__(self, state_dir: Path, port: int, log: Path) -> None:
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}"
        self.state_dir = state_dir
        self._log = log
        self._settings = {"LLM_STATE_DIR": str(state_dir), "OUTBOUND_ALLOW": "127.0.0.0/8:*"}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self, *, drain_s: float = 0.2) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "serve", "--port", str(self.port)],
                cwd=ROOT,
                env=environment({**self._settings, "LLM_DRAIN_INTERVAL_S": str(drain_s)}),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        until(self.is_ready, "the server is ready", timeout_s=30)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()[-3000:]
        try:
            return wire.call(self.base_url, "GET", "/ready", timeout_s=5).status == 200
        except OSError:
            return False

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def replay(self) -> None:
        done = manage("replay_journal", env=self._settings)
        assert done.returncode == 0, done.stdout + done.stderr

    def count(self) -> int:
        return int(self.rows("monitoring_usagerecord", "COUNT(*)")[0][0])

    def rows(self, table: str, columns: str = "*") -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.state_dir / 'llmcontrol.sqlite3'}?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(f"SELECT {columns} FROM {table}").fetchall()


class Load:
    """Clients in closed loops, half of them streaming, on raw sockets: an SDK would be the bottleneck."""

    def __init__(self, port: int, key: str, alias: str) -> None:
        self._port = port
        self._stopped = asyncio.Event()
        self.answered: set[str] = set()
        self.outcomes: Counter[str] = Counter()
        self._requests = {}
        for stream in (True, False):
            body = json.dumps({"model": alias, "messages": wire.HELLO, "stream": stream}).encode()
            self._requests[stream] = (
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer %s\r\n"
                b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (key.encode(), len(body), body)
            )

    async def run(self, seconds: float, strike: Callable[[], None]) -> None:
        """Loads for `seconds`, strikes in the middle of it, and waits until every client has noticed."""
        async with asyncio.timeout(seconds + 20):
            clients = [asyncio.create_task(self._client(number % 2 == 0)) for number in range(CLIENTS)]
            await asyncio.sleep(seconds)
            strike()
            self._stopped.set()
            await asyncio.gather(*clients)

    async def _client(self, stream: bool) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            self.outcomes["refused"] += 1
            return
        try:
            while not self._stopped.is_set():
                writer.write(self._requests[stream])
                await self._answer(reader)
        except (OSError, asyncio.IncompleteReadError):
            self.outcomes["cut"] += 1
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if length := headers.get("content-length"):
            await reader.readexactly(int(length))
            answered = " 200 " in status_line
            self._note(answered, headers)
            return
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size + 2)
            if body.endswith(b"data: [DONE]\n\n\r\n"):
                self._note(True, headers)  # even if the connection is cut before the last, empty piece
        await reader.readuntil(b"\r\n")
        if b"[DONE]" not in body:
            self._note(False, headers)

    def _note(self, answered: bool, headers: dict[str, str]) -> None:
        self.outcomes["answered" if answered else "failed"] += 1
        if answered:
            self.answered.add(headers["x-request-id"])


class Prepared(NamedTuple):
    """A state folder with an API key, and two models of the fault vendor; the server that made it has ended."""

    state_dir: Path
    key: str
    brisk: str
    slow: str


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, vendor: Vendor) -> Prepared:
    with LiveServer(tmp_path_factory.mktemp("killed")) as live:
        control = Control(live.base_url, live.admin_token or "", live.api_key or "")
        provider = control.provider(vendor.base_url, breaker={"fail_max": 1000, "reset_timeout_s": 1}, max_concurrency=0)
        brisk, slow = (control.model(provider, name)["alias"] for name in ("ok@tokens=8", "ok@tokens=60,delay=0.03"))
    return Prepared(live.state_dir, control.key, brisk, slow)


@pytest.fixture
def served(prepared: Prepared, tmp_path: Path) -> Iterator[Served]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = Served(prepared.state_dir, port, tmp_path / "server.log")
    try:
        yield served
    finally:
        served.stop()


def load_and_kill(served: Served, prepared: Prepared, outcomes: Counter[str]) -> set[str]:
    """The ids of the requests that were answered."""

    async def run() -> Load:
        load = Load(served.port, prepared.key, prepared.brisk)
        await load.run(LOAD_S, served.kill)
        return load

    load = asyncio.run(run())
    assert load.outcomes["failed"] == 0, load.outcomes
    assert load.outcomes["answered"] >= MIN_ANSWERED_PER_ROUND, load.outcomes
    assert load.outcomes["cut"] > 0, "the kill met nobody: this round proves nothing"
    outcomes += load.outcomes
    return load.answered


def kill_during_replay(served: Served) -> int:
    """Starts the server on a full journal and kills it once replay has entered some of it. Returns the rows entered."""
    before = served.count()
    served.start()
    while served.count() == before:
        assert served.process.poll() is None
        served.process.send_signal(signal.SIGCONT)
        time.sleep(0.005)
        served.process.send_signal(signal.SIGSTOP)  # or on a busy machine it would be through before anybody looks
    served.kill()
    return served.count() - before


def ledger(served: Served) -> dict[str, list[Any]]:
    return {table: sorted(served.rows(table), key=repr) for table in ("monitoring_usagerecord", "monitoring_requestlog")}


def test_ten_kills_under_load_lose_nothing_and_count_nothing_twice(
    served: Served, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answered: set[str] = set()
    outcomes: Counter[str] = Counter()
    for number in range(KILLS):
        # In every second round nothing is drained while it serves: all of it is left to the next start's replay.
        served.start(drain_s=60 if number % 2 else 0.05)
        served.wait_until_ready()
        answered |= load_and_kill(served, prepared, outcomes)
    replayed = kill_during_replay(served)
    at_kill = served.count()
    aside = tmp_path / "journal"
    shutil.copytree(served.state_dir / "journal", aside)

    served.start()
    served.wait_until_ready()
    assert served.terminate() == 0
    attempts = served.rows("monitoring_usagerecord", "attempt, request_id, status")
    assert len(attempts) > at_kill, "the last kill met a replay that was over: it proves nothing"
    with capsys.disabled():
        print(
            f"\n{KILLS} kills: {dict(outcomes)}, {len(attempts)} usage records: {dict(Counter(row[2] for row in attempts))}; "
            f"a replay was killed after {replayed} of {len(attempts) - at_kill + replayed}"
        )

    of_answered = Counter(request_id for _, request_id, status in attempts if status == "ok")
    assert [request_id for request_id in answered if of_answered[request_id] != 1] == []
    assert max(Counter((request_id, attempt) for attempt, request_id, _ in attempts).values()) == 1
    assert {status for *_, status in attempts} <= {"ok", "interrupted", "client_closed"}
    assert [request_id for _, request_id, status in attempts if status != "ok" and request_id in answered] == []
    logged = Counter(request_id for (request_id,) in served.rows("monitoring_requestlog", "request_id"))
    assert [request_id for request_id in answered if logged[request_id] != 1] == []

    # The same journals once more, as if nothing had been noted of their first replay.
    entered = ledger(served)
    for path in aside.iterdir():
        if path.suffix in (".journal", ".lock"):
            shutil.copy(path, served.state_dir / "journal" / path.name)
    served.replay()
    served.replay()
    assert ledger(served) == entered


def test_what_a_killed_process_had_forwarded_of_its_streams_is_charged(served: Served, prepared: Prepared) -> None:
    served.start()
    served.wait_until_ready()
    streams = [wire.Stream(served.base_url, prepared.key, prepared.slow) for _ in range(5)]
    given = {stream.header("x-request-id"): "".join(stream.content() for _ in range(10)) for stream in streams}
    served.kill()
    for stream in streams:
        with suppress(OSError, http.client.HTTPException):
            while text := stream.content():
                given[stream.header("x-request-id")] += text
        stream.close()
    served.replay()

    usage = {
        row[0]: row[1:] for row in served.rows("monitoring_usagerecord", "request_id, status, usage_source, output_tokens, input_tokens")
    }
    requests = dict(served.rows("monitoring_requestlog", "request_id, total_tokens"))
    for request_id, text in given.items():
        status, source, output_tokens, input_tokens = usage[request_id]
        assert (status, source) == ("interrupted", "estimated")
        # At 30 ms a token and 20 ms an interval, one token may have come after the last note of it, and on a busy machine some more.
        assert len(text.encode()) // 4 - 6 <= output_tokens <= len(text.encode()) // 4 + 2
        assert requests[request_id] == input_tokens + output_tokens
    assert list((served.state_dir / "journal").glob("*.progress-*")) == []


def test_sigterm_lets_streams_finish_and_loses_nothing(served: Served, prepared: Prepared) -> None:
    served.start(drain_s=60)
    served.wait_until_ready()
    slow = prepared.slow
    streams = [wire.Stream(served.base_url, prepared.key, slow) for _ in range(6)]
    ids = [stream.header("x-request-id") for stream in streams]
    assert all(stream.content() for stream in streams)
    began = time.monotonic()
    served.process.send_signal(signal.SIGTERM)
    tails = [stream.rest() for stream in streams]
    assert [tail[-1] for tail in tails] == ["[DONE]"] * len(streams)
    assert min(len(tail) for tail in tails) > 10, "the streams had ended before the signal"
    for stream in streams:
        stream.close()
    assert served.process.wait(30) == 0
    assert time.monotonic() - began < 30
    statuses = dict(served.rows("monitoring_usagerecord", "request_id, status"))
    assert [statuses.get(id_) for id_ in ids] == ["ok"] * len(ids)


def test_an_idle_server_ends_at_once_on_sigterm(served: Served) -> None:
    served.start()
    served.wait_until_ready()
    assert served.terminate() == 0
    with pytest.raises(OSError):
        wire.call(served.base_url, "GET", "/health", timeout_s=2)
