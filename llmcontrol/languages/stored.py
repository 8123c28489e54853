"""The catalogues in `locale/`: what is in them, what is missing, and both files of each brought in line with the code."""

from __future__ import annotations

import gettext
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import django
from django.apps import apps
from django.utils.translation import to_locale

from core import catalogue
from core.catalogue import Message
from llmcontrol.languages import collecting, labels
from monitoring import sentences

FOLDER: Final = Path(__file__).resolve().parent.parent / "locale"
LANGUAGE: Final = "zh-hans"


class Catalogue(NamedTuple):
    """`needed`: where each message stands. `elsewhere`: of these, what Django has translated itself."""

    path: Path
    needed: collecting.Places
    translated: Mapping[Message, str]
    elsewhere: frozenset[Message]

    @property
    def missing(self) -> list[Message]:
        return sorted(message for message in self.needed if message not in self.elsewhere and not self.translated.get(message))

    @property
    def unused(self) -> list[Message]:
        return sorted(message for message in self.translated if message not in self.needed)


def catalogues() -> tuple[Catalogue, Catalogue]:
    """Exact messages, and sentences."""
    exact = collecting.exact()
    return _read("django", exact, _known_to_django(exact)), _read(sentences.DOMAIN, collecting.sentences(exact), frozenset())


def write(one: Catalogue) -> None:
    """With an empty translation for what is missing, and without what nothing uses."""
    kept = {message: text for message, text in one.translated.items() if message in one.needed}
    whole = dict.fromkeys(one.missing, "") | kept
    one.path.write_text(catalogue.written(whole, one.needed, LANGUAGE), "utf-8")
    if one.path.stem == "django":
        one.path.with_suffix(".mo").write_bytes(catalogue.compiled(whole, LANGUAGE))


def _read(domain: str, needed: collecting.Places, elsewhere: frozenset[Message]) -> Catalogue:
    path = FOLDER / to_locale(LANGUAGE) / "LC_MESSAGES" / f"{domain}.po"
    return Catalogue(path, needed, catalogue.read(path.read_text("utf-8")) if path.exists() else {}, elsewhere)


def _known_to_django(needed: collecting.Places) -> frozenset[Message]:
    """Asked of the catalogues of Django and the other apps."""
    folders = [Path(django.__file__).parent / "conf", *(app.path for app in apps.get_app_configs() if app not in labels.our_apps())]
    theirs = [gettext.translation("django", f"{folder}/locale", [to_locale(LANGUAGE)], fallback=True) for folder in folders]
    return frozenset(message for message in needed if any(_translated(one, message) for one in theirs))


def _translated(theirs: gettext.NullTranslations, message: Message) -> bool:
    if message.context:
        return theirs.pgettext(message.context, message.text) != message.text
    if message.plural:
        return theirs.ngettext(message.text, message.plural, 2) != message.plural
    return theirs.gettext(message.text) != message.text
