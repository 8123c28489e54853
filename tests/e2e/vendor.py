"""The fault vendor in a process of its own, seen through its ledger. A prompt that no other test uses finds its calls."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e import wire

ROOT = Path(__file__).resolve().parents[2]


class Vendor:
    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.fault_vendor", "--port", "0"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().split()[-1]

    def close(self) -> None:
        assert self._process.stdout is not None
        self._process.terminate()
        self._process.wait(10)
        self._process.stdout.close()

    def calls(self, prompt: str) -> list[dict[str, Any]]:
        """What the vendor was asked with this last user message, oldest first, and what it sent."""
        echo = hashlib.sha256(prompt.encode()).hexdigest()[:8]
        ledger = wire.call(self.base_url.removesuffix("/v1"), "GET", "/_ledger").json
        return [entry for entry in ledger if entry["echo"] == echo]

    def was_left(self, prompt: str) -> bool:
        """It was called, and each call's client went away before the end."""
        calls = self.calls(prompt)
        return bool(calls) and all(call["client_gone"] for call in calls)
