"""README.md beside this says what is tested: each number has a row, each file that is named is there."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
ROWS = dict(re.findall(r"^\| (A\d\d) \|(.*)$", (FOLDER / "README.md").read_text(), re.M))
NUMBERS = [f"A{number:02}" for number in range(1, 53)]


def test_every_attack_has_a_row() -> None:
    assert list(ROWS) == NUMBERS


def test_every_row_names_files_that_are_there_or_says_that_it_is_left_out() -> None:
    for number, row in ROWS.items():
        named = re.findall(r"`(tests/[^`]+)`", row)
        assert named or "left out" in row, number
        missing = [name for name in named if "*" not in name and not (ROOT / name).exists()]
        assert missing == [], f"{number} names files that are not there"
        others = [name for name in named if "*" in name]
        assert all(f"test_{number.lower()}_" in name for name in others), number
        assert all(list(ROOT.glob(name)) for name in others), f"{number} names files that are not there"


def test_every_file_is_in_the_table() -> None:
    """By its name, or by the pattern of its number; goals stand below the table."""
    text = (FOLDER / "README.md").read_text()
    for path in FOLDER.glob("test_*.py"):
        number = re.match(r"test_([ag]\d\d)_", path.name)
        named = f"tests/security/{path.name}" in text or (number and f"test_{number.group(1)}_*.py" in text)
        assert named or path.name == "test_this_table.py", path.name
