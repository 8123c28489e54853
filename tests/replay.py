"""Recorded exchanges with real vendors, as plain data and as a server that replays them.

They live in a `shared` folder beside the repository. Where that is absent the tests that need them are skipped with one
visible reason; where the environment says CI, they fail.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
RECORDED = SHARED / "recorded"
ABSENT = "no recorded exchanges: the shared/recorded folder is not beside the repository"


def require() -> None:
    """Skips the running test where there are no recordings; fails it in CI."""
    if not RECORDED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(ABSENT)
        pytest.skip(ABSENT)


@cache
def exchanges(provider: str) -> tuple[dict[str, Any], ...]:
    """Every exchange with `provider`, as its file spells it. Empty where there are no recordings."""
    return tuple(json.loads(path.read_text()) for path in sorted(RECORDED.glob(f"{provider}/*.json")))


def chat_exchanges(*providers: str) -> list[Any]:
    """pytest parameters: the exchanges of `providers` whose path ends in /chat/completions."""
    found = [exchange for provider in providers for exchange in exchanges(provider)]
    found = [exchange for exchange in found if exchange["request"]["path"].partition("?")[0].endswith("/chat/completions")]
    return [pytest.param(exchange, id=exchange["id"]) for exchange in found] or [pytest.param(None, marks=pytest.mark.skip(ABSENT))]


def body_of(response: dict[str, Any]) -> bytes:
    """The recorded body as bytes; a stream's byte for byte."""
    if "lines" in response:
        return str(response["newline"]).join(response["lines"]).encode()
    body = response["body"]
    return body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()


def differences(recorded: Any, sent: Any) -> list[str]:
    """What a sent body has more or less than the recorded one; absent, null and false are the same."""
    spec = importlib.util.spec_from_file_location("replay_server", RECORDED / "replay_server.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[str] = module.diff(recorded, sent)
    return found


@contextlib.contextmanager
def replay_server() -> Iterator[str]:
    """Runs the replay server on a free loopback port and gives its address: http://127.0.0.1:PORT, to be followed by /<id>/v1."""
    require()
    command = [sys.executable, "-u", str(RECORDED / "replay_server.py"), str(RECORDED), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://" in line, "the replay server did not start"
        yield line[line.index("http://") :].strip()
    finally:
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


@cache
def schema_validator(name: str) -> Any:
    """A jsonschema validator of one definition of OpenAI's published API, e.g. `ErrorResponse`."""
    from jsonschema import Draft202012Validator

    schema = json.loads((SHARED / "spec" / "openai-chat.schema.json").read_text())
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})
