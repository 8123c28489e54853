"""SECURITY.md: every section of ASVS 5.0 and every item of two OWASP top tens has a row, and every test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
# Chapter of ASVS 5.0 → how many sections it has.
ASVS = {1: 5, 2: 4, 3: 7, 4: 4, 5: 4, 6: 8, 7: 6, 8: 4, 9: 2, 10: 7, 11: 7, 12: 3, 13: 4, 14: 3, 15: 4, 16: 5, 17: 3}
SECTIONS = [f"V{chapter}.{section}" for chapter, count in ASVS.items() for section in range(1, count + 1)]
TOP_TENS = [*(f"API{number}" for number in range(1, 11)), *(f"LLM{number:02}" for number in range(1, 11))]


def rows(item: str) -> list[tuple[str, list[str]]]:
    """(what the row is of, its other cells) of each row whose first cell begins like that."""
    found = re.findall(rf"^\| ({item}) ([^\n]*) \|$", PAGE, re.MULTILINE)
    return [(name, [cell.strip() for cell in rest.split("|")]) for name, rest in found]


def test_every_section_of_asvs_has_a_row() -> None:
    assert [name for name, _ in rows(r"V\d+\.\d+")] == SECTIONS


def test_every_item_of_the_top_tens_has_a_row() -> None:
    assert [name for name, _ in rows(r"(?:API\d+|LLM\d\d)")] == TOP_TENS


def test_a_row_says_how_far_and_is_shown_by_a_test() -> None:
    for name, (_title, standing, _holds, shown_by, limit) in rows(r"V\d+\.\d+"):
        assert standing in ("met", "part", "not met", "none"), name
        assert bool(shown_by) is (standing != "none"), f"{name} names no test, or one of what is not there"
        assert limit or standing not in ("part", "not met"), f"{name} does not say what is missing"
    for name, (_title, holds, shown_by, _limit) in rows(r"(?:API\d+|LLM\d\d)"):
        assert holds, name
        assert shown_by, name


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:tests|docs|deploy)/[^`]+)`", PAGE) + re.findall(r"\]\(([^)#]+)", PAGE)
    assert len(named) > 100
    assert sorted({name for name in named if not (ROOT / name).exists()}) == []


def test_what_is_not_met_is_said_before_the_tables() -> None:
    before = PAGE.partition("## OWASP ASVS")[0]
    for word in ("second factor", "identity provider", "injected instructions", "memory"):
        assert word in before, word
