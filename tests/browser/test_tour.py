"""The first day of a new administrator, from a gateway that was just started: a provider, a call, the log, its cost, a budget, and the
alert when it is used up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_admin_browser import add_provider, ask, picture, until_shown
from tests.browser.test_alerts_browser import PATIENCE_MS, robot
from tests.e2e import wire
from tests.e2e.control import until
from tests.live import LiveServer
from tests.telling.receiver import Receiver

__all__ = ["robot"]
pytestmark = [pytest.mark.browser, pytest.mark.process]


@pytest.fixture(scope="module")
def server(robot: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    env = {"LLM_ALERT_INTERVAL_S": "1", "WEBHOOK_ALLOW": f"127.0.0.1/32:{robot.port}"}
    with LiveServer(tmp_path_factory.mktemp("tour"), model="none", env=env) as running:
        yield running


def save(page: Page) -> None:
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was added successfully")).to_be_visible()


def a_provider_with_a_priced_model(page: Page, server: LiveServer) -> None:
    add_provider(page, server, "first-vendor")
    page.get_by_role("link", name="Sync models").click()
    page.get_by_role("button", name="Apply").click()
    page.locator("#result_list tbody a", has_text="echo-1").first.click()
    page.get_by_role("link", name="Set price").click()
    page.fill("input[name=input]", "250")
    page.fill("input[name=output]", "1000")
    page.get_by_role("button", name="Set the price").click()
    expect(page.get_by_text("has a new price")).to_be_visible()


def a_key_of_a_team(page: Page, server: LiveServer) -> str:
    page.goto(f"{server.base_url}/admin/access/team/add/")
    page.fill("input[name=name]", "newcomers")
    save(page)
    page.goto(f"{server.base_url}/admin/access/apikey/add/")
    page.fill("input[name=name]", "first-program")
    page.select_option("select[name=team]", label="newcomers")
    page.get_by_role("button", name="Save", exact=True).click()
    return page.locator("#credential").inner_text()


def its_cost_is_found(page: Page, server: LiveServer, request_id: str) -> None:
    page.goto(f"{server.base_url}/admin/monitoring/requestlog/")
    row = page.locator("#result_list tbody tr", has_text="USD")
    until_shown(page, row)
    row.locator("a").first.click()
    expect(page.locator("#requestlog_form").get_by_text(request_id, exact=True)).to_be_visible()
    expect(page.get_by_text("Attempts at vendors")).to_be_visible()
    page.goto(f"{server.base_url}/admin/")
    page.get_by_role("link", name="Costs").click()
    expect(page.get_by_text("echo-1").first).to_be_visible()


def a_budget_of_two_requests(page: Page, server: LiveServer) -> None:
    page.goto(f"{server.base_url}/admin/access/budget/add/")
    page.select_option("select[name=team]", label="newcomers")
    page.select_option("select[name=kind]", label="Requests")
    page.fill("input[name=limit]", "2")
    picture(page, "tour-budget-add")
    save(page)


def on_call(page: Page, server: LiveServer, robot: Receiver) -> None:
    """A channel, and the shipped rule of used-up budgets tells it."""
    page.goto(f"{server.base_url}/admin/telling/alertchannel/add/")
    page.fill("input[name=name]", "on call")
    page.select_option("select[name=kind]", "wecom")
    page.fill("input[name=url]", robot.url("200", "/send?key=k"))
    save(page)
    page.goto(f"{server.base_url}/admin/telling/alertrule/")
    page.get_by_role("link", name="Budget at 100 %").click()
    page.get_by_label("on call").check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was changed successfully")).to_be_visible()


def refusal_of(server: LiveServer, credential: str) -> dict[str, str]:
    """Asks until it is refused: a new budget is in force within two seconds, not at once."""
    body = {"model": "echo-1", "messages": [{"role": "user", "content": "Hello"}]}
    answer = until(
        lambda: refused(wire.call(server.base_url, "POST", "/v1/chat/completions", key=credential, body=body)), "the budget is hit"
    )
    assert answer.status == 429
    return answer.error


def refused(answer: wire.Answer) -> wire.Answer | None:
    return answer if answer.status != 200 else None


def test_from_the_first_provider_to_the_first_alert(page: Page, server: LiveServer, robot: Receiver) -> None:
    page.set_default_timeout(PATIENCE_MS)
    a_provider_with_a_priced_model(page, server)
    credential = a_key_of_a_team(page, server)
    its_cost_is_found(page, server, ask(server, credential, "echo-1"))
    on_call(page, server, robot)
    a_budget_of_two_requests(page, server)

    refusal = refusal_of(server, credential)
    assert refusal["code"] == "insufficient_quota"
    assert "newcomers" in refusal["message"]

    firing = page.get_by_text("newcomers").first
    for _ in range(60):
        page.goto(f"{server.base_url}/admin/")
        if firing.count() and robot.heard:
            break
        page.wait_for_timeout(500)
    expect(firing).to_be_visible()
    picture(page, "tour-alert")
    assert "newcomers" in robot.heard[0].body.decode()
