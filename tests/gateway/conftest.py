"""Tests of the data plane use no database: pytest refuses it to whoever does not ask for it, and here nobody may."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_database(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("django_db") is None
    assert not {"db", "transactional_db"}.intersection(request.fixturenames)
