"""What happened, over REST: filters, keyset paging, money as text."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from rest_framework.test import APIClient

from tests.rest.conftest import MOMENT, World, attrs, request_log, usage_record

RECORDS, REQUESTS = "/api/v1/usage/records", "/api/v1/requests"


def ids(client: APIClient, url: str, **parameters: Any) -> list[str]:
    response = client.get(f"{url}?{urlencode(parameters)}")
    assert response.status_code == 200, response.content
    return [row["request_id"] for row in response.json()["results"]]


def test_a_record_has_what_the_contract_names(viewer: APIClient, world: World) -> None:
    row = viewer.get(RECORDS).json()["results"][0]
    named = {"request_id", "attempt", "key", "provider", "model", "status", "finish_reason", "usage_source", "cost", "currency"}
    named |= {"started_at", "duration_ms", "first_token_ms", "config_version"}
    named |= {f"{bucket}_tokens" for bucket in ("input", "cached_input", "cache_write", "output", "reasoning")}
    assert named <= set(row)
    assert (row["cost"], row["currency"], row["key"], row["model"], row["input_tokens"]) == ("0.0123", "USD", "bot", "echo", 9)


def test_an_unknown_cost_is_null_and_none_is_zero(viewer: APIClient, db: None) -> None:
    usage_record(1, cost_micros=None, currency="")
    usage_record(2, cost_micros=0)
    assert [row["cost"] for row in viewer.get(RECORDS).json()["results"]] == ["0.0", None]


def test_one_request(viewer: APIClient, world: World) -> None:
    row = viewer.get(f"{REQUESTS}/req-1").json()
    assert row == viewer.get(REQUESTS).json()["results"][0]
    assert (row["status_code"], row["cost"], row["total_tokens"], row["team"]) == (200, "0.0123", 11, "search")
    assert viewer.get(f"{REQUESTS}/req-9").status_code == 404


def test_filters_of_records(viewer: APIClient, world: World) -> None:
    usage_record(2, started_at=MOMENT + timedelta(hours=1), team_name="ads", key_name="k", provider_name="p", alias="m", status="error")
    assert ids(viewer, RECORDS) == ["req-2", "req-1"]
    for name, value in {"team": "ads", "key": "k", "provider": "p", "model": "m", "status": "error", "request_id": "req-2"}.items():
        assert ids(viewer, RECORDS, **{name: value}) == ["req-2"], name
    assert ids(viewer, RECORDS, since=(MOMENT + timedelta(hours=1)).isoformat()) == ["req-2"]
    assert ids(viewer, RECORDS, until=(MOMENT + timedelta(hours=1)).isoformat()) == ["req-1"]
    assert ids(viewer, RECORDS, key=world.usage.key_id) == ["req-2", "req-1"]
    assert ids(viewer, RECORDS, key=world.usage.team_id) == []


def test_filters_of_requests(viewer: APIClient, world: World) -> None:
    request_log(2, status_code=429, team_name="ads", key_name="k", provider_name="p", alias="m", started_at=MOMENT + timedelta(hours=1))
    for name, value in {"team": "ads", "key": "k", "provider": "p", "model": "m", "status": "429", "request_id": "req-2"}.items():
        assert ids(viewer, REQUESTS, **{name: value}) == ["req-2"], name
    assert ids(viewer, REQUESTS, since=MOMENT.isoformat(), until=(MOMENT + timedelta(hours=1)).isoformat()) == ["req-1"]


@pytest.mark.parametrize(
    ("url", "query", "at"),
    [
        (RECORDS, "tema=ads", "tema"),
        (RECORDS, "since=yesterday", "since"),
        (RECORDS, "status=great", "status"),
        (RECORDS, "team=%00", "team"),
        (REQUESTS, "status=ok", "status"),
        (REQUESTS, "status=99999", "status"),
        (RECORDS, "page_size=0", "page_size"),
        (RECORDS, "page_size=201", "page_size"),
        (RECORDS, "page_size=ten", "page_size"),
        (RECORDS, "page_size=" + "9" * 5000, "page_size"),
        (RECORDS, "cursor=nonsense", "cursor"),
    ],
)
def test_a_bad_parameter_is_named(viewer: APIClient, url: str, query: str, at: str) -> None:
    assert attrs(viewer.get(f"{url}?{query}")) == {at}


@pytest.mark.parametrize("position", ["p=abc", "p=" + "9" * 400, "p=1&o=x", "r=x"])
@pytest.mark.parametrize("url", [RECORDS, "/api/v1/llm/keys"])
def test_a_forged_cursor_is_refused_or_finds_nothing(viewer: APIClient, world: World, url: str, position: str) -> None:
    cursor = base64.b64encode(position.encode()).decode()
    response = viewer.get(f"{url}?cursor={cursor}")
    assert response.status_code in (200, 400)
    if response.status_code == 400:
        assert attrs(response) == {"cursor"}


def test_a_page_counts_nothing(root: APIClient, world: World, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(2) as queries:  # the token, the rows
        root.get(RECORDS)
    assert not any("COUNT(" in query["sql"] for query in queries.captured_queries)


def test_pages_follow_each_other(viewer: APIClient, db: None) -> None:
    for number in range(5):
        usage_record(number)
    url: str | None = f"{RECORDS}?page_size=2&status=ok"
    seen: list[list[str]] = []
    while url:
        page = viewer.get(url).json()
        seen.append([row["request_id"] for row in page["results"]])
        url = page["next"]
        if len(seen) == 1:
            usage_record(100)  # what arrives meanwhile shifts nothing
    assert seen == [["req-4", "req-3"], ["req-2", "req-1"], ["req-0"]]
    assert [row["request_id"] for row in viewer.get(page["previous"]).json()["results"]] == ["req-2", "req-1"]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_history_is_read_only(root: APIClient, world: World, method: str) -> None:
    for url in (RECORDS, REQUESTS, f"{REQUESTS}/req-1"):
        assert getattr(root, method)(url, {}).status_code == 405


# Sums ---------------------------------------------------------------------------------------------------------------

STATS = "/api/v1/usage/stats"
NOTHING = {"requests": 0, "errors": 0, "input_tokens": 0, "cached_tokens": 0, "cache_write_tokens": 0, "output_tokens": 0}
NOTHING |= {"total_tokens": 0, "cost": {}}


def test_sums_of_nothing(viewer: APIClient) -> None:
    assert viewer.get(STATS).json() == {"group_by": [], "rows": [NOTHING], "totals": NOTHING}
    assert viewer.get(f"{STATS}?group_by=team").json() == {"group_by": ["team"], "rows": [], "totals": NOTHING}


def test_sums_by_group(viewer: APIClient, db: None) -> None:
    usage_record(1, status="error", cost_micros=None, currency="", cached_input_tokens=1, cache_write_tokens=4)
    usage_record(2, request_id="req-1", attempt=2, cost_micros=1, currency="EUR")
    usage_record(3, team_name="ads", started_at=MOMENT + timedelta(days=1), cost_micros=2_000_000)
    usage_record(4, team_name="ads", started_at=MOMENT + timedelta(days=1))
    answer = viewer.get(f"{STATS}?group_by=day,team").json()
    assert answer["group_by"] == ["day", "team"]
    first, second = answer["rows"]
    tokens = {"input_tokens": 18, "cached_tokens": 1, "cache_write_tokens": 4, "output_tokens": 4, "total_tokens": 27}
    assert first == {"day": "2026-11-01", "team": "search", "requests": 1, "errors": 1, **tokens, "cost": {"EUR": "0.000001"}}
    assert (second["day"], second["team"], second["requests"], second["cost"]) == ("2026-11-02", "ads", 2, {"USD": "2.0123"})
    totals = answer["totals"]
    assert (totals["requests"], totals["errors"], totals["cost"]) == (3, 1, {"EUR": "0.000001", "USD": "2.0123"})
    assert viewer.get(f"{STATS}?team=ads&group_by=model").json()["totals"]["requests"] == 2


@pytest.mark.parametrize("query", ["group_by=hour", "group_by=team,team", "group_by=team;day"])
def test_an_unknown_group_is_named(viewer: APIClient, db: None, query: str) -> None:
    assert attrs(viewer.get(f"{STATS}?{query}")) == {"group_by"}


def test_too_many_rows_are_refused_and_not_cut(viewer: APIClient, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitoring.stats.MAX_ROWS", 1)
    usage_record(1)
    assert viewer.get(f"{STATS}?group_by=team").status_code == 200
    usage_record(2, team_name="ads")
    assert attrs(viewer.get(f"{STATS}?group_by=team")) == {"group_by"}
