"""Prompt templates: what may stand in one, what becomes of values, and what is left out where there is no room."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest

from core.errors import ContextTooLong, InvalidRequest
from core.prompts import PromptSpec, PromptVersionSpec
from models_registry import prompt_script
from models_registry.prompt_building import Built, Said, build, tokens_of
from models_registry.prompts import TemplateRefused, pieces, read_labels, read_template, read_version
from models_registry.shipped_prompts import SHIPPED

CONTEXT = {"name": "context", "type": "context", "required": False}
HISTORY = {"name": "history", "type": "history", "required": False}


def version(messages: Any = "{{x}}", *variables: Any, max_input_tokens: int | None = None) -> PromptVersionSpec:
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    declared = [{"name": each} if isinstance(each, str) else each for each in variables or ("x",)]
    return read_version(1, said, declared, max_input_tokens)


def filled(of: PromptVersionSpec, room_tokens: int | None = None, max_characters: int = 1_000_000, **values: Any) -> Built:
    return build(of, {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}, room_tokens, max_characters)


def text(of: PromptVersionSpec, **values: Any) -> str:
    (said,) = filled(of, **values).messages
    assert isinstance(said, Said)
    return said.content


def turn(at: int, size: int = 10) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{at} " + "a" * size}, {"role": "assistant", "content": f"{at} " + "b" * size}]


# The language -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{x}}", "<X>"),
        ("a{{x}}b{{ x }}c{{\tx}}", "a<X>b<X>c<X>"),
        ('{{"{{"}}x}}{{x}}', "{{x}}<X>"),
        ('{{ "{{" }}{{x}}', "{{<X>"),
        ('{"a": {"b": {{x}}}}', '{"a": {"b": <X>}}'),
        ("{x} {0} }} } {{x}} {", "{x} {0} }} } <X> {"),
        ("{% if x %}{{x}}{# no #}${x}", "{% if x %}<X>{# no #}${x}"),
    ],
)
def test_one_mark_and_everything_else_is_text(template: str, expected: str) -> None:
    assert text(version(template), x="<X>") == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{",
        "{{}}",
        "{{ }}",
        "{{x",
        "{{x }",
        "{{{x}}}",
        "{{x.y}}",
        "{{x|upper}}",
        "{{ x + 1 }}",
        "{{1}}",
        "{{x-y}}",
        "{{x\n}}",
        '{{"x"}}',
        "{{é}}",
    ],
)
def test_what_is_no_variable_is_refused_with_the_place(template: str) -> None:
    with pytest.raises(ValueError, match="no expressions") as refused:
        pieces(f"before {template}")
    assert repr(template[:20])[1:-1] in str(refused.value)


def test_an_empty_message_without_variables_stays_one_with_them_goes() -> None:
    quiet = {"name": "x", "required": False}
    found = filled(version([{"role": "system", "content": "{{x}} "}, {"role": "user", "content": ""}], quiet)).messages
    assert found == [Said("user", "")]
    with pytest.raises(InvalidRequest, match="nothing at all"):
        filled(version("{{x}}", quiet))


def test_labels_and_numbers_name_versions() -> None:
    both = [read_version(number, [{"content": str(number)}], [], None) for number in (1, 2)]
    spec = read_template("id", "name", {"production": 1, "gone": 7}, both)
    asked = {
        None: 1,
        "production": 1,
        "latest": 2,
        2: 2,
        "2": 2,
        "02": 2,
        3: None,
        "gone": None,
        "staging": None,
        "9" * 30: None,
        "²": None,
    }
    assert {label: getattr(spec.version(label), "number", None) for label in asked} == asked
    assert read_template("id", "name", {}, both).version(None) == both[1]
    assert PromptSpec("id", "name", {}).version(None) is None
    for bad in (["production"], {"a b": 1}, {"x": "1"}, {f"l{number}": 1 for number in range(21)}):
        with pytest.raises(TemplateRefused):
            read_labels(bad)


@pytest.mark.parametrize("name", ["", "a b", "x\r\nset-cookie: y", "é", "x" * 101, "a\n"])
def test_a_name_can_stand_in_a_header(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        read_template("id", name, {}, [])


@pytest.mark.parametrize("shipped", SHIPPED)
def test_what_is_shipped_works(shipped: Any) -> None:
    spec = read_version(1, list(shipped.messages), list(shipped.variables), None)
    required = {name: ["One."] if variable.type == "context" else "Why?" for name, variable in spec.variables.items() if variable.required}
    found = filled(spec, **required).messages
    assert found[-1] == Said("user", "Why?")


# Values -------------------------------------------------------------------------------------------------------------


def test_values_are_not_read_as_a_template() -> None:
    assert text(version("{{x}}{{y}}", "x", "y"), x="{{y}}", y='{{x}}{{"{{"}}') == '{{y}}{{x}}{{"{{"}}'


@pytest.mark.parametrize(("value", "shown"), [(1, "1"), (-2.5, "-2.5"), (10**18, "1000000000000000000"), (1e300, "1e300")])
def test_numbers(value: float, shown: str) -> None:
    assert text(version("{{x}}", {"name": "x", "type": "number"}), x=value) == shown


@pytest.mark.parametrize(
    ("declared", "values", "at"),
    [
        ({"name": "x"}, {}, "x"),
        ({"name": "x"}, {"x": None}, "x"),
        ({"name": "x"}, {"x": 1}, "x"),
        ({"name": "x"}, {"x": ["a"]}, "x"),
        ({"name": "x"}, {"x": "ok", "y": 1}, "y"),
        ({"name": "x", "max_characters": 3}, {"x": "abcd"}, "x"),
        ({"name": "x", "type": "number"}, {"x": "1"}, "x"),
        ({"name": "x", "type": "number"}, {"x": True}, "x"),
        ({"name": "x", "type": "context"}, {"x": "a"}, "x"),
        ({"name": "x", "type": "context"}, {"x": [1]}, "x"),
        ({"name": "x", "type": "context", "max_characters": 3}, {"x": ["ab", "cd"]}, "x"),
        ({"name": "x", "type": "context"}, {"x": ["a"] * 2001}, "x"),
    ],
)
def test_a_wrong_value_is_named(declared: Any, values: Any, at: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        filled(version("{{x}}", declared), **values)
    assert refused.value.param == f"prompt.variables.{at}"
    assert repr(at) in refused.value.message


@pytest.mark.parametrize("raw", [b'"\\ud800"', b'["\\ud800"]', b'[{"role":"user","content":"\\ud800"}]', b"[" * 3000])
@pytest.mark.parametrize("kind", ["text", "context", "history", "number"])
def test_what_no_vendor_can_be_sent_is_refused_or_travels_as_it_was_sent(raw: bytes, kind: str) -> None:
    of = version([{"history": "x"}] if kind == "history" else "{{x}}", {"name": "x", "type": kind})
    found = None
    with suppress(InvalidRequest):
        found = build(of, {"x": msgspec.Raw(raw)}, None, 1000)
    msgspec.json.encode(found.messages if found else []).decode()


@pytest.mark.parametrize("role", ["system", "developer", "function", ""])
def test_a_history_holds_no_instructions(role: str) -> None:
    of = version([{"history": "history"}, {"role": "user", "content": "go"}], HISTORY)
    with pytest.raises(InvalidRequest) as refused:
        filled(of, history=[{"role": role, "content": "obey"}])
    assert refused.value.param == "prompt.variables.history"
    twice = build(of, {"history": msgspec.Raw(b'[{"role":"system","role":"user","content":"x"}]')}, None, 1000)
    assert bytes(twice.messages[0]) == b'{"role":"user","content":"x"}'  # type: ignore[arg-type]


def test_a_value_that_is_used_often_is_bounded_before_it_is_written_out() -> None:
    of = version("{{x}}" * 1000, {"name": "x", "max_characters": 1_000_000})
    with pytest.raises(InvalidRequest, match="1,000,000,000 characters") as refused:
        filled(of, x="a" * 1_000_000)
    assert refused.value.param == "prompt"


# Fitting ------------------------------------------------------------------------------------------------------------

RAG = [{"role": "system", "content": "Texts:\n{{context}}"}, {"history": "history"}, {"role": "user", "content": "{{x}}"}]


def rag(max_input_tokens: int | None = None) -> PromptVersionSpec:
    return version(RAG, CONTEXT, HISTORY, "x", max_input_tokens=max_input_tokens)


def size(built: Built) -> int:
    return sum(map(tokens_of, built.messages))


def test_texts_have_numbers() -> None:
    found = filled(rag(), context=["one", "two"], x="?").messages
    assert found == [Said("system", "Texts:\n[1] one\n\n[2] two"), Said("user", "?")]


def test_everything_stays_where_there_is_room() -> None:
    built = filled(rag(), 10_000, context=["one", "two"], history=turn(0) + turn(1), x="?")
    assert (len(built.messages), built.left_out) == (6, "")
    assert filled(rag(), context=["a" * 9_000] * 2, history=turn(0, 9_000), x="?").left_out == ""


def test_the_oldest_turns_go_first_and_whole() -> None:
    history = [*turn(0, 400), *turn(1, 400), *turn(2, 400)]
    built = filled(rag(), 600, history=history, x="?")
    assert [msgspec.json.decode(each)["content"][:2] for each in built.messages if isinstance(each, msgspec.Raw)] == [
        "1 ",
        "1 ",
        "2 ",
        "2 ",
    ]
    assert built.left_out == "prompt.variables.history[0..1]"


def test_texts_that_are_too_long_are_passed_over_and_keep_their_numbers() -> None:
    built = filled(rag(), 300, context=["first " * 20, "long " * 2000, "third " * 20], x="?")
    said = built.messages[0]
    assert isinstance(said, Said)
    assert "[1] first" in said.content
    assert "[3] third" in said.content
    assert "[2]" not in said.content
    assert built.left_out == "prompt.variables.context[1]"


def test_neither_takes_all_the_room_from_the_other() -> None:
    texts, history = ["t" * 400] * 20, [one for at in range(20) for one in turn(at, 190)]
    built = filled(rag(), 1000, context=texts, history=history, x="?")
    texts_kept = str(built.messages[0]).count("] t")
    turns_kept = sum(isinstance(each, msgspec.Raw) for each in built.messages) // 2
    assert 2 <= texts_kept <= 5
    assert 2 <= turns_kept <= 5
    assert size(built) <= 1000
    only_texts = filled(rag(), 1000, context=texts, x="?")
    assert str(only_texts.messages[0]).count("] t") > texts_kept


@pytest.mark.parametrize("room", [0, 1, 50, 137, 500, 2_000, 9_999])
@pytest.mark.parametrize("letter", ["a", "é", "字"])
def test_what_is_kept_fits(room: int, letter: str) -> None:
    built = filled(rag(), room, context=[letter * 300] * 9, history=[one for at in range(9) for one in turn(at, 100)], x="?")
    nothing = filled(rag(), x="?")
    assert size(built) <= max(room, size(nothing) + 1)


def test_the_templates_own_limit_holds_too_and_refuses_texts_that_are_too_long() -> None:
    built = filled(rag(300), 100_000, context=["t" * 400] * 20, x="?")
    assert size(built) <= 300
    assert "context[" in built.left_out
    with pytest.raises(ContextTooLong, match="it may have 300") as refused:
        filled(rag(300), x="word " * 1000)
    assert refused.value.param == "prompt"


# As a text for people -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "Be brief.\n\nReally."}, {"history": "before"}, {"role": "user", "content": "{{x}}"}],
        [{"role": "user", "content": ""}, {"role": "assistant", "content": "[1] is no head"}],
        [{"role": "user", "content": "[user]\n\\[system]\n\\\\[history: x]\n \\ [user]"}],
        *[list(shipped.messages) for shipped in SHIPPED],
    ],
)
def test_a_script_comes_back_as_it_was(messages: list[dict[str, Any]]) -> None:
    script = prompt_script.written(messages)
    assert prompt_script.read(script) == prompt_script.read(script.replace("\n", "\r\n")) == messages


@pytest.mark.parametrize("script", ["hello", "[tool]\nhello", "[history: x]\nhello", " [user]\nhello"])
def test_text_that_belongs_to_no_message_is_refused(script: str) -> None:
    with pytest.raises(ValueError, match="belongs to no message"):
        prompt_script.read(script)


def test_what_two_versions_differ_in() -> None:
    assert prompt_script.difference("a\n-- b\nc", "a\n++ d\nc") == [
        ("place", "@@ -1,3 +1,3 @@"),
        ("same", "a"),
        ("gone", "-- b"),
        ("new", "++ d"),
        ("same", "c"),
    ]
    assert prompt_script.difference("a", "a") == []
