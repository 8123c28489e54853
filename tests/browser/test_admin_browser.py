"""The admin as a person meets it: a real browser, a real server process, and pictures to look at (var/screenshots)."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.process]
CHROMIUM = "/usr/bin/chromium"
SCREENSHOTS = Path(__file__).resolve().parents[2] / "var" / "screenshots"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 20_000

if not os.path.exists(CHROMIUM):
    if os.environ.get("CI"):
        pytest.fail(f"{CHROMIUM} is not installed, and CI needs it: apt-get install chromium", pytrace=False)
    pytest.skip(f"{CHROMIUM} is not installed (apt-get install chromium)", allow_module_level=True)

from playwright.sync_api import Locator, Page, expect  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Of our own, and without a provider: the house is furnished by hand."""
    with LiveServer(tmp_path_factory.mktemp("admin"), model="none") as running:
        yield running


def picture(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def add_provider(page: Page, server: LiveServer, name: str) -> None:
    """An echo provider, entered by hand; ends on its page."""
    page.goto(f"{server.base_url}/admin/providers/provider/add/")
    page.fill("input[name=name]", name)
    page.select_option("select[name=provider_type]", "echo")
    picture(page, "provider-add")
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.get_by_text("was added successfully")).to_be_visible()


def test_from_an_empty_house_to_a_key(page: Page, server: LiveServer) -> None:
    add_provider(page, server, "echo-main")
    provider_url = page.url
    picture(page, "provider")

    page.get_by_role("link", name="Test connection").click()
    page.get_by_role("button", name="Test now").click()
    expect(page.get_by_text("It works")).to_be_visible()
    picture(page, "provider-test")

    page.goto(provider_url)
    page.get_by_role("link", name="Sync models").click()
    expect(page.get_by_text("Nothing has changed yet.")).to_be_visible()
    picture(page, "provider-sync")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_text(re.compile(r"Models of echo-main: \d+ added"))).to_be_visible()
    picture(page, "models")

    page.locator("#result_list tbody a").first.click()
    page.get_by_role("link", name="Set price").click()
    page.fill("input[name=input]", "2.50")
    page.fill("input[name=output]", "10")
    picture(page, "model-price")
    page.get_by_role("button", name="Set the price").click()
    expect(page.get_by_text("has a new price")).to_be_visible()
    expect(page.get_by_text("10.00 USD")).to_be_visible()
    picture(page, "model")

    page.goto(f"{server.base_url}/admin/access/team/add/")
    page.fill("input[name=name]", "search")
    page.get_by_role("button", name="Save", exact=True).click()
    page.goto(f"{server.base_url}/admin/access/apikey/add/")
    page.fill("input[name=name]", "crawler")
    page.select_option("select[name=team]", label="search")
    picture(page, "key-add")
    page.get_by_role("button", name="Save", exact=True).click()
    shown = page.locator("#credential")
    expect(shown).to_have_text(re.compile(r"^sk-llmc-\S{43}$"))
    expect(page.get_by_text("curl http")).to_be_visible()
    picture(page, "key-shown-once")
    credential = shown.inner_text()
    page.get_by_role("link", name="I have copied it").click()
    expect(page.get_by_text(f"{credential[:12]}…", exact=True)).to_be_visible()
    assert credential not in page.content()

    request_id = ask(server, credential, "echo-1")
    page.goto(f"{server.base_url}/admin/monitoring/requestlog/")
    until_shown(page, page.get_by_role("link", name=request_id[-9:]).first)
    picture(page, "requests")
    page.get_by_role("link", name=request_id[-9:]).first.click()
    expect(page.locator("#requestlog_form").get_by_text(request_id, exact=True)).to_be_visible()
    expect(page.get_by_text("Attempts at vendors")).to_be_visible()
    picture(page, "request")
    page.goto(f"{server.base_url}/admin/")
    expect(page.locator(".llmc-card", has_text="Requests").first).to_contain_text("1")
    picture(page, "overview")
    page.get_by_role("link", name="Costs").click()
    expect(page.get_by_role("heading", name="Cost by day and model")).to_be_visible()
    drawn = "() => [...document.querySelectorAll('canvas.chart')].map(canvas => Boolean(Chart.getChart(canvas)))"
    assert page.evaluate(drawn) == [True, True]
    picture(page, "costs")


def ask(server: LiveServer, credential: str, model: str) -> str:
    """Sends one chat request, as soon as the new key and model are known to the gateway; the id of the request."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]}).encode()
    headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.base_url}/v1/chat/completions", body, headers)
    for _ in range(50):
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return str(response.headers["x-request-id"])
        except urllib.error.HTTPError as refused:
            if refused.code not in (401, 404):
                raise
            time.sleep(0.1)
    raise AssertionError("the new key was not accepted within five seconds")


def until_shown(page: Page, wanted: Locator) -> None:
    """The log is written behind the requests, in batches: looks again until the row is there."""
    for _ in range(20):
        if wanted.count():
            return
        page.wait_for_timeout(250)
        page.reload()
    raise AssertionError("the request was not in the log within some seconds")


def test_the_form_shows_the_fields_of_the_chosen_type_only(page: Page, server: LiveServer) -> None:
    page.goto(f"{server.base_url}/admin/providers/provider/add/")
    organization = page.locator("input[name=option_organization]")
    page.select_option("select[name=provider_type]", "openai")
    expect(organization).to_be_visible()
    page.select_option("select[name=provider_type]", "echo")
    expect(organization).to_be_hidden()


def test_a_typed_key_is_not_readable_on_the_screen_nor_after_an_error(page: Page, server: LiveServer) -> None:
    page.goto(f"{server.base_url}/admin/providers/provider/add/")
    keys = page.locator("textarea[name=new_keys]")
    keys.fill("sk-not-for-other-eyes")
    assert keys.evaluate("field => getComputedStyle(field).webkitTextSecurity") == "disc"
    page.fill("input[name=name]", "not a name!")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Use letters, digits, dot")).to_be_visible()
    expect(keys).to_have_value("")


def test_the_log_is_paged_and_filtered_in_the_browser(page: Page, server: LiveServer) -> None:
    page.goto(f"{server.base_url}/admin/monitoring/requestlog/")
    page.locator("a", has_text="Filters").first.click()
    expect(page.get_by_text("By outcome", exact=False).first).to_be_visible()
    picture(page, "requests-filters")


def test_a_document_is_compared_before_it_is_taken(page: Page, server: LiveServer) -> None:
    rules = [{"name": "Breaker open", "window_s": 120}, {"name": "No room", "condition": "error_rate", "threshold": "90"}]
    providers = [{"name": "openai-main", "provider_type": "openai", "keys": [{"name": "main", "secret": "needed"}]}]
    whole = {"format": "llmcontrol-configuration", "version": 1, "providers": providers, "alert_rules": rules}
    page.goto(f"{server.base_url}/admin/configuration/")
    picture(page, "configuration")
    file = {"name": "configuration.json", "mimeType": "application/json", "buffer": json.dumps(whole).encode()}
    page.set_input_files("input[name=document]", [file])  # type: ignore[list-item]
    page.get_by_role("button", name="Show what it would change").click()
    expect(page.get_by_text("Nothing has changed yet.")).to_be_visible()
    picture(page, "configuration-plan")
    page.get_by_role("button", name="Do exactly this").click()
    expect(page.get_by_text("This is done, and on record.")).to_be_visible()


def test_the_dark_side(page: Page, server: LiveServer) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto(f"{server.base_url}/admin/")
    expect(page.get_by_role("heading", name="How long they took")).to_be_visible()
    picture(page, "overview-dark")


@pytest.mark.parametrize("path", ["docs", "redoc"])
def test_the_reference_pages_need_no_script_that_the_policy_forbids(page: Page, server: LiveServer, path: str) -> None:
    page.goto(f"{server.base_url}/{path}")
    # A megabyte of script that draws the whole schema: on a busy machine that is not done in the usual five seconds.
    expect(page.get_by_text("/api/v1/llm/providers").first).to_be_visible(timeout=30_000)
    picture(page, path)
