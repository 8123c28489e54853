"""The README's figures are those that a run wrote."""

from __future__ import annotations

import re

import pytest

from bench import readme

FIGURES = {
    "relay_ratio": 0.634,
    "chunk_ratio": 1.096,
    "added_ms_p50": 0.288,
    "rss_mb": 111.8,
    "run": {"measured_at": "2026-11-21T23:07:48+00:00", "python": "3.11.7"},
    "loads": {"json c64": {"gateway": {"requests_per_cpu_s": 4942.4}}},
}


def shape(text: str) -> str:
    """Without what a run decides: numbers, dates and the machine's name."""
    return re.sub(r"[\d.,-]+", "#", re.sub(r": .* cores of .*, of which", ": MACHINE, of which", text))


def test_a_run_is_told_with_its_machine_and_its_goals() -> None:
    table = readme.block(FIGURES, "2 cores of a test")
    assert "2026-11-21: 2 cores of a test" in table
    assert "| 0.63 × | ≥ 0.6 × |" in table
    assert "| 112 MB | < 120 MB |" in table
    assert "| 4,942 |" in table


def test_the_readme_holds_what_a_run_wrote_and_nothing_else_changes() -> None:
    before = readme.README.read_text()
    table = readme.block(FIGURES, "2 cores of a test")
    after = readme.written(before, table)
    assert shape(after) == shape(before)
    assert readme.written(after, table) == after


def test_without_a_place_for_them_it_says_so() -> None:
    with pytest.raises(ValueError, match="no place"):
        readme.written("# A README\n", "table")
