"""The logs of what happened: read-only, paged by row id without counting, filtered without looking at every row."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from core.choice import Candidate, Decision, Stage, decided, stored
from monitoring.models import RequestLog, UsageRecord
from tests.admin.conftest import World, make_request

LIST = "/admin/monitoring/requestlog/"
ROWS = 250


@pytest.fixture
def many(db: None) -> list[str]:
    """250 requests; the ids of the newest first."""
    now = timezone.now()
    RequestLog.objects.bulk_create(
        RequestLog(
            request_id=f"req_{number:04}",
            started_at=now - timedelta(minutes=ROWS - number),
            dialect="openai",
            status_code=502 if number % 10 == 0 else 200,
            alias="even" if number % 2 == 0 else "odd",
        )
        for number in range(ROWS)
    )
    return [f"req_{number:04}" for number in reversed(range(ROWS))]


def _rows(page: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"req_\d{4}", page)))


def _link(page: str, rel: str) -> str | None:
    found = re.search(rf'rel="{rel}" href="([^"]+)"', page)
    return found[1].replace("&amp;", "&") if found else None


def _walk(client: Client, query: str, rel: str) -> tuple[list[list[str]], str]:
    """Every page from `query` on, following the links of `rel`, and the last page's text."""
    pages: list[list[str]] = []
    while True:
        page = client.get(LIST + query).content.decode()
        pages.append(_rows(page))
        following = _link(page, rel)
        if following is None or len(pages) > 20:
            return pages, query
        query = following


def test_walking_back_shows_every_row_once_in_order(root: Client, many: list[str]) -> None:
    pages, _ = _walk(root, "", "next")
    assert [row for page in pages for row in page] == many
    assert [len(page) for page in pages] == [50] * 5


def test_walking_forward_again_shows_the_same_pages(root: Client, many: list[str]) -> None:
    back, last = _walk(root, "", "next")
    forward, _ = _walk(root, last, "prev")
    assert forward == back[::-1]


def test_rows_that_arrive_meanwhile_move_no_page(root: Client, many: list[str]) -> None:
    older = _link(root.get(LIST).content.decode(), "next")
    assert older is not None
    before = _rows(root.get(LIST + older).content.decode())
    make_request("req_9999")
    assert _rows(root.get(LIST + older).content.decode()) == before


def test_a_filter_stays_while_paging(root: Client, many: list[str]) -> None:
    pages, _ = _walk(root, "?model=even", "next")
    assert [row for page in pages for row in page] == [row for row in many if int(row[4:]) % 2 == 0]


def test_no_page_counts_or_skips(
    root: Client, many: list[str], django_assert_max_num_queries: Callable[..., CaptureQueriesContext]
) -> None:
    middle = RequestLog.objects.order_by("pk")[120].pk
    for query in ("", f"?before={middle}", f"?after={middle}", "?outcome=failed&since=24h", "?q=req_0100", "?_facets=True"):
        with django_assert_max_num_queries(8) as queries:
            assert root.get(LIST + query).status_code == 200
        log = [entry["sql"] for entry in queries.captured_queries if "monitoring_requestlog" in entry["sql"]]
        assert log
        assert not [sql for sql in log if "COUNT(" in sql or "OFFSET" in sql]
        assert all("LIMIT 51" in sql for sql in log)


def test_a_cursor_that_is_none_starts_at_the_newest(root: Client, many: list[str]) -> None:
    for nonsense in ("?before=abc", "?before=-1", f"?after={10**30}", f"?before={'9' * 5000}", "?before=", "?o=1.2&p=7&all="):
        assert _rows(root.get(LIST + nonsense).content.decode()) == many[:50]


def test_beyond_the_newest_there_is_a_way_back(root: Client, many: list[str]) -> None:
    page = root.get(LIST + "?after=999999999").content.decode()
    assert _rows(page) == []
    assert "Newest" in page


def test_filters(root: Client, world: World) -> None:
    make_request("req_limited", status_code=429, attempts=0, started_at=timezone.now() - timedelta(hours=2), team_name="ads", key_name="k2")
    make_request("req_left", status_code=499, alias="qwen")
    make_request("req_failed", status_code=503, provider_name="other")
    expected = {
        "?outcome=limited": {"req_limited"},
        "?outcome=left": {"req_left"},
        "?outcome=failed": {"req_failed"},
        "?outcome=ok": {"req_one"},
        "?outcome=refused": set(),
        "?code=503": {"req_failed"},
        "?team=ads": {"req_limited"},
        "?key=k2": {"req_limited"},
        "?model=qwen": {"req_left"},
        "?provider=other": {"req_failed"},
        "?since=1h": {"req_one", "req_left", "req_failed"},
        "?q=req_left": {"req_left"},
        "?q= req_left ": {"req_left"},
        "?q=left": set(),
    }
    for query, ids in expected.items():
        rows = {row.request_id for row in root.get(LIST + query).context["cl"].result_list}
        assert rows == ids, query


def test_a_span_of_time_by_its_edges(root: Client, world: World) -> None:
    RequestLog.objects.filter(request_id="req_one").update(started_at="2026-01-31T13:45:00Z")

    def found(query: str) -> int:
        return len(root.get(LIST + query).context["cl"].result_list)

    inside = "?started_at_from_0=2026-01-31&started_at_from_1=13:45:00&started_at_to_0=2026-01-31&started_at_to_1=13:45:00"
    assert found(inside) == 1
    assert found("?started_at_from_0=2026-01-31&started_at_to_0=2026-01-31") == 1
    assert found("?started_at_from_0=2026-01-31&started_at_from_1=13:46:00") == 0
    assert found("?started_at_to_0=2026-01-30") == 0
    assert found("?started_at_from_0=0001-01-01&started_at_to_0=9999-12-31") == 1, "the ends of the calendar are as far as can be asked"
    assert found("?started_at_from_0=9999-12-31") == 0


@pytest.mark.parametrize("query", ["?started_at_from_0=soon", "?started_at_from_0=2026-02-31", "?started_at_to_1=13:45:00", "?code=many"])
def test_a_filter_that_means_nothing_says_so(root: Client, world: World, query: str) -> None:
    assert "so it was left out" in root.get(LIST + query).content.decode()


@pytest.mark.parametrize("page", ["monitoring_requestlog", "monitoring_usagerecord"])
def test_nobody_writes_in_the_log(root: Client, world: World, page: str) -> None:
    row = (RequestLog if page.endswith("requestlog") else UsageRecord).objects.get()
    for verb, args in (("add", []), ("change", [row.pk]), ("delete", [row.pk])):
        assert root.post(reverse(f"admin:{page}_{verb}", args=args), {"post": "yes", "status_code": "200"}).status_code == 403
    root.post(reverse(f"admin:{page}_changelist"), {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    row.refresh_from_db()
    assert "delete_selected" not in root.get(reverse(f"admin:{page}_changelist")).content.decode()


def test_money_is_a_decimal_with_its_currency_and_unknown_is_not_zero(root: Client, world: World) -> None:
    assert "0.0123 USD" in root.get(LIST).content.decode()
    RequestLog.objects.update(cost_micros=None, currency="")
    assert "unknown" in root.get(LIST).content.decode()


def test_a_request_shows_its_attempts(root: Client, world: World, django_assert_max_num_queries: Callable[..., object]) -> None:
    UsageRecord.objects.create(
        request_id="req_one",
        attempt=2,
        started_at=timezone.now(),
        provider_id="p",
        provider_name="<b>bold vendor</b>",
        alias="gpt-4o",
        model_id="m",
        status="error",
        error_code="upstream_timeout",
        usage_source="refused",
        usage_refused="prompt_tokens <i>-5</i>",
    )
    make_request("req_other", cost_micros=999_999, currency="EUR")
    with django_assert_max_num_queries(9):
        page = root.get(reverse("admin:monitoring_requestlog_change", args=[world.request.pk])).content.decode()
    assert "upstream_timeout" in page
    assert "0.0123 USD" in page
    assert "EUR" not in page
    assert "&lt;b&gt;bold vendor" in page
    assert "Estimated: refused (prompt_tokens &lt;i&gt;-5&lt;/i&gt;)" in page


def test_a_request_that_was_chosen_for_shows_why(root: Client, world: World) -> None:
    candidates = Candidate(0, "gpt-4o", "vendor", "gpt", quality=70), Candidate(0, "<i>mini", "vendor", "m", lacks="no <b>tools")
    decision = decided(Decision("auto", "translation", (Stage("route words", "quality"),), ("tools",), 9, 9, 9, 0.0, "USD", candidates))
    url = reverse("admin:monitoring_requestlog_change", args=[world.request.pk])
    assert "Why this model" not in root.get(url).content.decode()
    RequestLog.objects.update(decision=stored(decision), alias="auto")
    page = root.get(url).content.decode()
    assert "Why this model" in page
    assert "quality 70 of 100" in page
    assert "no &lt;b&gt;tools" in page
    assert "&lt;i&gt;mini" in page
    assert "Needs: tools" in page
