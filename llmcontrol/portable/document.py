"""The form of the document: JSON, a list of entries in each section. Bytes in, entries out; nothing here knows what an entry is.

    {"format": "llmcontrol-configuration", "version": 1, "providers": [{"name": "openai-main", …}], "models": […], …}

It is written the same way each time, so that two of them are compared line by line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

FORMAT: Final = "llmcontrol-configuration"
VERSION: Final = 1
MEDIA_TYPE: Final = "application/json"
_HEAD: Final = ("format", "version")

Entry = dict[str, Any]
Sections = dict[str, list[Any]]


class Fault(msgspec.Struct, frozen=True):
    """What is wrong, and where: `path` as in providers[2].config.base_url, `name` what people know the entry by."""

    path: str
    name: str
    sentence: str

    def __str__(self) -> str:
        return (
            f"{self.path} ({self.name}): {self.sentence}" if self.name else f"{self.path}: {self.sentence}" if self.path else self.sentence
        )


class DocumentRefused(Exception):
    """Nothing was taken. `faults` are all that were found; none repeats a secret."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


class TooLarge(DocumentRefused):
    def __init__(self, max_bytes: int) -> None:
        super().__init__(Fault("", "", f"The document is longer than {max_bytes} bytes, which LLM_CONFIG_FILE_MAX_BYTES sets."))


class Document(msgspec.Struct, frozen=True):
    """`sha256` is that of the bytes as they came, as `sha256sum` says it."""

    sha256: str
    sections: Sections


def written(sections: Mapping[str, Collection[Entry]]) -> bytes:
    """Entries and their fields in the order in which they are given."""
    whole = {"format": FORMAT, "version": VERSION, **{name: list(entries) for name, entries in sections.items()}}
    return (json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode()


def read(text: bytes, known: Collection[str], max_bytes: int) -> Document:
    """`known`: the names of sections. Raises DocumentRefused."""
    if len(text) > max_bytes:
        raise TooLarge(max_bytes)
    whole = _decoded(text)
    if whole.get("format") != FORMAT:
        raise DocumentRefused(Fault("format", "", f'This is no configuration of llmcontrol: its "format" is not "{FORMAT}".'))
    if whole.get("version") != VERSION:
        raise DocumentRefused(Fault("version", "", f"This program reads documents of version {VERSION}, and this one is of another."))
    sections = {name: value for name, value in whole.items() if name not in _HEAD}
    faults = [Fault(name, "", f"There is no such section; there are {', '.join(known)}.") for name in sections if name not in known]
    faults += [Fault(name, "", "A section is a list of entries.") for name, value in sections.items() if not isinstance(value, list)]
    if faults:
        raise DocumentRefused(*faults)
    return Document(hashlib.sha256(text).hexdigest(), sections)


def _decoded(text: bytes) -> dict[str, Any]:
    """Raises DocumentRefused, without repeating a value: msgspec's own words are about types and places."""
    if b"\\u0000" in text:
        raise DocumentRefused(Fault("", "", "The document holds a NUL character (\\u0000), which cannot be stored."))
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except RecursionError:
        raise DocumentRefused(Fault("", "", "The document is nested too deeply.")) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DocumentRefused(Fault("", "", f"The document is not valid JSON: {error}.")) from None
