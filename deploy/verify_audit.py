#!/usr/bin/env python3
"""Verifies an llmcontrol audit trail without llmcontrol: Python 3.11 or newer and `cryptography`, nothing else.

    verify_audit.py --rows trail.jsonl --checkpoints audit-checkpoints.jsonl --chain-key-file chain.key --public-key-file public.key

`--rows` is what `manage.py export_audit` wrote, or the SQLite file itself (`--sqlite`). The keys are in hex, as
`manage.py export_audit --chain-key` and `--public-key` print them. Keep public key and checkpoints where the server's operators cannot
write: then nobody can cut the trail short or write it anew unseen.

Exit status: 0 = every row is as it was written, 1 = it is not, and the first bad row is named, 2 = something cannot be read.
Written apart from the product on purpose, after docs/audit.md; it shares no code with it.
"""

import argparse
import base64
import binascii
import hashlib
import hmac
import json
import sqlite3
import sys
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HASHED = (
    *("sequence", "at", "actor_id", "actor", "source", "address", "request_id"),
    *("action", "object_type", "object_id", "object_label", "changes"),
)
TABLE = "monitoring_auditevent"


def from_jsonl(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def from_sqlite(path):
    """Times are text there, in UTC, and a whole second has no fraction."""
    columns = (*HASHED, "prev", "hash")
    with closing(sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True)) as database:
        for values in database.execute(f"SELECT {', '.join(columns)} FROM {TABLE} ORDER BY sequence"):
            row = dict(zip(columns, values, strict=True))
            with suppress(ValueError, TypeError):
                row["at"] = datetime.fromisoformat(row["at"]).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            yield row


def expected_hash(key, row):
    text = json.dumps([1, *(row[name] for name in HASHED)], ensure_ascii=True, separators=(",", ":"))
    return hmac.new(key, bytes.fromhex(row["prev"]) + text.encode("ascii"), hashlib.sha256).hexdigest()


def read_checkpoints(path, public_key):
    """({sequence: hash}, what is wrong with the file). Lines that are no JSON were being written when the power went."""
    verifier, said, trouble = Ed25519PublicKey.from_public_bytes(public_key), {}, None
    for number, line in enumerate(Path(path).read_text(errors="replace").splitlines(), 1):
        try:
            point = json.loads(line)
        except ValueError:
            continue
        try:
            text = f"llmcontrol audit checkpoint v1\n{point['sequence']}\n{point['hash']}\n{point['at']}"
            verifier.verify(base64.b64decode(point["signature"]), text.encode())
            said[point["sequence"]] = point["hash"]
        except (InvalidSignature, KeyError, TypeError, ValueError):
            trouble = trouble or f"line {number} of the checkpoints is not signed with this key"
    return said, trouble


def judge(rows, key, said):
    """(good rows, number of the first bad one or None, why)."""
    good, before = 0, "0" * 64
    for row in rows:
        sequence = row["sequence"]
        if sequence != good + 1:
            early = isinstance(sequence, int) and sequence <= good
            return good, sequence if early else good + 1, f"row {good + 1} should come next, and row {sequence} does"
        if row["prev"] != before:
            return good, sequence, "it does not follow from the row before it"
        if not hmac.compare_digest(expected_hash(key, row), row["hash"]):
            return good, sequence, "it was altered, or written with another key"
        if said.get(sequence, row["hash"]) != row["hash"]:
            return good, sequence, "a signed checkpoint has another row in its place: the chain was written anew"
        good, before = sequence, row["hash"]
    last = max(said, default=0)
    if last > good:
        return good, good + 1, f"rows {good + 1} to {last} are gone: a signed checkpoint has row {last}"
    return good, None, None


def key_from(path):
    key = bytes.fromhex(Path(path).read_text().strip())
    if len(key) != 32:
        raise ValueError(f"{path}: a key is 32 bytes in hex")
    return key


def main():
    parser = argparse.ArgumentParser(description="Verifies an audit trail; see the head of this file.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--rows", help="JSON lines, as manage.py export_audit writes them")
    where.add_argument("--sqlite", help="the SQLite file of the server, or a copy")
    parser.add_argument("--checkpoints", required=True)
    parser.add_argument("--chain-key-file", required=True)
    parser.add_argument("--public-key-file", required=True)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    try:
        said, trouble = read_checkpoints(options.checkpoints, key_from(options.public_key_file))
        rows = from_sqlite(options.sqlite) if options.sqlite else from_jsonl(options.rows)
        good, bad, why = judge(rows, key_from(options.chain_key_file), said)
    except (OSError, ValueError, KeyError, TypeError, binascii.Error, sqlite3.Error) as error:
        print(f"cannot read: {error}", file=sys.stderr)
        return 2
    if bad is None and trouble:
        bad, why = 0, trouble
    if options.json:
        print(json.dumps({"ok": bad is None, "rows": good, "covered": max(said, default=0), "first_bad": bad, "problem": why}))
    elif bad is None:
        print(f"All {good} rows follow from each other; checkpoints vouch for rows 1 to {max(said, default=0)}.")
    else:
        print(f"First bad row: {bad}. {why}.")
    return 0 if bad is None else 1


if __name__ == "__main__":
    sys.exit(main())
