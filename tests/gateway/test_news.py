"""Processes that tell each other of breakers and keys, and make one trial between them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from core.clock import FrozenClock
from core.config import BreakerSpec, KeySpec
from core.errors import ClientGone, ProviderFault, ProviderLimited, ProviderPaused, ProviderRejectedOurKey
from core.secrets import Secret
from tests.gateway.neighbours import Town, processes, turns
from tests.gateway.scripted import ANSWER, Bench
from tests.gateway.test_resilience import calls, outcome

FAULT = ProviderFault("it failed")


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.retry.backoff_s", lambda *_: 0)


@pytest.fixture
def town() -> Town:
    return Town(FrozenClock())


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch, town: Town) -> list[Bench]:
    made = processes(monkeypatch, town, 2, providers="a")
    for one in made:
        one.manager._runtimes["a"].apply(one.provider("a", breaker=BreakerSpec(1, 10.0)))
    return made


def breaker(bench: Bench) -> Any:
    return bench.manager._runtimes["a"].breaker("key-a", "vendor-a")


async def opened(first: Bench) -> None:
    first.scripts["a"] = [FAULT]
    assert isinstance(await outcome(first.generation()), (ProviderFault, ProviderPaused))
    await turns()


async def test_a_breaker_that_opens_is_open_everywhere_for_the_same_time(pair: list[Bench], town: Town) -> None:
    first, second = pair
    await opened(first)
    town.clock.advance(4)
    error = await outcome(second.generation())
    assert isinstance(error, ProviderPaused)
    assert error.retry_after_s == pytest.approx(6.0)
    assert (breaker(second).reason, calls(second)) == ("it failed", 0)
    assert len(town.told) == 1  # what was heard is not told on


async def test_times_travel_as_seconds_from_now(monkeypatch: pytest.MonkeyPatch, town: Town) -> None:
    first, second = processes(monkeypatch, town, 2, providers="a")
    town.deaf = True
    await opened_with(first, BreakerSpec(1, 10.0))
    (message,) = town.told
    elsewhere = FrozenClock()
    elsewhere.advance(1e6)
    second.manager._runtimes["a"].clock = elsewhere
    second.peers.listeners["news"](msgspec.json.decode(msgspec.json.encode(message)))  # type: ignore[attr-defined]
    assert breaker(second).wait_s(elsewhere.monotonic()) == pytest.approx(10.0)


async def opened_with(bench: Bench, spec: BreakerSpec) -> None:
    bench.manager._runtimes["a"].apply(bench.provider("a", breaker=spec))
    await opened(bench)


async def test_a_good_trial_closes_it_everywhere(pair: list[Bench], town: Town) -> None:
    first, second = pair
    await opened(first)
    town.clock.advance(10)
    second.scripts["a"] = [ANSWER]
    assert await outcome(second.generation()) is None
    await turns()
    assert breaker(first).state == "closed"
    assert not town.claims


async def test_the_open_time_goes_on_growing_whoever_tries(pair: list[Bench], town: Town) -> None:
    waits = []
    await opened(pair[0])
    for number in range(4):
        waits.append(breaker(pair[number % 2]).wait_s(town.clock.monotonic()))
        town.clock.advance(waits[-1])
        await opened(pair[(number + 1) % 2])
    assert waits == pytest.approx([10, 20, 40, 60])


@pytest.mark.parametrize("good", [True, False])
async def test_500_calls_at_two_processes_are_one_trial(pair: list[Bench], town: Town, good: bool) -> None:
    first, second = pair
    await opened(first)
    town.clock.advance(10)
    go = asyncio.Event()

    async def slow() -> Any:
        await go.wait()
        return ANSWER if good else FAULT

    before = calls(first) + calls(second)
    first.scripts["a"] = [slow]
    tasks = [asyncio.create_task(outcome(pair[number % 2].generation())) for number in range(500)]
    await turns()
    assert sum(task.done() for task in tasks) == 499
    assert calls(first) + calls(second) - before == 1
    refused = [task.result() for task in tasks if task.done()]
    assert all(isinstance(error, ProviderPaused) and error.retry_after_s == 1.0 for error in refused)
    assert len([name for name in town.asked if name.startswith("trial:")]) == 2
    go.set()
    await asyncio.gather(*tasks)
    await turns()
    assert {breaker(one).state for one in pair} == ({"closed"} if good else {"open"})
    assert not town.claims
    assert all(one.settled_in_full() for one in pair)


async def test_a_trial_elsewhere_is_not_asked_for_again_at_once(pair: list[Bench], town: Town) -> None:
    first, second = pair
    await opened(first)
    town.clock.advance(10)
    town.claims["trial:a:key-a:vendor-a"] = (town.clock.monotonic() + 34, first.peers)  # type: ignore[attr-defined]
    for _ in range(50):
        assert isinstance(await outcome(second.generation()), ProviderPaused)
    assert town.asked.count("trial:a:key-a:vendor-a") == 1
    town.clock.advance(34)  # its process has died
    second.scripts["a"] = [ANSWER]
    assert await outcome(second.generation()) is None


async def test_a_client_that_leaves_a_trial_leaves_it_to_the_next(pair: list[Bench], town: Town) -> None:
    first, second = pair
    await opened(first)
    town.clock.advance(10)
    first.scripts["a"] = [asyncio.Event().wait]
    generation = first.generation()
    trial = asyncio.create_task(generation.start())
    await turns()
    assert town.claims
    trial.cancel()
    await asyncio.gather(trial, return_exceptions=True)
    generation.end(ClientGone("gone"))
    assert not town.claims
    second.scripts["a"] = [ANSWER]
    assert await outcome(second.generation()) is None


async def test_what_was_lost_costs_one_call_of_each(pair: list[Bench], town: Town) -> None:
    first, second = pair
    town.deaf = True
    await opened(first)
    await opened(second)
    assert calls(first) == calls(second) == 1


async def test_news_that_overtake_a_claim_are_heeded(pair: list[Bench], town: Town) -> None:
    """The other process tried and failed while this one asked: the claim is free again, and the trial was made."""
    first, second = pair
    await opened(first)
    town.clock.advance(10)
    first.scripts["a"] = [FAULT]
    asked = asyncio.create_task(outcome(second.generation()))
    for _ in range(1000):
        if town.asked:
            break
        await asyncio.sleep(0)
    second.peers.listeners["news"](  # type: ignore[attr-defined]
        {**town.told[0], "wait_s": 20.0, "last_wait_s": 20.0, "doublings": 1}
    )
    error = await asked
    assert isinstance(error, ProviderPaused)
    assert error.retry_after_s == pytest.approx(20.0)
    assert calls(second) == 0
    assert not town.claims


# Keys ---------------------------------------------------------------------------------------------------------------


async def test_a_limited_key_rests_everywhere_and_only_for_that_model(pair: list[Bench], town: Town) -> None:
    first, second = pair
    first.scripts["a"] = [ProviderLimited("slow down", retry_after_s=7)]
    assert isinstance(await outcome(first.generation()), ProviderLimited)
    await turns()
    town.clock.advance(2)
    error = await outcome(second.generation())
    assert isinstance(error, ProviderLimited)
    assert (error.message, error.retry_after_s, calls(second)) == ("slow down", pytest.approx(5.0), 0)
    assert list(second.manager._runtimes["a"]._pool.keys[0].rests) == ["vendor-a"]


async def test_a_refused_key_is_tried_by_one_process_and_works_again_everywhere(pair: list[Bench], town: Town) -> None:
    first, second = pair
    first.scripts["a"] = [ProviderRejectedOurKey("401")]
    await outcome(first.generation())
    await turns()
    assert isinstance(await outcome(second.generation()), ProviderRejectedOurKey)
    assert calls(second) == 0
    town.clock.advance(60)
    go = asyncio.Event()

    async def slow() -> Any:
        await go.wait()
        return ANSWER

    first.scripts["a"] = [slow]
    tasks = [asyncio.create_task(outcome(pair[number % 2].generation())) for number in range(100)]
    await turns()
    assert sum(task.done() for task in tasks) == 99
    go.set()
    await asyncio.gather(*tasks)
    await turns()
    assert [one.manager._runtimes["a"]._pool.keys[0].rests for one in pair] == [{}, {}]
    assert not town.claims


async def test_calls_that_are_limited_together_are_told_of_once(pair: list[Bench], town: Town) -> None:
    first, _ = pair
    go = asyncio.Event()

    async def limited() -> Any:
        await go.wait()
        town.clock.advance(0.01)
        return ProviderLimited("slow down", retry_after_s=7)

    first.scripts["a"] = [limited] * 50
    tasks = [asyncio.create_task(outcome(first.generation())) for _ in range(50)]
    await turns()
    go.set()
    await asyncio.gather(*tasks)
    assert len(town.told) == 1


async def test_another_key_answers_where_one_is_tried_elsewhere(monkeypatch: pytest.MonkeyPatch, town: Town) -> None:
    first, second = processes(monkeypatch, town, 2, providers="a")
    keys = tuple(KeySpec(id_, "", Secret(id_)) for id_ in ("k1", "k2"))
    for one in (first, second):
        one.manager._runtimes["a"].apply(one.provider("a", keys=keys, breaker=BreakerSpec(1, 10.0)))
    first.scripts["a"] = [ProviderRejectedOurKey("401"), ANSWER]
    assert await outcome(first.generation()) is None
    await turns()
    town.clock.advance(60)
    town.claims["trial:a:k1"] = (town.clock.monotonic() + 30, first.peers)  # type: ignore[attr-defined]
    second.scripts["a"] = [ANSWER]
    assert await outcome(second.generation()) is None
    assert town.asked.count("trial:a:k1") == 1


# Resets, and what is no news ----------------------------------------------------------------------------------------


async def test_an_administrators_reset_is_heard_and_told_once(pair: list[Bench], town: Town) -> None:
    first, second = pair
    await opened(first)
    reset = msgspec.structs.replace(first.snapshot, providers={"a": first.provider("a", breaker=BreakerSpec(1, 10.0, reset_at=5.0))})
    first.manager.apply(reset)
    await turns()
    assert breaker(second).state == "closed"
    await opened(second)
    second.manager.apply(reset)  # comes a second later, by the database
    assert breaker(second).state == "open"
    assert [message["what"] for message in town.told] == ["opened", "reset", "opened"]


GOOD = {
    "what": "opened",
    "provider": "a",
    "key": "key-a",
    "model": "vendor-a",
    "wait_s": 5.0,
    "last_wait_s": 5.0,
    "open_s": 5.0,
    "doublings": 0,
    "reason": "it failed",
}


@pytest.mark.parametrize("change", [{"provider": "other"}, {"key": "other"}, {"model": "other"}, {"model": ""}])
def test_what_is_not_known_here_is_dropped(pair: list[Bench], change: dict[str, Any]) -> None:
    hear = pair[0].peers.listeners["news"]  # type: ignore[attr-defined]
    hear(GOOD | change)
    assert pair[0].manager.provider_states() == {}
    hear(GOOD)
    assert breaker(pair[0]).state == "open"


@pytest.mark.parametrize(
    "change",
    [
        {"what": "exploded"},
        {"wait_s": -1.0},
        {"wait_s": "soon"},
        {"wait_s": 1e9},
        {"doublings": 1000},
        {"reason": "x" * 501},
        {"provider": None},
        {"model": ["vendor-a"]},
    ],
)
def test_what_is_malformed_is_logged_and_dropped(pair: list[Bench], change: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    pair[0].peers.listeners["news"](GOOD | change)  # type: ignore[attr-defined]
    assert pair[0].manager.provider_states() == {}
    assert "is dropped" in caplog.text


def test_a_wait_that_is_heard_is_no_longer_than_it_could_be_here(pair: list[Bench], town: Town) -> None:
    pair[0].peers.listeners["news"](GOOD | {"wait_s": 80_000.0})  # type: ignore[attr-defined]
    assert breaker(pair[0]).wait_s(town.clock.monotonic()) == pytest.approx(66.0)


async def test_where_nothing_is_wrong_nobody_is_asked(pair: list[Bench], town: Town) -> None:
    pair[0].scripts["a"] = [ANSWER] * 5
    for _ in range(5):
        assert await outcome(pair[0].generation()) is None
    assert (town.asked, town.told) == ([], [])


@pytest.mark.parametrize("what", [{}, {"what": "rests", "length_s": 5.0}])
async def test_news_of_before_a_reset_undoes_it_nowhere(pair: list[Bench], what: dict[str, Any]) -> None:
    second = pair[1]
    provider = second.provider("a", breaker=BreakerSpec(1, 10.0, reset_at=5.0))
    second.manager.apply(msgspec.structs.replace(second.snapshot, providers={"a": provider}))
    hear = second.peers.listeners["news"]  # type: ignore[attr-defined]
    hear(GOOD | what)
    assert second.manager.provider_states() == {}
    hear(GOOD | what | {"reset_at": 5.0})
    assert second.manager.provider_states() != {}


async def test_who_tells_of_trouble_says_of_which_reset_it_knows(pair: list[Bench], town: Town) -> None:
    first = pair[0]
    reset = msgspec.structs.replace(first.snapshot, providers={"a": first.provider("a", breaker=BreakerSpec(1, 10.0, reset_at=5.0))})
    first.manager.apply(reset)
    await opened(first)
    assert [message["reset_at"] for message in town.told] == [5.0, 5.0]
