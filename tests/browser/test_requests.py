"""What the admin shows of requests, in a real browser, with a vendor that is slow and fails on demand."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.test_admin_browser import picture, pytestmark
from tests.e2e import wire
from tests.e2e.control import Control, unique
from tests.e2e.vendor import Vendor
from tests.live import LiveServer

__all__ = ["pytestmark", "server"]

DESK: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
HOSTILE = "<img src=x onerror=alert(1)> 你好"


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    running = Vendor()
    yield running
    running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, vendor: Vendor) -> Iterator[LiveServer]:
    env = {"LLM_CONFIG_POLL_S": "0.1", "LLM_DRAIN_INTERVAL_S": "0.05", "OUTBOUND_ALLOW": f"127.0.0.0/8:{urlsplit(vendor.base_url).port}"}
    with LiveServer(tmp_path_factory.mktemp("requests"), model="none", env=env) as running:
        yield running


@pytest.fixture
def control(server: LiveServer) -> Control:
    return Control(server.base_url, server.admin_token or "", server.api_key or "")


def asked(control: Control, model: str, prompt: str = HOSTILE, *, key: str = "", **fields: Any) -> dict[str, Any]:
    """The record of one request that was answered."""
    body = {"model": model, "messages": wire.asking(prompt), **fields}
    answer = wire.call(control.base_url, "POST", "/v1/chat/completions", key=key or control.key, body=body)
    return control.request(answer.request_id)


def keeping(control: Control) -> str:
    """An API key whose bodies are kept."""
    return str(control.new_key(store_bodies=True)["key"])


def open_request(page: Page, control: Control, request_id: str) -> None:
    page.goto(f"{control.base_url}/admin/monitoring/requestlog/?q={request_id}")
    page.locator("#result_list tbody a").first.click()
    expect(page.get_by_role("heading", name="Attempts at vendors")).to_be_visible()


def test_a_request_that_went_on_to_a_second_vendor_is_drawn_on_one_axis(page: Page, control: Control, vendor: Vendor) -> None:
    bad = control.model(control.provider(vendor.base_url, api_key="sk-fails-0001"), "fault-503@ttfb=0.15")
    good = control.model(control.provider(vendor.base_url, api_key="sk-works-0002"), "ok@tokens=12,ttfb=0.25,delay=0.02")
    control.price(good, input="1", output="2")
    route = unique("chain")
    control.call("POST", "/api/v1/llm/routes", {"alias": route, "targets": [bad["alias"], good["alias"]]})
    control.apply()
    told = asked(control, route, stream=True)
    open_request(page, control, told["request_id"])
    expect(page.locator(".llmc-time-bar")).to_have_count(3)
    expect(page.get_by_text("The vendor failed, or broke off.")).to_be_visible()
    # The second begins where the first has ended.
    first, second = (page.locator(".llmc-time-bar").nth(number).locator("rect").first for number in (1, 2))
    ends = (first.bounding_box() or {})["x"] + (first.bounding_box() or {})["width"]
    assert (second.bounding_box() or {})["x"] >= ends - 1
    expect(page.get_by_text("…0002")).to_be_visible()
    expect(page.get_by_text("To have it kept from now on")).to_be_visible()
    picture(page, "request-timeline")
    page.locator("#why, .llmc-time").last.scroll_into_view_if_needed()
    picture(page, "request-timeline-attempts")


def test_a_kept_request_is_asked_again_beside_its_answer(page: Page, control: Control, vendor: Vendor) -> None:
    first = control.model(control.provider("", kind="echo"), "echo-1")
    second = control.model(control.provider(vendor.base_url, api_key="sk-second"), "ok@tokens=6")
    control.price(second, input="1", output="2")
    key = keeping(control)
    control.apply()
    told = asked(control, first["alias"], key=key, temperature=0.25, max_tokens=9)
    open_request(page, control, told["request_id"])
    again = page.get_by_role("link", name="Ask it again on another model")
    for _ in range(20):  # bodies come in behind the record
        if again.count():
            break
        page.wait_for_timeout(100)
        page.reload()
    sent, answered = (page.locator("details.llmc-headers").nth(number) for number in (0, 2))
    expect(sent).to_contain_text("[redacted]")
    assert key not in page.content()
    answered.locator("summary").click()
    expect(answered).to_contain_text(f"answer of {told['provider']}, HTTP 200")
    page.get_by_text("What was said").scroll_into_view_if_needed()
    picture(page, "request-kept")
    page.set_viewport_size(PHONE)
    sent.scroll_into_view_if_needed()
    picture(page, "request-kept-phone")
    page.set_viewport_size(DESK)
    again.click()
    expect(page.locator("textarea[name=prompt]")).to_have_value(HOSTILE)
    expect(page.locator("input[name=temperature]")).to_have_value("0.25")
    expect(page.locator("[data-stored] .llmc-play-answer")).to_contain_text(HOSTILE)
    assert page.locator(".llmc-play-answer img").count() == 0
    page.select_option("select[name=left]", second["alias"])
    page.get_by_role("button", name="Send").click()
    answer = page.locator("[data-side=l]")
    expect(answer.locator(".llmc-play-answer")).to_contain_text("echo:")
    expect(answer.locator("dl")).to_contain_text("USD")
    picture(page, "playground-again")
    assert told["request_id"] in json.dumps(control.call("GET", "/api/v1/audit?action=body_read")["results"])


def test_requests_are_followed_as_they_come(page: Page, control: Control) -> None:
    model = control.model(control.provider("", kind="echo"), "echo-1")
    other = control.model(control.provider("", kind="echo"), "echo-1")
    control.apply()
    before = asked(control, model["alias"])
    page.goto(f"{control.base_url}/admin/monitoring/requestlog/?model={model['alias']}")
    page.get_by_role("link", name="Follow live").click()
    rows = page.locator("#live tbody tr")
    expect(rows).to_have_count(1)
    expect(page.get_by_text("Live.", exact=True)).to_be_visible()
    after, elsewhere = asked(control, model["alias"]), asked(control, other["alias"])
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text(after["request_id"][-9:])
    expect(rows.last).to_contain_text(before["request_id"][-9:])
    page.get_by_role("button", name="Pause").click()
    asked(control, model["alias"] + "-unknown"), asked(control, model["alias"])
    expect(page.get_by_text("Paused.")).to_be_visible()
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="Resume").click()
    expect(rows).to_have_count(3)
    page.fill("input[name=model]", "")
    page.get_by_role("button", name="Filter").click()
    expect(rows.filter(has_text=elsewhere["request_id"][-9:])).to_have_count(1)
    expect(rows.filter(has_text="404")).to_have_count(1)
    picture(page, "live")
    rows.first.locator("a").click()
    expect(page.get_by_role("heading", name="Attempts at vendors")).to_be_visible()


def test_a_request_in_progress_becomes_one_that_has_ended(page: Page, control: Control, vendor: Vendor) -> None:
    """Two at once: one that streams for long, so that it can be looked at, and one that ends."""
    provider = control.provider(vendor.base_url, api_key="sk-slow")
    lasting, ending = control.model(provider, "ok@tokens=400,delay=0.2")["alias"], control.model(provider, "ok@ttfb=5")["alias"]
    control.apply()
    page.goto(f"{control.base_url}/admin/monitoring/requestlog/live/")
    begun, over = page.locator("#live-begun tr"), page.locator("#live-ended tr")
    with ThreadPoolExecutor(2) as pool:
        stream = {"model": lasting, "messages": wire.asking(HOSTILE), "stream": True}
        leaves = threading.Event()
        streamed = pool.submit(_read_until, control, stream, leaves)
        ended = pool.submit(asked, control, ending)
        try:
            expect(begun.filter(has_text=lasting)).to_have_count(1, timeout=30_000)
            expect(begun.filter(has_text=ending)).to_have_count(1, timeout=30_000)
            expect(begun.filter(has_text=lasting)).to_contain_text("in progress, streamed")
            request_id = ended.result(60)["request_id"]
            expect(over.filter(has_text=request_id[-9:])).to_have_count(1)
            expect(begun.filter(has_text=ending)).to_have_count(0)
            age = begun.filter(has_text=lasting).locator(".llmc-age")
            expect(age).to_have_text(re.compile(r"^[1-9][0-9]* s ago$"))
            picture(page, "live-open")
            page.emulate_media(color_scheme="dark")
            page.reload()
            expect(begun.filter(has_text=lasting)).to_have_count(1, timeout=30_000)
            picture(page, "live-open-dark")
            page.set_viewport_size(PHONE)
            picture(page, "live-open-phone")
            page.set_viewport_size(DESK)
        finally:
            leaves.set()
        streamed.result(60)
        expect(begun).to_have_count(0)
        expect(over.filter(has_text="499")).to_have_count(1)


def _read_until(control: Control, body: dict[str, Any], leaves: threading.Event) -> None:
    with requests.post(
        f"{control.base_url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {control.key}"}, stream=True, timeout=60
    ) as answer:
        for _ in answer.iter_content(None):
            if leaves.is_set():
                return


def test_a_filter_is_saved_found_again_and_deleted(page: Page, control: Control) -> None:
    model = control.model(control.provider("", kind="echo"), "echo-1")["alias"]
    control.apply()
    told = asked(control, model)
    listing = f"{control.base_url}/admin/monitoring/requestlog/"
    page.goto(f"{listing}?model={model}&outcome=ok")
    page.fill("input[name=name]", "mine <b>alone")
    page.get_by_label("for everybody").check()
    page.get_by_role("button", name="Save this filter").click()
    expect(page.get_by_text("The filter “mine <b>alone” is saved.")).to_be_visible()
    page.goto(listing)
    page.get_by_role("link", name="mine <b>alone").click()
    expect(page).to_have_url(f"{listing}?model={model}&outcome=ok")
    expect(page.get_by_role("link", name=told["request_id"][-9:])).to_have_count(1)
    picture(page, "saved-filters")
    page.goto(f"{control.base_url}/admin/monitoring/auditevent/?action__exact=created")
    expect(page.get_by_text("mine <b>alone", exact=True)).to_have_count(0)
    page.fill("input[name=name]", "what is new")
    page.get_by_role("button", name="Save this filter").click()
    expect(page.get_by_role("link", name="what is new")).to_be_visible()
    picture(page, "saved-filters-audit")
    page.goto(listing)
    page.get_by_role("button", name="Delete the filter mine <b>alone").click()
    expect(page.get_by_text("is deleted.")).to_be_visible()
    expect(page.get_by_role("link", name="mine <b>alone")).to_have_count(0)
