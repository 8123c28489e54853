"""A01, A04, A05: a credential that is none is refused in the same words on every door, costs no query, and is in no log."""

from __future__ import annotations

import re
import secrets

import pytest

from access.keys import API_KEY_PREFIX, digest, make
from core.config import CallerSpec, Snapshot
from core.errors import NotAuthenticated
from gateway import admission
from tests.e2e import wire
from tests.security.house import House

CHAT = "/v1/chat/completions"
PEPPER = b"pepper-of-more-than-thirty-two-characters"
SQL = [
    "' OR '1'='1",
    "' OR 1=1 --",
    "'; DROP TABLE access_apikey; --",
    '" OR ""="',
    "') UNION SELECT secret FROM providers_providerkey --",
    "1; SELECT pg_sleep(10) --",
    "' AND 1=(SELECT COUNT(*) FROM sqlite_master) --",
    "\\'; --",
    "%27%20OR%201=1",
    "${jndi:ldap://x}",
]
# As they stand in a request's head; `KEY` is a good key.
CASES = {
    "none": [],
    "empty": ["Authorization:"],
    "scheme alone": ["Authorization: Bearer"],
    "scheme and a space": ["Authorization: Bearer "],
    "no scheme": ["Authorization: KEY"],
    "another scheme": ["Authorization: Basic KEY"],
    "Token": ["Authorization: Token KEY"],
    "doubled": ["Authorization: Bearer KEY", "Authorization: Bearer KEY"],
    "two headers": ["Authorization: Bearer KEY", "x-api-key: KEY"],
    "twice in one": ["Authorization: Bearer KEY, Bearer KEY"],
    "comma": ["Authorization: Bearer KEY,KEY"],
    "cut": ["Authorization: Bearer CUT"],
    "one more": ["Authorization: Bearer KEYx"],
    "upper case": ["Authorization: Bearer UPPER"],
    "quoted": ['Authorization: Bearer "KEY"'],
    "inner space": ["Authorization: Bearer K EY"],
    "30 KB": ["Authorization: Bearer " + "x" * 30_000],
    "latin-1": ["Authorization: Bearer \xff\xe9\xe8"],
    "percent-encoded": ["Authorization: Bearer %73%6b"],
    "in a cookie": ["Cookie: authorization=Bearer KEY; api_key=KEY"],
    "in a body's header": ["X-Authorization: Bearer KEY"],
    "a proxy's": ["Proxy-Authorization: Bearer KEY"],
    "empty x-api-key": ["x-api-key:"],
    "null": ["Authorization: Bearer null"],
    "undefined": ["Authorization: Bearer undefined"],
    "a JSON": ['Authorization: Bearer {"$ne": null}'],
    "a star": ["Authorization: Bearer *"],
    "the prefix": ["Authorization: Bearer sk-llmc-"],
    **{f"SQL {number}": [f"Authorization: Bearer {payload}"] for number, payload in enumerate(SQL)},
    **{f"SQL in x-api-key {number}": [f"x-api-key: {payload}"] for number, payload in enumerate(SQL[:4])},
}


def ask(house: House, lines: list[str], path: str = CHAT) -> tuple[int, bytes]:
    key = house.key
    text = "".join(f"{line}\r\n" for line in lines)
    for name, value in (("UPPER", key.upper()), ("CUT", key[:-1]), ("K EY", key[:10] + " " + key[10:]), ("KEY", key)):
        text = text.replace(name, value)
    answer, _ = house.raw(f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n{text}\r\n{{}}".encode("latin-1"))
    head, _, body = answer.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1\.1 (\d{3})", head)
    return int(found.group(1)) if found else 0, body


@pytest.mark.process
@pytest.mark.parametrize("case", CASES)
def test_every_door_refuses_in_the_same_words(house: House, case: str) -> None:
    for path in (CHAT, "/v1/responses", "/v1/embeddings", "/v1/completions", "/api/generate", "/api/count-tokens"):
        status, body = ask(house, CASES[case], path)
        assert status == 401, (path, body)
        usual = ask(house, [], path)[1] if case not in ("doubled", "two headers") else body
        assert body == usual
        assert house.key.encode() not in body


@pytest.mark.process
def test_a_key_with_a_nul_in_it_does_not_get_past_the_parser(house: House) -> None:
    assert ask(house, ["Authorization: Bearer KEY\x00"])[0] == 400


@pytest.mark.process
@pytest.mark.parametrize("payload", SQL)
def test_sql_is_text_wherever_it_stands(house: House, payload: str) -> None:
    """In every place of a request that a caller fills in: an answer, or a refusal; never an error of ours."""
    calls = [
        {"path": CHAT, "body": {"model": payload, "messages": wire.HELLO}},
        {"path": CHAT, "body": {"model": "echo-1", "messages": wire.asking(payload), "user": payload}},
        {"path": CHAT, "body": {"model": "echo-1", "messages": wire.HELLO}, "headers": {"Idempotency-Key": payload, "Cookie": payload}},
        {"path": CHAT, "body": {"model": "echo-1", "messages": wire.HELLO, "metadata": {payload: payload}, payload: payload}},
    ]
    for call in calls:
        answer = wire.call(house.live.base_url, "POST", call.pop("path"), key=house.key, **call)  # type: ignore[arg-type]
        assert answer.status in (200, 400, 404), answer
    log = house.live.log.read_text()
    assert "OperationalError" not in log
    assert "ProgrammingError" not in log


@pytest.mark.process
def test_no_credential_is_in_the_log_or_the_database(house: House) -> None:
    wrong = make(API_KEY_PREFIX)
    for path in (CHAT, f"{CHAT}?key={wrong}", f"/v1/{wrong}", f"/admin/?api_key={wrong}"):
        for headers in ({"Authorization": f"Bearer {wrong}"}, {"x-api-key": wrong}, {"Cookie": f"sessionid={wrong}"}):
            wire.call(house.live.base_url, "POST", path, headers=headers, body={})
    planted = [wrong, house.key, str(house.live.admin_token), str(house.live.password)]
    for name, held in house.stored().items():
        assert not [secret for secret in planted if secret.encode() in held], name


# A05, A07 -------------------------------------------------------------------------------------------------------------


def snapshot(*credentials: bytes) -> Snapshot:
    callers = {digest(PEPPER, key): caller(f"id-{number}") for number, key in enumerate(credentials)}
    return Snapshot(version=1, loaded_at=0.0, callers=callers)


def caller(key_id: str, expires_at: float | None = None) -> CallerSpec:
    return CallerSpec(key_id, "key", "sk-llmc-", "team-id", "team", frozenset({"chat"}), expires_at=expires_at)


@pytest.mark.parametrize("shared", [8, 20, 40, 50])
def test_keys_that_begin_alike_are_each_their_own(shared: int) -> None:
    keys = [make(API_KEY_PREFIX)[:shared].encode() + secrets.token_urlsafe(16).encode() for _ in range(2)]
    keys[1] = keys[0][:shared] + keys[1][shared:]
    held = snapshot(*keys)
    assert [admission.identify(held, PEPPER, key, 0.0).key_id for key in keys] == ["id-0", "id-1"]
    for stranger in (keys[0][:shared], keys[0][:-1], keys[0] + b"x", keys[0].swapcase(), b""):
        with pytest.raises(NotAuthenticated):
            admission.identify(held, PEPPER, stranger, 0.0)


def test_a_hundred_thousand_wrong_keys_leave_nothing_behind() -> None:
    """There is no cache of answers to fill: a digest is looked up in the configuration, and that is all."""
    held = snapshot(b"sk-llmc-good")
    for number in range(100_000):
        with pytest.raises(NotAuthenticated):
            admission.identify(held, PEPPER, b"sk-llmc-%d" % number, 0.0)
    assert len(held.callers) == 1


def test_the_same_steps_are_taken_whatever_is_wrong() -> None:
    """The time that it takes is measured in tests/faults (G18); here, that the refusals are one."""
    held = snapshot(b"sk-llmc-good")
    expired = {digest(PEPPER, b"sk-llmc-old"): caller("old", expires_at=1.0)}
    held = Snapshot(version=1, loaded_at=0.0, callers={**held.callers, **expired})
    said = set()
    for key in (b"sk-llmc-old", b"sk-llmc-gooe", b"nothing", b"sk-llmc-goodgood"):
        with pytest.raises(NotAuthenticated) as refused:
            admission.identify(held, PEPPER, key, 2.0)
        said.add((refused.value.message, refused.value.code, refused.value.param, refused.value.detail))
    assert len(said) == 1
