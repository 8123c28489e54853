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


def test_the_amounts_of_a_record(viewer: APIClient, db: None) -> None:
    usage_record(1, cost_reporting_micros=1_500_000, charged_micros=1_600_000, reporting_currency="EUR", exchange_rate="0.9")
    row = viewer.get(RECORDS).json()["results"][0]
    assert (row["cost_reporting"], row["charged"], row["reporting_currency"], row["exchange_rate"]) == ("1.5", "1.6", "EUR", "0.9")
    usage_record(2)
    row = viewer.get(RECORDS).json()["results"][0]
    assert (row["cost_reporting"], row["charged"]) == (None, None)


@pytest.mark.parametrize("url", [RECORDS, REQUESTS])
def test_any_moment_of_the_calendar_can_be_asked_for(viewer: APIClient, world: World, url: str) -> None:
    assert ids(viewer, url, since="0001-01-01T00:00:00+14:00", until="9999-12-31T23:59:59-14:00") == ["req-1"]
    assert ids(viewer, url, until="0001-01-01T00:00:00+14:00") == []
    assert ids(viewer, url, since="9999-12-31T23:59:59-14:00") == []


@pytest.mark.parametrize("url", [RECORDS, REQUESTS])
def test_filters_by_label(viewer: APIClient, world: World, url: str) -> None:
    make = usage_record if url == RECORDS else request_log
    make(2, end_user="ann", task_type="translation", tag="nightly")
    for name, value in {"user": "ann", "task_type": "translation", "tag": "nightly"}.items():
        assert ids(viewer, url, **{name: value}) == ["req-2"], name
        assert viewer.get(url).json()["results"][0][name] == value
    assert ids(viewer, url, user="bob") == []


def test_what_a_vendor_counted_and_nobody_believed_is_found_and_shown(viewer: APIClient, world: World) -> None:
    usage_record(2, usage_source="refused", usage_refused="no whole numbers that can be: prompt_tokens -5")
    usage_record(3, usage_source="estimated")
    (row,) = viewer.get(f"{RECORDS}?usage_source=refused").json()["results"]
    assert (row["request_id"], row["usage_refused"]) == ("req-2", "no whole numbers that can be: prompt_tokens -5")
    assert attrs(viewer.get(f"{RECORDS}?usage_source=guessed")) == {"usage_source"}


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
