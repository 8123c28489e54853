"""A31: a webhook is believed only with a fresh signature by a secret that counts; nothing is sent without one.

We send webhooks and take none, so what is attacked is `telling.signing.verify`, which docs/webhooks.md offers to receivers, and what
we send: signed over id, time and body, with the old secret too while it is being rotated.
"""

from __future__ import annotations

import base64
import hmac

import pytest
from django.db import connection

from tasks import queue
from telling import services, signing
from telling.models import WebhookSecret
from telling.signing import BadSignature
from tests.telling.rows import a_team

NOW = 1_800_000_000
SECRET = signing.new_secret()
BODY = b'{"event_type":"completed","task_id":"task_1"}'
SENT = signing.headers("msg_1", NOW, BODY, [SECRET])


def refused(sent: dict[str, str], body: bytes = BODY, at: float = NOW, secrets: tuple[str, ...] = (SECRET,)) -> str:
    with pytest.raises(BadSignature) as reason:
        signing.verify(secrets, sent, body, at)
    return str(reason.value)


def test_what_was_signed_is_believed() -> None:
    assert signing.verify([SECRET], SENT, BODY, NOW) == "msg_1"


@pytest.mark.parametrize("name", sorted(SENT))
def test_a_missing_or_empty_header(name: str) -> None:
    assert "missing" in refused({other: value for other, value in SENT.items() if other != name})
    assert "missing" in refused({**SENT, name: ""})


@pytest.mark.parametrize(
    "signature",
    [
        "v1,",
        "v1,AAAA",
        "v2," + SENT["webhook-signature"][3:],
        SENT["webhook-signature"][3:],
        SENT["webhook-signature"].lower(),
        SENT["webhook-signature"][:-1],
        "v1," + base64.b64encode(hmac.new(b"", b"msg_1.1800000000." + BODY, "sha256").digest()).decode(),
        "v1a," + SENT["webhook-signature"][3:],
        "é",
    ],
    ids=["empty", "short", "v2", "no version", "lower case", "cut", "of an empty secret", "asymmetric", "not ascii"],
)
def test_a_wrong_signature(signature: str) -> None:
    assert "fits" in refused({**SENT, "webhook-signature": signature})


def test_each_part_is_signed() -> None:
    for name, value in (("webhook-id", "msg_2"), ("webhook-timestamp", str(NOW + 1))):
        assert "fits" in refused({**SENT, name: value})
    assert "fits" in refused(SENT, BODY + b" ")
    # What ends one part cannot begin the next: the body is not "00." longer because the time is shorter.
    assert "fits" in refused({**SENT, "webhook-id": "msg_1.18"})


@pytest.mark.parametrize("at", [NOW + 600, NOW - 600, NOW + 301])
def test_ten_minutes_old_or_replayed_later(at: float) -> None:
    assert "away" in refused(SENT, at=at)


@pytest.mark.parametrize("timestamp", ["now", "-1", "1e9", "٣", "9" * 400, "1800000000.0"])
def test_a_time_that_is_none(timestamp: str) -> None:
    assert "number" in refused({**SENT, "webhook-timestamp": timestamp})


def test_a_replay_in_time_has_the_same_id() -> None:
    """Nothing in the message can tell it apart: the receiver knows the id."""
    assert signing.verify([SECRET], SENT, BODY, NOW + 10) == signing.verify([SECRET], SENT, BODY, NOW + 20) == "msg_1"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA"])
def test_an_empty_secret_neither_signs_nor_verifies(secret: str) -> None:
    with pytest.raises(ValueError):
        signing.headers("msg_1", NOW, BODY, [secret])
    with pytest.raises(ValueError):
        signing.verify([secret], SENT, BODY, NOW)


@pytest.mark.django_db
def test_a_rotated_secret_signs_beside_the_new_one_and_then_no_more() -> None:
    team = a_team(secret=False)
    row, old = services.new_secret(team)
    _, new = services.new_secret(team, overlap_s=3600)
    for after_s, signing_secrets in ((0, {old, new}), (3700, {new})):
        moment = queue.moment(row.created_at.timestamp() + after_s)
        found = [secret.reveal() for secret in services.secrets_of(team.pk, moment)]
        assert set(found) == signing_secrets
        sent = signing.headers("msg_1", NOW, BODY, found)
        assert len(sent["webhook-signature"].split(" ")) == len(signing_secrets)
        for secret in signing_secrets:
            signing.verify([secret], sent, BODY, NOW)
    assert "fits" in refused(sent, secrets=(old,))


@pytest.mark.django_db
def test_no_secret_is_in_the_database_as_it_is() -> None:
    _, plaintext = services.new_secret(a_team(secret=False))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT secret FROM {WebhookSecret._meta.db_table}")
        (stored,) = cursor.fetchone()
    raw = base64.b64decode(plaintext.removeprefix(signing.PREFIX))
    assert plaintext.encode() not in bytes(stored)
    assert raw not in bytes(stored)
