"""A client that leaves stops the vendor, pays for what it got, and harms nobody else."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import ECHO, Control, unique, until
from tests.e2e.vendor import Vendor

pytestmark = pytest.mark.process


@pytest.fixture
def priced(control: Control, vendor: Vendor) -> Any:
    """Makes an alias for a vendor's model at a provider of its own, with a price."""

    def make(model_id: str, **provider: Any) -> str:
        model = control.model(control.provider(vendor.base_url, **provider), model_id)
        control.price(model, input="1000", output="2000")
        control.apply()
        return model["alias"]

    return make


def assert_left(vendor: Vendor, mark: str) -> None:
    until(lambda: vendor.was_left(mark), "the vendor is left")


def test_leaving_in_the_middle_of_a_stream(control: Control, vendor: Vendor, priced: Any) -> None:
    mark = unique("left")
    stream = wire.Stream(control.base_url, control.key, priced("ok@tokens=300,delay=0.02"), prompt=mark)
    request_id = stream.header("x-request-id")
    received = [stream.content() for _ in range(5)]
    assert all(received)
    stream.abandon()
    assert_left(vendor, mark)

    (record,) = control.records(request_id)
    assert record["status"] == "client_closed"
    assert record["usage_source"] == "estimated"
    assert record["input_tokens"] > 0
    assert 0 < record["output_tokens"] < 300
    assert float(record["cost"]) == pytest.approx((record["input_tokens"] * 1000 + record["output_tokens"] * 2000) / 1e6)
    assert record["currency"] == "USD"
    log = control.request(request_id)
    assert (log["status_code"], log["error_code"], log["attempts"]) == (499, "client_closed_request", 1)


@pytest.mark.parametrize("streamed", [True, False])
def test_leaving_before_the_first_byte(control: Control, vendor: Vendor, priced: Any, streamed: bool) -> None:
    """The vendor may have begun to think, so the prompt is charged; nothing came, so nothing else is."""
    mark = unique("left")
    key = control.new_key()
    control.apply()
    alias = priced("fault-slow-first-byte@s=8")
    stream = wire.Stream(control.base_url, key["key"], alias, prompt=mark, stream=streamed)
    until(lambda: vendor.calls(mark), "the vendor is called")
    stream.abandon()
    assert_left(vendor, mark)

    (row,) = control.records_of_key(key)
    assert (row["status"], row["output_tokens"]) == ("client_closed", 0)
    assert row["input_tokens"] > 0
    assert float(row["cost"]) > 0
    assert control.request(row["request_id"])["status_code"] == 499


def test_leaving_is_not_the_vendors_fault(control: Control, vendor: Vendor, priced: Any) -> None:
    """A breaker that opens at the first failure stays closed however many clients leave."""
    alias = priced("ok@tokens=100,delay=0.02", breaker={"fail_max": 1, "reset_timeout_s": 60})
    for _ in range(3):
        mark = unique("left")
        stream = wire.Stream(control.base_url, control.key, alias, prompt=mark)
        assert stream.content()
        stream.abandon()
        assert_left(vendor, mark)
    with_content = wire.Stream(control.base_url, control.key, alias)
    assert with_content.response.status == 200
    assert with_content.content()
    with_content.abandon()


def test_leaving_frees_the_callers_slot(control: Control, vendor: Vendor, priced: Any) -> None:
    key = control.new_key(rate_limit={"max_concurrency": 1})["key"]
    control.apply()
    mark = unique("left")
    stream = wire.Stream(control.base_url, key, priced("ok@tokens=300,delay=0.02"), prompt=mark)
    assert stream.content()
    assert wire.chat(control.base_url, key, ECHO).status == 429
    stream.abandon()
    until(lambda: wire.chat(control.base_url, key, ECHO).status == 200, "the slot is free")


def test_leaving_frees_the_providers_slot(control: Control, vendor: Vendor, priced: Any) -> None:
    alias = priced("ok@tokens=100,delay=0.02", max_concurrency=1)
    mark = unique("left")
    first = wire.Stream(control.base_url, control.key, alias, prompt=mark)
    assert first.content()
    answers: list[str] = []

    def wait_in_line() -> None:
        second = wire.Stream(control.base_url, control.key, alias)
        answers.append(second.content())
        second.abandon()

    waiting = threading.Thread(target=wait_in_line)
    waiting.start()
    first.abandon()
    waiting.join(timeout=10)
    assert answers
    assert answers[0]


def test_a_client_that_leaves_during_a_retry_starts_no_other_attempt(control: Control, vendor: Vendor, priced: Any) -> None:
    """The first target would time out and leave the work to the second; the client leaves before that."""
    mark = unique("left")
    alias = priced("fault-stall", timeouts={"connect_s": 1, "first_byte_s": 1, "idle_s": 1, "total_s": 30})
    control.model(control.provider(vendor.base_url), "ok@tokens=1", alias=alias, priority=200)
    control.apply()
    stream = wire.Stream(control.base_url, control.key, alias, prompt=mark)
    until(lambda: vendor.calls(mark), "the first target is called")
    stream.abandon()
    assert_left(vendor, mark)
    after = unique("after")
    wire.chat(control.base_url, control.key, alias, after)  # the second target is there, and takes as long as it takes
    assert [call["model"] for call in vendor.calls(after)][-1] == "ok@tokens=1"
    assert [call["model"] for call in vendor.calls(mark)] == ["fault-stall"]
