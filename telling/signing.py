"""Signatures of Standard Webhooks (https://www.standardwebhooks.com): HMAC-SHA-256 over `id.timestamp.body`. Pure, without Django.

A receiver in Python may use `verify`; in other languages any library of that standard will do.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets as random
from collections.abc import Iterable, Mapping

PREFIX = "whsec_"
TOLERANCE_S = 300.0
_SECRET_BYTES = 32
_LEAST_BYTES, _MOST_BYTES = 24, 64


class BadSignature(Exception):
    """A message that is not to be believed. The sentence says why, for the receiver's own log."""


def new_secret() -> str:
    return PREFIX + base64.b64encode(random.token_bytes(_SECRET_BYTES)).decode()


def headers(message_id: str, timestamp_s: int, body: bytes, secrets: Iterable[str]) -> dict[str, str]:
    """The three headers of one try. One signature for each secret, separated by spaces. Raises ValueError without a usable secret."""
    signatures = [_signature(secret, message_id, str(timestamp_s), body) for secret in secrets]
    if not signatures:
        raise ValueError("a webhook is never sent unsigned: there is no secret")
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp_s), "webhook-signature": " ".join(signatures)}


def verify(secrets: Iterable[str], received: Mapping[str, str], body: bytes, now_s: float, *, tolerance_s: float = TOLERANCE_S) -> str:
    """The message's id, by which the receiver knows one that comes a second time. `received`: header names in lower case.

    Raises BadSignature where a header is missing, the message is older or newer than `tolerance_s`, or no signature fits.
    """
    message_id, timestamp, signatures = (received.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (message_id and timestamp and signatures):
        raise BadSignature("a header is missing: webhook-id, webhook-timestamp and webhook-signature are needed")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 16):
        raise BadSignature("webhook-timestamp is not a number of seconds")
    if abs(now_s - int(timestamp)) > tolerance_s:
        raise BadSignature(f"webhook-timestamp is more than {tolerance_s:g} s away")
    expected = [_signature(secret, message_id, timestamp, body).encode() for secret in secrets]
    given = [each.encode() for each in signatures.split(" ") if each.startswith("v1,")]
    if not any([hmac.compare_digest(one, other) for one in expected for other in given]):  # noqa: C419  (all of them, whichever fits)
        raise BadSignature("no signature fits")
    return message_id


def _signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.new(_key(secret), signed, "sha256").digest()).decode()


def _key(secret: str) -> bytes:
    """Raises ValueError, which does not say what the secret is."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise ValueError(f"a webhook secret is {PREFIX} and the base64 of {_LEAST_BYTES} to {_MOST_BYTES} bytes")
    return key
