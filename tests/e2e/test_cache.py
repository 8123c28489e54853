"""Answers that are given again, as the official `openai` client meets them, and what is on record of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.control import Control, unique
from tests.e2e.vendor import Vendor

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def client(control: Control) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{control.base_url}/v1", api_key=control.key, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def alias(control: Control, vendor: Vendor) -> str:
    row = control.model(control.provider(vendor.base_url), "ok@tokens=6", cache_ttl_s=600)
    control.price(row, input="1.00", output="2.00")
    control.apply()
    return str(row["alias"])


def hello() -> Any:
    return [{"role": "user", "content": unique("say")}]


def streamed(client: openai.OpenAI, **asked: Any) -> tuple[str, str, Any, str]:
    raw = client.chat.completions.with_raw_response.create(stream=True, stream_options={"include_usage": True}, **asked)
    chunks = list(raw.parse())
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    (finish,) = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    return text, finish, chunks[-1].usage, raw.headers["x-llm-cache"]


def test_a_whole_answer_and_its_stream_are_one_call(client: openai.OpenAI, alias: str, control: Control, vendor: Vendor) -> None:
    messages = hello()
    first = client.chat.completions.with_raw_response.create(model=alias, messages=messages)
    again = client.chat.completions.with_raw_response.create(model=alias, messages=messages)
    assert (first.headers["x-llm-cache"], again.headers["x-llm-cache"]) == ("miss", "hit")
    assert again.content == first.content
    whole = first.parse()
    text, finish, usage, cache = streamed(client, model=alias, messages=messages)
    assert (text, finish, cache) == (whole.choices[0].message.content, "stop", "hit")
    assert usage.total_tokens == whole.usage.total_tokens
    assert len(vendor.calls(messages[0]["content"])) == 1

    cost = control.request(first.headers["x-request-id"])["cost"]
    row = control.request(again.headers["x-request-id"])
    assert (row["cache"], row["attempts"], row["total_tokens"]) == ("hit", 0, 0)
    assert (row["cost"], row["saved"], row["currency"]) == ("0.0", cost, "USD")
    assert again.headers["x-llm-saved"] == first.headers["x-llm-cost"] == f"{cost} USD"
    assert control.call("GET", f"/api/v1/usage/records?request_id={row['request_id']}")["results"] == []


def test_a_stream_is_given_again_event_by_event(client: openai.OpenAI, alias: str) -> None:
    messages = hello()
    first, again = (streamed(client, model=alias, messages=messages) for _ in range(2))
    assert (first[3], again[3]) == ("miss", "hit")
    assert first[:2] == again[:2]
    assert first[2] == again[2]


def test_a_client_may_stay_out(client: openai.OpenAI, alias: str, vendor: Vendor) -> None:
    messages = hello()
    for how in ({}, {"extra_body": {"cache": {"enabled": False}}}, {"extra_headers": {"Cache-Control": "no-store"}}):
        client.chat.completions.create(model=alias, messages=messages, **how)
    assert len(vendor.calls(messages[0]["content"])) == 3


@pytest.mark.parametrize("path", ["models", "routes"])
def test_no_row_may_have_it_for_longer_than_the_setting_says(control: Control, path: str) -> None:
    row = control.model(control.provider("", kind="echo"), "echo-1")
    body = {"alias": unique("route"), "targets": [row["alias"]], "cache_ttl_s": 90_000}
    if path == "models":
        body = {"provider": row["provider"], "model_id": "echo-1", "alias": unique("model"), "model_type": "chat", "cache_ttl_s": 90_000}
    answer = control.call("POST", f"/api/v1/llm/{path}", body, expect=400)
    assert "Write at most 86,400 seconds, which LLM_CACHE_MAX_TTL_S sets." in str(answer)
    body["cache_ttl_s"] = 86_400
    assert control.call("POST", f"/api/v1/llm/{path}", body)["cache_ttl_s"] == 86_400
