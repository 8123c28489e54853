"""Every recorded chat exchange of the OpenAI-compatible vendors goes through the gateway and arrives as it was recorded.

What a recording says is read here from its file, by this test's own reading of the wire (wire.py), not by the product's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import Control, unique
from tests.e2e.wire import Answer, Said

pytestmark = pytest.mark.process

VENDORS = ("openai", "vllm", "llamacpp", "ollama")
SHARED = Path(__file__).resolve().parents[3] / "shared"

# What the table of errors makes of each recorded one: status and code for the caller, and the field that is to blame.
REFUSED: dict[str, tuple[int, str, str | None]] = {
    "llamacpp-error-400-context-rdd274": (400, "context_length_exceeded", None),
    "llamacpp-error-503-loading-r0c33e": (502, "upstream_error", None),
    "ollama-error-404-r3d4a0": (502, "upstream_model_not_found", None),
    "openai-error-400-reasoning-param-9c61d1": (400, "upstream_refused", "max_tokens"),
    "openai-error-403-region-r649e0": (502, "upstream_credentials_exhausted", None),
    "openai-error-404-1f8d68": (502, "upstream_model_not_found", None),
    "openai-error-429-too-large-r91e0f": (400, "upstream_refused", None),  # it would never fit, so waiting is no advice
    "openai-error-429-tpm-r4e285": (429, "rate_limit_exceeded", None),
    "openai-error-500-r3d72d": (502, "upstream_error", None),
    "openai-error-502-html-rc4328": (502, "upstream_error", None),
    "vllm-error-400-context-legacy-r74edb": (400, "context_length_exceeded", None),
    "vllm-error-404-r633ec": (502, "upstream_model_not_found", None),
}


def _ids() -> list[str]:
    """Empty where the recordings are not there; the fixtures say so, once."""
    index = SHARED / "recorded" / "index.jsonl"
    rows = [json.loads(line) for line in index.read_text().splitlines()] if index.is_file() else []
    return [row["id"] for row in rows if row["provider"] in VENDORS and row["path"].endswith("/chat/completions")]


IDS = _ids()
# A short answer to "how was it recorded": the same words at collection and in the tests.
STREAMED = [id_ for id_ in IDS if "stream" in id_]
WHOLE = [id_ for id_ in IDS if id_ not in STREAMED and id_ not in REFUSED]
FAILED = [id_ for id_ in IDS if id_ in REFUSED]

Recorded = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def aliases(control: Control, replay_url: str, recorded: Recorded) -> dict[str, str]:
    """One provider and one model for each exchange, all configured at once."""
    found = {}
    for id_ in IDS:
        exchange = recorded(id_)
        provider = control.provider(
            f"{replay_url}/{id_}/v1",
            kind=exchange["provider"],
            name=unique(id_[:60]),
            api_key="sk-recorded-0123456789",
            breaker={"fail_max": 1000, "reset_timeout_s": 1},
        )
        found[id_] = control.model(provider, exchange["model"] or "any", alias=unique(id_))["alias"]
    control.apply()
    return found


Ask = Callable[..., Answer]


@pytest.fixture
def ask(control: Control, aliases: dict[str, str], recorded: Recorded) -> Ask:
    """The recorded request, for our name of the model."""

    def send(id_: str, **changes: Any) -> Answer:
        body = recorded(id_)["request"]["body"] or {"messages": wire.HELLO}
        body = {**body, "model": aliases[id_], **changes}
        return wire.call(control.base_url, "POST", "/v1/chat/completions", key=control.key, body=body)

    return send


def said_in_recording(exchange: dict[str, Any]) -> Said:
    response = exchange["response"]
    if "lines" not in response:
        return wire.said_whole(response["body"])
    text = response.get("newline", "\n").join(response["lines"])
    return wire.said_streamed(json.loads(data) for data in wire.events(text) if data != "[DONE]")


def assert_recorded_usage(control: Control, answer: Answer, said: Said, finish_reason: str) -> None:
    (record,) = control.records(answer.request_id)
    assert (record["status"], record["finish_reason"]) == ("ok", finish_reason)
    if said.usage is None:
        assert record["usage_source"] == "estimated"
        assert record["input_tokens"] > 0
        assert record["output_tokens"] > 0
        return
    prompt, cached, output, reasoning, _ = said.usage
    assert record["usage_source"] == "vendor"
    assert record["input_tokens"] + record["cached_input_tokens"] + record["cache_write_tokens"] == prompt
    assert (record["cached_input_tokens"], record["output_tokens"], record["reasoning_tokens"]) == (cached, output, reasoning)


def test_the_recordings_are_what_this_file_takes_them_for(recorded: Recorded) -> None:
    assert set(REFUSED) <= set(IDS)
    assert len(WHOLE) >= 15
    assert len(STREAMED) >= 8
    for id_ in IDS:
        response = recorded(id_)["response"]
        assert ("lines" in response) is (id_ in STREAMED), id_
        assert (response["status"] != 200) is (id_ in REFUSED), id_


@pytest.mark.parametrize("id_", WHOLE)
def test_a_whole_answer_arrives_intact(control: Control, recorded: Recorded, ask: Ask, id_: str) -> None:
    exchange = recorded(id_)
    answer = ask(id_)
    assert answer.status == 200, answer
    expected = said_in_recording(exchange)
    assert wire.said_whole(answer.json) == expected
    assert answer.json["model"] == exchange["response"]["body"]["model"]
    assert_recorded_usage(control, answer, expected, expected.finish_reasons[0])


@pytest.mark.parametrize("asked", [True, False], ids=["with usage", "without usage"])
@pytest.mark.parametrize("id_", STREAMED)
def test_a_stream_arrives_intact(control: Control, recorded: Recorded, ask: Ask, id_: str, asked: bool) -> None:
    answer = ask(id_, stream_options={"include_usage": asked})
    assert answer.status == 200, answer
    *data, end = answer.events
    assert end == "[DONE]"
    chunks = [json.loads(item) for item in data]
    expected = said_in_recording(recorded(id_))
    assert wire.said_streamed(chunks) == expected._replace(usage=expected.usage if asked else None)
    assert sum(not chunk["choices"] for chunk in chunks) <= int(asked)
    assert_recorded_usage(control, answer, expected, expected.finish_reasons[0])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("id_", FAILED)
def test_an_error_becomes_the_callers_error(control: Control, ask: Ask, id_: str, stream: bool) -> None:
    status, code, param = REFUSED[id_]
    answer = ask(id_, stream=stream)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["param"] == param
    assert "<html" not in answer.body.decode()
    assert "org-" not in answer.body.decode()
    assert status != 429 or "retry-after" in answer.headers
    attempts = int(answer.headers["x-llm-attempts"])
    for record in control.records(answer.request_id, attempts):
        assert (record["status"], record["error_code"]) == ("error", code)
        assert record["usage_source"] == "none"


@pytest.mark.parametrize("id_", WHOLE + STREAMED)
def test_the_vendor_is_sent_what_was_recorded(replay_url: str, recorded: Recorded, ask: Ask, id_: str) -> None:
    """Where the recorded request is known, what the vendor gets differs from it by the demand for usage alone."""
    mark = f"{time.time_ns()}"
    ask(id_, x_mark=mark)
    seen = wire.call(replay_url, "GET", f"/__requests?id={id_}").json
    (request,) = [request for request in seen if (request["body"] or {}).get("x_mark") == mark]
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["authorization"] == "***"
    if recorded(id_)["request"]["body"] is not None:
        differences = [line for line in request["diff"] if not line.startswith(("$.x_mark", "$.stream_options"))]
        assert differences == []
    assert bool((request["body"].get("stream_options") or {}).get("include_usage")) is (id_ in STREAMED)
