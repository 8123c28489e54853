"""What /api/health says of the providers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.config import BreakerSpec
from core.errors import ProviderFault
from gateway.doors.http import Gateway
from gateway.doors.probes import ProviderHealth
from tests.gateway.scripted import PEPPER, Bench


async def health_of(bench: Bench) -> dict[str, Any]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    door = ProviderHealth(Gateway(pepper=PEPPER, max_body_bytes=1000, body_timeout_s=1, pipeline=bench.pipeline))
    await door({"type": "http", "method": "GET", "headers": [], "path": "/api/health"}, None, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 200
    return msgspec.json.decode(b"".join(message.get("body", b"") for message in sent[1:]))


def paused(bench: Bench, name: str) -> None:
    runtime = bench.manager._runtimes[name]
    runtime.apply(bench.provider(name, breaker=BreakerSpec(1, 10)))
    runtime.breaker(f"key-{name}", f"vendor-{name}").failed(False, ProviderFault("x"), bench.clock.monotonic())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_the_first_model_that_calls_get_through_to_is_named(bench: Bench) -> None:
    assert await health_of(bench) == {
        "status": "ok",
        "provider": "a",
        "model": "m",
        "provider_available": True,
        "message": "Ready to answer.",
    }
    paused(bench, "a")
    assert (await health_of(bench))["provider"] == "b"


async def test_where_every_provider_fails_none_is_available_until_one_may_be_tried(bench: Bench) -> None:
    paused(bench, "a")
    paused(bench, "b")
    said = await health_of(bench)
    assert (said["status"], said["provider"], said["provider_available"]) == ("degraded", "a", False)
    assert "failing" in said["message"]
    bench.clock.advance(60)
    assert (await health_of(bench))["provider_available"]


async def test_without_a_model_it_says_what_to_do(bench: Bench) -> None:
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, version=8, models={}))
    said = await health_of(bench)
    assert (said["provider"], said["model"], said["provider_available"]) == (None, None, False)
    assert "add one in the admin" in said["message"]
