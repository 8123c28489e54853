from __future__ import annotations

from types import SimpleNamespace

import pytest

from access import keys
from core.clock import FrozenClock
from core.config import CallerSpec, Snapshot
from core.errors import NotAuthenticated, NotPermitted, ServerBusy
from gateway import admission
from gateway.doors.http import Gateway
from gateway.router import View

PEPPER = b"pepper"
KEY = keys.make(keys.API_KEY_PREFIX)


def snapshot(**changes: object) -> Snapshot:
    values = {"key_id": "k", "key_name": "n", "prefix": "p", "team_id": "t", "team_name": "T", "scopes": frozenset({"chat"})}
    return Snapshot(version=1, loaded_at=0.0, callers={keys.digest(PEPPER, KEY.encode()): CallerSpec(**{**values, **changes})})


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer K"),
        (b"authorization", b"bearer  K"),
        (b"x-api-key", b"K"),
        (b"api-key", b"K"),
        (b"x-goog-api-key", b"K"),
    ],
)
def test_every_usual_header_carries_the_key(header: tuple[bytes, bytes]) -> None:
    assert admission.credential([(b"host", b"x"), header], b"") == b"K"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic K")],
        [(b"authorization", b"Bearer " + b"x" * 600)],
        [(b"authorization", b"Bearer K"), (b"x-api-key", b"K")],
        [(b"authorization", b"Bearer K"), (b"authorization", b"Bearer L")],
    ],
)
def test_anything_else_is_not_a_credential(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(NotAuthenticated):
        admission.credential(headers, b"")


@pytest.mark.parametrize("query", [b"key=K", b"a=1&api_key=K", b"API-KEY=K", b"access_token=K"])
def test_a_key_in_the_url_is_refused_even_beside_a_good_one(query: bytes) -> None:
    with pytest.raises(NotAuthenticated, match="URL"):
        admission.credential([(b"authorization", b"Bearer K")], query)


def test_the_caller_is_found_by_digest_alone() -> None:
    assert admission.identify(snapshot(), PEPPER, KEY.encode(), 0.0).key_id == "k"
    for wrong in (b"", KEY.encode()[:-1], KEY.encode() + b"x", keys.digest(PEPPER, KEY.encode())):
        with pytest.raises(NotAuthenticated):
            admission.identify(snapshot(), PEPPER, wrong, 0.0)
    with pytest.raises(NotAuthenticated):
        admission.identify(snapshot(), b"another pepper", KEY.encode(), 0.0)


def test_while_the_database_is_away_nobody_can_say_that_there_is_no_such_key() -> None:
    pipeline = SimpleNamespace(clock=FrozenClock(wall_s=100.0))
    gateway = Gateway(pepper=PEPPER, max_body_bytes=1, body_timeout_s=1, pipeline=pipeline, stale=True)  # type: ignore[arg-type]
    view = View(snapshot=snapshot(), targets={})
    assert gateway.caller(view, KEY.encode(), {}).key_id == "k"
    with pytest.raises(ServerBusy):
        gateway.caller(view, b"sk-another", {})
    with pytest.raises(NotAuthenticated):
        gateway.caller(View(snapshot=snapshot(expires_at=99.0), targets={}), KEY.encode(), {})
    gateway.stale = False
    with pytest.raises(NotAuthenticated):
        gateway.caller(view, b"sk-another", {})


def test_a_key_ends_at_its_expiry() -> None:
    assert admission.identify(snapshot(expires_at=100.0), PEPPER, KEY.encode(), 99.9)
    with pytest.raises(NotAuthenticated):
        admission.identify(snapshot(expires_at=100.0), PEPPER, KEY.encode(), 100.0)


def test_scopes_are_needed() -> None:
    caller = admission.identify(snapshot(), PEPPER, KEY.encode(), 0.0)
    admission.require_scope(caller, "chat")
    with pytest.raises(NotPermitted, match="usage"):
        admission.require_scope(caller, "usage")
