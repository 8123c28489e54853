"""One house for the whole folder; a test that spoils it has one of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.house import House


@pytest.fixture(scope="session")
def _house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"))
    try:
        yield house
    finally:
        house.close()


@pytest.fixture
def house(_house: House) -> Iterator[House]:
    """Fails where the canary has heard anything."""
    yield _house
    heard, _house.canary.heard[:] = [*_house.canary.heard], []
    assert not heard, f"the canary was called: {heard[0][:300]!r}"
