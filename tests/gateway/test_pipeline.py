from __future__ import annotations

import asyncio

import pytest

from core.config import BreakerSpec, LimitSpec
from core.errors import (
    AccountingUnavailable,
    CallerLimited,
    ClientGone,
    NotPermitted,
    ProviderFault,
    ProviderLimited,
    ProviderNonsense,
    ProviderPaused,
    ProviderRefused,
    ProviderRejectedOurKey,
    UnknownModel,
)
from monitoring import metrics
from monitoring.journal import AttemptOpened, AttemptSettled, RequestEnded
from tests.gateway.scripted import ANSWER, Bench, Stream


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def pieces(generation) -> list[bytes]:
    found = []
    while piece := await generation.next_piece():
        found.append(piece)
    return found


async def test_an_answer_is_opened_settled_priced_and_logged_once(bench: Bench) -> None:
    bench.scripts["a"] = [ANSWER]
    generation = bench.generation()
    await generation.start()
    assert [type(record) for record in bench.sink.records] == [AttemptOpened]
    generation.end(None)
    generation.end(ProviderFault("too late"))
    opened, settled, ended = bench.sink.records
    assert (opened.request_id, opened.attempt) == (settled.request_id, settled.attempt) == (generation.request_id, 1)
    assert (settled.status, settled.input_tokens, settled.output_tokens, settled.cost_micros, settled.currency) == ("ok", 10, 5, 20, "USD")
    assert (ended.status_code, ended.attempts, ended.total_tokens, ended.cost_micros, ended.config_version) == (200, 1, 15, 20, 7)
    assert dict(generation.headers())[b"x-llm-cost"] == b"0.00002 USD"
    assert bench.settled_in_full()


async def test_the_next_target_answers_where_the_first_fails(bench: Bench) -> None:
    bench.scripts["a"] = [ProviderFault("500")]
    bench.scripts["b"] = [ANSWER]
    generation = bench.generation()
    await generation.start()
    generation.end(None)
    statuses = [(record.status, record.error_code) for record in bench.sink.of(AttemptSettled)]
    assert statuses == [("error", "upstream_error"), ("ok", "")]
    assert len(bench.sink.of(AttemptOpened)) == 2
    assert dict(generation.headers())[b"x-llm-provider"] == b"b"
    assert dict(generation.headers())[b"x-llm-attempts"] == b"2"
    assert bench.settled_in_full()


async def test_a_failed_attempt_costs_nothing(bench: Bench) -> None:
    bench.scripts["a"] = bench.scripts["b"] = [ProviderRefused("bad parameter"), ANSWER]
    generation = bench.generation()
    with pytest.raises(ProviderRefused) as refused:
        await generation.start()
    generation.end(refused.value)
    (settled,) = bench.sink.of(AttemptSettled)
    assert (settled.usage_source, settled.input_tokens, settled.cost_micros) == ("none", 0, 0)
    assert bench.settled_in_full()


async def test_a_stream_fails_over_only_before_its_first_content(bench: Bench) -> None:
    bench.scripts["a"] = [Stream(ProviderNonsense("cut"))]
    bench.scripts["b"] = [Stream(b"one", b"two", ProviderNonsense("cut"))]
    generation = bench.generation(stream=True)
    await generation.start()
    assert await generation.next_piece() == b"one"
    assert await generation.next_piece() == b"two"
    with pytest.raises(ProviderNonsense) as cut:
        await generation.next_piece()
    generation.end(cut.value)
    last = bench.sink.of(AttemptSettled)[-1]
    assert (last.status, last.output_tokens, last.usage_source) == ("error", 2, "estimated")
    assert last.cost_micros > 0
    assert bench.settled_in_full()


async def test_a_whole_stream_is_charged_by_the_vendors_numbers(bench: Bench) -> None:
    bench.scripts["a"] = [Stream(b"one", b"two")]
    generation = bench.generation(stream=True)
    await generation.start()
    assert await pieces(generation) == [b"one", b"two"]
    generation.end(None)
    (settled,) = bench.sink.of(AttemptSettled)
    assert (settled.status, settled.usage_source, settled.finish_reason, settled.cost_micros) == ("ok", "vendor", "stop", 20)


async def test_a_stream_without_usage_is_counted_by_us_and_says_so(bench: Bench) -> None:
    bench.scripts["a"] = [Stream(b"x" * 40, usage=None)]
    generation = bench.generation(stream=True)
    await generation.start()
    await pieces(generation)
    generation.end(None)
    (settled,) = bench.sink.of(AttemptSettled)
    assert settled.usage_source == "estimated"
    assert settled.output_tokens == 10
    assert settled.usage_refused == ""


async def test_numbers_that_cannot_be_are_counted_by_us_shown_and_added_up(bench: Bench) -> None:
    bench.scripts["a"] = [Stream(b"x" * 40, usage=None, refused_counts="no whole numbers that can be: prompt_tokens -5")]
    generation = bench.generation(stream=True)
    await generation.start()
    await pieces(generation)
    counted = metrics.USAGE_REFUSED.labels("a", "m")._value
    before = counted.get()
    generation.end(None)
    (settled,) = bench.sink.of(AttemptSettled)
    assert (settled.usage_source, settled.output_tokens) == ("refused", 10)
    assert settled.usage_refused == "no whole numbers that can be: prompt_tokens -5"
    assert counted.get() == before + 1


async def test_a_client_that_leaves_is_charged_for_what_it_got_and_blames_nobody(bench: Bench) -> None:
    bench.scripts["a"] = [Stream(b"x" * 8, b"never sent")]
    generation = bench.generation(stream=True)
    await generation.start()
    await generation.next_piece()
    generation.end(ClientGone("left"))
    (settled,) = bench.sink.of(AttemptSettled)
    assert (settled.status, settled.output_tokens, settled.usage_source) == ("client_closed", 2, "estimated")
    assert bench.sink.of(RequestEnded)[0].status_code == 499
    assert bench.manager._runtimes["a"].breaker_states() == ["closed"]
    assert bench.settled_in_full()


async def test_the_breaker_opens_and_the_vendor_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    monkeypatch.setattr("gateway.retry.backoff_s", lambda *_: 0)
    bench.scripts["a"] = [ProviderFault("500")] * 3
    generation = bench.generation()
    with pytest.raises(ProviderFault) as failed:
        await generation.start()
    generation.end(failed.value)
    generation = bench.generation()
    with pytest.raises(ProviderPaused) as paused:
        await generation.start()
    generation.end(paused.value)
    assert paused.value.retry_after_s == pytest.approx(10)
    bench.clock.advance(10)
    bench.scripts["a"] = [ANSWER]
    generation = bench.generation()
    await generation.start()
    generation.end(None)
    assert bench.manager._runtimes["a"].breaker_states() == ["closed"]
    assert bench.settled_in_full()


async def test_a_refused_credential_rests_and_the_other_one_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    monkeypatch.setattr("gateway.retry.backoff_s", lambda *_: 0)
    spec = bench.provider("a", keys=(*bench.provider("a").keys, *bench.provider("b").keys))
    bench.manager._runtimes["a"].apply(spec)
    bench.scripts["a"] = [ProviderRejectedOurKey("401"), ANSWER]
    generation = bench.generation()
    await generation.start()
    generation.end(None)
    assert [settled.provider_key_id for settled in bench.sink.of(AttemptSettled)] == ["key-a", "key-b"]


async def test_a_vendors_limit_reaches_the_caller_with_its_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="a")
    bench.scripts["a"] = [ProviderLimited("429", retry_after_s=3)]
    generation = bench.generation()
    with pytest.raises(ProviderLimited):
        await generation.start()
    generation.end(ProviderLimited("429", retry_after_s=3))
    second = bench.generation()
    with pytest.raises(ProviderLimited) as resting:
        await second.start()
    second.end(resting.value)
    assert resting.value.retry_after_s == pytest.approx(3)
    assert bench.manager._runtimes["a"].breaker_states() == ["closed"]


async def test_a_limited_caller_never_reaches_a_vendor_and_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, limits=LimitSpec(requests_per_minute=1))
    bench.scripts["a"] = [ANSWER]
    first = bench.generation()
    await first.start()
    first.end(None)
    second = bench.generation()
    with pytest.raises(CallerLimited) as limited:
        await second.start()
    second.end(limited.value)
    assert len(bench.sink.of(AttemptOpened)) == 1
    assert bench.sink.of(RequestEnded)[-1].status_code == 429
    assert bench.settled_in_full()


@pytest.mark.parametrize(
    ("caller", "error"),
    [
        ({"scopes": frozenset({"models"})}, NotPermitted),
        ({"models": frozenset({"other"})}, NotPermitted),
    ],
)
async def test_what_a_key_may_not_do(monkeypatch: pytest.MonkeyPatch, caller: dict, error: type) -> None:
    bench = Bench(monkeypatch, **caller)
    with pytest.raises(error):
        await bench.generation().start()


async def test_without_a_journal_nothing_is_sent(bench: Bench) -> None:
    bench.sink.broken = True
    generation = bench.generation()
    with pytest.raises(AccountingUnavailable) as refused:
        await generation.start()
    generation.end(refused.value)
    assert bench.responses == []
    assert bench.settled_in_full()


async def test_without_strict_accounts_what_could_not_be_written_is_written_with_the_settlement(bench: Bench) -> None:
    bench.pipeline.strict = False
    bench.scripts["a"] = [ANSWER]
    bench.sink.broken = True
    generation = bench.generation()
    await generation.start()
    bench.sink.broken = False
    generation.end(None)
    assert [type(record).__name__ for record in bench.sink.records] == ["AttemptOpened", "AttemptSettled", "RequestEnded"]
    assert bench.settled_in_full()


async def test_cancelling_while_waiting_for_the_vendor_settles_the_prompt(bench: Bench) -> None:
    waiting = asyncio.Event()

    async def hang():
        waiting.set()
        await asyncio.Event().wait()

    bench.scripts["a"] = [hang]
    generation = bench.generation()
    task = asyncio.create_task(generation.start())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    generation.end(ClientGone("left"))
    (settled,) = bench.sink.of(AttemptSettled)
    assert settled.status == "client_closed"
    assert settled.usage_source == "estimated"
    assert settled.output_tokens == 0
    assert bench.settled_in_full()


async def test_a_request_keeps_the_configuration_it_began_with(bench: Bench) -> None:
    bench.scripts["a"] = [Stream(b"one", b"two")]
    generation = bench.generation(stream=True)
    await generation.start()
    bench.manager.apply(type(bench.snapshot)(version=8, loaded_at=0.0))
    assert await pieces(generation) == [b"one", b"two"]
    generation.end(None)
    assert bench.sink.of(RequestEnded)[0].config_version == 7
    with pytest.raises(UnknownModel):
        await bench.generation().start()


async def test_new_numbers_keep_what_a_provider_has_learnt(bench: Bench) -> None:
    runtime = bench.manager._runtimes["a"]
    runtime.breaker("key-a", "vendor-a").failed(False, ProviderFault("x"), 0.0)
    spec = bench.provider("a", breaker=BreakerSpec(2, 10), max_concurrency=5)
    bench.manager.apply(type(bench.snapshot)(version=8, loaded_at=0.0, providers={"a": spec}))
    assert bench.manager._runtimes["a"] is runtime
    assert runtime.slots.limit == 5
    runtime.breaker("key-a", "vendor-a").failed(False, ProviderFault("x"), 0.0)
    assert runtime.breaker_states() == ["open"]


async def test_an_answer_is_read_by_the_adapter_that_asked(bench: Bench) -> None:
    async def changed_meanwhile():
        bench.manager._runtimes["a"].apply(bench.provider("a", base_url="http://another"))
        return ANSWER

    bench.scripts["a"] = [changed_meanwhile]
    generation = bench.generation()
    await generation.start()
    generation.end(None)
    assert generation.answer is ANSWER


async def test_a_new_address_starts_with_closed_breakers(bench: Bench) -> None:
    runtime = bench.manager._runtimes["a"]
    for _ in range(3):
        runtime.breaker("key-a", "vendor-a").failed(False, ProviderFault("x"), 0.0)
    assert runtime.breaker_states() == ["open"]
    runtime.apply(bench.provider("a", max_concurrency=7))
    assert runtime.breaker_states() == ["open"]
    runtime.apply(bench.provider("a", base_url="http://another"))
    assert runtime.breaker("key-a", "vendor-a").state == "closed"
