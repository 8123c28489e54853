"""tests/contract.csv: each promise of the contract (its sections 1, 2, 4 and 8), and the tests that hold it. `make contract` runs those."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from providers.adapters import registry
from tests import contract, replay

CONTRACT = replay.SHARED / "design" / "contract.md"
ROUTE = re.compile(r"(?:POST |GET |WS |HEAD )?(/[\w/{}.:…-]+)")


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """The contract's sections by number."""
    if not CONTRACT.is_file():
        pytest.skip("no contract: the shared/design folder is not beside the repository")
    parts = re.split(r"^## (\d+)\. ", CONTRACT.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_test_that_holds_a_promise_is_there() -> None:
    missing = [name for row in contract.promises() for name in row.tests if not _is_there(name)]
    assert not missing


def test_every_route_is_promised_with_a_test(sections: dict[str, str]) -> None:
    for number in ("1", "2"):
        promised = " ".join(row.promise for row in contract.promises() if row.section == number)
        told = [line for line in sections[number].splitlines() if line.startswith("| `")]
        routes = {route for line in told for route in _routes(line.split(" | ")[0])}
        assert len(routes) > 15
        assert {route for route in routes if route not in promised} == set()


def test_every_strategy_priority_and_state_is_promised_with_a_test(sections: dict[str, str]) -> None:
    promised = " ".join(row.promise for row in contract.promises() if row.section == "4")
    (told,) = re.findall(r"Strategies: .*?Callbacks", sections["4"], flags=re.S)
    words = set(re.findall(r"`(\w+)`", told))
    assert len(words) == 6 + 4 + 6
    assert {word for word in words if not re.search(rf"\b{word}\b", promised)} == set()


def test_every_type_of_provider_is_there(sections: dict[str, str]) -> None:
    (line,) = re.findall(r"^`provider_type`: (.*)\.$", sections["2"], flags=re.M)
    named = set(re.findall(r"`(\w+)`(?=[,\s(]|$)", re.sub(r"\([^)]*\)", "", line)))
    assert len(named) > 14
    assert named <= dict(registry.kinds()).keys()


def _routes(cell: str) -> set[str]:
    """Those that are built already, without the other spelling of the same route."""
    return set() if "◇" in cell else {route.split("[")[0].rstrip("…") for route in ROUTE.findall(cell)}


def _is_there(name: str) -> bool:
    path, _, function = name.partition("::")
    file = Path(contract.TESTS, path)
    return file.is_file() and (not function or f"def {function.split('::')[-1]}(" in file.read_text())
