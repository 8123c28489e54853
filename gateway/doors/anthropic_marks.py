"""What this door writes into Anthropic's fields for want of a place, and takes out again when the client gives it back.

Anthropic's clients accept only letters, digits, "_" and "-" in a tool call's id, while some vendors number theirs
`get_weather:0`, and read meaning from it on the next turn: such an id travels encoded. A tool call has no place for
Gemini's seal on the thought behind it: the seal travels as an empty thinking block in front of the call.
"""

from __future__ import annotations

import base64
import binascii
import re

TOOL_SEAL = "tool:"
_ENCODED = "call64_"
_PLAIN = re.compile(r"[a-zA-Z0-9_-]+")


def shown_id(call_id: str) -> str:
    """A tool call's id as Anthropic's clients accept it."""
    if _PLAIN.fullmatch(call_id) and not call_id.startswith(_ENCODED):
        return call_id
    return _ENCODED + base64.urlsafe_b64encode(call_id.encode()).decode().rstrip("=")


def vendors_id(shown: str) -> str:
    """The id that `shown_id` was given."""
    if not shown.startswith(_ENCODED):
        return shown
    encoded = shown.removeprefix(_ENCODED)
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return shown  # not of our making
