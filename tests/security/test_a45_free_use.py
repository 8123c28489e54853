"""A45: use that is not paid for. The vendor's ledger, the answer and our records are laid side by side."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import unique, until
from tests.security.house import House

pytestmark = pytest.mark.process
PER_MILLION = {"input": "100000", "output": "1000000"}  # a token in costs 0.10, a token out 1.00


def priced(house: House, vendor_model: str, **fields: Any) -> str:
    provider = house.control.provider(house.vendor.base_url, api_key="sk-vendor-that-is-paid")
    row = house.control.model(provider, vendor_model, **fields)
    house.control.price(row, **PER_MILLION)
    house.control.apply()
    alias: str = row["alias"]
    return alias


def charged(house: House, request_id: str) -> dict[str, Any]:
    (record,) = house.control.records(request_id)
    return record


@pytest.mark.parametrize("fault", ["ok@tokens=20", "fault-bad-usage@tokens=20", "fault-no-usage@tokens=20", "fault-huge-usage@tokens=20"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_was_sent_is_charged_whatever_the_vendor_counts(house: House, fault: str, stream: bool) -> None:
    prompt = unique("charged") + " word" * 30
    answer = house.ask(priced(house, fault, context_window=8192), prompt, stream=stream)
    assert answer.status == 200
    (call,) = house.vendor.calls(prompt)
    record = charged(house, answer.request_id)
    counted = fault.startswith("ok")
    said = "vendor" if counted else "estimated" if "no-usage" in fault else "refused"
    assert record["usage_source"] == said
    # An estimate is four bytes a token; the ledger's tokens are words of about five.
    assert record["output_tokens"] >= (call["tokens_sent"] if counted else call["text_bytes"] // 5)
    assert 0 < record["input_tokens"] < 1000
    assert float(record["cost"]) > 0


def test_a_client_that_leaves_at_the_last_token_pays_for_what_it_got(house: House) -> None:
    prompt = unique("leaves")
    model = priced(house, "ok@tokens=40,delay=0.01")
    stream = wire.Stream(house.live.base_url, house.key, model, prompt)
    for _ in range(35):
        assert stream.content()
    request_id = stream.header("x-request-id")
    stream.abandon()
    record = charged(house, request_id)
    assert record["output_tokens"] >= 30
    until(lambda: house.vendor.was_left(prompt), "the vendor's call is ended")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_tokens": None},
        {"max_tokens": 10_000_000},
        {"max_tokens": 1, "max_completion_tokens": 10_000_000},
        {"max_tokens": 10_000_000, "max_completion_tokens": 1},
    ],
)
def test_no_wording_of_the_length_gets_past_a_budget(house: House, fields: dict[str, Any]) -> None:
    """A budget of 20.00: one token out costs 1.00, and nobody says that there will be few."""
    model = priced(house, "ok@tokens=40")
    key = house.control.new_key()
    _budget(house, key, "20.00")
    prompt = unique("budget")
    answer = wire.chat(house.live.base_url, key["key"], model, prompt, **fields)
    assert (answer.status, answer.error["type"]) == (429, "insufficient_quota")
    assert house.vendor.calls(prompt) == []


@pytest.mark.parametrize(("fields", "status"), [({}, 200), ({"n": 64}, 429), ({"best_of": 64}, 429)])
def test_many_answers_are_reserved_for_each(house: House, fields: dict[str, Any], status: int) -> None:
    """One answer of two tokens, with its prompt of some hundred bytes, is within 50.00; 64 are not."""
    model = priced(house, "ok@tokens=2")
    key = house.control.new_key()
    _budget(house, key, "50.00")
    assert wire.chat(house.live.base_url, key["key"], model, "hi", max_tokens=2, **fields).status == status


def test_a_model_without_a_price_is_refused_to_whom_money_limits(house: House) -> None:
    model = house.model("ok@tokens=2")
    key = house.control.new_key()
    _budget(house, key, "20.00")
    prompt = unique("unpriced")
    answer = wire.chat(house.live.base_url, key["key"], model, prompt)
    assert answer.status == 403
    assert "price" in answer.error["message"]
    assert house.vendor.calls(prompt) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"messages": wire.HELLO, "max_tokens": 500}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/api/generate", {"prompt": "hi"}),
        ("/api/v1/chat/completions", {"messages": wire.HELLO}),
    ],
)
def test_no_other_door_is_free(house: House, path: str, body: dict[str, Any]) -> None:
    model = priced(house, "ok@tokens=40")
    key = house.control.new_key()
    _budget(house, key, "20.00")
    answer = wire.call(house.live.base_url, "POST", path, key=key["key"], body={"model": model, **body})
    assert answer.status == 429, answer.body


def _budget(house: House, key: dict[str, Any], limit: str) -> None:
    body = {"scope": {"key": key["id"]}, "kind": "money", "limit": limit, "currency": "USD", "period": "month"}
    house.control.call("POST", "/api/v1/llm/budgets", body)
    house.control.apply()
