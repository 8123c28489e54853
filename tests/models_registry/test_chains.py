"""What a route's chain may be, by its one judge."""

from __future__ import annotations

import pytest

from core.config import RouteSpec
from models_registry import chains

TYPES = {
    "big": {"chat"},
    "other": {"chat", "completion"},
    "small": {"chat"},
    "vectors": {"embedding"},
    "rank": {"rerank"},
    "both": {"chat", "embedding"},
}
MANY = tuple(f"m{number}" for number in range(chains.MAX_TARGETS + 1))


@pytest.mark.parametrize(
    "spec",
    [
        RouteSpec("r", ("big",)),
        RouteSpec("r", ("big", "other"), "small", "Later."),
        RouteSpec("big", ("big",)),
        RouteSpec("r", ("vectors",)),
        RouteSpec(
            "r",
            ("big",),
            "small",
            strategy="weighted",
            weights={"big": 1000},
            fallbacks=("other",),
            task_types=("translation", "a/b.c:d_e-f"),
        ),
        RouteSpec("r", MANY[:-1]),
        RouteSpec("r", ("big",), fixed_answer="x" * chains.MAX_FIXED_ANSWER_CHARACTERS),
    ],
)
def test_chains_that_work(spec: RouteSpec) -> None:
    assert chains.refusals(spec, {**TYPES, **{name: {"chat"} for name in MANY}}) == {}


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        (RouteSpec("r", ()), "targets", "at least one"),
        (RouteSpec("r", (), fixed_answer="Later."), "targets", "at least one"),
        (RouteSpec("r", ("big", "r")), "targets", "'r'. A route leads to models"),
        (RouteSpec("r", ("",)), "targets", "No model has the alias"),
        (RouteSpec("r", ("big", "small", "big")), "targets", "Named twice: 'big'"),
        (RouteSpec("r", MANY), "targets", "at most 10"),
        (RouteSpec("r", ("big", "vectors")), "targets", "one kind"),
        (RouteSpec("r", ("both",)), "targets", "one kind"),
        (RouteSpec("r", ("rank",)), "targets", "'rerank'"),
        (RouteSpec("r", ("big",), "nowhere"), "degrade_to", "'nowhere'"),
        (RouteSpec("r", ("big",), "r"), "degrade_to", "never to another route"),
        (RouteSpec("r", ("big",), "big"), "degrade_to", "tried already"),
        (RouteSpec("r", ("big",), "vectors"), "degrade_to", "not of their type"),
        (RouteSpec("r", ("vectors",), "small"), "degrade_to", "not of their type"),
        (RouteSpec("r", ("big",), "rank"), "degrade_to", "not of their type"),
        (RouteSpec("r", ("big",), strategy="odd"), "strategy", "priority, weighted, cost"),
        (RouteSpec("r", ("big",), weights={"small": 1}), "weights", "'small' is none of them"),
        (RouteSpec("r", ("big",), weights={"big": 0}), "weights", "1 to 1,000 for 'big'"),
        (RouteSpec("r", ("big",), fallbacks=("big",)), "fallbacks", "Tried already"),
        (RouteSpec("r", ("big",), fallbacks=("other", "other")), "fallbacks", "Named twice"),
        (RouteSpec("r", ("big",), fallbacks=("r",)), "fallbacks", "never to another route"),
        (RouteSpec("r", ("big",), fallbacks=("vectors",)), "fallbacks", "do not stand in"),
        (RouteSpec("r", ("big",), "small", fallbacks=("small",)), "degrade_to", "one of the fallbacks"),
        (RouteSpec("r", ("big",), task_types=("a b",)), "task_types", "'a b'"),
        (RouteSpec("r", ("big",), task_types=("a", "a")), "task_types", "Named twice"),
        (RouteSpec("r", ("big",), fixed_answer="x" * 4001), "fixed_answer", "at most 4,000"),
        (RouteSpec("r", ("big",), fixed_answer=" \n"), "fixed_answer", "says something"),
        (RouteSpec("r", ("vectors",), fixed_answer="Later."), "fixed_answer", "no embedding"),
    ],
)
def test_chains_that_cannot_work_name_the_field(spec: RouteSpec, field: str, words: str) -> None:
    found = chains.refusals(spec, TYPES)
    assert set(found) == {field}
    assert words in found[field]


@pytest.mark.parametrize("targets", [None, "big", {"big": 1}, ["big", 7], [["big"]]])
def test_targets_are_a_list_of_texts(targets: object) -> None:
    with pytest.raises(ValueError, match="list of aliases"):
        chains.spec_of("r", targets, "", "")


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"weights": ["big"]}, "weights"),
        ({"weights": {"big": "3"}}, "weights"),
        ({"weights": {"big": True}}, "weights"),
        ({"fallbacks": "big"}, "fallbacks"),
        ({"task_types": [7]}, "task_types"),
    ],
)
def test_the_other_columns_hold_what_they_should(columns: dict[str, object], field: str) -> None:
    with pytest.raises(chains.Malformed) as refused:
        chains.spec_of("r", ["big"], "", "", **columns)  # type: ignore[arg-type]
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (RouteSpec("r", ("big",)), "big"),
        (RouteSpec("r", ("big",), "small"), "big; if it does not answer, the smaller small"),
        (RouteSpec("r", ("big", "other"), strategy="cost"), "the cheapest of big, other"),
        (RouteSpec("r", ("big",), fallbacks=("other", "small")), "big; if it does not answer, other, then small"),
        (
            RouteSpec("r", ("big", "other"), "small", "Later."),
            "big, then other; if none of them answers, the smaller small; after that a fixed answer",
        ),
    ],
)
def test_a_chain_reads_in_plain_words(spec: RouteSpec, sentence: str) -> None:
    assert "; ".join(chains.steps_of(spec)) == sentence
