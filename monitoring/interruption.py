"""Why an attempt or request has no end of its own."""

from __future__ import annotations

from typing import Final, NamedTuple


class Interruption(NamedTuple):
    code: str
    message: str


PROCESS_DIED: Final = Interruption("process_died", "The gateway process ended before it could finish this request.")
NEVER_ENDED: Final = Interruption("never_ended", "The gateway never recorded an end of this request.")
