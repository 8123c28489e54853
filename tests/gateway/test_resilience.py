"""Breakers, keys and retries at work in whole requests: a scripted vendor, a frozen clock, no sleeping."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from core.config import BreakerSpec, KeySpec
from core.errors import GatewayError, ProviderFault, ProviderLimited, ProviderPaused, ProviderRejectedOurKey
from core.secrets import Secret
from gateway.pipeline import Generation
from gateway.retry import MAX_SAVED_RETRIES
from monitoring.journal import AttemptOpened, AttemptSettled
from tests.gateway.scripted import ANSWER, Bench, Refusal, Stream

NEVER_OPENS = BreakerSpec(fail_max=1000)


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.retry.backoff_s", lambda *_: 0)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch, providers="a")


@pytest.fixture
def naps(alone: Bench, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited for a trial; the clock moves by it."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)
        alone.clock.advance(seconds)

    monkeypatch.setattr("gateway.runtime._sleep", sleep)
    return found


async def outcome(generation: Generation) -> GatewayError | None:
    error = None
    try:
        await generation.start()
    except GatewayError as raised:
        error = raised
    generation.end(error)
    return error


def patient(bench: Bench, seconds: bytes = b"600") -> Generation:
    """A request of an SDK, which says how long it waits."""
    generation = bench.generation()
    generation._client_headers = [(b"x-stainless-read-timeout", seconds)]
    return generation


def calls(bench: Bench) -> int:
    return len(bench.sink.of(AttemptOpened))


def open_breaker(bench: Bench, name: str, **spec: Any) -> None:
    runtime = bench.manager._runtimes[name]
    runtime.apply(bench.provider(name, breaker=BreakerSpec(1, **spec)))
    runtime.breaker(f"key-{name}", f"vendor-{name}").failed(False, ProviderFault("x"), bench.clock.monotonic())


def with_keys(bench: Bench, *ids: str) -> None:
    keys = tuple(KeySpec(id_, "", Secret(f"secret-{id_}")) for id_ in ids)
    bench.manager._runtimes["a"].apply(bench.provider("a", keys=keys))


def used_keys(bench: Bench) -> list[str]:
    return [settled.provider_key_id for settled in bench.sink.of(AttemptSettled)]


# Breaker ------------------------------------------------------------------------------------------------------------


async def test_of_500_concurrent_requests_one_is_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    bench.pipeline._max_in_flight = 1000
    open_breaker(bench, "a", reset_timeout_s=10)
    bench.clock.advance(10)
    go = asyncio.Event()

    async def slow() -> Any:
        await go.wait()
        return ANSWER

    bench.scripts["a"] = [slow]
    tasks = [asyncio.create_task(outcome(patient(bench))) for _ in range(500)]
    for _ in range(20):  # as far as they get; one is the trial, and one waits for it
        await asyncio.sleep(0)
    refused = [task.result() for task in tasks if task.done()]
    assert len(refused) == 498
    assert calls(bench) == 1
    assert all(isinstance(error, ProviderPaused) and error.retry_after_s == 1.0 for error in refused)
    go.set()
    assert await tasks[0] is None
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_trial_near_enough_is_waited_for(alone: Bench, naps: list[float]) -> None:
    open_breaker(alone, "a", reset_timeout_s=0.8)
    alone.scripts["a"] = [ANSWER]
    assert await outcome(patient(alone)) is None
    assert naps == pytest.approx([0.801])
    assert alone.settled_in_full()


async def test_a_trial_too_far_away_is_a_503_with_the_exact_wait(alone: Bench, naps: list[float]) -> None:
    open_breaker(alone, "a", reset_timeout_s=30)
    error = await outcome(patient(alone))
    assert isinstance(error, ProviderPaused)
    assert (error.http_status, naps) == (503, [])
    alone.clock.advance(error.retry_after_s or 0)
    alone.scripts["a"] = [ANSWER]
    assert await outcome(alone.generation()) is None


async def test_a_clients_own_patience_is_no_longer_waited_than_it_lasts(alone: Bench, naps: list[float]) -> None:
    open_breaker(alone, "a", reset_timeout_s=0.8)
    assert isinstance(await outcome(patient(alone, b"0.5")), ProviderPaused)
    assert naps == []


async def test_a_client_that_does_not_say_how_long_it_waits_is_told_at_once(alone: Bench, naps: list[float]) -> None:
    open_breaker(alone, "a", reset_timeout_s=0.8)
    assert isinstance(await outcome(alone.generation()), ProviderPaused)
    assert naps == []


async def test_a_trial_that_was_waited_for_and_fails_is_not_waited_for_again(alone: Bench, naps: list[float]) -> None:
    open_breaker(alone, "a", reset_timeout_s=0.3)
    alone.scripts["a"] = [ProviderFault("still down")]
    assert isinstance(await outcome(patient(alone)), ProviderFault)
    assert len(naps) == 1


async def test_only_one_waits_for_a_trial_and_the_others_are_told_when(alone: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    open_breaker(alone, "a", reset_timeout_s=0.8)
    waiting, forever = asyncio.Event(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        waiting.set()
        await forever.wait()

    monkeypatch.setattr("gateway.runtime._sleep", sleep)
    task = asyncio.create_task(outcome(patient(alone)))
    await waiting.wait()
    error = await outcome(patient(alone))
    assert isinstance(error, ProviderPaused)
    assert error.retry_after_s == pytest.approx(0.8)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not alone.manager._runtimes["a"]._awaited


async def test_where_all_are_open_the_soonest_is_told(bench: Bench) -> None:
    open_breaker(bench, "a", reset_timeout_s=30)
    open_breaker(bench, "b", reset_timeout_s=20)
    error = await outcome(bench.generation())
    assert isinstance(error, ProviderPaused)
    assert error.retry_after_s == pytest.approx(20)
    bench.clock.advance(20)
    bench.scripts["b"] = [ANSWER]
    assert await outcome(bench.generation()) is None


async def test_the_last_target_is_tried_at_an_even_pace(alone: Bench) -> None:
    open_breaker(alone, "a", reset_timeout_s=10)
    for _ in range(3):
        alone.clock.advance(10)
        alone.scripts["a"] = [ProviderFault("still down")]
        assert isinstance(await outcome(alone.generation()), ProviderFault)
    assert calls(alone) == 3


async def test_a_stream_is_a_good_trial_once_it_begins(alone: Bench) -> None:
    open_breaker(alone, "a", reset_timeout_s=10)
    alone.clock.advance(10)
    alone.scripts["a"] = [Stream(b"one", ProviderFault("cut")), ANSWER]
    stream = alone.generation(stream=True)
    await stream.start()
    assert await outcome(alone.generation()) is None
    stream.end(ProviderFault("cut"))
    assert alone.manager._runtimes["a"].breaker_states() == ["open"]


async def test_an_administrators_reset_closes_breakers_and_wakes_keys(alone: Bench) -> None:
    runtime = alone.manager._runtimes["a"]
    open_breaker(alone, "a")
    runtime._pool.keys[0].lease()
    runtime._pool.keys[0].release("vendor-a", ProviderRejectedOurKey("401"), alone.clock.monotonic())
    assert len(alone.manager.provider_states()["a"]["breakers"]) == 1
    alone.manager.apply(msgspec.structs.replace(alone.snapshot, providers={"a": alone.provider("a", breaker=BreakerSpec(1, reset_at=5.0))}))
    assert alone.manager.provider_states() == {}
    alone.scripts["a"] = [ANSWER]
    assert await outcome(alone.generation()) is None


async def test_the_gauge_follows_the_worst_breaker_at_each_look(alone: Bench) -> None:
    def shown() -> float | None:
        alone.manager.provider_states()
        return REGISTRY.get_sample_value("llm_circuit_breaker_state", {"provider": "a"})

    open_breaker(alone, "a")
    assert shown() == 2
    alone.manager._runtimes["a"].reset()
    assert shown() == 0


async def test_the_gauge_does_not_go_on_about_a_provider_that_is_gone(alone: Bench) -> None:
    open_breaker(alone, "a")
    alone.manager.publish_breakers()
    assert REGISTRY.get_sample_value("llm_circuit_breaker_state", {"provider": "a"}) == 2
    alone.manager.apply(msgspec.structs.replace(alone.snapshot, providers={}))
    assert REGISTRY.get_sample_value("llm_circuit_breaker_state", {"provider": "a"}) == 0


async def test_what_is_not_well_is_told_with_its_reason_and_time(alone: Bench) -> None:
    assert alone.manager.provider_states() == {}
    open_breaker(alone, "a", reset_timeout_s=30)
    key = alone.manager._runtimes["a"]._pool.keys[0]
    key.lease()
    key.release("vendor-a", ProviderLimited("slow down", retry_after_s=7), alone.clock.monotonic())
    wall_s = round(alone.clock.wall())
    assert alone.manager.provider_states() == {
        "a": {
            "breakers": [
                {"key": "key-a", "model": "vendor-a", "state": "open", "failures": 1, "reason": "x", "next_try_at": wall_s + 30},
            ],
            "rests": [{"key": "key-a", "model": "vendor-a", "reason": "slow down", "next_try_at": wall_s + 7}],
        }
    }


# Keys ---------------------------------------------------------------------------------------------------------------


async def test_keys_that_are_refused_cost_the_client_nothing(alone: Bench) -> None:
    with_keys(alone, "k1", "k2", "k3", "k4", "k5")
    alone.scripts["a"] = [ProviderRejectedOurKey("401")] * 4 + [ANSWER]
    assert await outcome(alone.generation()) is None
    assert used_keys(alone) == ["k1", "k2", "k3", "k4", "k5"]
    assert alone.settled_in_full()


async def test_a_key_is_rotated_under_load_and_nobody_notices(alone: Bench) -> None:
    with_keys(alone, "old", "new")
    for _ in range(20):
        key = alone.manager._runtimes["a"]._pool.pick("vendor-a", alone.clock.monotonic(), lambda id_: 0.0)[0]
        assert key is not None
        alone.scripts["a"] = [ProviderRejectedOurKey("401"), ANSWER] if key.id == "old" else [ANSWER]
        assert await outcome(alone.generation()) is None
    assert used_keys(alone).count("old") == 1


async def test_where_all_keys_are_refused_the_next_target_answers(bench: Bench) -> None:
    with_keys(bench, "k1", "k2")
    bench.scripts["a"] = [ProviderRejectedOurKey("401")] * 2
    bench.scripts["b"] = [ANSWER]
    assert await outcome(bench.generation()) is None
    assert used_keys(bench) == ["k1", "k2", "key-b"]


async def test_a_limited_key_rests_and_another_answers_the_same_request(alone: Bench) -> None:
    with_keys(alone, "k1", "k2")
    alone.scripts["a"] = [ProviderLimited("429", retry_after_s=3), ANSWER]
    assert await outcome(alone.generation()) is None
    assert used_keys(alone) == ["k1", "k2"]
    alone.scripts["a"] = [ANSWER]
    assert await outcome(alone.generation()) is None
    assert used_keys(alone)[-1] == "k2"


async def test_a_rejected_key_is_trusted_again_when_the_vendor_takes_it(alone: Bench) -> None:
    alone.scripts["a"] = [ProviderRejectedOurKey("401")]
    assert isinstance(await outcome(alone.generation()), ProviderRejectedOurKey)
    alone.clock.advance(60)
    alone.scripts["a"] = [Stream(b"one"), ANSWER]
    trial = alone.generation(stream=True)
    await trial.start()
    assert await outcome(alone.generation()) is None
    trial.end(None)
    assert alone.settled_in_full()


async def test_a_lease_is_freed_whatever_happens_before_the_call(alone: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(alone.sink, "write", broken)
    generation = alone.generation()
    with pytest.raises(RuntimeError):
        await generation.start()
    monkeypatch.undo()
    generation.end(GatewayError("a bug"))
    assert alone.settled_in_full()


# Retries ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("providers", ["a", "ab", "abc"])
async def test_with_everything_dead_vendors_get_a_tenth_more_calls_and_one_a_second(
    monkeypatch: pytest.MonkeyPatch, providers: str
) -> None:
    bench = Bench(monkeypatch, providers=providers)
    for name in providers:
        bench.manager._runtimes[name].apply(bench.provider(name, breaker=NEVER_OPENS))
        bench.scripts[name] = [ProviderFault("503")] * 2000
    seconds = 20
    for _ in range(500):
        assert isinstance(await outcome(bench.generation()), ProviderFault)
        bench.clock.advance(seconds / 500)
    assert calls(bench) > 500
    assert calls(bench) - len(providers) * MAX_SAVED_RETRIES <= 1.10 * 500 + len(providers) * seconds


async def test_fallback_to_a_target_that_is_well_is_never_short_of_budget(bench: Bench) -> None:
    bench.manager._runtimes["a"].apply(bench.provider("a", breaker=NEVER_OPENS))
    bench.scripts["a"], bench.scripts["b"] = [ProviderFault("503")] * 200, [ANSWER] * 200
    assert [await outcome(bench.generation()) for _ in range(200)] == [None] * 200


async def test_the_first_call_of_a_request_is_no_retry(bench: Bench) -> None:
    open_breaker(bench, "a", reset_timeout_s=30)
    runtime = bench.manager._runtimes["b"]
    runtime.apply(bench.provider("b", breaker=NEVER_OPENS))
    runtime.breaker("key-b", "vendor-b").failed(False, ProviderFault("x"), 0.0)
    while runtime.retries.take(bench.clock.monotonic()):
        pass
    bench.scripts["b"] = [ANSWER]
    assert await outcome(bench.generation()) is None


async def test_a_vendor_that_says_not_to_retry_is_not_asked_again(bench: Bench) -> None:
    bench.scripts["a"] = [Refusal(500, **{"x-should-retry": "false"})]
    bench.scripts["b"] = [Refusal(500, **{"x-should-retry": "false"})]
    assert isinstance(await outcome(bench.generation()), ProviderFault)
    assert calls(bench) == 2


async def test_no_retry_begins_after_the_clients_own_deadline(alone: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.retry.backoff_s", lambda *_: 0.2)
    for timeout, expected in ((b"0.2", 1), (b"1", 2)):
        alone.sink.records.clear()
        alone.scripts["a"] = [ProviderFault("503"), ANSWER]
        await outcome(patient(alone, timeout))
        assert calls(alone) == expected
