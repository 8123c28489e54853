"""One browser for each file; every test has a context of its own in it, with nobody else's cookies, storage and cache.

A file says what its `server` is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.live import LiveServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, StorageState

# Redoc wants its maker's logo from the maker's server; that the policy refuses it is right.
REFUSED_RIGHTLY = "https://cdn.redoc.ly/"
OpensPage = Callable[..., AbstractContextManager["Page"]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of a file and not of the run: while it is there, asyncio runs nothing else."""
    from playwright.sync_api import sync_playwright

    from tests.browser.test_admin_browser import ARGUMENTS, CHROMIUM

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def logged_in(browser: Browser, server: LiveServer) -> StorageState:
    """What a browser keeps of the administrator's login."""
    from playwright.sync_api import expect

    from tests.browser.test_admin_browser import TIMEOUT_MS

    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(f"{server.base_url}/admin/")
        page.fill("input[name=username]", server.username)
        page.fill("input[name=password]", str(server.password))
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        return context.storage_state()


@pytest.fixture
def opens_page(browser: Browser, server: LiveServer) -> OpensPage:
    """Opens the first page of the admin in a context with these options; fails where the console shows an error, as of a refused script."""
    from tests.browser.test_admin_browser import TIMEOUT_MS

    @contextmanager
    def opened(**options: Any) -> Iterator[Page]:
        complaints: list[str] = []

        def listen(message: ConsoleMessage) -> None:
            if message.type == "error" and REFUSED_RIGHTLY not in message.text:
                complaints.append(message.text)

        with browser.new_context(viewport={"width": 1440, "height": 900}, **options) as context:
            page = context.new_page()
            page.set_default_timeout(TIMEOUT_MS)
            page.on("console", listen)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(f"{server.base_url}/admin/")
            yield page
        assert not complaints, "\n".join(complaints)

    return opened


@pytest.fixture
def page(opens_page: OpensPage, logged_in: StorageState) -> Iterator[Page]:
    """Logged in."""
    with opens_page(storage_state=logged_in) as page:
        yield page
