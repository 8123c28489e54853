"""The admin in Chinese and in English: who reads what, and that nothing of it is forgotten."""

from __future__ import annotations

import gettext
import io
import re
import string
from html.parser import HTMLParser

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse
from django.utils import translation

from core import catalogue
from core.catalogue import Message
from llmcontrol.languages import stored
from llmcontrol.languages.collecting import sentences_in
from llmcontrol.languages.labels import our_models
from monitoring import sentences
from monitoring.models import AuditEvent
from monitoring.pages import ReadOnly
from providers.models import Provider
from tests.admin.conftest import World

CHINESE = {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"}
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_PERCENT = re.compile(r"%\(\w+\)[sd]|%[sd%]")


@pytest.fixture(scope="module")
def found() -> tuple[stored.Catalogue, stored.Catalogue]:
    return stored.catalogues()


# Catalogues ---------------------------------------------------------------------------------------------------------
def test_everything_that_is_read_is_translated_and_nothing_else(found: tuple[stored.Catalogue, ...]) -> None:
    for one in found:
        assert not one.missing, "manage.py translations lists them; --write enters them into the catalogue"
        assert not one.unused, "manage.py translations --write takes them out"
        assert len(one.translated) > 250


def test_what_is_put_in_is_the_same_in_both_languages(found: tuple[stored.Catalogue, ...]) -> None:
    exact, told = found
    for message, text in exact.translated.items():
        assert sorted(_PERCENT.findall(text)) == sorted(_PERCENT.findall(message.plural or message.text)), message
    for message, text in told.translated.items():
        assert set(sentences.PLACE.findall(text)) <= set(sentences.PLACE.findall(message.text)), message


def test_a_translation_brings_no_markup_of_its_own(found: tuple[stored.Catalogue, ...]) -> None:
    for one in found:
        for message, text in one.translated.items():
            for sign in "<>\"'":
                assert sign not in text or sign in message.text, message


def test_the_files_are_as_the_command_writes_them(found: tuple[stored.Catalogue, ...]) -> None:
    for one in found:
        assert one.path.read_text("utf-8") == catalogue.written(one.translated, one.needed, stored.LANGUAGE), (
            "manage.py translations --write"
        )
    exact = found[0]
    assert exact.path.with_suffix(".mo").read_bytes() == catalogue.compiled(exact.translated, stored.LANGUAGE)


def test_what_is_compiled_is_read_by_gettext() -> None:
    told = {Message("one"): "一", Message("%d cat", "%d cats"): "%d 只猫", Message("May", context="month"): "五月", Message("not yet"): ""}
    assert catalogue.read(catalogue.written(told, {Message("one"): ["a.py"]}, "zh-hans")) == told
    read = gettext.GNUTranslations(io.BytesIO(catalogue.compiled(told, "zh-hans")))
    assert (read.gettext("one"), read.ngettext("%d cat", "%d cats", 2), read.pgettext("month", "May")) == ("一", "%d 只猫", "五月")
    assert read.gettext("not yet") == "not yet"


@pytest.mark.parametrize("text", ['msgid "a', "msgid a", 'hello "a"'])
def test_a_broken_catalogue_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(catalogue.Malformed, match="line 2"):
        catalogue.read(f"\n{text}\n")


# Sentences ----------------------------------------------------------------------------------------------------------
def test_each_sentence_is_known_again_with_its_values(found: tuple[stored.Catalogue, ...]) -> None:
    """Whatever stands for the values, it is found as itself and not as another that is like it."""
    values = {name: f"⟨{name}⟩" for message in found[1].translated for name in sentences.PLACE.findall(message.text)}

    def filled(text: str) -> str:
        return sentences.PLACE.sub(lambda place: values[place[1]], text)

    with translation.override("zh-hans"):
        for message, text in found[1].translated.items():
            assert sentences.told(filled(message.text)) == filled(text), message


def test_a_sentence_is_told_with_the_sentence_inside_it() -> None:
    said = "The key cannot be stored now: The key is empty.. Nothing was changed."
    with translation.override("zh-hans"):
        assert sentences.told(said) == "现在无法保存密钥：密钥为空。。没有任何改动。"
        assert sentences.told("The key is empty. Nothing was changed.") == "密钥为空。没有任何改动。"
        assert sentences.told("active") == "active"
        assert sentences.told("Somebody wrote this.") == "Somebody wrote this."
    assert sentences.told(said) == said


def test_a_long_text_is_not_looked_through() -> None:
    with translation.override("zh-hans"):
        assert sentences.told("a " * 5000) == "a " * 5000


def test_sentences_are_found_in_code() -> None:
    code = '''
"""A docstring is none."""
def f(n):
    log.warning("The log says this.")
    raise E(f"At most {n} of {SOME_THING} keys in {n}." if n else "Write one key.")
'''
    assert list(sentences_in(code)) == ["At most {n} of {some_thing} keys in {n2}.", "Write one key."]


# Who reads what -----------------------------------------------------------------------------------------------------
def test_models_are_called_by_their_names_in_both_languages() -> None:
    field = Provider._meta.get_field("is_active")
    assert (str(Provider._meta.verbose_name_plural), str(field.verbose_name)) == ("providers", "active")
    with translation.override("zh-hans"):
        assert (str(Provider._meta.verbose_name_plural), str(field.verbose_name)) == ("供应商", "启用")
        assert all(_CHINESE.search(str(model._meta.verbose_name)) for model in our_models() if model._meta.label != "telling.Webhook")


def test_the_browser_is_followed_and_a_choice_is_kept(client: Client, db: None) -> None:
    login = reverse("admin:login")
    assert "Log in" in client.get(login).content.decode()
    answer = client.get(login, headers=CHINESE)
    assert "登录" in answer.content.decode()
    assert answer.headers["Content-Language"] == "zh-hans"
    assert {"Accept-Language", "Cookie"} <= set(answer.headers["Vary"].split(", "))
    chosen = client.post(reverse("set_language"), {"language": "en", "next": login}, headers=CHINESE)
    assert chosen.headers["Location"] == login
    cookie = client.cookies["django_language"]
    assert (cookie["httponly"], cookie["samesite"], cookie["max-age"]) == (True, "Lax", 365 * 86_400)
    assert "Log in" in client.get(login, headers=CHINESE).content.decode()


@pytest.mark.parametrize("language", ["xx", "../../etc/passwd", ""])
def test_a_language_that_is_not_offered_changes_nothing(client: Client, db: None, language: str) -> None:
    answer = client.post(reverse("set_language"), {"language": language, "next": "https://evil.example/"})
    assert answer.headers["Location"] == "/"
    assert "django_language" not in client.cookies


def test_a_language_that_only_django_knows_is_english(client: Client, db: None) -> None:
    client.post(reverse("set_language"), {"language": "de", "next": "/admin/"})
    assert client.get(reverse("admin:login")).headers["Content-Language"] == "en"


def test_a_language_is_chosen_by_a_form_of_ours_alone(db: None) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(reverse("set_language"), {"language": "zh-hans"}).status_code == 403
    assert strict.get(reverse("set_language"), {"language": "zh-hans"}).status_code == 302
    assert "django_language" not in strict.cookies


def test_programs_are_answered_in_english(root: Client, world: World) -> None:
    bad = {"name": "bad name!", "provider_type": "openai", "config": {}}
    answer = root.post("/api/v1/llm/providers", bad, "application/json", headers=CHINESE)
    assert answer.status_code == 400
    assert not _CHINESE.search(answer.content.decode())
    assert not _CHINESE.search(root.get("/api/schema/", headers=CHINESE).content.decode())
    assert not _CHINESE.search(root.get("/api/nothing", headers=CHINESE).content.decode())


def test_what_is_recorded_is_english_whoever_did_it(root: Client, world: World) -> None:
    root.post(reverse("admin:access_apikey_revoke", args=[world.key.pk]), headers=CHINESE)
    event = AuditEvent.objects.filter(object_id=str(world.key.pk)).latest("sequence")
    assert event.object_label == f"{world.key.name} ({world.key.prefix}…)"
    assert not _CHINESE.search(event.changes)


def test_refusals_and_messages_are_told_in_chinese(root: Client, world: World) -> None:
    form = {"name": "bad name!", "provider_type": "openai", "base_url": "ftp://x", "new_keys": "a key with spaces"}
    page = root.post(reverse("admin:providers_provider_add"), form, headers=CHINESE).content.decode()
    assert "请写带协议的地址，例如 https://api.openai.com/v1。" in page
    assert "请使用字母、数字、点、短横线和下划线；以字母或数字开头。" in page
    done = root.post(reverse("admin:providers_provider_disable", args=[world.provider.pk]), headers=CHINESE, follow=True)
    assert f"{world.provider.name} 已关闭：两秒内不再有新请求发往该处。" in done.content.decode()


# Every page ---------------------------------------------------------------------------------------------------------
class _Texts(HTMLParser):
    """What a page says to a reader, without code, icons, and values before and after a change."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: set[str] = set()
        self._open: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.texts |= {_plain(value or "") for name, value in attrs if name in ("placeholder", "title", "aria-label")}
        if tag in ("script", "style", "code", "pre", "del", "ins", "span"):
            self._open.append(tag != "span" or "material-symbols" in str(dict(attrs).get("class")))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "code", "pre", "del", "ins", "span"):
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not any(self._open):
            self.texts.add(_plain(data))


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(string.punctuation + " ").casefold()


def _english(found: tuple[stored.Catalogue, ...]) -> set[str]:
    """What has a translation that is not the same, and is no name or field of a row in `world`."""
    said = {_plain(message.text): text for one in found for message, text in one.translated.items() if not message.context}
    data = {"owner", "chat", "search", "vendor", "breaker open", "key rejected", "usage missing", "failed", "request", "status"}
    data |= {"labels", "channels"}  # fields of events
    return {text for text, chinese in said.items() if chinese.casefold() != text} - data


def _pages_of(name: str, page: admin.ModelAdmin, row: object) -> list[str]:
    actions = [each.action_name for each in page._get_base_actions_detail() if not each.action_name.endswith("sync_models")]
    urls = [reverse(f"admin:{action}", args=[row.pk]) for action in (f"{name}_change", f"{name}_history", *actions)]
    added = [] if isinstance(page, ReadOnly) else [reverse(f"admin:{name}_add")]
    return [reverse(f"admin:{name}_changelist"), *added, *urls]


def test_no_page_says_in_english_what_has_a_translation(root: Client, world: World, found: tuple[stored.Catalogue, ...]) -> None:
    english = _english(found)
    names = ("admin:index", "costs", "playground", "decrypt-health", "admin:password_change", "admin:monitoring_requestlog_live")
    urls = [*(reverse(name) for name in names), f"{reverse('playground')}?request={world.request.request_id}"]
    urls += [f"{reverse(f'admin:monitoring_{name}_changelist')}?since=30d" for name in ("requestlog", "usagerecord", "auditevent")]
    for model, page in admin.site._registry.items():
        row = model._default_manager.first()
        if row is not None:
            urls += _pages_of(f"{model._meta.app_label}_{model._meta.model_name}", page, row)
    left: dict[str, str] = {}
    for url in urls:
        answer = root.get(url, headers=CHINESE)
        assert answer.status_code == 200, url
        parser = _Texts()
        parser.feed(answer.content.decode())
        left |= dict.fromkeys(parser.texts & english, url)
    assert left == {}
    assert len(urls) > 80
