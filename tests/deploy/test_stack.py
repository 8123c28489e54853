"""Both gateways behind nginx take their part."""

from __future__ import annotations

import re

import pytest

from tests.deploy.stack import Everywhere
from tests.e2e import wire
from tests.e2e.control import ECHO

pytestmark = pytest.mark.process
REQUESTS = 12
COUNTED = re.compile(r'^llm_requests_total\{.*outcome="ok".*\} (\S+)$', re.MULTILINE)


def answered(control: Everywhere) -> list[float]:
    """By each gateway, so far."""
    pages = [wire.call(each.base_url, "GET", "/metrics", headers=control.authorization) for each in control.machines]
    return [sum(map(float, COUNTED.findall(page.body.decode()))) for page in pages]


def test_nginx_gives_requests_to_both(control: Everywhere) -> None:
    before = answered(control)
    for _ in range(REQUESTS):
        assert wire.chat(control.base_url, control.key, ECHO).status == 200
    grown = [after - earlier for earlier, after in zip(before, answered(control), strict=True)]
    assert sum(grown) == REQUESTS
    assert min(grown) > 0
