"""Signatures, against the vector that the Standard Webhooks libraries publish for theirs, and all that a receiver must refuse."""

from __future__ import annotations

import base64

import pytest

from telling import signing
from telling.signing import BadSignature

# As the standard's own libraries test themselves.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, TIMESTAMP_S, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_published_vector() -> None:
    assert signing.headers(ID, TIMESTAMP_S, BODY, [SECRET]) == {
        "webhook-id": ID,
        "webhook-timestamp": str(TIMESTAMP_S),
        "webhook-signature": SIGNATURE,
    }
    assert signing.verify([SECRET], signing.headers(ID, TIMESTAMP_S, BODY, [SECRET]), BODY, TIMESTAMP_S) == ID


def test_two_secrets_make_two_signatures_and_either_is_enough() -> None:
    new = signing.new_secret()
    sent = signing.headers(ID, TIMESTAMP_S, BODY, [new, SECRET])
    assert sent["webhook-signature"].split(" ")[1] == SIGNATURE
    for known in (new, SECRET):
        assert signing.verify([known], sent, BODY, TIMESTAMP_S) == ID
    with pytest.raises(BadSignature, match="fits"):
        signing.verify([signing.new_secret()], sent, BODY, TIMESTAMP_S)


def test_a_new_secret_is_long_and_another_each_time() -> None:
    made = {signing.new_secret() for _ in range(50)}
    assert len(made) == 50
    assert {len(base64.b64decode(each.removeprefix("whsec_"))) for each in made} == {32}


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "whsec_not base64!", "whsec_" + "A" * 200])
def test_what_is_no_secret_signs_nothing(secret: str) -> None:
    with pytest.raises(ValueError, match="webhook secret"):
        signing.headers(ID, TIMESTAMP_S, BODY, [secret])


def test_without_a_secret_nothing_is_signed() -> None:
    with pytest.raises(ValueError, match="unsigned"):
        signing.headers(ID, TIMESTAMP_S, BODY, [])
