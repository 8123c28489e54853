"""A29: no text that somebody entered, sent or answered becomes markup on any page of the admin, in a real browser."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urldefrag, urljoin, urlsplit

import pytest

from tests.browser.test_admin_browser import ARGUMENTS, CHROMIUM, TIMEOUT_MS
from tests.e2e import wire
from tests.e2e.control import unique
from tests.security.house import House

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

pytestmark = [pytest.mark.browser, pytest.mark.process]
# An element that tells of markup even where the policy keeps its script from running; and what an expression in an attribute would run.
MARKUP = "'\"><xss-probe></xss-probe><img src=x onerror=window.__xss=1>"
SCRIPT = "</script><script>window.__xss=2</script><xss-probe>"
EXPRESSION = "'+(window.__xss=3)+'{{constructor.constructor('window.__xss=4')()}}${window.__xss=5}`"
ADDRESS = "javascript:window.__xss=6"
PAYLOADS = (MARKUP, SCRIPT, EXPRESSION, ADDRESS)
MOST_PAGES, MOST_OF_A_SORT = 60, 2
# What changes something, leads out, or is a file.
NOT_VISITED = ("/logout", "/jsi18n", "/delete", "/static/", "/password_change", "/sync", "sync_models", "able", "reset_breaker")
_ID = re.compile(r"/[0-9a-f-]{8,}/|/\d+/")


def plant(house: House) -> list[str]:
    """Puts each payload wherever a text is taken, by REST, by the data plane, and in a vendor's answers. What was taken, by name."""
    taken = []
    for number, payload in enumerate(PAYLOADS):
        taken += [f"{name} {number}" for name, status in _rows(house, payload, number) if status < 300]
        _traffic(house, payload)
    return taken


def _rows(house: House, payload: str, number: int) -> Iterator[tuple[str, int]]:
    def post(path: str, body: dict[str, Any]) -> wire.Answer:
        headers = {"Authorization": f"Token {house.live.admin_token}"}
        return wire.call(house.live.base_url, "POST", f"/api/v1/llm/{path}", body=body, headers=headers)

    yield (
        "provider",
        post("providers", {"name": payload, "provider_type": "openai_compatible", "config": {"base_url": "http://h.invalid"}}).status,
    )
    config = {"api_key": "sk-of-a-vendor-1234", "organization": payload}
    yield "options", post("providers", {"name": unique("xss"), "provider_type": "openai", "config": config}).status
    provider = house.control.provider(house.vendor.base_url, api_key="sk-of-a-vendor-5678")
    yield (
        "key of a provider",
        post(f"providers/{provider['id']}/keys", {"api_key": f"sk-vendor-{number}-9012", "name": payload}).status,
    )
    model = {"provider": provider["id"], "model_id": payload, "alias": unique("xss"), "model_type": "chat"}
    yield "model", post("models", model).status
    yield "alias", post("models", {**model, "alias": payload}).status
    yield "capabilities", post("models", {**model, "alias": unique("xss"), "capabilities": [payload[:40]]}).status
    yield "route", post("routes", {"alias": unique("xss"), "targets": ["echo-1"], "description": payload, "fixed_answer": payload}).status
    team = post("teams", {"name": payload})
    yield "team", team.status
    if team.status < 300:
        yield "key", post("keys", {"name": payload, "team": team.json["id"], "scopes": ["chat", "models"]}).status
    budget = {"scope": {"user": payload[:200]}, "kind": "requests", "limit": "5", "period": "month"}
    yield "budget", post("budgets", budget).status


def _traffic(house: House, payload: str) -> None:
    base = house.live.base_url
    named = house.control.new_key(name=payload[:100])["key"]
    answers = house.model(f"ok@tokens={payload}"[:200])
    house.control.apply()
    for model, prompt in ((answers, payload), (str(house.live.model), payload), (payload, "hi")):
        wire.chat(base, named, model, prompt, headers={"User-Agent": payload, "Referer": payload, "x-request-id": payload}, user=payload)
    wire.call(base, "GET", "/v1/" + payload.replace(" ", "%20").replace("\n", ""), key=named, headers={"User-Agent": payload})


@pytest.fixture(scope="module")
def planted(_house: House) -> list[str]:
    return plant(_house)


@pytest.fixture(scope="module")
def page(_house: House, planted: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=CHROMIUM, args=ARGUMENTS
        )
        page = context.pages[0]
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(f"{_house.live.base_url}/admin/")
        page.fill("input[name=username]", _house.live.username)
        page.fill("input[name=password]", str(_house.live.password))
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/admin/")
        yield page
        context.close()


def test_everything_that_takes_a_text_was_tried(planted: list[str]) -> None:
    """Otherwise the next test proves nothing. Names of providers and models are no free text, and take none of them."""
    for name in ("options", "key of a provider", "model", "route", "team", "key", "budget"):
        assert [entry for entry in planted if entry.startswith(name)], name
    assert not [entry for entry in planted if entry.startswith(("provider", "alias"))]


def test_no_page_of_the_admin_makes_markup_of_it(house: House, page: Page) -> None:
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(f"{page.url}: {message.text}")

    page.on("console", listen)
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    page.on("dialog", lambda dialog: (complaints.append(f"{page.url}: a dialog"), dialog.dismiss()))
    base = house.live.base_url
    waiting, seen, shown = [f"{base}/admin/", f"{base}/docs"], Counter[str](), 0
    visited: set[str] = set()
    while waiting and len(visited) < MOST_PAGES:
        url = waiting.pop(0)
        if url in visited or seen[_sort(url)] >= MOST_OF_A_SORT:
            continue
        visited.add(url)
        seen[_sort(url)] += 1
        answer = page.goto(url, wait_until="load")
        assert answer is not None
        if answer.status == 200 and "html" in answer.headers.get("content-type", ""):
            _look_at(page, answer.headers["content-security-policy"])
            shown += page.content().count("xss-probe")  # as text, escaped
            waiting += _links(page, base)
    assert len(seen) > 25, sorted(seen)
    assert shown > 10, "the payloads are nowhere to be seen: this proves nothing"
    assert not complaints, "\n".join(complaints[:10])


# What a payload would have become: a variable, elements, or an address that is a script.
LOOK = """() => [
    window.__xss === undefined,
    document.querySelectorAll('xss-probe, [onerror]').length,
    [...document.querySelectorAll('[href], [src], [action], [formaction]')].filter(
        element => ['href', 'src', 'action', 'formaction'].some(name => /^\\s*javascript:/i.test(element.getAttribute(name) || ''))).length,
]"""


def _look_at(page: Page, policy: str) -> None:
    assert page.evaluate(LOOK) == [True, 0, 0], page.url
    scripts = next(part.split()[1:] for part in policy.split(";") if part.split()[:1] == ["script-src"])
    assert set(scripts) <= {"'self'", "'unsafe-eval'"}, f"{page.url}: {policy}"


def _links(page: Page, base: str) -> list[str]:
    found = page.evaluate("() => [...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'))")
    absolute = [urldefrag(urljoin(page.url, href)).url for href in found if not href.startswith(("javascript:", "mailto:"))]
    return [url for url in absolute if url.startswith(f"{base}/admin/") and not any(part in url for part in NOT_VISITED)]


def _sort(url: str) -> str:
    """Of pages of one sort two are looked at, the newest and the one before; filters and orders of a list are told apart by name."""
    parts = urlsplit(url)
    return _ID.sub("/*/", parts.path) + "?" + ",".join(sorted(part.partition("=")[0] for part in parts.query.split("&")))


def test_a_page_that_repeats_what_was_entered_repeats_it_as_text(house: House, page: Page) -> None:
    """Searches, filters and forms that come back with an error."""
    base = house.live.base_url
    for path in ("access/team/", "access/apikey/", "providers/provider/", "models_registry/llmmodel/", "monitoring/requestlog/"):
        page.goto(f"{base}/admin/{path}?q={quote(''.join(PAYLOADS))}")
        assert page.evaluate(LOOK) == [True, 0, 0], page.url
    for path, field in (("providers/provider/add/", "name"), ("access/team/add/", "name")):
        page.goto(f"{base}/admin/{path}")
        page.fill(f"input[name={field}]", MARKUP)
        page.get_by_role("button", name="Save", exact=True).click()
        page.wait_for_load_state("load")
        assert page.evaluate(LOOK) == [True, 0, 0], page.url


def test_an_answer_of_the_data_plane_is_never_a_page(house: House) -> None:
    """A browser that is led there draws nothing: JSON, and no sniffing about it."""
    for path in ("/v1/<xss-probe>", f"/v1/models/{MARKUP.replace(' ', '%20')}", "/v1/chat/completions"):
        answer = wire.call(house.live.base_url, "GET", path, key=house.key)
        assert answer.headers["content-type"].startswith("application/json")
