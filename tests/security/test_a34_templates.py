"""A34: prompt templates hold no code and values hold no template. Compared with an independent reference of a few lines."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidRequest
from models_registry.prompt_building import Said, build
from models_registry.prompts import TemplateRefused, read_version

REPOSITORY = Path(__file__).parents[2]
_ENGINES = ("format", "format_map", "eval", "exec", "safe_substitute", "mark_safe")
HOSTILE = (
    *("{{ ''.__class__.__mro__ }}", "{{ x|attr('format') }}", "{% include '/etc/passwd' %}", "{% debug %}", "{0.__class__}"),
    *("{x!r:>1000000000}", "{{y}}", "{{x}}", "${x}", "<%= 7*7 %>", "#{7*7}", "{{7*7}}", "{{ x.__init__.__globals__ }}", "{{x[0]}}"),
    *(
        "{{config}}",
        "{{self}}",
        "{{ range(10**9) }}",
        "{# x #}",
        "%(x)s",
        "%n%n%n",
        "{{{{x}}}}",
        "{{'{{'}}",
        '{{"{{"}}x}}',
        "{{x}}{{y}}" * 5,
    ),
)
DECLARED = [{"name": "x", "max_characters": 10_000}, {"name": "y", "required": False, "default": "why"}]
_PLAIN = ("{{x}}", "{{y}}", "{{ x }}", '{{"{{"}}', "{", "}", "}}", "{x}", "{% x %}", '"', "\\", " ", "\n", "é", "x")
WORDS = st.sampled_from([*_PLAIN, *HOSTILE])
VALUES = st.one_of(st.text(max_size=50), st.lists(WORDS, max_size=6).map("".join))


def reference(template: str, values: dict[str, str]) -> str | None:
    """Letter by letter, with nothing of the product's. None = it is no template."""
    out, at = "", 0
    while at < len(template):
        if template[at : at + 2] != "{{":
            out, at = out + template[at], at + 1
            continue
        inside = template[at + 2 :].lstrip(" \t")
        if inside.startswith('"{{"'):
            put, rest = "{{", inside[4:]
        else:
            name = ""
            while inside[len(name) : len(name) + 1] in set(string.ascii_letters + string.digits + "_"):
                name += inside[len(name)]
            if not name or name[0] in string.digits or len(name) > 60 or name not in values:
                return None
            put, rest = values[name], inside[len(name) :]
        rest = rest.lstrip(" \t")
        if not rest.startswith("}}"):
            return None
        out, at = out + put, len(template) - len(rest) + 2
    return out


def rendered(template: str, values: dict[str, Any], *, limit: int = 1_000_000) -> str | None:
    """None = refused when it is written. Names of DECLARED that the template does not use are not declared."""
    used = [each for each in DECLARED if re.search(r"\{\{[ \t]*" + str(each["name"]) + r"[ \t]*\}\}", template)]
    try:
        version = read_version(1, [{"role": "user", "content": f".{template}"}], used, None)
    except TemplateRefused:
        return None
    names = {str(each["name"]) for each in used}
    built = build(version, {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items() if name in names}, None, limit)
    (said,) = built.messages
    assert isinstance(said, Said)
    return said.content[1:]


@settings(deadline=None, max_examples=200)
@given(st.lists(WORDS, max_size=8).map("".join), VALUES, VALUES)
def test_it_does_what_a_reference_of_twenty_lines_does(template: str, x: str, y: str) -> None:
    assert rendered(template, {"x": x, "y": y}) == reference(template, {"x": x, "y": y})


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet='{}"xy \t%\\', max_size=40), VALUES)
def test_of_braces_and_quotes_in_any_order_too(template: str, x: str) -> None:
    assert rendered(template, {"x": x, "y": "{{x}}"}) == reference(template, {"x": x, "y": "{{x}}"})


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_text_whatever_it_says(value: str) -> None:
    assert rendered("<{{x}}|{{y}}>", {"x": value, "y": value}) == f"<{value}|{value}>"


@pytest.mark.parametrize("template", HOSTILE)
def test_a_template_is_literal_or_refused(template: str) -> None:
    found = rendered(template, {"x": "X", "y": "Y"})
    assert found is None or "{{" not in template or set(re.findall(r"\{\{.*?\}\}", template)) <= {"{{x}}", "{{y}}", '{{"{{"}}'}
    if "{{" not in template:
        assert found == template


def test_nothing_is_built_that_is_longer_than_the_bound() -> None:
    with pytest.raises(InvalidRequest) as refused:
        rendered("{{x}}" * 10_000, {"x": "a" * 10_000}, limit=1_000_000)
    assert "100,000,0" in refused.value.message


def test_braces_without_end_are_read_once() -> None:
    """Work that grows with the square of the length would take minutes here."""
    for template in ("{{" * 49_000, "{{ " * 33_000, "{{" + " " * 99_000, "{{x" * 33_000, '{{"' * 33_000):
        assert rendered(template, {}) is None
    assert rendered("}" * 90_000 + "{", {}) == "}" * 90_000 + "{"


def test_no_engine_is_anywhere_near() -> None:
    """No Jinja, no Django templates, no `format` of a text that is not in the code, nothing that marks text as safe."""
    paths = [*(REPOSITORY / "models_registry").glob("prompt*.py"), REPOSITORY / "gateway/prompting.py", REPOSITORY / "core/prompts.py"]
    assert len(paths) >= 9
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [module for module in modules if re.match(r"jinja2|django\.template$|string$|mako", module)], path
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                assert name not in _ENGINES, f"{path.name}:{node.lineno}"
