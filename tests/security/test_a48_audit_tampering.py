"""A48, goal G22: five kinds of tampering at a thousand random places each. Every one is found and its first bad row named, by the
product and by the verifier that shares no code with it."""

from __future__ import annotations

import random
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from monitoring import audit_chain
from monitoring.audit_chain import GENESIS, Checkpoint, Keys, Row

PLACES = 1_000
ROWS = 60
KEYS = Keys.derived(b"a key for tests of more than thirty-two bytes")
SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[2] / "deploy" / "verify_audit.py"))


def written(count: int) -> list[Row]:
    rows, prev = [], GENESIS
    for number in range(1, count + 1):
        at = f"2026-11-21T12:00:00.{number:06}Z"
        row = Row(number, at, "7", "ann", "admin", "192.0.2.1", "r", "changed", "access.Team", "1", "search", '{"a":[1,2]}', prev, "")
        rows.append(row._replace(hash=audit_chain.link(KEYS.chain, row)))
        prev = rows[-1].hash
    return rows


WHOLE = written(ROWS)
HEAD = [Checkpoint(ROWS, WHOLE[-1].hash, WHOLE[-1].at, "")]


def edited(rows: list[Row], at: int, dice: random.Random) -> int:
    column = dice.choice([name for name in Row._fields if name != "sequence"])
    old = getattr(rows[at], column)
    place = dice.randrange(len(old))
    new = old[:place] + ("0" if old[place] != "0" else "1") + old[place + 1 :]
    rows[at] = rows[at]._replace(**{column: new})
    return at + 1


def deleted(rows: list[Row], at: int, dice: random.Random) -> int:
    at = min(at, ROWS - 2)  # the last one is cut off, below
    del rows[at]
    if dice.random() < 0.5:
        rows[at:] = [row._replace(sequence=row.sequence - 1) for row in rows[at:]]
    return at + 1


def inserted(rows: list[Row], at: int, dice: random.Random) -> int:
    forged = dice.choice(WHOLE)._replace(sequence=at + 1, prev=rows[at].prev, actor="mallory")
    rows[at:] = [forged, *(row._replace(sequence=row.sequence + 1) for row in rows[at:])]
    return at + 1


def swapped(rows: list[Row], at: int, dice: random.Random) -> int:
    other = dice.choice([number for number in range(ROWS) if number != at])
    rows[at], rows[other] = rows[other]._replace(sequence=at + 1), rows[at]._replace(sequence=other + 1)
    return min(at, other) + 1


def truncated(rows: list[Row], at: int, dice: random.Random) -> int:
    del rows[at:]
    return at + 1


@pytest.mark.parametrize("tamper", [edited, deleted, inserted, swapped, truncated])
def test_every_tampering_is_found_at_its_first_row(tamper: Callable[[list[Row], int, random.Random], int]) -> None:
    dice = random.Random(tamper.__name__)
    assert audit_chain.first_bad(WHOLE, KEYS.chain, HEAD) == (ROWS, None)
    for _ in range(PLACES):
        rows = list(WHOLE)
        expected = tamper(rows, dice.randrange(ROWS), dice)
        good, bad = audit_chain.first_bad(rows, KEYS.chain, HEAD)
        assert bad is not None
        assert (bad.sequence, good) == (expected, expected - 1)
        good, sequence, _ = SCRIPT["judge"]((row._asdict() for row in rows), KEYS.chain, {ROWS: WHOLE[-1].hash})
        assert (sequence, good) == (expected, expected - 1)


def test_a_chain_written_anew_with_the_key_meets_its_checkpoints() -> None:
    dice = random.Random(48)
    points = [Checkpoint(row.sequence, row.hash, row.at, "") for row in WHOLE]
    for _ in range(PLACES):
        rows, at = list(WHOLE), dice.randrange(ROWS)
        prev = rows[at].prev
        for number in range(at, ROWS):
            row = rows[number]._replace(prev=prev, **({"actor": "mallory"} if number == at else {}))
            rows[number] = row._replace(hash=audit_chain.link(KEYS.chain, row))
            prev = rows[number].hash
        assert audit_chain.first_bad(rows, KEYS.chain, [])[1] is None, "without checkpoints nobody could tell"
        found = audit_chain.first_bad(rows, KEYS.chain, points)[1]
        assert found is not None
        assert found.sequence == at + 1
        assert SCRIPT["judge"]((row._asdict() for row in rows), KEYS.chain, {row.sequence: row.hash for row in WHOLE})[1] == at + 1
