"""Sums over REST: by group, by currency, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from rest_framework.test import APIClient

from monitoring import rollups
from tests.rest.conftest import MOMENT, attrs, request_log, usage_record

STATS, COSTS = "/api/v1/usage/stats", "/api/v1/usage/costs"
DAYS = {"since": "2026-11-01T00:00:00Z", "until": "2026-11-03T00:00:00Z"}
COUNTS = ("requests", "errors", "refused", "attempts", "failed_attempts", "unpriced_attempts", "unconverted_attempts")
TOKENS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "total_tokens")
QUANTILES = ("p50_ms", "p95_ms", "first_token_p50_ms", "first_token_p95_ms")
NOTHING = {**dict.fromkeys((*COUNTS, *TOKENS), 0), **dict.fromkeys(QUANTILES), "cost": {}}
PROVIDER_ID = "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0003"


def ask(client: APIClient, url: str = STATS, **parameters: str) -> Any:
    response = client.get(f"{url}?{urlencode({**DAYS, **parameters})}")
    assert response.status_code == 200, response.content
    return response.json()


@pytest.fixture
def three_days(db: None) -> None:
    """A retried request of Sunday, and two of Monday by another team, one of them in euros; one was refused."""
    tomorrow = MOMENT + timedelta(days=1, hours=2)
    usage_record(1, status="error", cost_micros=None, currency="", cached_input_tokens=1, cache_write_tokens=4)
    usage_record(1, attempt=2, cost_micros=1, currency="EUR", duration_ms=700)
    request_log(1, attempts=2, currency="EUR", duration_ms=1_000, first_token_ms=100)
    for number in (3, 4):
        usage_record(number, team_name="ads", team_id="7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0009", started_at=tomorrow, cost_micros=2_000_000)
        request_log(number, team_name="ads", team_id="7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0009", started_at=tomorrow, duration_ms=4_000)
    request_log(5, attempts=0, status_code=429, alias="echo", provider_name="", model_id="")
    rollups.rebuild()


def test_sums_of_nothing(viewer: APIClient) -> None:
    asked = {"since": "2026-11-01T00:00:00Z", "until": "2026-11-03T00:00:00Z"}
    assert ask(viewer) == {"group_by": [], **asked, "rows": [NOTHING], "totals": NOTHING}
    assert ask(viewer, group_by="team") == {"group_by": ["team"], **asked, "rows": [], "totals": NOTHING}


def test_sums_by_day_and_model(viewer: APIClient, three_days: None) -> None:
    answer = ask(viewer, group_by="day,model")
    assert [(row["day"], row["model"], row["requests"]) for row in answer["rows"]] == [
        ("2026-11-01", "", 0),
        ("2026-11-01", "echo", 1),
        ("2026-11-02", "echo", 2),
    ]
    refused, first, second = answer["rows"]
    assert refused["refused"] == 1
    assert (first["attempts"], first["failed_attempts"], first["errors"], first["unpriced_attempts"]) == (2, 1, 0, 1)
    assert [first[name] for name in TOKENS] == [18, 1, 4, 4, 27]
    assert (first["cost"], second["cost"]) == ({"EUR": "0.000001"}, {"USD": "4.0"})
    assert second["p50_ms"] == pytest.approx(4_000, rel=0.42)
    assert first["first_token_p95_ms"] == pytest.approx(100, rel=0.42)
    totals = answer["totals"]
    assert (totals["requests"], totals["refused"], totals["cost"]) == (3, 1, {"EUR": "0.000001", "USD": "4.0"})


def test_the_last_hour_counts_whole(viewer: APIClient, three_days: None) -> None:
    answer = ask(viewer, since="2026-11-01T12:30:00Z", until="2026-11-01T12:31:00Z", group_by="hour")
    assert (answer["since"], answer["until"]) == ("2026-11-01T12:00:00Z", "2026-11-01T13:00:00Z")
    assert [row["hour"] for row in answer["rows"]] == ["2026-11-01T12:00:00Z"]
    assert ask(viewer, since="2026-11-01T13:00:00Z", until="2026-11-02T14:00:00Z")["totals"]["requests"] == 0
    assert ask(viewer, since="2026-11-01T13:00:00Z", until="2026-11-02T14:00:01Z")["totals"]["requests"] == 2


@pytest.mark.parametrize("since", ["2026-10-31T00:00:00Z", "2026-10-31T07:00:00Z", "2026-11-01T12:00:00Z"])
@pytest.mark.parametrize("until", ["2026-11-02T15:00:00Z", "2026-11-03T00:00:00Z", "2026-11-04T05:00:00+02:00"])
def test_by_the_hour_and_by_the_day_the_sums_are_the_same(viewer: APIClient, three_days: None, since: str, until: str) -> None:
    by_day = ask(viewer, since=since, until=until, group_by="day")
    by_hour = ask(viewer, since=since, until=until, group_by="hour")
    assert by_day["totals"] == by_hour["totals"]
    assert (by_day["totals"]["attempts"], by_day["totals"]["requests"]) == (4, 3)
    assert [row["day"] for row in by_day["rows"]] == ["2026-11-01", "2026-11-02"]


@pytest.mark.parametrize(
    ("filters", "requests"),
    [
        ({"team": "ads"}, 2),
        ({"team": "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0009"}, 2),
        ({"key": "bot"}, 3),
        ({"model": "echo"}, 3),
        ({"model": "other"}, 0),
        ({"provider": "echo"}, 3),
        ({"provider": PROVIDER_ID}, 3),
        ({"provider": "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0001"}, 0),
        ({"status": "ok"}, 3),
        ({"status": "error"}, 0),
        ({"streamed": "true"}, 0),
    ],
)
def test_filters(viewer: APIClient, three_days: None, filters: dict[str, str], requests: int) -> None:
    assert ask(viewer, **filters)["totals"]["requests"] == requests


def test_costs(viewer: APIClient, three_days: None) -> None:
    answer = ask(viewer, COSTS, group_by="team")
    ads, search = answer["rows"]
    assert (ads["team"], ads["requests"], ads["cost"], ads["cost_per_1k_answers"]) == ("ads", 2, {"USD": "4.0"}, {"USD": "2000.0"})
    assert (search["unpriced_attempts"], search["cost"]) == (1, {"EUR": "0.000001"})
    assert search["cached_share"] == pytest.approx(1 / 23, abs=1e-4)
    assert answer["totals"]["cost"] == {"EUR": "0.000001", "USD": "4.0"}


def test_the_reporting_currency_has_sums_of_its_own(viewer: APIClient, db: None) -> None:
    usage_record(1, cost_reporting_micros=1_100_000, charged_micros=1_200_000, reporting_currency="EUR")
    usage_record(2)
    rollups.rebuild()
    totals = ask(viewer, COSTS)["totals"]
    assert (totals["cost_reporting"], totals["charged"], totals["unconverted_attempts"]) == ({"EUR": "1.1"}, {"EUR": "1.2"}, 1)


@pytest.mark.parametrize("url", [STATS, COSTS])
def test_as_csv(viewer: APIClient, three_days: None, url: str) -> None:
    response = viewer.get(f"{url}?{urlencode({**DAYS, 'group_by': 'day,team'})}", HTTP_ACCEPT="text/csv")
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(response.content.decode())))
    assert [(row["day"], row["team"], row["cost_EUR"], row["cost_USD"]) for row in rows] == [
        ("2026-11-01", "search", "0.000001", ""),
        ("2026-11-02", "ads", "", "4.0"),
    ]


def test_the_address_may_say_csv_too(viewer: APIClient, three_days: None) -> None:
    response = viewer.get(f"{STATS}?{urlencode({**DAYS, 'group_by': 'team', 'format': 'csv'})}")
    assert (response.status_code, response["Content-Type"]) == (200, "text/csv; charset=utf-8")


def test_a_name_in_csv_is_no_formula(viewer: APIClient, db: None) -> None:
    usage_record(1, team_name="=1+1")
    rollups.rebuild()
    response = viewer.get(f"{STATS}?{urlencode({**DAYS, 'group_by': 'team'})}", HTTP_ACCEPT="text/csv")
    assert "\n'=1+1," in response.content.decode().replace("\r", "")


def test_an_error_as_csv_says_why(viewer: APIClient) -> None:
    response = viewer.get(f"{STATS}?group_by=week", HTTP_ACCEPT="text/csv")
    assert response.status_code == 400
    assert "Write a comma list of hour, day" in response.content.decode()


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ("group_by=week", "group_by"),
        ("group_by=team,team", "group_by"),
        ("group_by=team;day", "group_by"),
        ("group_by=hour&since=2026-09-01T00:00:00Z&until=2026-11-01T00:00:00Z", "group_by"),
        ("since=2024-01-01T00:00:00Z", "since"),
        ("since=2026-11-02T00:00:00Z&until=2026-11-02T00:00:00Z", "since"),
        ("since=0001-01-01T00:00:00%2B14:00", "since"),
        ("since=yesterday", "since"),
        ("status=great", "status"),
        ("tema=ads", "tema"),
    ],
)
@pytest.mark.parametrize("url", [STATS, COSTS])
def test_what_is_not_answered_is_named(viewer: APIClient, db: None, url: str, query: str, at: str) -> None:
    assert attrs(viewer.get(f"{url}?{query}")) == {at}


@pytest.mark.parametrize("until", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00"])
@pytest.mark.parametrize("group", ["day", "user"])
def test_at_the_ends_of_the_calendar_there_is_nothing(viewer: APIClient, three_days: None, until: str, group: str) -> None:
    assert viewer.get(STATS, {"until": until, "group_by": group}).json()["totals"]["requests"] == 0


def test_too_many_rows_are_refused_and_not_cut(viewer: APIClient, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitoring.stats.MAX_ROWS", 1)
    usage_record(1)
    rollups.rebuild()
    assert ask(viewer, group_by="team")["totals"]["attempts"] == 1
    usage_record(2, team_name="ads", team_id="other")
    rollups.rebuild()
    assert attrs(viewer.get(f"{STATS}?{urlencode({**DAYS, 'group_by': 'team'})}")) == {"group_by"}


def test_no_row_of_the_ledger_is_read(root: APIClient, three_days: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(2) as queries:  # the token, the rollups
        ask(root, group_by="day,model")
    assert not any("usagerecord" in query["sql"] or "requestlog" in query["sql"] for query in queries.captured_queries)


# By what requests say of themselves ------------------------------------------------------------------------------------


@pytest.fixture
def labelled(db: None) -> None:
    for number, (user, tag) in enumerate((("ann", "nightly"), ("ann", ""), ("bob", ""), ("", ""))):
        usage_record(number, end_user=user, tag=tag)
        request_log(number, end_user=user, tag=tag, team_id="7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0001")
    rollups.rebuild()


def test_sums_by_user_and_tag(viewer: APIClient, labelled: None) -> None:
    answer = ask(viewer, group_by="user", since="2026-11-01T07:00:00Z", until="2026-11-01T08:00:00Z")
    assert (answer["since"], answer["until"]) == ("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z")
    assert [(row["user"], row["requests"], row["attempts"], row["cost"]) for row in answer["rows"]] == [
        ("", 1, 1, {"USD": "0.0123"}),
        ("ann", 2, 2, {"USD": "0.0246"}),
        ("bob", 1, 1, {"USD": "0.0123"}),
    ]
    assert answer["totals"]["total_tokens"] == ask(viewer)["totals"]["total_tokens"]
    assert answer["totals"]["p50_ms"] is None
    rows = ask(viewer, COSTS, group_by="day,team,key,model,user,task_type,tag", user="ann", tag="nightly")["rows"]
    assert [(row["day"], row["team"], row["user"], row["task_type"], row["tag"]) for row in rows] == [
        ("2026-11-01", "search", "ann", "", "nightly")
    ]


@pytest.mark.parametrize(
    ("filters", "requests"),
    [
        ({"user": "ann"}, 2),
        ({"tag": "nightly"}, 1),
        ({"user": "bob", "team": "search"}, 1),
        ({"task_type": "any"}, 0),
        ({"user": "eve"}, 0),
    ],
)
def test_filters_by_label(viewer: APIClient, labelled: None, filters: dict[str, str], requests: int) -> None:
    assert ask(viewer, **filters)["totals"]["requests"] == requests


@pytest.mark.parametrize(
    "query", ["group_by=user,hour", "group_by=tag,provider", "group_by=user,status", "group_by=user&streamed=true", "tag=x&status=ok"]
)
@pytest.mark.parametrize("url", [STATS, COSTS])
def test_what_labels_do_not_tell_apart_is_refused(viewer: APIClient, db: None, url: str, query: str) -> None:
    response = viewer.get(f"{url}?{query}")
    assert attrs(response) <= {"hour", "provider", "status", "streamed"}
    assert "by day, team, key and model only" in response.content.decode()
