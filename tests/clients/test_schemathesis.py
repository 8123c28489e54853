"""Schemathesis, an API tester of others, asks REST whatever its OpenAPI description lets through, and some of what it does not.

Every answer has to be one that the description tells of: no 5xx, a known status, a known media type, a body of the described shape.
SCHEMATHESIS_EXAMPLES is how many cases each operation gets in the last phase; `make schemathesis` is the long run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import BIN, environment, installed
from tests.e2e import wire
from tests.e2e.control import ECHO, Control, until
from tests.live import ROOT, LiveServer

pytestmark = pytest.mark.process

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES") or 3)
LONG = EXAMPLES >= 30  # the fixed cases of each operation too: its edges, wrong types, other methods
ANSWERS_WITHIN_S = 60.0  # on a machine with much else to do
TIMEOUT_S = 7_200.0 if LONG else 600.0
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
# Providers, webhooks and alerts are told addresses. Names are looked up nowhere, and of addresses none is public.
SEALED = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from core import connector, guard

async def nowhere(host, port):
    raise OSError("names are not looked up here")

connector._system_addresses = nowhere
guard._is_public = lambda address: False
"""
LLM = "/api/v1/llm"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """A gateway of its own, which reaches nobody: what becomes of its rows is nobody's concern."""
    folder = tmp_path_factory.mktemp("sealed")
    (folder / "sitecustomize.py").write_text(SEALED)
    with LiveServer(tmp_path_factory.mktemp("schemathesis"), env={"PYTHONPATH": str(folder), "LLM_CONFIG_POLL_S": "0.1"}) as live:
        yield Control(live.base_url, live.admin_token or "", live.api_key or "")


def test_every_answer_is_one_that_the_description_tells_of(
    sealed: Control, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    config, description, report = (tmp_path / name for name in ("schemathesis.toml", "openapi.json", "report.json"))
    token = f"Token {sealed._token}"
    config.write_text("\n".join(settings_of(ids(sealed))))
    asked = wire.call(sealed.base_url, "GET", "/api/schema/?format=json", headers={"Authorization": token}, timeout_s=ANSWERS_WITHIN_S)
    description.write_bytes(asked.body)
    phases = "examples,coverage,fuzzing" if LONG else "examples,fuzzing"
    done = subprocess.run(
        [
            installed(BIN / "st"),
            *("--config-file", str(config), "run", str(description), "--url", sealed.base_url),
            *("--request-timeout", f"{ANSWERS_WITHIN_S:g}", "--report", "json", "--report-json-path", str(report)),
            *("--header", f"Authorization: {token}", "--checks", ",".join(CHECKS), "--phases", phases),
            *("--max-examples", str(EXAMPLES), "--continue-on-failure", "--no-shrink", "--generation-database", "none"),
        ],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert report.exists(), done.stdout[-5_000:] + done.stderr[-5_000:]
    said = json.loads(report.read_text())
    cases, operations = said["test_cases"], said["operations"]
    assert (done.returncode, said["failures"], said["errors"]) == (0, [], []), done.stdout[-20_000:]
    assert operations["tested"] == operations["total"] > 100
    assert cases["generated"] - cases["without_checks"] > (10_000 if LONG else operations["total"])
    told = f"{cases['generated']} cases of {operations['tested']} operations in {said['running_time']:.0f} s: each answer as described"
    record_property("told", ["Schemathesis", told])


def ids(control: Control) -> dict[str, list[str]]:
    """By list: a row of each kind, so that more than "there is no such thing" is answered."""
    provider = control.call("GET", f"{LLM}/providers")["results"][0]
    model = control.call("GET", f"{LLM}/models")["results"][0]
    made: dict[str, list[str]] = {f"{LLM}/providers": [provider["id"]], f"{LLM}/models": [model["id"]]}

    def make(path: str, body: dict[str, Any], name: str = "id") -> str:
        row = control.call("POST", path, body, expect=(201, 202))
        made[path] = [row[name]]
        return str(row[name])

    team = make(f"{LLM}/teams", {"name": "fuzz"})
    make(f"{LLM}/keys", {"name": "fuzz", "team": team})
    make(f"{LLM}/members", {"team": team, "user": "admin", "role": "viewer"})
    make(f"{LLM}/grants", {"team": team, "provider": provider["id"]})
    make(f"{LLM}/budgets", {"scope": {"team": team}, "kind": "requests", "limit": 5, "period": "month"})
    make(f"{LLM}/prices", {"model": model["id"], "currency": "USD", "per_million": {"input": "1", "output": "1"}})
    make(f"{LLM}/exchange-rates", {"base": "EUR", "quote": "USD", "rate": "1.1"})
    make(f"{LLM}/routes", {"alias": "fuzz", "targets": [ECHO]})
    make(f"{LLM}/prompts", {"name": "fuzz", "messages": [{"role": "user", "content": "Hi."}]})
    make(f"{LLM}/alerts", {"name": "fuzz", "condition": "breaker_open", "threshold": 0})
    make(f"{LLM}/alert-channels", {"name": "fuzz", "kind": "email", "recipients": "ops@example.com"})
    make("/api/v1/webhook-secrets", {"team": None})
    make("/api/v1/tasks", {"type": "custom", "prompt": "hi", "callback_url": "https://callback.invalid/"}, "task_id")
    asked = wire.chat(control.base_url, control.key, ECHO)
    made["/api/v1/requests"] = [asked.headers["x-request-id"]]
    until(lambda: control.call("GET", "/api/v1/requests")["results"], "the request is in the ledger")
    made["/api/v1/webhooks"] = [until(lambda: control.call("GET", "/api/v1/webhooks")["results"], "the callback is told")[0]["id"]]
    return made


def settings_of(ids_by_list: dict[str, list[str]]) -> Iterator[str]:
    """In most cases an id is one that there is. Rows are deleted by other ids: the others are still to be asked for."""
    yield 'warnings = {fail-on = ["missing_auth"]}'
    names = {path: re.sub(r"\W+", "-", path).strip("-") for path in ids_by_list}
    for path, known in ids_by_list.items():
        yield f"[dictionaries.{names[path]}]\nvalues = {json.dumps(known)}"
    for path, name in names.items():
        yield f'[[operations]]\ninclude-path-regex = "^{path}/[{{]"\nexclude-method = "DELETE"\n[operations.parameters]'
        for parameter in ("id", "provider_id", "task_id", "request_id"):
            yield f'"path.{parameter}" = {{dictionary = "{name}", probability = 0.7}}'
