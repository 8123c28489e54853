"""The admin as somebody meets it whose browser asks for Chinese, and who then chooses English, and Chinese again."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpensPage
from tests.browser.test_admin_browser import picture, pytestmark, server
from tests.browser.test_playground import furnished
from tests.browser.test_requests import asked, keeping
from tests.e2e.control import Control
from tests.live import LiveServer

__all__ = ["pytestmark", "server"]


@pytest.fixture
def chinese(opens_page: OpensPage) -> Iterator[Page]:
    """A browser of mainland China at the login."""
    with opens_page(locale="zh-CN") as page:
        yield page


def log_in(page: Page, server: LiveServer) -> None:
    page.fill("input[name=username]", server.username)
    page.fill("input[name=password]", str(server.password))
    page.get_by_role("button", name="登录").click()
    expect(page.get_by_role("heading", name="概览")).to_be_visible()


def choose(page: Page, language: str) -> None:
    """In the menu of the person."""
    page.locator(".material-symbols-outlined", has_text="unfold_more").click()
    page.get_by_role("button", name=re.compile(language)).click()


def test_the_login_is_chinese_and_offers_english(chinese: Page, server: LiveServer) -> None:
    expect(chinese.get_by_role("button", name="登录")).to_be_visible()
    picture(chinese, "zh-login")
    chinese.get_by_role("button", name=re.compile("English")).click()
    expect(chinese.get_by_role("button", name="Log in")).to_be_visible()


def test_pages_are_chinese_until_english_is_chosen(chinese: Page, server: LiveServer) -> None:
    furnished(server)
    log_in(chinese, server)
    picture(chinese, "zh-overview")
    chinese.goto(f"{server.base_url}/admin/providers/provider/")
    expect(chinese.get_by_role("columnheader", name="状态")).to_be_visible()
    picture(chinese, "zh-providers")
    chinese.goto(f"{server.base_url}/admin/providers/provider/add/")
    expect(chinese.get_by_text("加密保存，之后不再显示").first).to_be_visible()
    picture(chinese, "zh-provider-add")
    choose(chinese, "English")
    expect(chinese.get_by_text("They are stored encrypted and never shown again").first).to_be_visible()
    assert chinese.url.endswith("/admin/providers/provider/add/")
    picture(chinese, "en-provider-add")
    choose(chinese, "简体中文")
    expect(chinese.get_by_text("加密保存，之后不再显示").first).to_be_visible()


def test_the_playground_speaks_chinese(chinese: Page, server: LiveServer) -> None:
    _, team, alias = furnished(server)
    log_in(chinese, server)
    chinese.get_by_role("link", name="试验台").click()
    chinese.select_option("select[name=team]", label=team)
    chinese.select_option("select[name=left]", alias)
    chinese.fill("textarea[name=prompt]", "你好")
    chinese.get_by_role("button", name="发送").click()
    left = chinese.locator("[data-side=l]")
    expect(left.locator("dl")).to_contain_text("首个 Token")
    expect(left.locator("dl")).to_contain_text("回答者")
    expect(left.locator("dl")).to_contain_text("USD")
    picture(chinese, "zh-playground")


def test_a_request_its_live_list_and_its_replay_are_chinese(chinese: Page, server: LiveServer) -> None:
    control = Control(server.base_url, server.admin_token or "", server.api_key or "")
    alias = control.model(control.provider("", kind="echo"), "echo-1")["alias"]
    key = keeping(control)
    control.apply()
    told = asked(control, alias, key=key)
    log_in(chinese, server)
    chinese.goto(f"{server.base_url}/admin/monitoring/requestlog/?model={alias}")
    expect(chinese.get_by_role("button", name="保存此筛选")).to_be_visible()
    picture(chinese, "zh-requests")
    chinese.get_by_role("link", name="实时跟踪").click()
    expect(chinese.get_by_text("实时。", exact=True)).to_be_visible()
    chinese.get_by_role("button", name="暂停").click()
    expect(chinese.get_by_text("已暂停。")).to_be_visible()
    picture(chinese, "zh-live")
    chinese.locator("#live tbody a").first.click()
    expect(chinese.get_by_role("heading", name="对厂商的调用尝试")).to_be_visible()
    again = chinese.get_by_role("link", name="换一个模型重新提问")
    for _ in range(20):  # bodies come in behind the record
        if again.count():
            break
        chinese.wait_for_timeout(100)
        chinese.reload()
    picture(chinese, "zh-request")
    chinese.get_by_text("对话内容").scroll_into_view_if_needed()
    picture(chinese, "zh-request-attempts")
    again.click()
    expect(chinese.get_by_text(f"请求 {told['request_id']} 所问的内容已填入")).to_be_visible()
    expect(chinese.locator("[data-stored] dl")).to_contain_text("完整回答")
    picture(chinese, "zh-replay")
