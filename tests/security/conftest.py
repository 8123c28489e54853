"""One house for the whole folder; a test that spoils it has one of its own. Two tenants for each file that asks for them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from tests.security.access_fixtures import Tenants, make_tenants
from tests.security.house import House
from tests.standing import standing


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


@pytest.fixture(scope="module")
def standing_tenants(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[bytes]:
    with standing(django_db_blocker, make_tenants) as made:
        yield made


@pytest.fixture
def tenants(standing_tenants: bytes, db: None) -> Tenants:
    """In a file whose tests all ask for them: there they are for every test."""
    loaded: Tenants = pickle.loads(standing_tenants)  # noqa: S301  (our own)
    return loaded
