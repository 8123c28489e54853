"""A06: no spelling of a path, no Host and no header makes another view run than the one whose credential was asked for."""

from __future__ import annotations

import itertools

import pytest

from tests.e2e import wire
from tests.security.house import House

pytestmark = pytest.mark.process
PROTECTED = ["/admin/", "/admin/providers/provider/", "/api/v1/llm/providers", "/api/v1/llm/keys", "/api/schema/", "/metrics", "/api/info",
             "/v1/models", "/docs"]  # fmt: skip
# How a path is bent, and what is put before it.
BENT = [
    "{}",
    "/{}",
    "//{}",
    "/.{}",
    "/x/..{}",
    "/v1/..{}",
    "/v1/%2e%2e{}",
    "/v1/%2e%2e%2f..{}",
    "/v1/models/..{}",
    "/health/..{}",
    "/health;{}",
    "/health%2f..{}",
    "/static/..{}",
    "/static/%2e%2e{}",
    "{}/",
    "{}/.",
    "{}%20",
    "{}%00",
    "{};x",
    "{};/health",
    "{}#/health",
    "{}?/health",
    "{}%3f/health",
    "{}//",
    "{}\\",
    "{}.json",
    "{}%2f",
    "/\\{}",
    "/%5c{}",
    "/ready/..;{}",
    "/openai/..{}",
    "/api/health/..{}",
]
# What is open to everybody says only this.
OPEN = [b'{"status":"ok"}', b'"status":"ready"']


def is_guarded(answer: wire.Answer) -> bool:
    """Refused, not found, or sent to the login; or one of the open answers."""
    if answer.status in (301, 302, 307, 308):
        return True  # where it leads is asked for in its turn
    return answer.status in (400, 401, 403, 404, 405) or any(text in answer.body for text in OPEN)


def spelled(path: str, bent: str) -> str:
    return bent.format(path).replace(" ", "%20")


@pytest.mark.parametrize("path", PROTECTED)
def test_no_spelling_gets_a_stranger_in(house: House, path: str) -> None:
    for bent in BENT:
        answer, _ = house.raw(
            f"GET {spelled(path, bent)} HTTP/1.1\r\nHost: 127.0.0.1:{house.port}\r\nConnection: close\r\n\r\n".encode(), timeout_s=10
        )
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1]) if head else 400
        assert is_guarded(wire.Answer(status, {}, body)), (spelled(path, bent), head, body[:200])


@pytest.mark.parametrize("path", ["/admin/", "/api/v1/llm/providers", "/metrics", "/api/schema/", "/api/info"])
@pytest.mark.parametrize("bent", ["{}", "/v1/..{}", "/v1/%2e%2e{}", "/v1/models/%2e%2e/..{}", "//{}"])
def test_a_callers_key_is_none_to_the_control_plane(house: House, path: str, bent: str) -> None:
    assert is_guarded(wire.call(house.live.base_url, "GET", spelled(path, bent), key=house.key))


def test_an_administrators_token_is_none_to_the_data_plane(house: House) -> None:
    for headers in ({"Authorization": f"Token {house.live.admin_token}"}, {"Authorization": f"Bearer {house.live.admin_token}"}):
        assert wire.call(house.live.base_url, "GET", "/v1/models", headers=headers).status == 401


HOSTS = ["evil.test", "127.0.0.1.evil.test", "evil.test:80", "127.0.0.1@evil.test", "localhost.evil.test", "[::1].evil.test", "", "a b",
         "evil.test/", "127.0.0.1:x", "127.0.0.1\\@evil.test", "xn--80ak6aa92e.com", "127.0.0.1,evil.test", "0x7f.1", "*"]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_the_control_plane_answers_to_its_own_names(house: House, host: str) -> None:
    for path in ("/admin/login/", "/api/v1/llm/providers", "/docs"):
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Token {house.live.admin_token}\r\nConnection: close\r\n\r\n"
        answer, _ = house.raw(head.encode(), timeout_s=10)
        assert answer.startswith(b"HTTP/1.1 400"), (path, answer[:200])


def test_two_hosts_are_none(house: House) -> None:
    head = f"GET /admin/login/ HTTP/1.1\r\nHost: 127.0.0.1:{house.port}\r\nHost: evil.test\r\nConnection: close\r\n\r\n"
    assert house.raw(head.encode(), timeout_s=10)[0].startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "X-Host", "Forwarded", "X-Forwarded-Server", "X-HTTP-Host-Override"])
def test_a_host_beside_the_host_counts_for_nothing(house: House, name: str) -> None:
    answer = wire.call(house.live.base_url, "GET", "/admin/", headers={name: "host=evil.test" if name == "Forwarded" else "evil.test"})
    assert answer.status == 302
    assert answer.headers["location"].startswith("/admin/login/")
    assert "evil" not in str(answer.headers)
    page = wire.call(house.live.base_url, "GET", "/admin/login/", headers={name: "evil.test"})
    assert b"evil.test" not in page.body


@pytest.mark.parametrize(
    "name", ["X-Original-URL", "X-Rewrite-URL", "X-Override-URL", "X-Accel-Redirect", "X-Sendfile", "X-Forwarded-Prefix", "X-Script-Name"]
)
def test_a_path_beside_the_path_counts_for_nothing(house: House, name: str) -> None:
    for there, path in itertools.product(("/api/v1/llm/providers", "/admin/"), ("/health", "/v1/nothing")):
        answer = wire.call(house.live.base_url, "GET", path, headers={name: there})
        plain = wire.call(house.live.base_url, "GET", path)
        assert (answer.status, len(answer.body)) == (plain.status, len(plain.body))


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_method_beside_the_method_counts_for_nothing(house: House, name: str) -> None:
    provider = house.control.provider(house.vendor.base_url)
    path = f"/api/v1/llm/providers/{provider['id']}"
    headers = {"Authorization": f"Token {house.live.admin_token}", name: "DELETE"}
    assert wire.call(house.live.base_url, "GET", f"{path}?_method=DELETE", headers=headers).status in (200, 400)
    assert wire.call(house.live.base_url, "POST", path, headers=headers, body={"_method": "DELETE"}).status == 405
    assert house.control.call("GET", path)["id"] == provider["id"]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "TRACK", "DEBUG", "PROPFIND", "MOVE", "get", "GET\t"])
def test_an_unusual_method_is_refused(house: House, method: str) -> None:
    for path in ("/v1/models", "/api/v1/llm/providers", "/admin/"):
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{house.port}\r\nX-Secret: planted\r\nConnection: close\r\n\r\n"
        answer, _ = house.raw(head.encode(), timeout_s=10)
        assert not answer or int(answer.split(b" ")[1]) in (302, 400, 401, 403, 405), answer[:200]
        assert b"planted" not in answer
