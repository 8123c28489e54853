"""The playground in a real browser: two models side by side, stopped, refused by a budget, and never more than text."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.test_admin_browser import picture, pytestmark, server
from tests.e2e.control import Control, unique
from tests.live import LiveServer

__all__ = ["pytestmark", "server"]

HOSTILE = "<img src=x onerror=alert(1)> 你好"


def furnished(server: LiveServer) -> tuple[Control, str, str]:
    """(control, a team, the alias of an echo model with a price)."""
    control = Control(server.base_url, server.admin_token or "", server.api_key or "")
    team = control.call("POST", "/api/v1/llm/teams", {"name": unique("players")})
    model = control.model(control.provider("", kind="echo"), "echo-1")
    control.price(model, input="1", output="2")
    return control, team["name"], model["alias"]


def test_two_models_answer_side_by_side(page: Page, server: LiveServer) -> None:
    control, team, alias = furnished(server)
    page.goto(f"{server.base_url}/admin/")
    page.get_by_role("link", name="Playground").click()
    page.select_option("select[name=team]", label=team)
    page.select_option("select[name=left]", alias)
    page.select_option("select[name=right]", alias)
    page.fill("textarea[name=prompt]", HOSTILE)
    page.keyboard.press("Control+Enter")
    left, right = page.locator("[data-side=l]"), page.locator("[data-side=r]")
    for pane in (left, right):
        expect(pane.locator(".llmc-play-answer")).to_contain_text(HOSTILE)
        expect(pane.locator("dl")).to_contain_text("First token")
        expect(pane.locator("dl")).to_contain_text("USD")
        assert pane.locator(".llmc-play-answer img").count() == 0
    left.get_by_text("Why this model").click()
    expect(left.locator("details")).to_contain_text(alias)
    picture(page, "playground")
    keys = control.call("GET", "/api/v1/llm/keys")["results"]
    made = [key for key in keys if key["name"] == f"Playground of {server.username}"]
    assert made
    assert all(key["expires_at"] for key in made)


def test_a_budget_is_told_in_its_own_words(page: Page, server: LiveServer) -> None:
    control, team, alias = furnished(server)
    teams = {row["name"]: row["id"] for row in control.call("GET", "/api/v1/llm/teams")["results"]}
    control.call(
        "POST", "/api/v1/llm/budgets", {"scope": {"team": teams[team]}, "kind": "requests", "limit": "1", "period": "total", "hard": True}
    )
    control.apply()
    page.goto(f"{server.base_url}/admin/playground/")
    page.select_option("select[name=team]", label=team)
    page.select_option("select[name=left]", alias)
    page.fill("textarea[name=prompt]", "once")
    send, answer = page.get_by_role("button", name="Send"), page.locator("[data-side=l] .llmc-play-answer")
    send.click()
    expect(answer).to_contain_text("once")
    expect(send).to_be_enabled()
    send.click()
    expect(page.locator(".llmc-play-error")).to_contain_text("budget")
    picture(page, "playground-budget")
