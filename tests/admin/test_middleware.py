"""The content security policy, and static files under ASGI."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.contrib.staticfiles import finders
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client

from llmcontrol.middleware import content_security_policy

STYLES = "/static/llmcontrol/admin.css"


def _directives(response: Any) -> dict[str, str]:
    policy = response.headers["Content-Security-Policy"]
    return {name: rest for name, _, rest in (part.strip().partition(" ") for part in policy.split(";"))}


def test_evaluation_is_allowed_to_the_admin_only(root: Client) -> None:
    assert _directives(root.get("/admin/"))["script-src"] == "'self' 'unsafe-eval'"
    for path in ("/no-such-page", "/administration", STYLES):
        assert _directives(root.get(path))["script-src"] == "'self'"


def test_the_policy_closes_every_other_door(root: Client) -> None:
    for path in ("/admin/", STYLES):
        policy = _directives(root.get(path))
        assert policy["default-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["object-src"] == "'none'"
        assert policy["base-uri"] == policy["form-action"] == "'self'"
        assert "unsafe-inline" not in policy["script-src"]


def test_a_view_may_set_its_own_policy() -> None:
    middleware: Any = content_security_policy(lambda request: HttpResponse(headers={"Content-Security-Policy": "default-src 'none'"}))
    assert _directives(middleware(HttpRequest())) == {"default-src": "'none'"}


def test_it_is_asynchronous_where_the_next_one_is() -> None:
    async def answer(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    middleware: Any = content_security_policy(answer)
    assert iscoroutinefunction(middleware)
    assert _directives(asyncio.run(middleware(HttpRequest())))["default-src"] == "'self'"


async def test_static_files_come_whole_and_without_a_warning_under_asgi() -> None:
    path = finders.find("llmcontrol/admin.css")
    assert isinstance(path, str)
    response = await AsyncClient().get(STYLES)
    with open(path, "rb") as file:  # noqa: ASYNC230  (a test may wait)
        assert response.content == file.read()
    assert not response.streaming
    assert response.headers["Content-Type"].startswith("text/css")


@pytest.mark.parametrize(
    ("method", "headers", "status", "length"),
    [
        ("get", {"Range": "bytes=0-9"}, 206, 10),
        ("get", {"Range": "bytes=99999999-"}, 416, 0),
        ("head", {}, 200, 0),
        ("post", {}, 405, 0),
    ],
)
def test_static_files_keep_to_http(client: Client, method: str, headers: dict[str, str], status: int, length: int) -> None:
    response = getattr(client, method)(STYLES, headers=headers)
    assert (response.status_code, len(response.content)) == (status, length)


def test_an_unchanged_file_is_not_sent_again(client: Client) -> None:
    etag = client.get(STYLES).headers["ETag"]
    assert client.get(STYLES, headers={"If-None-Match": etag}).status_code == 304
