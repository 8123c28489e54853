"""What is measured: the vendor stub, the bare relay in front of it, and the gateway with everything switched on."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.load import Scenario, tool
from bench.processes import BenchFailed, Process, start

ROOT = Path(__file__).resolve().parent.parent
_READY_S = 15
_QUICKSTART_S, _WORKER_S = 180, 60
_REST_TIMEOUT_S = 30
_RELAY_KEY = "sk-bench-relay"
# Every limit is on and is asked about on each request; none is so low that it refuses.
_PROVIDER = {
    "name": "bench-stub",
    "provider_type": "openai_compatible",
    "is_active": True,
    "rate_limit": {"type": "token_bucket", "capacity": 1_000_000, "refill_rate": 1_000_000.0},
    "breaker": {"fail_max": 5, "reset_timeout_s": 60},
    "timeouts": {"connect_s": 3, "first_byte_s": 30, "idle_s": 60, "total_s": 600},
    "max_concurrency": 1000,
}
_KEY_LIMITS = {"requests_per_minute": 100_000_000, "tokens_per_minute": 2_000_000_000, "max_concurrency": 1000}
_PRICE = {
    "currency": "USD",
    "valid_from": "2020-01-01T00:00:00Z",
    "per_million": {"input": "2.50", "cached_input": "1.25", "output": "10.00"},
}


@dataclass
class Target:
    """One variant of the run. The gateway alone has an `admin_token` and a `state` folder."""

    name: str
    process: Process
    base_url: str
    key: str
    admin_token: str = ""
    state: Path = Path()

    @property
    def chat_url(self) -> str:
        return f"{self.base_url}/v1/chat/completions"

    @property
    def port(self) -> int:
        return urlsplit(self.base_url).port or 80

    def rest(self, method: str, path: str, body: object = None) -> Any:
        """A call to the control plane → its JSON. Raises BenchFailed with what it said."""
        headers = {"authorization": f"Token {self.admin_token}", "content-type": "application/json", "accept": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base_url}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_REST_TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:500]
            raise BenchFailed(f"{method} {path} answered {error.code}: {said}") from None
        except (urllib.error.URLError, json.JSONDecodeError, TimeoutError) as error:
            raise BenchFailed(f"{method} {path} failed: {error}. The end of {self.process.log}:\n{self.process.log_tail()}") from None


def start_stub(core: int, folder: Path) -> Target:
    """Compiles the stub when its source is newer, and starts it."""
    source, binary = ROOT / "bench" / "stub.c", folder / "stub"
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        subprocess.run([tool("cc"), "-O2", "-std=gnu11", "-o", str(binary), str(source)], check=True)
    process = start("direct", [str(binary)], core, folder)
    return _ready(process, "sk-bench-upstream")


def start_relay(name: str, stub: Target, core: int, folder: Path) -> Target:
    command = [sys.executable, "-m", "bench.relay", "--upstream", stub.chat_url, "--key", _RELAY_KEY]
    return _ready(start(name, command, core, folder, {**os.environ, "PYTHONPATH": str(ROOT)}), _RELAY_KEY)


def start_gateway(
    stub: Target, scenarios: Iterable[Scenario], core: int, folder: Path, state: Path, env: Mapping[str, str] | None = None
) -> Target:
    """`manage.py quickstart` on an empty state folder, then configured over REST as an admin would."""
    command = [sys.executable, str(ROOT / "manage.py"), "quickstart"]
    command += ["--model", "none", "--json", "--port", "0", "--state-dir", str(state), "--workers", "1"]
    process = start("gateway", command, core, folder, environment(stub.port, state) | (env or {}))
    try:
        line = process.line(_QUICKSTART_S)
        told = json.loads(line)
        gateway = Target("gateway", process, told["base_url"].rstrip("/"), told["api_key"], told["admin_token"], state)
        gateway.key = _configure(gateway, stub, scenarios)
    except BaseException as error:
        process.stop()
        if isinstance(error, (json.JSONDecodeError, KeyError)):
            raise BenchFailed(f"quickstart --json printed {line!r} instead of the promised line") from None
        raise
    return gateway


def start_worker(number: int, stub: Target, core: int, folder: Path, state: Path, concurrency: int, env: Mapping[str, str]) -> Process:
    """`manage.py worker` on the state folder of a gateway. Returns when it is ready."""
    command = [sys.executable, str(ROOT / "manage.py"), "worker", "--concurrency", str(concurrency)]
    process = start(f"worker-{number}", command, core, folder, environment(stub.port, state) | env)
    give_up_at = time.monotonic() + _WORKER_S
    while "the worker is ready" not in process.log.read_text(errors="replace"):
        if process.popen.poll() is not None or time.monotonic() > give_up_at:
            process.stop()
            raise BenchFailed(f"{process.name} did not get ready. The end of {process.log}:\n{process.log_tail()}")
        time.sleep(0.1)
    return process


def _ready(process: Process, key: str) -> Target:
    try:
        return Target(process.name, process, f"http://127.0.0.1:{int(process.line(_READY_S))}", key)
    except BaseException:
        process.stop()
        raise


def environment(stub_port: int, state: Path) -> dict[str, str]:
    """A clean one: what the developer has set for a gateway of his own must not change the figures."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV") if name in os.environ}
    return kept | {"OUTBOUND_ALLOW": f"127.0.0.0/8:{stub_port}", "LLM_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"}


def _configure(gateway: Target, stub: Target, scenarios: Iterable[Scenario]) -> str:
    """Provider, models with prices, a team and its key → the key."""
    config = {"base_url": f"{stub.base_url}/v1", "api_key": "sk-bench-upstream"}
    provider = gateway.rest("POST", "/api/v1/llm/providers", _PROVIDER | {"config": config})
    for name in sorted({scenario.model for scenario in scenarios}):
        model = {"provider": provider["id"], "model_id": name, "alias": name, "model_type": "chat", "is_active": True}
        made = gateway.rest("POST", "/api/v1/llm/models", model)
        gateway.rest("POST", "/api/v1/llm/prices", _PRICE | {"model": made["id"]})
    team = gateway.rest("POST", "/api/v1/llm/teams", {"name": "bench"})
    key = {"name": "bench", "team": team["id"], "scopes": ["chat", "models"], "models": None, "rate_limit": _KEY_LIMITS}
    return str(gateway.rest("POST", "/api/v1/llm/keys", key)["key"])


def recorded_requests(gateway: Target) -> int:
    """How many requests the usage records hold by now: asked of the database itself, beside every layer that could be wrong."""
    with contextlib.closing(sqlite3.connect(f"file:{gateway.state / 'llmcontrol.sqlite3'}?mode=ro", uri=True, timeout=20)) as database:
        return int(database.execute("SELECT count(DISTINCT request_id) FROM monitoring_usagerecord").fetchone()[0])
