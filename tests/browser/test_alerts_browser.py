"""Alerts as a person meets them: a channel is made and tried out, a rule tells it, and what fires is on the first page."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_admin_browser import picture
from tests.live import LiveServer
from tests.telling.receiver import Receiver

PATIENCE_MS = 60_000
pytestmark = [pytest.mark.browser, pytest.mark.process]


@pytest.fixture(scope="module")
def robot() -> Iterator[Receiver]:
    running = Receiver("200")
    running.answer = b'{"errcode":0,"errmsg":"ok"}'
    yield running
    running.close()


@pytest.fixture(scope="module")
def server(robot: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Nobody works on its tasks, so that they wait; it looks every second."""
    env = {"LLM_ALERT_INTERVAL_S": "1", "LLM_MAX_WORKERS": "0", "WEBHOOK_ALLOW": f"127.0.0.1/32:{robot.port}"}
    with LiveServer(tmp_path_factory.mktemp("alerts"), env=env) as running:
        yield running


def a_task_waits(server: LiveServer) -> None:
    body = json.dumps({"type": "custom", "prompt": "hi"}).encode()
    headers = {"authorization": f"Bearer {server.api_key}", "content-type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{server.base_url}/api/v1/tasks", body, headers), timeout=60).read()


def test_from_a_channel_to_what_is_firing_now(page: Page, server: LiveServer, robot: Receiver) -> None:
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{server.base_url}/admin/")
    expect(page.get_by_text("No alert is firing.")).to_be_visible(timeout=PATIENCE_MS)

    page.goto(f"{server.base_url}/admin/telling/alertchannel/add/")
    page.fill("input[name=name]", "on call")
    page.select_option("select[name=kind]", "dingtalk")
    page.fill("input[name=url]", robot.url("200", "/send?access_token=t"))
    page.fill("input[name=secret]", "SECabc")
    picture(page, "alert-channel-add")
    page.get_by_role("button", name="Save and continue editing").click()
    picture(page, "alert-channel")
    expect(page.get_by_text("was added successfully")).to_be_visible(timeout=PATIENCE_MS)
    page.get_by_role("link", name="Send a test").click()
    page.get_by_role("button", name="Send the test").click()
    expect(page.get_by_text("DingTalk took it: it answered 200")).to_be_visible(timeout=PATIENCE_MS)
    picture(page, "alert-channel-test")

    page.goto(f"{server.base_url}/admin/telling/alertrule/")
    expect(page.get_by_role("link", name="Breaker open")).to_be_visible(timeout=PATIENCE_MS)
    picture(page, "alert-rules")
    page.get_by_role("link", name="Tasks wait longer than 60 s").click()
    page.fill("input[name=threshold]", "0")
    page.get_by_label("on call").check()
    picture(page, "alert-rule")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was changed successfully")).to_be_visible(timeout=PATIENCE_MS)

    a_task_waits(server)
    wanted = page.get_by_text(re.compile("Of the tasks whose turn is next, one has waited"))
    for _ in range(60):
        page.goto(f"{server.base_url}/admin/")
        if wanted.count():
            break
        page.wait_for_timeout(500)
    expect(wanted).to_be_visible(timeout=PATIENCE_MS)
    picture(page, "alert-overview")
    page.get_by_role("link", name="All alerts").click()
    expect(page.get_by_role("link", name="Tasks wait longer than 60 s")).to_be_visible(timeout=PATIENCE_MS)
    picture(page, "alerts")
    page.get_by_role("link", name="Tasks wait longer than 60 s").click()
    picture(page, "alert")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{server.base_url}/admin/telling/alert/")
    picture(page, "alerts-phone")
    texts = [json.loads(heard.body)["text"]["content"] for heard in robot.heard]
    assert [text.startswith(("[TEST]", "[FIRING]")) for text in texts] == [True, True]
