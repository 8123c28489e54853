"""docs/configuration.md is about the settings as they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from llmcontrol import seeds

ROOT = Path(__file__).resolve().parents[2]
# Read before Environment exists, so not by one of its methods.
READ_DIRECTLY = {"LLM_STATE_DIR"}


def variables_read() -> dict[str, list[str]]:
    """Name → the constants that follow it in the call (default, low, high), as the settings have them."""
    found: dict[str, list[str]] = {variable: [] for variable in seeds.KEYS.values()}
    sources = ((ROOT / "llmcontrol" / name).read_text() for name in ("settings.py", "seeds.py", "nacos.py"))
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        called = ast.unparse(node.func)
        if called.startswith("env.") or called == "_networks":
            constants = node.args[1:] if called in ("env.integer", "env.number") else []
            found[node.args[0].value] = [f"{_value(each):.10g}" for each in constants]
    return found


def _value(constant: ast.expr) -> float:
    return float(eval(ast.unparse(constant), {}))  # noqa: S307 (our own settings: 4 * 2**20 and the like)


def rows() -> dict[str, str]:
    text = (ROOT / "docs" / "configuration.md").read_text()
    return {match[1]: match[0] for match in re.finditer(r"^\| `([A-Z_]+)` \|.*$", text, re.MULTILINE)}


def test_settings_are_found_at_all():
    assert {"SECRET_KEY", "LLM_MAX_BODY_BYTES", "OUTBOUND_ALLOW"} <= set(variables_read())


def test_every_variable_has_a_row_and_every_row_a_variable():
    assert set(rows()) == set(variables_read()) | READ_DIRECTLY


@pytest.mark.parametrize(("name", "constants"), sorted((name, found) for name, found in variables_read().items() if found))
def test_default_and_bounds_are_those_of_the_settings(name: str, constants: list[str]):
    default, low, high = constants
    cells = [cell.strip() for cell in rows()[name].strip("|").split("|")]
    assert cells[2:4] == [default, f"{low} to {high}"]


def test_large_numbers_are_compared_in_full():
    assert variables_read()["LLM_MAX_BODY_BYTES"] == ["4194304", "1024", "268435456"]
