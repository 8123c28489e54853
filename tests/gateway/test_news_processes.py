"""Two workers, no Redis: what they tell each other, as clients and the vendor see it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import Control, unique, until
from tests.e2e.vendor import Vendor
from tests.live import LiveServer

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    vendor = Vendor()
    try:
        yield vendor
    finally:
        vendor.close()


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    env = {"LLM_CONFIG_POLL_S": "0.1", "OUTBOUND_ALLOW": "127.0.0.0/8:*", "MAX_RETRIES": "0", "LLM_SSE_KEEPALIVE_S": "1"}
    with LiveServer(tmp_path_factory.mktemp("news"), options=["--workers", "2"], env=env) as live:
        yield Control(live.base_url, live.admin_token or "", live.api_key or "")


def alias_of(control: Control, vendor: Vendor, model_id: str, **provider: Any) -> str:
    """In force in both workers."""
    alias = control.model(control.provider(vendor.base_url, **provider), model_id)["alias"]
    with ThreadPoolExecutor(8) as pool:
        until(
            lambda: all(
                alias in listed
                for listed in pool.map(lambda _: wire.call(control.base_url, "GET", "/v1/models", key=control.key).body.decode(), range(32))
            ),
            "both workers know the model",
        )
    return alias


def ask(control: Control, alias: str, prompt: str, stream: bool = False, **headers: str) -> wire.Answer:
    body = {"model": alias, "messages": [{"role": "user", "content": prompt}], "stream": stream}
    return wire.call(control.base_url, "POST", "/v1/chat/completions", key=control.key, body=body, headers=headers)


@pytest.mark.parametrize("stream", [False, True])
def test_one_key_at_two_workers_is_one_call(control: Control, vendor: Vendor, stream: bool) -> None:
    alias, mark = alias_of(control, vendor, "ok@tokens=20,delay=0.02"), unique("once")
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: ask(control, alias, mark, stream, **{"Idempotency-Key": mark}), range(50)))
    assert Counter(answer.status for answer in answers) == {200: 50}
    assert len({answer.body for answer in answers}) == 1
    assert len(vendor.calls(mark)) == 1


def test_an_open_breaker_is_tried_once_by_both_workers_together(control: Control, vendor: Vendor) -> None:
    alias = alias_of(control, vendor, "fault-503", breaker={"fail_max": 1, "reset_timeout_s": 1.5, "max_reset_timeout_s": 60})
    mark = unique("trial")
    with ThreadPoolExecutor(50) as pool:
        assert ask(control, alias, mark).status in (502, 503)
        time.sleep(0.1)
        assert {answer.status for answer in pool.map(lambda _: ask(control, alias, mark), range(50))} == {503}
        assert len(vendor.calls(mark)) == 1
        time.sleep(1.7)
        list(pool.map(lambda _: ask(control, alias, mark), range(200)))
    assert len(vendor.calls(mark)) == 2


def test_a_silent_stream_is_kept_alive(control: Control, vendor: Vendor) -> None:
    answer = ask(control, alias_of(control, vendor, "fault-slow-first-byte@s=2.5"), unique("slow"), stream=True)
    assert answer.status == 200
    assert answer.body.startswith(b": keep-alive\n\n: keep-alive\n\ndata: ")
    assert answer.body.endswith(b"data: [DONE]\n\n")
