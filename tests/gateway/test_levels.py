"""Limits of keys, teams, models and providers as a request meets them, and changed while requests are under way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.config import CallerSpec, LimitSpec, ProviderSpec, RateSpec
from core.errors import CallerLimited, ProviderFault, ProviderLimited
from gateway.sharing.machine import Machine
from gateway.sharing.machine_region import Region, create
from tests.gateway.scripted import ANSWER, Bench

REPLACE = msgspec.structs.replace


def with_models(bench: Bench, **limits: Any) -> None:
    """New limits for the model at each provider named."""
    models = tuple(REPLACE(model, limits=limits.get(model.provider_id, LimitSpec())) for model in bench.snapshot.models["m"])
    bench.snapshot = REPLACE(bench.snapshot, models={"m": models})
    bench.manager.apply(bench.snapshot)


def with_provider(bench: Bench, name: str = "a", **changes: Any) -> ProviderSpec:
    spec = REPLACE(bench.snapshot.providers[name], **changes)
    bench.snapshot = REPLACE(bench.snapshot, providers={**bench.snapshot.providers, name: spec})
    bench.manager.apply(bench.snapshot)
    return spec


async def answered(bench: Bench, **answers: Any) -> dict[bytes, bytes]:
    """One request to its end; its headers."""
    for name, answer in (answers or {"a": ANSWER}).items():
        bench.scripts[name].append(answer)
    generation = bench.generation()
    try:
        await generation.start()
    except Exception as error:
        generation.end(error)  # type: ignore[arg-type]
        raise
    generation.end(None)
    return dict(generation.headers())


async def test_all_keys_of_a_team_share_its_limit_and_each_refusal_says_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, team_limits=LimitSpec(requests_per_minute=2), team_name="growth")
    other = REPLACE(bench.caller, key_id="other")
    bench.snapshot = REPLACE(bench.snapshot, callers={**bench.snapshot.callers, b"other": other})
    bench.manager.apply(bench.snapshot)
    assert (await answered(bench))[b"x-ratelimit-remaining-requests"] == b"1"
    mine, bench.caller = bench.caller, other
    await answered(bench)
    for bench.caller in (mine, other):
        with pytest.raises(CallerLimited, match="Team growth has used 2 of 2 requests per minute") as refused:
            await answered(bench)
        assert refused.value.retry_after_s == pytest.approx(30.0)
    bench.clock.advance(30.0)
    await answered(bench)
    assert bench.settled_in_full()


async def test_a_team_limit_comes_changes_and_goes_while_requests_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)

    def team(limits: LimitSpec) -> None:
        bench.caller = REPLACE(bench.caller, team_limits=limits)
        bench.snapshot = REPLACE(bench.snapshot, callers={b"k": bench.caller})
        bench.manager.apply(bench.snapshot)

    bench.scripts["a"] = [ANSWER] * 3
    before, during = bench.generation(), None
    await before.start()
    team(LimitSpec(max_concurrency=1))
    during = bench.generation()
    await during.start()
    with pytest.raises(CallerLimited, match="Team team has 1 of 1 concurrent"):
        await answered(bench)
    before.end(None)  # it never counted against the team
    with pytest.raises(CallerLimited):
        await answered(bench)
    team(LimitSpec(max_concurrency=2))
    await answered(bench)
    team(LimitSpec())
    during.end(None)
    assert bench.settled_in_full()


async def test_a_model_at_its_limit_is_passed_over_and_gives_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    with_models(bench, a=LimitSpec(requests_per_minute=1, tokens_per_minute=100))
    assert (await answered(bench, a=ANSWER))[b"x-llm-provider"] == b"a"
    assert (await answered(bench, b=ANSWER))[b"x-llm-provider"] == b"b"
    with_models(bench, a=LimitSpec(requests_per_minute=1), b=LimitSpec(requests_per_minute=1))
    await answered(bench, b=ANSWER)
    with pytest.raises(ProviderLimited, match=r"Model m at provider [ab] has used 1 of 1 requests per minute") as refused:
        await answered(bench)
    assert refused.value.retry_after_s == pytest.approx(60.0)
    bench.clock.advance(60.0)
    assert (await answered(bench, a=ANSWER))[b"x-llm-provider"] == b"a"
    assert bench.settled_in_full()


async def test_a_model_counts_what_a_call_really_used_and_nothing_for_one_that_was_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    with_models(bench, a=LimitSpec(tokens_per_minute=1000, max_concurrency=1))
    gate = bench.manager.view.targets["m"][0].gate
    assert gate is not None
    assert gate.tokens is not None
    await answered(bench, a=ANSWER)
    assert gate.tokens.used(bench.clock.monotonic()) == ANSWER.usage.total_tokens  # type: ignore[union-attr]
    with_provider(bench, rate=RateSpec("sliding_window", 1, 0.01))
    await answered(bench, a=ANSWER)
    used = gate.tokens.used(bench.clock.monotonic())
    await answered(bench, b=ANSWER)  # the provider's own limit came first
    assert (gate.tokens.used(bench.clock.monotonic()), gate.in_flight) == (used, 0)
    bench.scripts["a"] = []
    bench.sink.broken = True
    with pytest.raises(Exception, match="journal"):
        await answered(bench)
    assert gate.in_flight == 0


@pytest.mark.parametrize(
    ("rate", "state", "wait_s"),
    [
        (RateSpec("token_bucket", 2, 0.1), "used 2 of 2 calls, refilled at 0.1 a second", 10),
        (RateSpec("sliding_window", 2, 0.05), "used 2 of 2 calls in 40 s", 40),
    ],
)
async def test_a_provider_at_its_rate_says_so_and_the_wait_is_exact(
    monkeypatch: pytest.MonkeyPatch, rate: RateSpec, state: str, wait_s: float
) -> None:
    bench = Bench(monkeypatch, providers="a")
    with_provider(bench, rate=rate)
    await answered(bench)
    await answered(bench)
    with pytest.raises(ProviderLimited, match=f"Provider a has {state}") as refused:
        await answered(bench)
    assert refused.value.retry_after_s == pytest.approx(wait_s)
    bench.clock.advance(wait_s - 1.01)  # more than the queue's second is left
    with pytest.raises(ProviderLimited):
        await answered(bench)
    bench.clock.advance(1.01)
    bench.scripts["a"] = []
    await answered(bench)


async def test_a_place_in_the_queue_of_a_window_is_given_back_when_the_client_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    with_provider(bench, rate=RateSpec("sliding_window", 1, 2.0))
    await answered(bench)
    asleep, slept = asyncio.Event(), []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        asleep.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("gateway.runtime._sleep", sleep)
    for _ in range(2):  # the second finds the place of the first
        waiting = asyncio.create_task(bench.generation().start())
        await asleep.wait()
        asleep.clear()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert slept == pytest.approx([0.5, 0.5])
    assert bench.manager._runtimes["a"].slots.in_flight == 0


async def test_a_refused_place_is_given_back_although_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    with_provider(bench, rate=RateSpec("sliding_window", 1, 0.1))
    still = bench.clock.monotonic

    def ticking() -> float:
        bench.clock.advance(1e-5)
        return still()

    monkeypatch.setattr(bench.clock, "monotonic", ticking)
    await answered(bench)
    for _ in range(5):
        with pytest.raises(ProviderLimited):
            await answered(bench)
    bench.clock.advance(15)
    bench.scripts["a"] = []
    await answered(bench)
    assert len(bench.manager._runtimes["a"]._rate._starts) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(("retry_after_s", "rests"), [(None, False), (5.0, True)])
async def test_a_limit_without_a_wait_slows_the_pace_and_leaves_the_key(
    monkeypatch: pytest.MonkeyPatch, retry_after_s: float | None, rests: bool
) -> None:
    bench = Bench(monkeypatch, providers="a")
    with_provider(bench, rate=RateSpec("adaptive", 8, 50))
    with pytest.raises(ProviderLimited):
        await answered(bench, a=ProviderLimited("slow down", retry_after_s=retry_after_s, vendor_status=429))
    bench.clock.advance(0.5)
    if rests:
        with pytest.raises(ProviderLimited) as refused:
            await answered(bench)
        assert refused.value.retry_after_s == pytest.approx(4.5)
    else:
        await answered(bench)


async def test_another_type_of_rate_counts_what_the_one_before_has_used(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    with_provider(bench, rate=RateSpec("token_bucket", 3, 0.01))
    await answered(bench)
    await answered(bench)
    with_provider(bench, rate=RateSpec("sliding_window", 3, 0.01))
    await answered(bench)
    with pytest.raises(ProviderLimited, match="used 3 of 3 calls in 300 s"):
        await answered(bench)


async def test_an_adaptive_provider_learns_from_limits_and_overload_and_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    monkeypatch.setattr("gateway.runtime._sleep", _no_time)
    bench.pipeline.max_retries = 0
    adaptive = RateSpec("adaptive", 8, 50)
    with_provider(bench, rate=adaptive, max_concurrency=100)
    runtime = bench.manager._runtimes["a"]
    assert runtime.slots.limit == 8
    for error in (ProviderLimited("slow down", vendor_status=429), ProviderFault("overloaded", vendor_status=529)):
        bench.clock.advance(100)
        with pytest.raises(type(error)):
            await answered(bench, a=error)
        bench.scripts["a"] = []
    rate = runtime._adaptive
    assert rate is not None
    assert (rate.calls_per_s, rate.in_flight) == (12.5, 0)
    bench.clock.advance(100)
    with pytest.raises(ProviderFault):
        await answered(bench, a=ProviderFault("broken", vendor_status=500))
    bench.scripts["a"] = []
    assert rate.calls_per_s == 12.5
    with_provider(bench, rate=REPLACE(adaptive, capacity=4), max_concurrency=3)
    assert runtime._adaptive is rate
    assert (rate.calls_per_s, runtime.slots.limit) == (12.5, 3)
    with_provider(bench, base_url="http://elsewhere")
    assert runtime._adaptive is not None
    assert runtime._adaptive.calls_per_s == 50
    with_provider(bench, rate=RateSpec())
    assert (runtime._adaptive, runtime.slots.limit) == (None, 3)


async def test_what_the_vendor_states_in_its_headers_is_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    with_provider(bench, rate=RateSpec("adaptive", 8, 50))
    stated = {f"x-ratelimit-{what}-requests": value for what, value in (("limit", "600"), ("remaining", "0"), ("reset", "1m0s"))}
    monkeypatch.setattr("tests.gateway.scripted.Response.headers", stated)
    await answered(bench)
    rate = bench.manager._runtimes["a"]._adaptive
    assert rate is not None
    assert rate.calls_per_s == 10


def test_limits_of_those_who_are_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, team_limits=LimitSpec(requests_per_minute=1), limits=LimitSpec(requests_per_minute=1))
    with_models(bench, a=LimitSpec(requests_per_minute=1))
    bench.manager.gate(bench.caller)
    bench.manager.apply(REPLACE(bench.snapshot, callers={}, models={}))
    manager = bench.manager
    assert [manager._key_gates, manager._team_gates, manager._model_gates, manager._gates] == [{}] * 4


def test_the_usual_caller_has_one_gate_and_the_usual_target_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The price of levels is paid by those who use them."""
    bench = Bench(monkeypatch, limits=LimitSpec(requests_per_minute=10))
    caller: CallerSpec = bench.caller
    assert type(bench.manager.gate(caller)).__name__ == "Gate"
    assert all(target.gate is None for target in bench.manager.view.targets["m"])


async def test_machines_share_every_limit_out_and_one_that_is_alone_again_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, limits=LimitSpec(requests_per_minute=10), team_limits=LimitSpec(requests_per_minute=8), providers="a")
    with_models(bench, a=LimitSpec(requests_per_minute=6))
    with_provider(bench, rate=RateSpec("sliding_window", 20, 2.0), max_concurrency=5)
    await answered(bench)
    manager, runtime = bench.manager, bench.manager._runtimes["a"]
    now = bench.clock.monotonic()

    def held() -> tuple[Any, ...]:
        levels = (manager._key_gates, manager._team_gates, manager._model_gates)
        found = [gate.limits.requests_per_minute for gates in levels for gate in gates.values()]
        return found, runtime.slots.limit, runtime._rate.state(now), runtime.retries.parts  # type: ignore[union-attr]

    whole = ([10, 8, 6], 5, "used 1 of 20 calls in 10 s", 1)
    assert held() == whole
    manager.share_among(2)
    assert held() == ([5, 4, 3], 2, "used 1 of 10 calls in 10 s", 2)
    with_provider(bench, rate=RateSpec("sliding_window", 30, 3.0))
    manager.gate(REPLACE(bench.caller, key_id="new"))
    assert (held()[2], manager._key_gates["new"].limits.requests_per_minute) == ("used 1 of 15 calls in 10 s", 5)
    with_provider(bench, rate=RateSpec("sliding_window", 20, 2.0))
    manager.share_among(1)
    assert held() == whole


async def test_workers_share_what_providers_and_callers_may_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    create(tmp_path / "limits", 2**18, 4)
    benches = []
    for _ in range(2):
        bench = Bench(monkeypatch, limits=LimitSpec(requests_per_minute=2), providers="a")
        region = Region(tmp_path / "limits")
        region.take_column()
        bench.manager._limits = Machine(region, 2)
        bench.manager._runtimes = {}
        bench.manager.apply(bench.snapshot)
        with_provider(bench, rate=RateSpec("token_bucket", 3, 0.01), max_concurrency=4)
        benches.append(bench)
    first, second = benches
    first.scripts = second.scripts  # there is one adapter
    await answered(first)
    await answered(second)
    for bench in benches:
        with pytest.raises(CallerLimited, match="used 2 of 2 requests per minute"):
            await answered(bench)
        bench.scripts["a"] = []
    for bench in benches:  # each hears of it; the two calls are counted once
        with_provider(bench, rate=RateSpec("sliding_window", 3, 0.01))
        assert bench.manager._runtimes["a"]._rate.state(bench.clock.monotonic()) == "used 2 of 3 calls in 300 s"  # type: ignore[union-attr]
        assert bench.manager._runtimes["a"].retries.parts == 2
    for bench in benches:  # they learn together
        with_provider(bench, rate=RateSpec("adaptive", 8, 50))
        assert bench.manager._runtimes["a"].slots.limit == 4
    for bench in benches:
        assert bench.manager._runtimes["a"].slots.try_take()
        assert bench.manager._runtimes["a"].slots.try_take()
    assert not any(bench.manager._runtimes["a"].slots.try_take() for bench in benches)


async def _no_time(seconds: float) -> None:
    pass
