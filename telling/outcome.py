"""What came of one try at telling somebody something."""

from __future__ import annotations

import msgspec


class Outcome(msgspec.Struct, frozen=True):
    """`error` "" = delivered; `final`: no other try can help; `wait_s`: the receiver asks for so long a pause."""

    status_code: int | None = None
    error: str = ""
    final: bool = False
    wait_s: float = 0.0
    duration_s: float = 0.0
