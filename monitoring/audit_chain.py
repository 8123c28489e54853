"""The arithmetic of the audit trail, without a database: how a row is hashed onto the one before it, how a checkpoint is
signed, and which row is the first that does not fit. Described for outsiders in docs/audit.md; `deploy/verify_audit.py` says the
same in code of its own, so a change here is a new VERSION.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

VERSION = 1
GENESIS = "0" * 64
_SIGNED = "llmcontrol audit checkpoint v1"


class Row(NamedTuple):
    """One event as it is hashed, exported and verified. `at` as `written_moment` writes it; `changes` is JSON, as text."""

    sequence: int
    at: str
    actor_id: str
    actor: str
    source: str
    address: str
    request_id: str
    action: str
    object_type: str
    object_id: str
    object_label: str
    changes: str
    prev: str
    hash: str


class Keys(NamedTuple):
    """All derived from AUDIT_KEY. An auditor who checks the chain gets `chain`, and of the signing key the public half only."""

    chain: bytes
    secrets: bytes
    signing_seed: bytes

    @classmethod
    def derived(cls, audit_key: bytes) -> Keys:
        return cls(*(_mac(audit_key, f"llmcontrol audit {use}".encode()) for use in ("chain", "secrets", "signing")))


class Checkpoint(NamedTuple):
    """Said at a moment outside the database: row `sequence` has that hash, and so it and all before it are there."""

    sequence: int
    hash: str
    at: str
    signature: str


class Bad(NamedTuple):
    """The first row that is not as it was written; `sequence` 0 = no row, but the file of checkpoints."""

    sequence: int
    problem: str


def written_moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def canonical(row: Row) -> bytes:
    """What is hashed: version and columns as one JSON list, ASCII, without spaces."""
    return json.dumps([VERSION, *row[:-2]], ensure_ascii=True, separators=(",", ":")).encode()


def link(key: bytes, row: Row) -> str:
    """The row's hash in hex: HMAC-SHA256(key, 32 bytes of the hash before it + canonical row)."""
    return _mac(key, bytes.fromhex(row.prev) + canonical(row)).hex()


def keyed_hash(keys: Keys, label: str, secret: bytes) -> str:
    """What stands for a secret: the same secret in the same column gives the same text, and nobody without the key can test guesses."""
    return f"hmac:{_mac(keys.secrets, label.encode() + bytes(1) + secret).hex()[:32]}"


def sign(keys: Keys, row_sequence: int, row_hash: str, at: str) -> Checkpoint:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # only processes that write need it

    signature = Ed25519PrivateKey.from_private_bytes(keys.signing_seed).sign(_signed_text(row_sequence, row_hash, at))
    return Checkpoint(row_sequence, row_hash, at, base64.b64encode(signature).decode())


def public_key(keys: Keys) -> bytes:
    """32 bytes: what checkpoints are verified with."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(keys.signing_seed).public_key().public_bytes_raw()


def line_of(checkpoint: Checkpoint) -> str:
    return json.dumps(checkpoint._asdict(), separators=(",", ":")) + "\n"


def read_checkpoints(text: str, public: bytes) -> tuple[list[Checkpoint], Bad | None]:
    """The checkpoints that are rightly signed, and the first line that says it is one and is not. What is no JSON was being written when
    the power went: it vouches for nothing, as a line that is gone."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    verifier, found, bad = Ed25519PublicKey.from_public_bytes(public), [], None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        try:
            point = Checkpoint(**fields)
            verifier.verify(base64.b64decode(point.signature), _signed_text(point.sequence, point.hash, point.at))
        except (ValueError, TypeError, InvalidSignature):
            bad = bad or Bad(
                0, f"line {number} of the checkpoints is not signed with this key: the file was altered, or the key is another"
            )
        else:
            found.append(point)
    return found, bad


def first_bad(rows: Iterable[Row], key: bytes, checkpoints: Sequence[Checkpoint]) -> tuple[int, Bad | None]:
    """(rows that were read and are good, the first that is not). `rows` in the order of `sequence`."""
    said: Mapping[int, Checkpoint] = {point.sequence: point for point in checkpoints}
    count, prev = 0, GENESIS
    for row in rows:
        if problem := _problem(row, count + 1, prev, key, said.get(row.sequence)):
            early = isinstance(row.sequence, int) and row.sequence <= count
            return count, Bad(row.sequence if early else count + 1, problem)
        count, prev = count + 1, row.hash
    last = max(said, default=0)
    if last > count:
        return count, Bad(count + 1, f"rows {count + 1} to {last} are gone: a checkpoint of {said[last].at} has row {last}")
    return count, None


def _problem(row: Row, expected: int, prev: str, key: bytes, checkpoint: Checkpoint | None) -> str:
    if not isinstance(row.sequence, int) or row.sequence > expected:
        return f"row {expected} is gone: row {row.sequence} comes next"
    if row.sequence < expected:
        return f"row {row.sequence} was put in: row {expected} should come next"
    if row.prev != prev:
        return f"row {row.sequence} does not follow from the row before it: a row was put in, taken out or moved"
    if not hmac.compare_digest(link(key, row), row.hash):
        return f"row {row.sequence} was altered, or written with another key"
    if checkpoint is not None and checkpoint.hash != row.hash:
        return f"row {row.sequence} is not the one of the checkpoint of {checkpoint.at}: the chain was written anew up to here"
    return ""


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _signed_text(sequence: int, row_hash: str, at: str) -> bytes:
    return f"{_SIGNED}\n{sequence}\n{row_hash}\n{at}".encode()
