"""Migrations that change rows keep what the rows have meant."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.db import connection

from providers.models import Provider
from tests.gateway_config.rows import a_provider

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"rate_capacity": 0, "rate_refill_per_s": 3}, {"rate_capacity": 0, "rate_refill_per_s": 0}),
        ({"rate_capacity": 5, "rate_refill_per_s": 3}, {"rate_capacity": 5, "rate_refill_per_s": 3}),
        (
            {"breaker_reset_timeout_s": 120, "breaker_max_reset_timeout_s": 60},
            {"breaker_reset_timeout_s": 120, "breaker_max_reset_timeout_s": 120},
        ),
        (
            {"breaker_reset_timeout_s": 15, "breaker_max_reset_timeout_s": 60},
            {"breaker_reset_timeout_s": 15, "breaker_max_reset_timeout_s": 60},
        ),
    ],
)
def test_what_is_refused_from_now_on_becomes_what_it_meant(before: dict[str, Any], after: dict[str, Any]) -> None:
    a_provider(**before)
    migration = import_module("providers.migrations.0004_limits_and_bounds")
    migration.straighten(apps, SimpleNamespace(connection=connection))
    provider = Provider.objects.get()
    assert {name: getattr(provider, name) for name in after} == after
    provider.full_clean()
