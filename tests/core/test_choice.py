"""The pure choice between models: orders, reasons, replays, and what chance does in the long run."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import choice
from core.choice import Candidate, Decision, Stage, decided, explained, in_short, read, rejection, replay, stored


def one(alias: str, stage: int = 0, **facts: Any) -> Candidate:
    return Candidate(stage, alias, f"provider-{alias}", f"vendor-{alias}", **facts)


def facts(strategy: str, *candidates: Candidate, stages: tuple[Stage, ...] = (), draw: float = 0.0, most_tokens: int = 100) -> Decision:
    stages = stages or (Stage("route r", strategy),)
    return Decision("r", "", stages, (), 50, 50, most_tokens, draw, "USD", candidates)


def order(strategy: str, *candidates: Candidate, **more: Any) -> str:
    decision = decided(facts(strategy, *candidates, **more))
    return "".join(decision.candidates[index].alias for index in decision.order)


# Strategies ---------------------------------------------------------------------------------------------------------


def test_priority_keeps_the_order_even_of_what_is_paused() -> None:
    assert order("priority", one("b", paused_s=9.0), one("a"), one("c", quality=99)) == "bac"


def test_cost_takes_the_cheapest_first_and_no_unknown_price_for_a_low_one() -> None:
    assert order("cost", one("a", cost_micros=None), one("b", cost_micros=30), one("c", cost_micros=0), one("d", cost_micros=30)) == "cbda"


def test_speed_takes_the_fastest_and_finds_out_about_those_that_are_idle() -> None:
    measured = one("a", expected_s=2.0), one("b", expected_s=1.0)
    assert order("speed", *measured) == "ba"
    assert order("speed", *measured, one("c")) == "cba"
    assert order("speed", *measured, one("c", in_flight=1)) == "bac"


def test_quality_takes_the_best_and_keeps_equals_as_listed() -> None:
    assert order("quality", one("a", quality=50), one("b", quality=90), one("c", quality=50)) == "bac"


def test_least_busy_takes_the_fewest_calls_in_flight() -> None:
    assert order("least_busy", one("a", in_flight=2), one("b", in_flight=0), one("c", in_flight=1)) == "bca"


@pytest.mark.parametrize("strategy", choice.STRATEGIES[1:])
def test_what_is_paused_is_asked_last_of_its_stage(strategy: str) -> None:
    better = {"quality": 99, "cost_micros": 1, "expected_s": 0.1, "weight": 1000}
    worse = {"quality": 1, "cost_micros": 9, "expected_s": 9.0, "in_flight": 7}
    assert order(strategy, one("a", paused_s=3.0, **better), one("b", **worse)) == "ba"


def test_the_draw_says_which_alias_is_first_and_its_models_stay_together() -> None:
    two = one("a", weight=3), one("a", weight=3), one("b")
    assert order("weighted", *two, draw=0.0) == "aab"
    assert order("weighted", *two, draw=0.74) == "aab"
    assert order("weighted", *two, draw=0.76) == "baa"
    assert order("weighted", *two, draw=1 - 2**-53) == "baa"


def test_stages_come_one_after_the_other_whatever_their_strategies() -> None:
    stages = Stage("route r", "cost"), Stage("fallbacks of route r"), Stage("last of route r", "priority", True)
    candidates = one("c", 1, cost_micros=0), one("a", cost_micros=9), one("b", cost_micros=1), one("d", 2), one("e", 1)
    assert order("", *candidates, stages=stages) == "baced"


# What cannot take the request ---------------------------------------------------------------------------------------


def test_the_doubted_come_after_the_others_and_before_those_that_stand_in() -> None:
    stages = (Stage("first"), Stage("then", "quality"), Stage("last", stands_in=True))
    made = [one("a", doubted=True), one("b"), one("c", 1, quality=90, doubted=True), one("d", 1), one("e", 1, quality=80), one("f", 2)]
    assert order("", *made, stages=stages) == "bedacf"


def test_a_decision_that_was_stored_before_there_were_doubts_reads_as_one_without() -> None:
    decision = decided(facts("priority", one("a"), one("b")))
    raw = msgspec.json.decode(stored(decision))
    raw[9] = [candidate[:-1] for candidate in raw[9]]
    assert read(msgspec.json.encode(raw).decode()) == decision


def test_a_model_that_lacks_something_or_has_no_room_is_rejected_with_the_reason() -> None:
    decision = decided(facts("priority", one("a", lacks="its connection test failed for tools"), one("b", window=99), one("c", window=100)))
    assert decision.order == (2,)
    chosen, no_tools, no_room = explained(decision)
    assert (chosen.place, chosen.candidate.alias, chosen.reason) == (1, "c", "as listed")
    assert (no_tools.place, no_tools.reason) == (None, "its connection test failed for tools")
    assert (no_room.place, no_room.reason) == (None, "its window of 99 tokens is too small for about 100")


def test_where_nothing_else_is_left_the_vendors_judge_before_a_stand_in_is_asked() -> None:
    stages = Stage("route r"), Stage("last of route r", "priority", True)
    decision = decided(facts("", one("a", lacks="no tools"), one("b", 1), stages=stages))
    assert decision.order == (0, 1)
    assert explained(decision)[0].reason == "no tools; asked all the same, for nothing else is there"


def test_every_order_has_its_reason() -> None:
    for strategy, words in (
        ("priority", "as listed"),
        ("weighted", "drawn with a weight of 1"),
        ("cost", "0.000007 USD for about 50 tokens in and 50 out"),
        ("speed", "expected to take 1.50 s"),
        ("quality", "quality 50 of 100"),
        ("least_busy", "4 calls in flight"),
    ):
        decision = decided(facts(strategy, one("a", cost_micros=7, expected_s=1.5, in_flight=4)))
        assert explained(decision)[0].reason == words
    unknown = {"cost": "its price is not known", "speed": "not measured lately, and busy"}
    for strategy, words in unknown.items():
        assert explained(decided(facts(strategy, one("a", in_flight=1))))[0].reason == words


def test_a_header_says_it_in_one_line_of_bounded_length() -> None:
    decision = decided(facts("cost", one("a", cost_micros=7), one("b", lacks="no tools")))
    assert in_short(decision) == (
        "1. a at provider-a (cost: 0.000007 USD for about 50 tokens in and 50 out); not b at provider-b: no tools"
    )
    assert len(in_short(decided(facts("cost", *(one(f"model-{number}") for number in range(32)))))) == 1000


# Replays ------------------------------------------------------------------------------------------------------------

_text = st.text(max_size=12)
_candidates = st.builds(
    Candidate,
    stage=st.integers(0, 2),
    alias=st.sampled_from(["a", "b", "c", "d", "é\0", '"']),
    provider=_text,
    model=_text,
    lacks=st.sampled_from(["", "", "", "no tools"]),
    window=st.sampled_from([0, 0, 50, 1000]),
    paused_s=st.sampled_from([0.0, 0.0, 1.5]),
    weight=st.integers(1, 1000),
    quality=st.integers(0, 100),
    cost_micros=st.none() | st.integers(0, 10**12),
    expected_s=st.none() | st.floats(0, 1e6, allow_nan=False),
    in_flight=st.integers(0, 5),
    doubted=st.booleans(),
)
_decisions = st.builds(
    Decision,
    asked=_text,
    task_type=_text,
    stages=st.tuples(*[st.builds(Stage, _text, st.sampled_from(choice.STRATEGIES), st.just(last)) for last in (False, False, True)]),
    needs=st.just(("tools",)),
    input_tokens=st.integers(0, 10**6),
    output_tokens=st.integers(0, 10**6),
    most_tokens=st.integers(0, 2000),
    draw=st.floats(0, 1, exclude_max=True),
    currency=st.just("USD"),
    candidates=st.lists(_candidates, max_size=choice.MAX_CANDIDATES).map(tuple),
)


@given(_decisions)
def test_a_stored_decision_replayed_gives_the_same_choice(made: Decision) -> None:
    decision = decided(made)
    text = stored(decision)
    assert replay(text) == decision.order
    assert read(text) == decision
    forged = msgspec.structs.replace(decision, order=tuple(reversed(decision.order)))
    assert replay(stored(forged)) == decision.order


@given(_decisions)
def test_every_candidate_is_either_asked_once_or_rejected_with_a_reason(made: Decision) -> None:
    decision = decided(made)
    lines = explained(decision)
    assert sorted(decision.order) == sorted(set(decision.order))
    assert len(lines) == len(decision.candidates)
    assert all(line.reason for line in lines)
    asked = [decision.candidates[index] for index in decision.order]
    places = [(decision.stages[each.stage].stands_in, each.doubted, each.stage) for each in asked]
    assert places == sorted(places)
    usual = [index for index in decision.order if decision.candidates[index].stage < 2]
    fit = [index for index in usual if not rejection(decision.candidates[index], decision)]
    assert not fit or fit == usual


def test_what_is_no_decision_reads_as_none() -> None:
    assert [read(text) for text in ("", "{}", "[1]", "nonsense")] == [None] * 4


# Shares -------------------------------------------------------------------------------------------------------------


def test_in_the_long_run_each_alias_is_first_as_often_as_its_weight_says() -> None:
    """20 000 draws of a seeded chance: within five standard deviations, and the same in every run."""
    weights, rng, calls = {"a": 70, "b": 20, "c": 10}, random.Random(20260), 20_000
    first, second_after_a = Counter[str](), Counter[str]()
    for _ in range(calls):
        found = order("weighted", *(one(alias, weight=weight) for alias, weight in weights.items()), draw=rng.random())
        first[found[0]] += 1
        if found[0] == "a":
            second_after_a[found[1]] += 1
    for alias, weight in weights.items():
        share = weight / 100
        assert abs(first[alias] / calls - share) < 5 * (share * (1 - share) / calls) ** 0.5
    # Where the first fails, the others share what it had as their own weights say.
    assert abs(second_after_a["b"] / first["a"] - 2 / 3) < 5 * (2 / 9 / first["a"]) ** 0.5


def test_a_paused_alias_leaves_its_share_to_the_others() -> None:
    rng = random.Random(7)
    candidates = one("a", weight=98, paused_s=1.0), one("b"), one("c")
    first = Counter(order("weighted", *candidates, draw=rng.random())[0] for _ in range(2000))
    assert first["a"] == 0
    assert abs(first["b"] - 1000) < 5 * 500**0.5


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("translation", True),
        ("a", True),
        ("a.b_c:d/e-9", True),
        ("x" * 60, True),
        ("x" * 61, False),
        ("", False),
        (" a", False),
        ("-a", False),
        ("a\n", False),
    ],
)
def test_what_a_task_type_may_be_called(name: str, is_one: bool) -> None:
    assert choice.is_task_type(name) == is_one
