"""A18: a changed address does not carry off a stored key: not by REST, not where the row itself was changed behind our back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import unique, until
from tests.security.house import House

pytestmark = pytest.mark.process
CREDENTIAL = "sk-entered-for-the-first-address"


@pytest.fixture
def provider(house: House) -> dict[str, Any]:
    return house.control.provider(house.vendor.base_url, api_key=CREDENTIAL)


def elsewhere(house: House) -> dict[str, str]:
    """Each differs from the vendor's address in one part of the origin, and is listened to."""
    port, own = house.canary.port, house.vendor_port
    return {
        "port": f"http://127.0.0.1:{port}/v1",
        "host": f"http://127.0.0.2:{own}/v1",
        "name": f"http://localhost:{own}/v1",
        "scheme": f"https://127.0.0.1:{own}/v1",
    }


@pytest.mark.parametrize("part", ["port", "host", "name", "scheme"])
def test_another_address_alone_is_refused_and_changes_nothing(house: House, provider: dict[str, Any], part: str) -> None:
    path = f"/api/v1/llm/providers/{provider['id']}"
    refused = house.control.call("PATCH", path, {"config": {"base_url": elsewhere(house)[part]}}, expect=400)
    assert refused["errors"][0]["attr"] == "config.base_url"
    row = house.control.call("GET", path)
    assert row["config"]["base_url"] == house.vendor.base_url
    assert [key["last4"] for key in row["keys"]] == [CREDENTIAL[-4:]]


def test_another_type_at_the_same_body_is_refused_too(house: House, provider: dict[str, Any]) -> None:
    """An empty address is the type's own: a change of type is a change of address."""
    path = f"/api/v1/llm/providers/{provider['id']}"
    house.control.call("PATCH", path, {"provider_type": "vllm", "config": {"base_url": ""}}, expect=400)


def test_where_the_key_is_dropped_nothing_is_sent_to_the_new_address(house: House, provider: dict[str, Any]) -> None:
    """The new address is one that may be called, so that only the key's absence protects it."""
    alias = house.control.model(provider, "ok@tokens=1")["alias"]
    moved = f"http://127.0.0.1:{house.redirector.port}/x/v1"
    row = house.control.call("PATCH", f"/api/v1/llm/providers/{provider['id']}", {"config": {"base_url": moved}, "drop_keys": True})
    assert row["keys"] == []
    house.control.apply()
    assert house.ask(alias, unique("moved")).status >= 500
    house.control.call("POST", f"/api/v1/llm/providers/{provider['id']}/test", {})
    assert not any(CREDENTIAL in sent for sent in house.redirector.heads)


def test_a_row_that_is_changed_in_the_database_does_not_open_its_key(house: House, provider: dict[str, Any]) -> None:
    """The sealed secret names the origin it was entered for: whoever can write rows, but has no key-encryption key, gets nothing."""
    alias = house.control.model(provider, "ok@tokens=1")["alias"]
    house.control.apply()
    moved = f"http://127.0.0.1:{house.redirector.port}/x/v1"
    with closing(sqlite3.connect(house.live.state_dir / "llmcontrol.sqlite3", timeout=10)) as rows, rows:
        changed = rows.execute("UPDATE providers_provider SET base_url = ? WHERE id = ?", [moved, provider["id"].replace("-", "")]).rowcount
    assert changed == 1
    report = house.control.call("POST", f"/api/v1/llm/providers/{provider['id']}/test", {})
    assert not report["ok"]
    assert "enter the key again" in report["checks"][0]["detail"]
    refused = wire.call(
        house.live.base_url,
        "POST",
        f"/api/v1/llm/providers/{provider['id']}/sync-models",
        body={},
        headers={"Authorization": f"Token {house.live.admin_token}"},
    )
    assert refused.status >= 400
    house.control.call("PATCH", f"/api/v1/llm/providers/{provider['id']}", {"max_concurrency": 7}, expect=(200, 400))
    until(lambda: house.ask(alias, unique("row")).status, "an answer")
    assert not any(CREDENTIAL in sent for sent in house.redirector.heads)
    house.control.call("DELETE", f"/api/v1/llm/providers/{provider['id']}")
