"""Promises of the contract that no other file here is about; tests/contract.csv says which test holds which."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import ECHO, Control, unique

pytestmark = pytest.mark.process

SAID_OF_EVERY_ANSWER = {
    "x-request-id",
    "x-llm-provider",
    "x-llm-model",
    "x-llm-alias",
    "x-llm-attempts",
    "x-llm-cache",
    "x-llm-cost",
    "x-llm-config-version",
}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": ECHO, "messages": wire.HELLO, **fields}


def test_both_addresses_answer_alike(control: Control) -> None:
    first, second = (
        wire.call(control.base_url, "POST", f"{prefix}/v1/chat/completions", key=control.key, body=body()) for prefix in ("", "/api")
    )
    assert first.status == second.status == 200
    assert first.json["choices"] == second.json["choices"]
    assert set(first.json) == set(second.json)


def test_a_model_says_what_it_can_and_costs(control: Control) -> None:
    model = control.model(
        control.provider("", kind="echo"),
        "echo-1",
        alias=unique("told"),
        context_window=8192,
        max_output_tokens=512,
        capabilities=["tools"],
    )
    control.price(model, input="2.50", output="10")
    control.apply()
    one = wire.call(control.base_url, "GET", f"/v1/models/{model['alias']}", key=control.key).json
    assert (one["context_window"], one["max_output_tokens"], one["capabilities"]) == (8192, 512, ["tools"])
    price = one["price_per_million"]
    assert (price["currency"], Decimal(price["input"]), Decimal(price["output"])) == ("USD", Decimal("2.5"), 10)
    listed = wire.call(control.base_url, "GET", "/api/v1/models", key=control.key).json["data"]
    assert one in listed


@pytest.mark.parametrize("stream", [False, True])
def test_every_answer_says_who_answered_at_what_cost(control: Control, stream: bool) -> None:
    answer = wire.call(control.base_url, "POST", "/v1/chat/completions", key=control.key, body=body(stream=stream))
    # What a stream costs is known at its end, when its headers are long gone.
    assert set(answer.headers) >= SAID_OF_EVERY_ANSWER - ({"x-llm-cost"} if stream else set())
    assert answer.headers["x-llm-alias"] == ECHO


def test_a_limited_key_is_told_what_is_left(control: Control) -> None:
    key = control.new_key(rate_limit={"requests_per_minute": 5, "tokens_per_minute": 10_000})["key"]
    control.apply()
    headers = wire.call(control.base_url, "POST", "/v1/chat/completions", key=key, body=body()).headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("5", "4")
    assert int(headers["x-ratelimit-remaining-tokens"]) < int(headers["x-ratelimit-limit-tokens"]) == 10_000


def test_health_is_told_to_anybody(control: Control) -> None:
    answer = wire.call(control.base_url, "GET", "/api/health")
    assert answer.status == 200
    assert set(answer.json) == {"status", "provider", "model", "provider_available", "message"}
    assert answer.json["provider_available"] is True
