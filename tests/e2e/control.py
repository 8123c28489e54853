"""The control plane as a script sees it: REST with a personal token."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tests.e2e import wire

COMPATIBLE = "openai_compatible"
# Whether it happens is asked here; how soon, on a machine with nothing else to do, in tests/faults (F34, F46, F01).
WAIT_S = 20.0
ECHO = "echo-1"  # the model that a first start with `--model echo` registers

T = TypeVar("T")
_numbers = itertools.count(1)


def unique(stem: str) -> str:
    """A name that no other test uses, in this run or in another one on the same server."""
    return f"{stem}-{os.getpid()}-{next(_numbers)}"


def until(look: Callable[[], T], what: str, *, timeout_s: float = WAIT_S) -> T:
    """The first true value of `look`; fails, saying `what` was waited for, after `timeout_s`.

    The longer it waits, the less often it looks: each look is work for the server that is waited for.
    """
    began_at = time.monotonic()
    while not (value := look()):
        waited_s = time.monotonic() - began_at
        if waited_s > timeout_s:
            raise AssertionError(f"{what}: not within {timeout_s:g} s; last seen {value!r}")
        time.sleep(min(max(0.01, waited_s / 5), 0.1))
    return value


class Control:
    def __init__(self, base_url: str, token: str, key: str) -> None:
        """`key` is an API key that may use every model."""
        self.base_url = base_url
        self.key = key
        self._token = token
        self._marker: dict[str, Any] = {}

    def call(self, method: str, path: str, body: Any = None, *, expect: int | tuple[int, ...] = (200, 201, 204)) -> Any:
        answer = wire.call(self.base_url, method, path, body=body, headers={"Authorization": f"Token {self._token}"})
        expected = (expect,) if isinstance(expect, int) else expect
        assert answer.status in expected, f"{method} {path} {body} → {answer.status} {answer.body[:1000]!r}"
        return answer.json if answer.body else None

    def provider(self, base_url: str, *, kind: str = COMPATIBLE, name: str = "", api_key: str = "", **fields: Any) -> dict[str, Any]:
        config = {name: value for name, value in (("base_url", base_url), ("api_key", api_key)) if value}
        body = {"name": name or unique("provider"), "provider_type": kind, "config": config, "is_active": True, **fields}
        return self.call("POST", "/api/v1/llm/providers", body)

    def model(self, provider: dict[str, Any], model_id: str, *, alias: str = "", **fields: Any) -> dict[str, Any]:
        body = {"provider": provider["id"], "model_id": model_id, "alias": alias or unique("model"), "model_type": "chat", **fields}
        return self.call("POST", "/api/v1/llm/models", body)

    def price(self, model: dict[str, Any], **per_million: str) -> dict[str, Any]:
        body = {"model": model["id"], "currency": "USD", "valid_from": "2026-01-01T00:00:00Z", "per_million": per_million}
        return self.call("POST", "/api/v1/llm/prices", body)

    def new_key(self, **fields: Any) -> dict[str, Any]:
        team = self.call("POST", "/api/v1/llm/teams", {"name": unique("team")})
        body = {"name": unique("key"), "team": team["id"], "scopes": ["chat", "models"], **fields}
        return self.call("POST", "/api/v1/llm/keys", body)

    # What the data plane knows --------------------------------------------------------------------------------------

    def models(self, key: str | None = None) -> dict[str, dict[str, Any]]:
        """What the data plane offers, by alias; nothing where it does not know the key."""
        answer = wire.call(self.base_url, "GET", "/v1/models", key=key or self.key)
        return {model["id"]: model for model in answer.json["data"]} if answer.status == 200 else {}

    def forgot(self, key: str) -> bool:
        """Whether the data plane refuses a key, everywhere."""
        return wire.call(self.base_url, "GET", "/v1/models", key=key).status == 401

    def apply(self, *, within_s: float = WAIT_S) -> None:
        """Waits until everything configured so far is in force: a later change is, and configurations are taken whole."""
        if not self._marker:
            self._marker = self.model(self.provider("", kind="echo"), "echo-1", context_window=0)
        window = self._marker["context_window"] = self._marker["context_window"] + 1
        self.call("PATCH", f"/api/v1/llm/models/{self._marker['id']}", {"context_window": window})
        alias = self._marker["alias"]
        until(lambda: self.models().get(alias, {}).get("context_window") == window, "the configuration is in force", timeout_s=within_s)

    def version(self) -> int:
        return int(wire.call(self.base_url, "GET", "/v1/models", key=self.key).headers["x-llm-config-version"])

    # What is on record ----------------------------------------------------------------------------------------------

    def records(self, request_id: str, attempts: int = 1) -> list[dict[str, Any]]:
        """One request's usage records in order of attempts, once its line in the log has been drained, and they before it."""
        self.request(request_id)
        rows = sorted(self._rows("/api/v1/usage/records", request_id), key=lambda row: row["attempt"])
        assert [row["attempt"] for row in rows] == list(range(1, attempts + 1)), rows
        return rows

    def records_of_key(self, key: dict[str, Any]) -> list[dict[str, Any]]:
        """Every usage record of one API key, once there is one."""
        path = f"/api/v1/usage/records?key={key['id']}"
        return until(lambda: self.call("GET", path)["results"], f"a usage record of the key {key['name']}")

    def request(self, request_id: str) -> dict[str, Any]:
        return until(lambda: self._rows("/api/v1/requests", request_id), f"the request log of {request_id}")[0]

    def _rows(self, path: str, request_id: str) -> list[dict[str, Any]]:
        page = self.call("GET", f"{path}?request_id={request_id}")
        return [row for row in page["results"] if row["request_id"] == request_id]
