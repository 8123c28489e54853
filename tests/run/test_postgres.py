"""The whole gateway on PostgreSQL: one variable, nothing else."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.gateway_config.test_postgres import SERVER, require_server
from tests.live import LiveServer


def call(server: LiveServer, path: str, credential: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    headers = {"Authorization": credential, "Content-Type": "application/json"}
    request = urllib.request.Request(server.base_url + path, json.dumps(body).encode() if body else None, headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


@pytest.mark.process
def test_one_variable_puts_everything_on_postgres(tmp_path: Path) -> None:
    require_server()
    name = f"llmcontrol_run_{os.getpid()}"
    with psycopg.connect(f"{SERVER}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            with LiveServer(tmp_path, env={"DATABASE_URL": f"{SERVER}/{name}"}) as server:
                body = {"model": server.model, "messages": [{"role": "user", "content": "hello"}]}
                answer = call(server, "/v1/chat/completions", f"Bearer {server.api_key}", body)
                assert answer["choices"][0]["message"]["content"] == "echo: hello"
                assert _records(server)[0]["status"] == "ok"
            assert not (tmp_path / "llmcontrol.sqlite3").exists()
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _records(server: LiveServer) -> list[dict[str, Any]]:
    for _ in range(100):
        if rows := call(server, "/api/v1/usage/records", f"Token {server.admin_token}")["results"]:
            return rows
        time.sleep(0.1)
    pytest.fail("the request has no usage record after ten seconds")
