"""What quickstart says once the gateway answers: three lines to paste, or one line of JSON."""

from __future__ import annotations

import http.client
import json
import time
from urllib.parse import urlsplit

from llmcontrol.first_start import Credentials

READY_TIMEOUT_S = 120.0
_POLL_S = 0.05
_QUESTION = "What is the capital of France?"


def wait_until_ready(base_url: str) -> str:
    """Asks /ready until it says yes: "". After READY_TIMEOUT_S: what it said last."""
    give_up_at = time.monotonic() + READY_TIMEOUT_S
    while True:
        status, text = _ask(base_url)
        if status == 200:
            return ""
        if time.monotonic() > give_up_at:
            return text
        time.sleep(_POLL_S)


def _ask(base_url: str) -> tuple[int, str]:
    address = urlsplit(base_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
    try:
        connection.request("GET", "/ready")
        response = connection.getresponse()
        return response.status, response.read(1000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as exc:
        return 0, f"no answer ({type(exc).__name__})"
    finally:
        connection.close()


def as_json(base_url: str, credentials: Credentials, model: str | None) -> str:
    """One line. null = shown at an earlier start; `model` null = none was asked for."""
    told = {
        "base_url": base_url,
        "admin_url": f"{base_url}/admin/",
        "username": credentials.username,
        "password": credentials.password,
        "api_key": credentials.api_key,
        "admin_token": credentials.admin_token,
        "model": model,
    }
    return json.dumps(told)


def as_text(base_url: str, credentials: Credentials, model: str | None) -> str:
    key = credentials.api_key or "YOUR_API_KEY"
    if model is None:
        asks = [f'curl {base_url}/v1/models -H "Authorization: Bearer {key}"']
    else:
        asks = [_curl(base_url, key, model, stream=False), _curl(base_url, key, model, stream=True)]
    login = f"{base_url}/admin/  (user {credentials.username}, password {credentials.password or 'as shown at the first start'})"
    return "\n".join(["", *asks, login, "", *_notes(credentials), "Ctrl-C stops everything."])


def _notes(credentials: Credentials) -> list[str]:
    notes = []
    if credentials.admin_token:
        notes.append(f"Token for the control plane's REST API: {credentials.admin_token}")
    if None in (credentials.password, credentials.api_key, credentials.admin_token):
        notes.append("Password, API key and token were shown at the first start: make run ARGS=--reset-credentials makes new ones.")
    else:
        notes.append("Keep password, API key and token: they are shown this once.")
    return notes


def _curl(base_url: str, key: str, model: str, *, stream: bool) -> str:
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": _QUESTION}]}
    if stream:
        body["stream"] = True
    option = "-N " if stream else ""
    return (
        f'curl {option}{base_url}/v1/chat/completions -H "Authorization: Bearer {key}"'
        f" -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )
