"""What each test measured, in a file: a run of hours may be made in parts, side by side, or go on where it ended."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.faults.judge import Result


class Note(NamedTuple):
    """Of one test. `charged`: (requests, double charges) of each of its stages."""

    test: str
    load: str
    backend: str
    passed: bool
    results: list[Result]
    charged: list[tuple[int, int]]


def write(path: Path, note: Note) -> None:
    """Adds a line, in one write: several runs may share the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(note._asdict()) + "\n")


def read(path: Path) -> list[Note]:
    """The last note of every test; of a file that is not there, none."""
    lines = path.read_text().splitlines() if path.exists() else []
    return latest(_note(**json.loads(line)) for line in lines)


def latest(notes: Iterable[Note]) -> list[Note]:
    return list({(note.test, note.load): note for note in notes}.values())


def _note(results: list[list[object]], charged: list[tuple[int, int]], **rest: object) -> Note:
    return Note(results=[Result(*result) for result in results], charged=[(asked, doubled) for asked, doubled in charged], **rest)  # type: ignore[arg-type]
