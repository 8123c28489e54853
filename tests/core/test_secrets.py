"""Secrets stay hidden, and a sealed one opens only where it belongs."""

from __future__ import annotations

import copy
import json
import pickle
import traceback

import pytest

from core.secrets import CannotOpen, KeyRing, Secret, origin, sealed_under

PLAIN = "sk-very-secret-1234"
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
BOUND = "providers_providerkey:7:secret:https://api.openai.com:443"


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing({1: OLD}, current=1)


def test_a_secret_shows_itself_only_on_demand() -> None:
    secret = Secret(PLAIN)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{secret!r}", f"{[secret]} { ({'key': secret}) }"]
    assert not any(PLAIN in text for text in shown)
    assert secret.reveal() == PLAIN
    assert not hasattr(secret, "__dict__")


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_a_secret_is_not_serialised(leak: object) -> None:
    with pytest.raises(TypeError):
        leak(Secret(PLAIN))  # type: ignore[operator]


def test_a_traceback_with_locals_does_not_show_it() -> None:
    def fails(secret: Secret) -> None:
        raise ValueError("no")

    try:
        fails(Secret(PLAIN))
    except ValueError as exc:
        text = "".join(traceback.TracebackException.from_exception(exc, capture_locals=True).format())
    assert "secret = Secret(****)" in text


def test_secrets_compare_by_value() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert not Secret("")


def test_what_is_sealed_opens(ring: KeyRing) -> None:
    token = ring.seal(PLAIN, BOUND)
    assert ring.open(token, BOUND) == Secret(PLAIN)
    assert PLAIN.encode() not in token
    assert ring.seal(PLAIN, BOUND) != token


@pytest.mark.parametrize(
    "other",
    [BOUND.replace(":7:", ":8:"), BOUND.replace("secret", "name"), BOUND.replace("openai", "evil"), BOUND.replace("443", "444"), ""],
)
def test_it_opens_only_for_its_row_field_and_address(ring: KeyRing, other: str) -> None:
    with pytest.raises(CannotOpen) as caught:
        ring.open(ring.seal(PLAIN, BOUND), other)
    assert PLAIN not in str(caught.value)


def test_any_changed_byte_is_noticed(ring: KeyRing) -> None:
    token = ring.seal(PLAIN, BOUND)
    for position in range(len(token)):
        changed = bytearray(token)
        changed[position] ^= 1
        with pytest.raises(CannotOpen):
            ring.open(bytes(changed), BOUND)


@pytest.mark.parametrize("size", [0, 1, 2, 50, 80])
def test_a_short_token_is_damaged(ring: KeyRing, size: int) -> None:
    with pytest.raises(CannotOpen, match="damaged"):
        ring.open(ring.seal(PLAIN, BOUND)[:size], BOUND)


def test_keys_rotate_without_losing_what_is_sealed(ring: KeyRing) -> None:
    old_token = ring.seal(PLAIN, BOUND)
    both = KeyRing({1: OLD, 2: NEW}, current=2)
    new_token = both.seal(PLAIN, BOUND)
    assert both.open(old_token, BOUND) == both.open(new_token, BOUND) == Secret(PLAIN)
    after = KeyRing({2: NEW}, current=2)
    assert after.open(new_token, BOUND) == Secret(PLAIN)
    with pytest.raises(CannotOpen, match="key-encryption key 1, which is not configured"):
        after.open(old_token, BOUND)


def test_sealing_anew_wraps_the_data_key_and_leaves_the_ciphertext(ring: KeyRing) -> None:
    old_token = ring.seal(PLAIN, BOUND)
    new_token = KeyRing({1: OLD, 2: NEW}, current=2).reseal(old_token, BOUND)
    assert (sealed_under(old_token), sealed_under(new_token)) == (1, 2)
    assert len(new_token) == len(old_token)
    assert new_token[62:] == old_token[62:]  # version, KEK id, and a nonce, a key and a tag of 12 + 32 + 16 bytes
    assert new_token[2:62] != old_token[2:62]
    assert KeyRing({2: NEW}, current=2).open(new_token, BOUND) == Secret(PLAIN)


def test_sealing_anew_binds_to_the_same_place(ring: KeyRing) -> None:
    both = KeyRing({1: OLD, 2: NEW}, current=2)
    with pytest.raises(CannotOpen):
        both.reseal(ring.seal(PLAIN, BOUND), "elsewhere")
    with pytest.raises(CannotOpen):
        both.open(both.reseal(ring.seal(PLAIN, BOUND), BOUND), "elsewhere")


def test_nothing_damaged_is_sealed_anew(ring: KeyRing) -> None:
    token = ring.seal(PLAIN, BOUND)
    both = KeyRing({1: OLD, 2: NEW}, current=2)
    for position in range(len(token)):
        changed = bytearray(token)
        changed[position] ^= 1
        with pytest.raises(CannotOpen):
            both.reseal(bytes(changed), BOUND)


def test_what_is_no_token_names_no_key() -> None:
    for no_token in (b"", b"\x01", b"\x02" * 200):
        with pytest.raises(CannotOpen, match="damaged"):
            sealed_under(no_token)


@pytest.mark.parametrize(("keks", "current"), [({}, 1), ({1: OLD}, 2), ({1: OLD[:16]}, 1), ({0: OLD}, 0), ({256: OLD}, 256)])
def test_a_ring_that_cannot_work_is_not_made(keks: dict[int, bytes], current: int) -> None:
    with pytest.raises(ValueError, match="key ring"):
        KeyRing(keks, current)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://API.OpenAI.com/v1", "https://api.openai.com:443"),
        ("https://api.openai.com:443/other?x", "https://api.openai.com:443"),
        ("http://127.0.0.1:11434/v1", "http://127.0.0.1:11434"),
        ("HTTP://host", "http://host:80"),
        ("", "://:0"),
    ],
)
def test_the_origin_spells_out_the_port(url: str, expected: str) -> None:
    assert origin(url) == expected
