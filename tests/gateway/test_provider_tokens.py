"""A provider's tokens a minute: one limit for all its models and keys; beyond it the next target is asked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.config import LimitSpec
from core.errors import GatewayError, ProviderLimited
from gateway.pipeline import Generation
from monitoring.journal import AttemptOpened
from tests.gateway.scripted import ANSWER, Bench


async def outcome(generation: Generation) -> GatewayError | None:
    error = None
    try:
        await generation.start()
    except GatewayError as raised:
        error = raised
    generation.end(error)
    return error


def limit(bench: Bench, tokens: int | None, **model: Any) -> None:
    """Each answer of the script has 15 tokens."""
    providers = {**bench.snapshot.providers, "a": bench.provider("a", limits=LimitSpec(tokens_per_minute=tokens))}
    models = {"m": tuple(msgspec.structs.replace(spec, **model) for spec in bench.snapshot.models["m"])}
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, providers=providers, models=models))


def tried(bench: Bench) -> list[str]:
    return [opened.provider_name for opened in bench.sink.of(AttemptOpened)]


async def test_beyond_it_the_next_target_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    limit(bench, 40)
    bench.scripts["a"], bench.scripts["b"] = [ANSWER] * 2, [ANSWER]
    assert [await outcome(bench.generation()) for _ in range(3)] == [None] * 3
    assert tried(bench) == ["a", "a", "b"]
    assert bench.settled_in_full()


async def test_without_another_target_the_wait_is_told_and_true(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    limit(bench, 40)
    bench.scripts["a"] = [ANSWER] * 3
    assert [await outcome(bench.generation()) for _ in range(2)] == [None] * 2
    error = await outcome(bench.generation())
    assert isinstance(error, ProviderLimited)
    assert "Provider a has used 30 of 40 tokens per minute" in error.message
    assert error.retry_after_s
    bench.clock.advance(error.retry_after_s)
    assert await outcome(bench.generation()) is None


async def test_it_is_one_for_all_models_and_what_is_used_outlasts_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    models = bench.snapshot.models["m"]
    bench.snapshot = msgspec.structs.replace(
        bench.snapshot, models={"m": (*models, msgspec.structs.replace(models[0], id="m-other", model_id="other"))}
    )
    limit(bench, 15)
    bench.scripts["a"] = [ANSWER] * 2
    assert await outcome(bench.generation()) is None
    assert isinstance(await outcome(bench.generation()), ProviderLimited)
    limit(bench, 16)
    assert isinstance(await outcome(bench.generation()), ProviderLimited)
    limit(bench, None)
    assert await outcome(bench.generation()) is None


async def test_beside_a_models_own_limit_whichever_refuses_counts_nothing_at_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    limit(bench, 1000, limits=LimitSpec(requests_per_minute=1))
    bench.scripts["a"] = [ANSWER] * 2
    assert await outcome(bench.generation()) is None
    error = await outcome(bench.generation())
    assert isinstance(error, ProviderLimited)
    assert "Model m at provider a has used 1 of 1 requests" in error.message
    gate = bench.manager._provider_gates["a"]
    assert gate.tokens is not None
    assert (gate.tokens.used(bench.clock.monotonic()), gate.in_flight) == (15, 0)


async def test_a_call_that_could_not_be_made_gives_back_what_both_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    limit(bench, 1000, limits=LimitSpec(requests_per_minute=5))
    bench.sink.broken = True
    assert await outcome(bench.generation()) is not None
    gate, model = bench.manager._provider_gates["a"], bench.manager._model_gates["m-a"]
    assert gate.tokens is not None
    assert model.requests is not None
    now = bench.clock.monotonic()
    assert (gate.tokens.used(now), model.requests.used(now), gate.in_flight, model.in_flight) == (0, 0, 0, 0)
