"""Sentences in the language of whoever reads a page.

What happened is told in English where it happens: in code without Django, to programs, in the log, in rows of the database. A page
translates such a sentence when it is drawn, so that a record of yesterday can be read in two languages today. The catalogue
`sentences.po` holds each sentence as it stands in the code, with {names} where values are put in.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.contrib.messages import get_messages
from django.contrib.messages.storage.base import Message
from django.forms.utils import ErrorList
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString
from django.utils.translation import get_language, gettext, to_locale

from core import catalogue

DOMAIN: Final = "sentences"
PLACE = re.compile(r"\{([a-z_0-9]+)\}")
_BETWEEN = re.compile(r"(?<=[.!?…]) (?=[A-Z“])")
# Longer texts are no sentences of ours; and a sentence in a sentence in a sentence is as deep as it goes.
_MAX_CHARACTERS, _MAX_DEPTH = 4000, 3


class Sentence(NamedTuple):
    """`pieces`: the text around the values, one more than there are `names`."""

    pieces: tuple[str, ...]
    names: tuple[str, ...]
    translation: str


def told(text: str) -> str:
    """`text` in the active language, where it is made of sentences that the catalogue knows; otherwise as it is. So is markup."""
    language = get_language()
    if not text or not language or language == settings.LANGUAGE_CODE or isinstance(text, SafeString):
        return text
    return _told(str(text), _known(language), _MAX_DEPTH)


def messages(request: HttpRequest) -> dict[str, Any]:
    """For templates, over Django's own context processor: what the last action has to say."""
    return {"messages": SimpleLazyObject(lambda: _told_messages(request))}


def _told_messages(request: HttpRequest) -> list[Message]:
    return [Message(each.level, told(each.message), each.extra_tags) for each in get_messages(request)]


def tell_errors() -> None:
    """From now on every form shows its errors by `told`. Of the class that shows them Django takes no other."""
    as_they_are = ErrorList.__getitem__

    def translated(self: ErrorList, index: Any) -> Any:
        found = as_they_are(self, index)
        return told(found) if isinstance(found, str) else found

    ErrorList.__getitem__ = translated  # type: ignore[assignment,method-assign]


def sentence(text: str, translation: str) -> Sentence:
    parts = PLACE.split(text)
    return Sentence(tuple(parts[::2]), tuple(parts[1::2]), translation)


def values_in(known: Sentence, text: str) -> dict[str, str] | None:
    """What was put in, by name; None = this text is another sentence. From left to right and never back, so in linear time."""
    first, *middle, last = known.pieces if known.names else (*known.pieces, "")
    if not known.names:
        return {} if text == first else None
    position, end = len(first), len(text) - len(last)
    if position > end or not text.startswith(first) or not text.endswith(last):
        return None
    values = []
    for piece in middle:
        found = text.find(piece, position, end)
        if found < 0:
            return None
        values.append(text[position:found])
        position = found + len(piece)
    return dict(zip(known.names, [*values, text[position:end]], strict=True))


class _Known(NamedTuple):
    whole: dict[str, str]
    with_values: list[Sentence]


@cache
def _known(language: str) -> _Known:
    """The catalogue of one language; of sentences that fit the same text, the one with the most words of its own comes first."""
    texts: dict[str, str] = {}
    for folder in settings.LOCALE_PATHS:
        path = Path(folder) / to_locale(language) / "LC_MESSAGES" / f"{DOMAIN}.po"
        if path.exists():
            texts |= {message.text: translation for message, translation in catalogue.read(path.read_text("utf-8")).items() if translation}
    sentences = [sentence(text, translation) for text, translation in texts.items() if PLACE.search(text)]
    return _Known(texts, sorted(sentences, key=lambda one: -sum(map(len, one.pieces))))


def _told(text: str, known: _Known, depth: int) -> str:
    if not depth or len(text) > _MAX_CHARACTERS:
        return text
    whole = _whole(text, known, depth)
    if whole is not None:
        return whole
    each = [(one, _whole(one, known, depth)) for one in _BETWEEN.split(text)]
    return text if all(found is None for _, found in each) else "".join(found or f" {one} " for one, found in each).strip()


def _whole(text: str, known: _Known, depth: int) -> str | None:
    found = known.whole.get(text) or (gettext(text) if " " in text else text)
    if found != text:
        return found
    for one in known.with_values:
        values = values_in(one, text)
        if values is not None:
            return PLACE.sub(lambda place: _told(values[place[1]], known, depth - 1), one.translation)  # noqa: B023 (called at once)
    return None
