"""`manage.py serve` in a process of its own, on a state folder that is set up, and what its clients see."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.live import ROOT, alive, children_of, environment


class Prepared(NamedTuple):
    """A state folder with an API key and the models `quick`, `slow` (2 s) and `endless` (60 s) of a vendor that runs."""

    state_dir: Path
    api_key: str
    admin_token: str


class Served:
    """`serve` with these options; `env` are settings."""

    def __init__(self, prepared: Prepared, port: int, *options: str, **env: str) -> None:
        self.port, self.prepared, self._options = port, prepared, options
        self.log = prepared.state_dir / f"serve-{port}.log"
        settings = {"LLM_STATE_DIR": str(prepared.state_dir), "OUTBOUND_ALLOW": "127.0.0.0/8:*", **env}
        command = [sys.executable, str(ROOT / "manage.py"), "serve", "--port", str(port), *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment(settings), stdout=log, stderr=log)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def get(self, path: str, **headers: str) -> int:
        """The status; 0 where there was no answer."""
        with closing(self.connect()) as connection:
            try:
                connection.request("GET", path, headers=headers)
                return connection.getresponse().status
            except OSError:
                return 0

    def ask(self, connection: http.client.HTTPConnection, model: str, prompt: str = "hello") -> http.client.HTTPResponse:
        """The head of a streamed answer."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True})
        connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {self.prepared.api_key}"})
        return connection.getresponse()

    @contextmanager
    def stream(self, model: str, prompt: str = "hello") -> Iterator[http.client.HTTPResponse]:
        """A stream that has begun."""
        with closing(self.connect()) as connection:
            response = self.ask(connection, model, prompt)
            assert response.status == 200, response.read()
            response.readline()
            yield response

    def charged(self, request_id: str) -> tuple[str, int]:
        """(how the attempt ended, its output tokens), from the ledger."""
        with closing(sqlite3.connect(self.prepared.state_dir / "llmcontrol.sqlite3")) as rows:
            (row,) = rows.execute(
                "SELECT error_code, output_tokens FROM monitoring_usagerecord WHERE request_id = ?", [request_id]
            ).fetchall()
        return row

    def workers(self) -> set[int]:
        """Children that serve; Python's own resource tracker is a child too."""
        found = set()
        for pid in children_of(self.process.pid):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text()
            except OSError:
                continue
            if "spawn_main" in command:
                found.add(pid)
        return found

    def serving(self) -> bool:
        """Whether every worker has told its supervisor that it serves."""
        wanted = int(self._options[self._options.index("--workers") + 1]) if "--workers" in self._options else 1
        return wanted == 1 or len(re.findall(r"worker \d+ serves", self.log.read_text())) >= wanted

    def until(self, look: Callable[[], bool], timeout_s: float = 90.0) -> float:
        """Seconds until `look` is true."""
        began = time.monotonic()
        while not look():
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() - began < timeout_s, self.log.read_text()[-2000:]
            time.sleep(0.02)
        return time.monotonic() - began

    def end(self) -> None:
        """Whatever has happened: the process and what it started, each by its id."""
        for pid in [self.process.pid, *children_of(self.process.pid)]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def events(data: bytes) -> list[Any]:
    """What a stream said: JSON values, and "[DONE]"."""
    lines = [line[5:].strip() for line in data.decode().splitlines() if line.startswith("data:")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
