"""Filters of the lists that people keep: whose they are, what is kept of an address, and what may not be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client

from monitoring.models import AuditEvent, SavedFilter
from monitoring.saved_filters import MAX_OF_ONE, SHARING, without_paging

LIST = "/admin/monitoring/requestlog/"
VIEW = "monitoring.view_requestlog"
HOSTILE = "<script>alert(1)</script>"


def save(client: Client, name: str = "mine", query: str = "model=gpt-4o&outcome=failed", at: str = LIST, **more: str) -> str:
    """What the list says next."""
    return client.post(f"{at}filters/", {"name": name, "query": query, **more}, follow=True).content.decode()


@pytest.fixture
def ann(staff: Callable[..., Client]) -> Client:
    return staff(VIEW, SHARING, username="ann")


@pytest.fixture
def bob(staff: Callable[..., Client]) -> Client:
    return staff(VIEW, username="bob")


def test_one_sees_the_own_and_what_is_shared(ann: Client, bob: Client) -> None:
    save(ann, "anns own"), save(ann, "for all", shared="on"), save(bob, "bobs own")
    for client, seen, hidden in ((ann, ("anns own", "for all"), "bobs own"), (bob, ("bobs own", "for all", "by ann"), "anns own")):
        page = client.get(LIST).content.decode()
        assert all(name in page for name in seen)
        assert hidden not in page
    assert 'href="?model=gpt-4o&amp;outcome=failed"' in bob.get(LIST).content.decode()


def test_each_list_has_its_own(root: Client) -> None:
    for at in (LIST, "/admin/monitoring/usagerecord/", "/admin/monitoring/auditevent/"):
        assert "Save this filter" not in root.get(at).content.decode()
        assert "Save this filter" in root.get(at, {"since": "24h"}).content.decode()
        save(root, f"of {at}", "since=24h", at)
        assert f"of {at}" in root.get(at).content.decode()
    assert root.get(LIST).content.decode().count("llmc-chip") == 1


def test_the_same_name_again_replaces(ann: Client) -> None:
    save(ann, query="model=a"), save(ann, " mine ", query="model=b", shared="on")
    assert [(row.name, row.query, row.shared) for row in SavedFilter.objects.all()] == [("mine", "model=b", True)]


def test_sharing_takes_a_permission(bob: Client) -> None:
    assert "for everybody" not in bob.get(LIST, {"model": "a"}).content.decode()
    assert bob.post(f"{LIST}filters/", {"name": "x", "query": "model=a", "shared": "on"}).status_code == 403
    assert not SavedFilter.objects.exists()


def test_one_deletes_the_own_and_with_the_permission_shared_ones(ann: Client, bob: Client, root: Client) -> None:
    save(bob, "bobs own"), save(ann, "anns own"), save(ann, "for all", shared="on")
    urls = {row.name: f"{LIST}filters/{row.pk}/delete/" for row in SavedFilter.objects.all()}
    assert [bob.post(urls[name]).status_code for name in ("anns own", "for all", "bobs own")] == [404, 404, 302]
    assert root.post(urls["anns own"]).status_code == 404
    assert ann.get(urls["for all"]).status_code == 405
    assert root.post(urls["for all"]).status_code == 302
    assert [row.name for row in SavedFilter.objects.all()] == ["anns own"]
    other_list = urls["anns own"].replace("requestlog", "usagerecord")
    assert ann.post(other_list).status_code == 403


def test_who_may_not_see_the_list_has_no_filters_there(staff: Callable[..., Client]) -> None:
    eve = staff(SHARING, username="eve")
    assert eve.post(f"{LIST}filters/", {"name": "x", "query": "model=a"}).status_code == 403
    assert not SavedFilter.objects.exists()


@pytest.mark.parametrize(
    ("name", "query", "words"),
    [
        ("", "model=a", "1 to 60 characters"),
        ("x" * 61, "model=a", "1 to 60 characters"),
        ("a\u202eb", "model=a", "1 to 60 characters"),
        ("x", "before=5&after=&p=2", "nothing to save"),
        ("x", "model=" + "a" * 2000, "longer than 2000"),
        ("x", "model=" + "a" * 9000, "longer than 2000"),
    ],
)
def test_what_cannot_be_kept_is_said(ann: Client, name: str, query: str, words: str) -> None:
    assert words in save(ann, name, query)
    assert not SavedFilter.objects.exists()


def test_there_is_a_most(ann: Client) -> None:
    owner = User.objects.get(username="ann")
    SavedFilter.objects.bulk_create(SavedFilter(owner=owner, listing="requestlog", name=f"f{n}", query="a=b") for n in range(MAX_OF_ONE))
    assert "delete one first" in save(ann, "one more")
    assert "is saved" in save(ann, "f1")


def test_of_an_address_only_the_filter_is_kept() -> None:
    assert without_paging("model=a%26b&before=5&p=1&team=&key=x&key=y") == "model=a%26b&key=x&key=y"
    assert without_paging("javascript:alert(1)") == ""


def test_names_and_queries_are_text(ann: Client) -> None:
    shown = save(ann, HOSTILE, f"model={HOSTILE}")
    assert HOSTILE not in shown
    assert SavedFilter.objects.get().name == HOSTILE


def test_it_is_recorded_once_as_every_row_is(ann: Client) -> None:
    save(ann)
    SavedFilter.objects.get().delete()
    assert [event.action for event in AuditEvent.objects.filter(object_type="monitoring.SavedFilter").order_by("pk")] == [
        "created",
        "deleted",
    ]
