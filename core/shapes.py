"""Types that several threads read values into.

msgspec (0.22) works out a Struct when it first reads one, and keeps what it has so far on the class: a second thread that comes
meanwhile reads with half of it, and the process dies by a segmentation fault (seen: fifty tasks submitted at once to a process that had
just started). What `known` has seen is whole.
"""

from __future__ import annotations

from typing import Any

import msgspec


def known(*types: Any) -> None:
    """Call it where the types are defined: a module is imported by one thread. Raises TypeError for what msgspec cannot read."""
    for each in types:
        msgspec.json.Decoder(each)
