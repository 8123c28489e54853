"""Routes at work in whole requests: fallbacks, a smaller model, a fixed answer. A scripted vendor, no network, no sleeping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from core.config import BreakerSpec, ModelSpec, ProviderSpec, RouteSpec
from core.errors import (
    AccountingUnavailable,
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    NotPermitted,
    ProviderFault,
    ProviderLimited,
    ProviderPaused,
    ProviderRefused,
    ProviderTimeout,
    UnknownModel,
)
from gateway.doors import openai_chat
from gateway.pipeline import Generation
from gateway.retry import MAX_SAVED_RETRIES
from gateway.router import targets_of
from monitoring.journal import AttemptOpened, AttemptSettled, RequestEnded
from providers.adapters.registry import FIXED_ANSWER, adapter_for
from tests.gateway.scripted import ANSWER, Bench, ScriptedAdapter, Stream

TEXT = "We are busy; please come back in a few minutes."


def adapter_of(spec: ProviderSpec) -> Any:
    return adapter_for(spec) if spec.kind == FIXED_ANSWER else ScriptedAdapter(spec)


class RouteBench(Bench):
    """Providers a to e, each with a model whose alias is the provider's name, and one route `r`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *targets: str, degrade_to: str = "", fixed_answer: str = "", **caller: Any) -> None:
        super().__init__(monkeypatch, providers="abcde", **caller)

        monkeypatch.setattr("gateway.runtime.adapter_for", adapter_of)
        models = {name: (msgspec.structs.replace(self.model(name), alias=name),) for name in "abcde"}
        self.snapshot = msgspec.structs.replace(
            self.snapshot, models=models, routes={"r": RouteSpec("r", targets, degrade_to, fixed_answer)}
        )
        self.manager.apply(self.snapshot)

    def dead(self, names: str, *, times: int = 1, **breaker: Any) -> None:
        for name in names:
            self.scripts[name] = [ProviderFault(f"{name} is down")] * times

    def asked(self, alias: str = "r", *, stream: bool = False) -> Generation:
        body = {"model": alias, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        request = openai_chat.parse(msgspec.json.encode(body))
        return Generation(self.pipeline, self.manager.view, self.caller, request, self.pipeline.request_id())

    def tried(self) -> list[str]:
        return [opened.provider_name for opened in self.sink.of(AttemptOpened)]


Make = Callable[..., RouteBench]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr("gateway.retry.backoff_s", lambda *_: 0)
    return lambda *targets, **parts: RouteBench(monkeypatch, *targets, **parts)


async def outcome(generation: Generation) -> GatewayError | None:
    error = None
    try:
        await generation.start()
    except GatewayError as raised:
        error = raised
    generation.end(error)
    return error


def degraded(generation: Generation) -> bool:
    return (b"x-llm-degraded", b"1") in generation.headers()


# The chain ----------------------------------------------------------------------------------------------------------


async def test_targets_are_tried_in_the_order_of_the_route(make: Make) -> None:
    bench = make("c", "a", "b")
    bench.dead("ca")
    bench.scripts["b"] = [ANSWER]
    generation = bench.asked()
    assert await outcome(generation) is None
    assert bench.tried() == ["c", "a", "b"]
    assert not degraded(generation)
    assert dict(generation.headers())[b"x-llm-alias"] == b"r"
    assert bench.settled_in_full()


async def test_a_route_comes_before_a_model_of_its_name(make: Make) -> None:
    bench = make("b", "a")
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, routes={"a": RouteSpec("a", ("b", "a"))}))
    bench.dead("b")
    bench.scripts["a"] = [ANSWER]
    assert await outcome(bench.asked("a")) is None
    assert bench.tried() == ["b", "a"]


def test_a_model_named_as_a_route_leads_to_the_models_of_that_name_and_never_in_a_circle(make: Make) -> None:
    bench = make("a")
    routes = {"a": RouteSpec("a", ("b",), "a"), "b": RouteSpec("b", ("a",), "b")}
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, routes=routes))
    for alias, expected in (("a", ["b", "a"]), ("b", ["a", "b"])):
        assert [target.provider.name for target in bench.manager.view.targets[alias]] == expected


def test_what_is_not_there_is_passed_over_and_an_empty_chain_is_no_model(make: Make) -> None:
    bench = make("nowhere", "b", degrade_to="gone")
    assert [target.provider.name for target in bench.manager.view.targets["r"]] == ["b"]
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, routes={"r": RouteSpec("r", ("nowhere",))}))
    with pytest.raises(UnknownModel):
        targets_of(bench.manager.view, bench.caller, "r")


def test_several_models_of_one_alias_stand_side_by_side(make: Make) -> None:
    bench = make("a", "b")
    models = {**bench.snapshot.models, "a": (*bench.snapshot.models["a"], *bench.snapshot.models["c"])}
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, models=models))
    assert [target.provider.name for target in bench.manager.view.targets["r"]] == ["a", "c", "b"]


async def test_a_key_is_permitted_what_it_asks_for_and_not_what_stands_behind_it(make: Make) -> None:
    bench = make("a", models=frozenset({"r"}))
    bench.scripts["a"] = [ANSWER]
    assert await outcome(bench.asked()) is None
    assert isinstance(await outcome(bench.asked("a")), NotPermitted)


async def test_a_changed_route_is_in_force_with_its_configuration(make: Make) -> None:
    bench = make("a")
    before = bench.asked()
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, version=8, routes={"r": RouteSpec("r", ("b",))}))
    bench.scripts["a"], bench.scripts["b"] = [ANSWER], [ANSWER]
    assert await outcome(bench.asked()) is None
    assert await outcome(before) is None
    assert bench.tried() == ["b", "a"]
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, version=9, routes={}))
    assert isinstance(await outcome(bench.asked()), UnknownModel)


# A smaller model ----------------------------------------------------------------------------------------------------


async def test_the_smaller_model_answers_though_no_retry_is_left(make: Make) -> None:
    bench = make("a", "b", "c", "d", degrade_to="e")
    bench.dead("abcd")
    bench.scripts["e"] = [ANSWER]
    generation = bench.asked()
    assert await outcome(generation) is None
    # Three calls are what `max_retries` allows: d is not asked.
    assert bench.tried() == ["a", "b", "c", "e"]
    assert degraded(generation)
    ended = bench.sink.of(RequestEnded)[-1]
    assert (ended.alias, ended.provider_name, ended.model_id, ended.attempts, ended.status_code) == ("r", "e", "vendor-e", 4, 200)
    assert bench.settled_in_full()


async def test_the_smaller_model_streams_too(make: Make) -> None:
    bench = make("a", degrade_to="e")
    bench.dead("a")
    bench.scripts["e"] = [Stream(b"data: 1\n\n")]
    generation = bench.asked(stream=True)
    await generation.start()
    assert degraded(generation)
    assert await generation.next_piece() == b"data: 1\n\n"
    assert await generation.next_piece() == b""
    generation.end(None)
    assert bench.settled_in_full()


async def test_a_stream_that_has_begun_is_never_continued_by_another_model(make: Make) -> None:
    bench = make("a", degrade_to="e", fixed_answer=TEXT)
    bench.scripts["a"] = [Stream(b"data: 1\n\n", ProviderFault("cut"))]
    generation = bench.asked(stream=True)
    await generation.start()
    assert await generation.next_piece() == b"data: 1\n\n"
    with pytest.raises(ProviderFault):
        await generation.next_piece()
    generation.end(ProviderFault("cut"))
    assert bench.tried() == ["a"]


@pytest.mark.parametrize("error", [ProviderRefused("no such parameter"), ContextTooLong("too long")])
async def test_what_another_vendor_would_refuse_too_is_told(make: Make, error: GatewayError) -> None:
    bench = make("a", degrade_to="e", fixed_answer=TEXT)
    bench.scripts["a"] = [error]
    assert await outcome(bench.asked()) is error
    assert bench.tried() == ["a"]


async def test_the_smaller_model_answers_where_every_breaker_is_open(make: Make) -> None:
    bench = make("a", "b", degrade_to="e")
    for name in "ab":
        runtime = bench.manager._runtimes[name]
        runtime.apply(bench.provider(name, breaker=BreakerSpec(1, 10)))
        runtime.breaker(f"key-{name}", f"vendor-{name}").failed(False, ProviderFault("x"), bench.clock.monotonic())
    bench.scripts["e"] = [ANSWER]
    generation = bench.asked()
    assert await outcome(generation) is None
    assert bench.tried() == ["e"]
    assert degraded(generation)


async def test_where_the_smaller_model_fails_too_its_error_is_told(make: Make) -> None:
    bench = make("a", degrade_to="e")
    bench.dead("a")
    bench.dead("e", times=2)
    error = await outcome(bench.asked())
    assert isinstance(error, ProviderFault)
    assert bench.settled_in_full()


async def test_the_vendors_time_may_be_up(make: Make) -> None:
    bench = make("a", degrade_to="e")

    async def slow() -> Any:
        bench.clock.advance(601)
        return ProviderTimeout("too slow")

    bench.scripts["a"], bench.scripts["e"] = [slow], [ANSWER]
    assert await outcome(bench.asked()) is None
    assert bench.tried() == ["a", "e"]


# A fixed answer -----------------------------------------------------------------------------------------------------


async def test_a_fixed_answer_is_left_when_all_else_fails_and_costs_nothing(make: Make) -> None:
    bench = make("a", "b", "c", "d", degrade_to="e", fixed_answer=TEXT)
    bench.dead("abcde")
    generation = bench.asked()
    assert await outcome(generation) is None
    assert bench.tried() == ["a", "b", "c", "e", FIXED_ANSWER]
    answer = msgspec.json.decode(generation.answer.body)
    assert answer["choices"][0]["message"]["content"] == TEXT
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == 0
    headers = dict(generation.headers())
    assert (headers[b"x-llm-provider"], headers[b"x-llm-degraded"], headers[b"x-llm-cost"]) == (b"fixed-answer", b"1", b"0.0 USD")
    settled = bench.sink.of(AttemptSettled)[-1]
    assert (settled.status, settled.input_tokens, settled.output_tokens, settled.cost_micros) == ("ok", 0, 0, 0)
    assert bench.sink.of(RequestEnded)[-1].provider_name == FIXED_ANSWER
    assert bench.settled_in_full()


async def test_a_fixed_answer_is_streamed(make: Make) -> None:
    bench = make("a", fixed_answer=TEXT)
    bench.dead("a")
    generation = bench.asked(stream=True)
    await generation.start()
    pieces = []
    while piece := await generation.next_piece():
        pieces.append(piece)
    generation.end(None)
    assert TEXT.encode() in b"".join(pieces)
    assert generation.tail == b"data: [DONE]\n\n"
    assert bench.sink.of(AttemptSettled)[-1].cost_micros == 0


async def test_what_the_smaller_model_cannot_take_is_not_the_callers_fault(make: Make) -> None:
    bench = make("a", degrade_to="e", fixed_answer=TEXT)
    bench.dead("a")
    bench.scripts["e"] = [ContextTooLong("a small window")]
    assert await outcome(bench.asked()) is None
    assert bench.tried() == ["a", "e", FIXED_ANSWER]


async def test_a_smaller_model_that_is_the_first_choice_may_refuse(make: Make) -> None:
    bench = make("nowhere", degrade_to="e", fixed_answer=TEXT)
    bench.scripts["e"] = [InvalidRequest("malformed")]
    assert isinstance(await outcome(bench.asked()), InvalidRequest)


async def test_a_fixed_answer_alone_is_an_answer(make: Make) -> None:
    bench = make("nowhere", fixed_answer=TEXT)
    generation = bench.asked()
    assert await outcome(generation) is None
    assert degraded(generation)


async def test_limits_of_every_vendor_lead_to_the_fixed_answer(make: Make) -> None:
    bench = make("a", "b", fixed_answer=TEXT)
    bench.scripts["a"] = bench.scripts["b"] = [ProviderLimited("429", retry_after_s=30)] * 2
    assert await outcome(bench.asked()) is None
    assert await outcome(bench.asked()) is None
    assert bench.tried() == ["a", "b", FIXED_ANSWER, FIXED_ANSWER]


async def test_a_changed_text_is_given_from_then_on(make: Make) -> None:
    bench = make("nowhere", fixed_answer=TEXT)
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, routes={"r": RouteSpec("r", ("nowhere",), fixed_answer="Tomorrow.")}))
    generation = bench.asked()
    assert await outcome(generation) is None
    assert b"Tomorrow." in generation.answer.body


async def test_without_a_journal_there_is_no_fixed_answer_either(make: Make) -> None:
    bench = make("a", fixed_answer=TEXT)
    bench.sink.broken = True
    assert isinstance(await outcome(bench.asked()), AccountingUnavailable)


# What it costs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixed_answer", ["", TEXT])
@pytest.mark.parametrize("targets", ["a", "ab", "abcd"])
async def test_with_everything_dead_vendors_get_a_tenth_more_calls(make: Make, targets: str, fixed_answer: str) -> None:
    bench = make(*targets, degrade_to="e", fixed_answer=fixed_answer)
    names = [*targets, "e"]
    for name in names:
        bench.manager._runtimes[name].apply(bench.provider(name, breaker=BreakerSpec(fail_max=10_000)))
        bench.scripts[name] = [ProviderFault("503")] * 2000
    seconds, requests = 20, 500
    for _ in range(requests):
        assert isinstance(await outcome(bench.asked()), type(None) if fixed_answer else ProviderFault)
        bench.clock.advance(seconds / requests)
    calls = sum(name != FIXED_ANSWER for name in bench.tried())
    assert calls - len(names) * MAX_SAVED_RETRIES <= 1.10 * requests + len(names) * seconds


async def test_a_smaller_model_that_is_paused_is_not_waited_for(make: Make) -> None:
    bench = make("a", degrade_to="e")
    runtime = bench.manager._runtimes["e"]
    runtime.apply(bench.provider("e", breaker=BreakerSpec(1, 10)))
    runtime.breaker("key-e", "vendor-e").failed(False, ProviderFault("x"), bench.clock.monotonic())
    bench.dead("a", times=3)
    error = await outcome(bench.asked())
    assert isinstance(error, ProviderFault)
    assert "a is down" in error.message


async def test_where_everything_is_paused_the_soonest_is_told(make: Make) -> None:
    bench = make("a", degrade_to="e")
    for name, wait_s in (("a", 30), ("e", 20)):
        runtime = bench.manager._runtimes[name]
        runtime.apply(bench.provider(name, breaker=BreakerSpec(1, wait_s)))
        runtime.breaker(f"key-{name}", f"vendor-{name}").failed(False, ProviderFault("x"), bench.clock.monotonic())
    error = await outcome(bench.asked())
    assert isinstance(error, ProviderPaused)
    assert error.retry_after_s == pytest.approx(20)
    assert bench.tried() == []


def test_models_of_an_unserved_type_are_passed_over(make: Make) -> None:
    bench = make("a", "b")
    rerank = ModelSpec("m-x", "a", "vendor-a", "a", model_type="rerank")
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, models={**bench.snapshot.models, "a": (rerank,)}))
    assert [target.provider.name for target in bench.manager.view.targets["r"]] == ["b"]
