"""Translations as text: PO files, read and written, and the compiled form that gettext reads.

Of the format (https://www.gnu.org/software/gettext/manual/html_node/PO-Files.html) what this program writes itself: each string on one
line, no fuzzy and no obsolete entries. One form of the plural, which is what Chinese has.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

_MAGIC: Final = 0x950412DE
_LINE = re.compile(r'(msgctxt|msgid_plural|msgid|msgstr(?:\[0\])?) (".*")')


class Message(NamedTuple):
    """What is to be translated. `context` tells two meanings of one word apart; `plural` is what stands for several."""

    text: str
    plural: str = ""
    context: str = ""


class Malformed(ValueError):
    """With the number of the line that cannot be read."""


def read(text: str) -> dict[Message, str]:
    """The messages of a PO file and their translations; the head, which translates nothing, is left out. Raises Malformed."""
    found: dict[Message, str] = {}
    parts: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise Malformed(f"line {number}: write a keyword and one text in double quotes")
        parts[match[1].removesuffix("[0]")] = json.loads(match[2])
        if match[1].startswith("msgstr"):
            found[Message(parts.get("msgid", ""), parts.get("msgid_plural", ""), parts.get("msgctxt", ""))] = parts["msgstr"]
            parts = {}
    found.pop(Message(""), None)
    return found


def written(translated: Mapping[Message, str], places: Mapping[Message, Iterable[str]], language: str) -> str:
    """A PO file. `places`: where each message stands, for translators."""
    blocks = [f'msgid ""\nmsgstr {_quoted(_head(language))}\n']
    for message, translation in sorted(translated.items()):
        lines = [f"#: {place}" for place in sorted(places.get(message, ()))]
        if message.context:
            lines.append(f"msgctxt {_quoted(message.context)}")
        lines.append(f"msgid {_quoted(message.text)}")
        if message.plural:
            lines += [f"msgid_plural {_quoted(message.plural)}", f"msgstr[0] {_quoted(translation)}"]
        else:
            lines.append(f"msgstr {_quoted(translation)}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def compiled(translated: Mapping[Message, str], language: str) -> bytes:
    """The same as a MO file; what has no translation yet is left out, so that the original is shown."""
    keys = {"": _head(language)} | {_key(message): translation for message, translation in translated.items() if translation}
    pairs = sorted((key.encode(), value.encode()) for key, value in keys.items())
    tables = 28, 28 + 8 * len(pairs)
    place = tables[1] + 8 * len(pairs)
    index, texts = [b"", b""], b""
    for side in (0, 1):
        for pair in pairs:
            index[side] += struct.pack("<2I", len(pair[side]), place + len(texts))
            texts += pair[side] + b"\0"
    return struct.pack("<7I", _MAGIC, 0, len(pairs), *tables, 0, 0) + index[0] + index[1] + texts


def _key(message: Message) -> str:
    key = f"{message.context}\x04{message.text}" if message.context else message.text
    return f"{key}\0{message.plural}" if message.plural else key


def _head(language: str) -> str:
    return f"Language: {language}\nContent-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=1; plural=0;\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
