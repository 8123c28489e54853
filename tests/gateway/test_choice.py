"""Choosing between models in whole requests: auto, strategies, names to fall back on. A scripted vendor, no network, no sleeping."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core import choice
from core.config import PriceSpec, RouteSpec
from core.errors import GatewayError, InvalidRequest, NotPermitted, ProviderFault, UnknownModel
from gateway.doors import openai_chat
from gateway.doors.routing_fields import routed
from gateway.pipeline import Generation
from gateway.vitals import STALE_S
from monitoring.journal import AttemptOpened, RequestEnded
from tests.gateway.scripted import ANSWER, Bench, Stream
from tests.gateway.test_routes import adapter_of


class ChoiceBench(Bench):
    """Providers a to d, each with a model whose alias is the provider's name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *routes: RouteSpec, rows: dict[str, dict[str, Any]] | None = None, **caller: Any):
        super().__init__(monkeypatch, providers="abcd", **caller)
        monkeypatch.setattr("gateway.runtime.adapter_for", adapter_of)
        monkeypatch.setattr("gateway.retry.backoff_s", lambda *_: 0)
        changed = {name: msgspec.structs.replace(self.model(name), alias=name, **(rows or {}).get(name, {})) for name in "abcd"}
        self.snapshot = msgspec.structs.replace(
            self.snapshot, models={name: (model,) for name, model in changed.items()}, routes={route.alias: route for route in routes}
        )
        self.manager.apply(self.snapshot)
        for name in "abcd":
            self.scripts[name] = [ANSWER] * 50

    def asked(self, model: str = "r", *, explain: bool = False, **fields: Any) -> Generation:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
        request = routed(openai_chat.parse(msgspec.json.encode(body)))
        request.explain = explain
        return Generation(self.pipeline, self.manager.view, self.caller, request, self.pipeline.request_id())

    async def first(self, model: str = "r", **fields: Any) -> str:
        """Who answers."""
        generation = self.asked(model, **fields)
        assert await outcome(generation) is None
        return generation.provider_name

    @property
    def decision(self) -> choice.Decision:
        """Of the last request."""
        found = choice.read(self.sink.of(RequestEnded)[-1].decision)
        assert found is not None
        return found

    def order(self) -> str:
        return "".join(self.decision.candidates[index].alias for index in self.decision.order)


async def outcome(generation: Generation) -> GatewayError | None:
    error = None
    try:
        await generation.start()
    except GatewayError as raised:
        error = raised
    generation.end(error)
    return error


def price(micros: int, currency: str = "USD") -> tuple[PriceSpec, ...]:
    return (PriceSpec("p", currency, 0.0, None, input=micros, cached_input=0, cache_write=0, output=micros),)


# Strategies ---------------------------------------------------------------------------------------------------------


async def test_the_cheapest_for_this_request_answers_and_the_record_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"a": {"prices": price(9_000_000)}, "b": {"prices": ()}, "c": {"prices": price(2_000_000)}}
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b", "c"), strategy="cost"), rows=models)
    assert await bench.first(max_tokens=100) == "c"
    assert bench.order() == "cab"
    tokens = bench.decision.input_tokens + 100
    assert [candidate.cost_micros for candidate in bench.decision.candidates] == [9 * tokens, None, 2 * tokens]
    assert bench.decision.output_tokens == 100
    assert choice.replay(bench.sink.of(RequestEnded)[-1].decision) == bench.decision.order
    assert bench.settled_in_full()


async def test_a_price_in_a_currency_without_a_rate_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"a": {"prices": price(1, "EUR")}, "b": {"prices": price(5_000_000)}}
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b"), strategy="cost"), rows=models)
    assert await bench.first() == "b"


async def test_the_price_of_the_size_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = price(1_000_000)[0], msgspec.structs.replace(price(9_000_000)[0], min_input_tokens=1000)
    models = {"a": {"prices": (large, small)}, "b": {"prices": price(3_000_000)}}
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b"), strategy="cost"), rows=models)
    assert await bench.first() == "a"
    assert await bench.first(messages=[{"role": "user", "content": "x" * 8000}]) == "b"


async def test_the_best_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b"), strategy="quality"), rows={"b": {"quality": 90}})
    assert await bench.first() == "b"


async def test_weights_say_how_often_each_is_first_and_the_draw_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b"), strategy="weighted", weights={"a": 3}))
    for draw, expected in ((0.0, "a"), (0.74, "a"), (0.76, "b")):
        monkeypatch.setattr(bench.pipeline.rng, "random", lambda draw=draw: draw)
        assert await bench.first() == expected
        assert bench.decision.draw == draw


async def test_where_the_first_fails_the_next_of_the_order_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {name: {"prices": price(micros)} for name, micros in (("a", 3_000_000), ("b", 1_000_000), ("c", 2_000_000))}
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b", "c"), strategy="cost", fallbacks=("d",)), rows=models)
    bench.scripts["b"] = [ProviderFault("down")]
    bench.scripts["c"] = [ProviderFault("down")]
    assert await bench.first() == "a"
    assert [opened.provider_name for opened in bench.sink.of(AttemptOpened)] == ["b", "c", "a"]
    assert bench.order() == "bcad"


async def test_fallbacks_come_after_all_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a",), "d", "Later.", strategy="quality", fallbacks=("c", "b")))
    assert await bench.first() == "a"
    stages = [(stage.label, stage.strategy) for stage in bench.decision.stages]
    assert stages == [("route r", "quality"), ("fallbacks of route r", "priority"), ("last of route r", "priority")]
    assert [bench.decision.candidates[index].provider for index in bench.decision.order] == ["a", "c", "b", "d", "fixed-answer"]


async def test_what_is_paused_gives_way_and_is_tried_again_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b"), strategy="quality"), rows={"a": {"quality": 90}})
    bench.scripts["a"] = [ProviderFault("down")] * 3 + [ANSWER]
    for _ in range(3):
        assert await bench.first() == "b"
    assert bench.order() == "ab"
    assert await bench.first() == "b"
    assert bench.order() == "ba"
    assert choice.explained(bench.decision)[1].reason == "paused after failures or a limit, for another 10.0 s"
    bench.clock.advance(10)
    assert await bench.first() == "a"


async def test_the_fastest_answers_once_both_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b"), strategy="speed"))

    def takes(seconds: float) -> Any:
        async def step() -> Any:
            bench.clock.advance(seconds)
            return ANSWER

        return step

    bench.scripts["a"], bench.scripts["b"] = [takes(2)] * 9, [takes(1)] * 9
    assert [await bench.first() for _ in range(4)] == ["a", "b", "b", "b"]
    assert [candidate.expected_s for candidate in bench.decision.candidates] == [200.0, 100.0]  # 500 tokens at 5 in 2 s, or in 1 s
    bench.clock.advance(STALE_S)
    assert await bench.first() == "a"  # nobody knows any more


async def test_a_streams_first_token_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b"), strategy="speed"))

    def streamed(first_s: float, rest_s: float) -> Any:
        async def rest() -> bytes:
            bench.clock.advance(rest_s)
            return b"data: more\n\n"

        async def step() -> Any:
            bench.clock.advance(first_s)
            return Stream(b"data: x\n\n", rest)

        return step

    bench.scripts["a"], bench.scripts["b"] = [streamed(3, 1), ANSWER], [streamed(1, 1), ANSWER]
    for _ in "ab":
        generation = bench.asked(stream=True)
        await generation.start()
        while await generation.next_piece():
            pass
        generation.end(None)
    assert await bench.first(max_tokens=5) == "b"
    assert [candidate.expected_s for candidate in bench.decision.candidates] == [4.0, 2.0]


async def test_the_least_busy_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b"), strategy="least_busy"))
    bench.scripts["a"] = [Stream(b"data: x\n\n"), ANSWER]
    streaming = bench.asked(stream=True)
    await streaming.start()
    assert await bench.first() == "b"
    assert [candidate.in_flight for candidate in bench.decision.candidates] == [1, 0]
    streaming.end(None)
    assert await bench.first() == "a"
    assert bench.settled_in_full()


async def test_what_was_measured_survives_a_change_and_is_forgotten_with_its_route(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b"), strategy="speed"))
    before = bench.manager.view.targets["r"][0].vitals
    assert before is not None
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, version=8))
    assert bench.manager.view.targets["r"][0].vitals is before
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, version=9, routes={}))
    assert bench.manager.view.targets["a"][0].vitals is None


# Abilities ----------------------------------------------------------------------------------------------------------


async def test_a_call_with_tools_skips_a_model_that_failed_them(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"a": {"lacks": {"tools": "its connection test failed for tools"}}}
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b")), rows=models)
    assert await bench.first() == "a"
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert await bench.first(tools=tools) == "b"
    (rejected,) = [line for line in choice.explained(bench.decision) if line.place is None]
    assert (rejected.candidate.alias, rejected.reason) == ("a", "its connection test failed for tools")
    assert await bench.first(tools=[]) == "a"


@pytest.mark.parametrize(
    ("need", "fields"),
    [
        ("json_schema", {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}),
        ("json", {"response_format": {"type": "json_object"}}),
        (
            "images",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]},
        ),
    ],
)
async def test_so_do_json_and_images(monkeypatch: pytest.MonkeyPatch, need: str, fields: dict[str, Any]) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b")), rows={"a": {"lacks": {need: "so it is"}}})
    assert await bench.first(**fields) == "b"
    assert bench.decision.needs == (need,)
    assert await bench.first() == "a"


async def test_a_window_that_is_too_small_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"a": {"context_window": 200}, "b": {"context_window": 200, "truncate": True}}
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "c")), RouteSpec("s", ("b", "c")), rows=models)
    assert await bench.first() == "a"
    assert await bench.first(max_tokens=300) == "c"
    assert await bench.first("s", max_tokens=300) == "b"  # it is shortened for that one


# Auto ---------------------------------------------------------------------------------------------------------------


async def test_auto_goes_where_the_task_type_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = RouteSpec("words", ("c",), task_types=("translation",)), RouteSpec("poetry", ("d",)), RouteSpec("auto", ("b",))
    bench = ChoiceBench(monkeypatch, *routes)
    assert await bench.first("auto", task_type="translation") == "c"
    ended = bench.sink.of(RequestEnded)[-1]
    assert (ended.alias, ended.task_type) == ("auto", "translation")
    assert [stage.label for stage in bench.decision.stages] == ["route words", "any model this key may use"]
    assert await bench.first("auto", task_type="poetry") == "d"
    assert await bench.first("auto", task_type="unheard-of") == "b"
    assert await bench.first("auto") == "b"


async def test_auto_falls_to_any_model_that_the_key_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"d": {"priority": 1}}
    bench = ChoiceBench(monkeypatch, RouteSpec("words", ("c",), task_types=("translation",)), rows=models)
    bench.scripts["c"] = [ProviderFault("down")]
    generation = bench.asked("auto", task_type="translation")
    assert await outcome(generation) is None
    assert generation.provider_name == "d"
    assert bench.order() == "cdab"
    assert dict(generation.headers())[b"x-llm-alias"] == b"auto"


async def test_auto_reaches_no_further_than_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    route = RouteSpec("words", ("c",), task_types=("translation",))
    bench = ChoiceBench(monkeypatch, route, models=frozenset({"a", "b"}), barred=frozenset({"m-b"}))
    assert await bench.first("auto", task_type="translation") == "a"
    assert bench.order() == "a"
    nothing = ChoiceBench(monkeypatch, route, models=frozenset({"zzz"}))
    refused = await outcome(nothing.asked("auto"))
    assert isinstance(refused, InvalidRequest)
    assert refused.param == "model"


async def test_auto_looks_at_paused_models_last_and_not_at_more_than_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch)
    many = {f"x{number:02}": (msgspec.structs.replace(bench.model("b"), id=f"x{number}", alias=f"x{number:02}"),) for number in range(30)}
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, models={**many, **bench.snapshot.models}))
    bench.scripts["a"] = [ProviderFault("down")] * 3
    for _ in range(3):
        await outcome(bench.asked("a"))
    assert await bench.first("auto") == "b"
    names = [candidate.alias for candidate in bench.decision.candidates]
    assert len(names) == 10
    assert "a" not in names


async def test_a_stand_in_of_the_route_comes_after_any_other_model(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("auto", ("a",), "", "Later."))
    assert await bench.first("auto") == "a"
    assert [bench.decision.candidates[index].provider for index in bench.decision.order] == ["a", "b", "c", "d", "fixed-answer"]


async def test_a_plain_name_costs_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a",)))
    monkeypatch.setattr("gateway.choice.chosen", lambda *_: 1 / 0)
    assert await bench.first("b", task_type="translation") == "b"
    ended = bench.sink.of(RequestEnded)[-1]
    assert (ended.decision, ended.task_type) == ("", "translation")


# Several names ------------------------------------------------------------------------------------------------------


async def test_the_names_of_the_request_are_tried_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("c",), "", "Later."))
    bench.scripts["b"] = [ProviderFault("down")]
    bench.scripts["c"] = [ProviderFault("down")]
    assert await bench.first("b", models=["r", "a", "b"]) == "a"
    assert [bench.decision.candidates[index].provider for index in bench.decision.order] == ["b", "c", "a", "fixed-answer"]


@pytest.mark.parametrize(("names", "error", "param"), [(["nowhere"], UnknownModel, "models[0]"), (["a", "d"], NotPermitted, "models[1]")])
async def test_a_name_that_cannot_be_is_named_by_its_place(
    monkeypatch: pytest.MonkeyPatch, names: list[str], error: type[GatewayError], param: str
) -> None:
    bench = ChoiceBench(monkeypatch, models=frozenset({"a", "b"}))
    refused = await outcome(bench.asked("b", models=names))
    assert isinstance(refused, error)
    assert refused.param == param
    assert bench.settled_in_full()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"models": "a"}, "models"),
        ({"models": [7]}, "models"),
        ({"models": [""]}, "models"),
        ({"models": [f"m{number}" for number in range(11)]}, "models"),
        ({"task_type": ""}, ""),
        ({"task_type": None, "models": None}, ""),
        ({"task_type": 7}, "task_type"),
        ({"task_type": "two words"}, "task_type"),
        ({"task_type": "x" * 61}, "task_type"),
    ],
)
def test_what_the_two_fields_may_hold(fields: dict[str, Any], param: str) -> None:
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields})
    if param:
        with pytest.raises(InvalidRequest) as refused:
            routed(openai_chat.parse(body))
        assert refused.value.param == param
    else:
        request = routed(openai_chat.parse(body))
        assert (request.task_type, request.fallbacks) == ("", ())
        assert not {"task_type", "models"} & set(request.fields)


# In the answer's headers --------------------------------------------------------------------------------------------


async def test_the_header_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b"), strategy="quality"))
    generation = bench.asked(explain=True)
    assert await outcome(generation) is None
    assert dict(generation.headers())[b"x-llm-explain"] == b"1. a at a (quality: quality 50 of 100); 2. b at b (quality: quality 50 of 100)"
    plain = bench.asked("a", explain=True)
    assert await outcome(plain) is None
    assert dict(plain.headers())[b"x-llm-explain"] == b"named by the request: a at a"
    assert b"x-llm-explain" not in dict(bench.asked().headers())


async def test_what_is_stored_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a",), "", "Later."))
    long = "é" * 190
    many = tuple(msgspec.structs.replace(bench.model("a"), id=f"x{number}", alias=long, model_id=long) for number in range(60))
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, models={"a": many}))
    assert await bench.first() == "a"
    text = bench.sink.of(RequestEnded)[-1].decision
    assert len(bench.decision.candidates) == choice.MAX_CANDIDATES - 7
    assert bench.decision.candidates[-1].provider == "fixed-answer"
    assert len(text.encode()) < 16_384
