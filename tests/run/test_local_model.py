"""A real language model behind a whole gateway: what a stranger sees after `make run`."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from providers import local_model
from providers.local_model import LocalModel, LocalModelFailed
from tests.live import LiveServer, gone_within

pytestmark = [pytest.mark.process, pytest.mark.local_model]

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
RECORDED_WITHIN_S = 20.0


def call(server: LiveServer, method: str, path: str, token: str, body: Any = None) -> tuple[http.client.HTTPResponse, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", urlsplit(server.base_url).port, timeout=60)) as connection:
        connection.request(method, path, json.dumps(body) if body else None, {"Authorization": token, "Content-Type": "application/json"})
        response = connection.getresponse()
        return response, response.read()


def chat(server: LiveServer, **fields: Any) -> tuple[http.client.HTTPResponse, bytes]:
    body = {"model": local_model.ALIAS, "messages": QUESTION, "max_tokens": 20, **fields}
    return call(server, "POST", "/v1/chat/completions", f"Bearer {server.api_key}", body)


def record_of(server: LiveServer, request_id: str) -> dict[str, Any]:
    give_up_at = time.monotonic() + RECORDED_WITHIN_S
    while True:
        _, body = call(server, "GET", "/api/v1/usage/records", f"Token {server.admin_token}")
        found = [record for record in json.loads(body)["results"] if record["request_id"] == request_id]
        if found:
            assert len(found) == 1
            return found[0]
        assert time.monotonic() < give_up_at, f"{request_id} is not on record after {RECORDED_WITHIN_S} s"
        time.sleep(0.1)


def test_it_knows_the_capital_of_france_and_is_metered(live_local: LiveServer):
    response, body = chat(live_local)
    assert response.status == 200, body
    answer = json.loads(body)
    assert "Paris" in answer["choices"][0]["message"]["content"]
    record = record_of(live_local, response.headers["x-request-id"])
    usage = answer["usage"]
    assert record["output_tokens"] == usage["completion_tokens"] > 0
    assert record["input_tokens"] + record["cached_input_tokens"] == usage["prompt_tokens"] > 0
    assert (record["provider"], record["usage_source"], record["status"]) == ("local", "vendor", "ok")
    assert (float(record["cost"]), record["currency"]) == (0.0, "USD")


def test_streamed_it_knows_it_too(live_local: LiveServer):
    response, body = chat(live_local, stream=True, stream_options={"include_usage": True})
    assert response.status == 200, body
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert "Paris" in text
    assert len([chunk for chunk in chunks if chunk["choices"]]) > 3
    record = record_of(live_local, response.headers["x-request-id"])
    assert record["output_tokens"] == chunks[-1]["usage"]["completion_tokens"] > 0
    assert record["streamed"] is True


def test_a_port_that_is_taken_is_told_with_the_log(live_local: LiveServer, tmp_path: Path):
    taken = int((live_local.state_dir / "local-model.port").read_text())
    with pytest.raises(LocalModelFailed, match=rf"{tmp_path}/log.*port {taken} "):
        with LocalModel(taken, tmp_path / "log"):
            pass


def test_it_ends_with_its_context(live_local: LiveServer, tmp_path: Path, unused_tcp_port: int):
    with LocalModel(unused_tcp_port, tmp_path / "log") as model:
        assert model.stopping is False
        pid = model.pid
    assert gone_within([pid])
    assert model.wait() == 0
