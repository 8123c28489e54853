"""Which tests hold which promise of the contract; `python -m tests.contract` prints them for pytest."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent


class Promise(NamedTuple):
    section: str
    promise: str
    tests: list[str]


def promises() -> list[Promise]:
    with (TESTS / "contract.csv").open(newline="") as file:
        return [Promise(row["section"], row["promise"], row["tests"].split()) for row in csv.DictReader(file)]


if __name__ == "__main__":
    print("\n".join(sorted({f"tests/{name}" for row in promises() for name in row.tests})))
