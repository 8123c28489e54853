"""Lists that grow for ever are paged without counting, and a list without rows says what to do."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from tasks.models import Task

BEGUN = datetime(2026, 3, 1, tzinfo=UTC)
URL = "/admin/tasks/task/"


@pytest.fixture
def many(db: None) -> list[Task]:
    """Newest first; ten of each moment, so that pages end among rows of one moment."""
    rows = [
        Task(
            id=uuid.UUID(int=n * 7919 % 1009),
            kind="custom",
            max_attempts=1,
            timeout_s=1,
            rank=n,
            created_at=BEGUN + timedelta(seconds=n // 10),
        )
        for n in range(120)
    ]
    Task.objects.bulk_create(rows)
    return sorted(rows, key=lambda row: (row.created_at, row.pk), reverse=True)


def shown(page: str) -> list[str]:
    return re.findall(rf'<a href="{URL}([0-9a-f-]+)/change/', page)


def link(page: str, rel: str) -> str | None:
    found = re.search(rf'rel="{rel}" href="([^"]+)"', page)
    return found and found[1].replace("&amp;", "&")


def test_pages_of_tasks_hold_each_task_once_forth_and_back(root: Client, many: list[Task]) -> None:
    pages, query = [], ""
    while query is not None:
        pages.append(root.get(URL + query).content.decode())
        query = link(pages[-1], "next")
    assert [len(shown(page)) for page in pages] == [50, 50, 20]
    assert [pk for page in pages for pk in shown(page)] == [str(row.pk) for row in many]
    back = root.get(URL + str(link(pages[2], "prev"))).content.decode()
    assert shown(back) == shown(pages[1])


@pytest.mark.parametrize("edge", ["", "x", "2026-03-01_x", "0001-01-01T00:00:00_" + "0" * 32, "2026-03-01T00:00:00%2B00:00"])
def test_an_edge_that_is_none_starts_at_the_newest(root: Client, many: list[Task], edge: str) -> None:
    page = root.get(f"{URL}?before={edge}").content.decode()
    assert shown(page)[0] == str(many[0].pk)


def test_nothing_is_counted(root: Client, many: list[Task], django_assert_max_num_queries: Callable[..., object]) -> None:
    with django_assert_max_num_queries(6) as asked:
        root.get(URL)
    assert not [query["sql"] for query in asked.captured_queries if "COUNT(" in query["sql"] and "tasks_task" in query["sql"]]


def test_a_task_is_found_by_the_id_that_the_list_shows(root: Client, many: list[Task]) -> None:
    page = root.get(URL, {"q": f" {many[3].public_id} "}).content.decode()
    assert shown(page) == [str(many[3].pk)]
    assert "Nothing matches" in root.get(URL, {"q": "task_nonsense"}).content.decode()


def test_an_empty_list_says_what_to_do(root: Client, db: None) -> None:
    page = root.get("/admin/access/budget/").content.decode()
    assert "No budget yet." in page
    assert "Add budget" in page
    assert "Nothing matches" in root.get("/admin/access/budget/?q=x").content.decode()
