"""The fault vendor as a process of its own: its work is not the test's, and it can be frozen and killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.e2e import wire
from tests.faults import processes
from tests.faults.processes import bound, clean_environment
from tests.faults.vendor_tls import CA_FILE
from tests.live import ROOT


class Call(NamedTuple):
    """One line of the vendor's ledger; times are wall seconds. `how`: whole, cut (by the vendor), client_gone, running."""

    n: int
    nonce: str
    echo: str
    key: str
    model: str
    stream: bool
    status: int
    how: str
    prompt_tokens: int
    tokens_sent: int
    text_bytes: int
    started: float
    first_byte: float | None
    ended: float | None
    gone_at: float | None
    idempotency_key: str
    repeat: bool


class Vendor:
    def __init__(self, folder: Path, name: str = "vendor", *, tls: bool = False) -> None:
        self.log = folder / f"{name}.log"
        self.port = 0
        self.tls: dict[str, str] = {}
        self.forgot = False
        self._certificates = folder / f"{name}-tls" if tls else None
        self.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def ca_file(self) -> Path:
        assert self._certificates is not None
        return self._certificates / CA_FILE

    def start(self) -> None:
        """On the port of last time, with an empty ledger."""
        self.forgot = self.port != 0
        command = [sys.executable, "-m", "tests.fault_vendor", "--port", str(self.port)]
        command += ["--tls", str(self._certificates)] if self._certificates else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                bound(command), cwd=ROOT, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, _, url = line.strip().rpartition(" ")
            if what == "listening on":
                self.port = int(url.removesuffix("/v1").rpartition(":")[2])
                return
            self.tls[what.removesuffix(" at")] = url
        raise AssertionError(f"the vendor did not start:\n{self.log.read_text()[-2000:]}")

    def ledger(self) -> list[Call]:
        return [Call(*(entry[name] for name in Call._fields)) for entry in self._get("/_ledger")]

    def calls(self, nonce: str) -> list[Call]:
        return [call for call in self.ledger() if call.nonce == nonce]

    def stats(self) -> dict[str, Any]:
        return self._get("/_stats")

    def reset(self) -> None:
        self.forgot = True
        self._post("/_reset", {})

    def control(self, **wanted: Any) -> None:
        """`keys`: the only ones that are accepted, None = any. `fail`: what a model's name begins with → the fault it meets."""
        self._post("/_control", wanted)

    def freeze(self) -> None:
        processes.freeze(self._process.pid)

    def thaw(self) -> None:
        processes.thaw(self._process.pid)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    close = kill

    def _get(self, path: str) -> Any:
        return wire.call(f"http://127.0.0.1:{self.port}", "GET", path, timeout_s=30).json

    def _post(self, path: str, body: Any) -> None:
        answer = wire.call(f"http://127.0.0.1:{self.port}", "POST", path, body=body)
        assert answer.status == 200, answer
