"""One live gateway between real clients and independent mock vendors, each a process of its own. Run by `make test-clients`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.control import Control, until
from tests.live import ROOT, LiveServer

HERE = Path(__file__).resolve().parent
BIN = ROOT / ".venv-clients" / "bin"
NODE_BIN = HERE / "node_modules" / ".bin"
ANSWERS = HERE / "answers.json"
CLIENT_TIMEOUT_S = 90.0
START_TIMEOUT_S = 30.0
QUICK = {"OUTBOUND_ALLOW": "127.0.0.0/8:*", "LLM_CONFIG_POLL_S": "0.1", "LLM_DRAIN_INTERVAL_S": "0.05", "MAX_RETRIES": "1"}

Run = Callable[..., str]


@pytest.fixture(scope="session")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with LiveServer(tmp_path_factory.mktemp("clients"), env=QUICK) as live:
        yield Control(live.base_url, live.admin_token or "", live.api_key or "")


@pytest.fixture(scope="session")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """@copilotkit/aimock's address; it says what answers.json tells it to, in every vendor's wire."""
    command = [installed(NODE_BIN / "llmock"), "--fixtures", str(ANSWERS), "--log-level", "warn"]
    with serving(command, tmp_path_factory.mktemp("aimock")) as url:
        yield url


@pytest.fixture(scope="session")
def llmock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """llmock's address; it breaks its answers on demand and judges what its client made of them."""
    command = [installed(BIN / "llmock"), "serve", "--log-level", "warning", "--response-style", "static", "--stream-chunk-delay-ms", "10"]
    with serving(command, tmp_path_factory.mktemp("llmock")) as url:
        yield url


@pytest.fixture(params=["openai", "anthropic"])
def alias(request: pytest.FixtureRequest, control: Control, aimock: str) -> str:
    """A vendor of this test's own: one that has said 429 is given a rest."""
    base_url = {"openai": f"{aimock}/v1", "anthropic": aimock}[request.param]
    provider = control.provider(base_url, kind=request.param, api_key="sk-of-the-vendor")
    alias = control.model(provider, "vendors-own-name")["alias"]
    control.apply()
    return alias


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs one client to its end, in a home of its own, and returns what it printed. Fails with what it complained of."""

    def to_its_end(command: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: str = "") -> str:
        done = subprocess.run(
            [installed(Path(command[0])), *command[1:]],
            input=stdin,
            env=environment(tmp_path, env),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=CLIENT_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command} → {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    return to_its_end


@pytest.fixture
def report(run: Run) -> Callable[..., dict[str, Any]]:
    """What a program of programs/ tells, as JSON, of its talk with (base_url, key, model)."""

    def told(name: str, *arguments: str) -> dict[str, Any]:
        program = HERE / "programs" / name
        if program.suffix == ".mjs":
            installed(HERE / "node_modules" / "openai" / "package.json")
            return json.loads(run(["/usr/bin/env", "node", str(program), *arguments]))
        return json.loads(run([str(BIN / "python"), str(program), *arguments]))

    return told


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of this machine's but where programs are: neither keys nor anyone's settings. Who wants to go out meets a shut door."""
    shut = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost"}
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "NO_COLOR": "1", **shut, **(extra or {})}


def answer(asked: str, *, after_tools: bool = False) -> dict[str, Any]:
    """What aimock is told to say to a prompt: the first that fits, as it reads its file."""
    for fixture in json.loads(ANSWERS.read_text())["fixtures"]:
        match = fixture["match"]
        if match.get("userMessage", "") in asked and match.get("hasToolResult", after_tools) == after_tools:
            return fixture["response"]
    raise AssertionError(f"answers.json has nothing for {asked!r}")


def installed(path: Path) -> str:
    """`path`, where it is there. CI has every client: there a missing one is a failure, elsewhere a visible skip."""
    if not path.exists():
        reason = f"{path.relative_to(ROOT)} is not installed: make test-clients"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return str(path)


@contextmanager
def serving(command: Sequence[str], folder: Path) -> Iterator[str]:
    """The address of a mock that takes --port, from when it answers until the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=environment(folder), cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        until(lambda: process.poll() is not None or listens(port), f"{command[0]} answers", timeout_s=START_TIMEOUT_S)
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
