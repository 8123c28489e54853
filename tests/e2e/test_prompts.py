"""Prompt templates with the official `openai` client: `extra_body` is all it takes, and the log knows which version it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.control import ECHO, Control, unique, until

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def client(control: Control) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{control.base_url}/v1", api_key=control.key, max_retries=0, timeout=60) as client:
        yield client


def test_a_prompt_is_made_used_changed_and_used_again(control: Control, client: openai.OpenAI) -> None:
    name = unique("prompt")
    body: dict[str, Any] = {
        "name": name,
        "messages": [{"history": "before"}, {"role": "user", "content": "Say {{word}} aloud."}],
        "variables": [{"name": "word"}, {"name": "before", "type": "history", "required": False}],
        "labels": {"production": 1},
    }
    row = control.call("POST", "/api/v1/llm/prompts", body)
    changed = [body["messages"][0], {"role": "user", "content": "Whisper {{word}}."}]
    control.call("PATCH", f"/api/v1/llm/prompts/{row['id']}", {"messages": changed})
    control.apply()
    said: dict[Any, str] = {}
    for version in (None, "latest"):
        prompt = {"id": name, "version": version, "variables": {"word": "{{before}}", "before": [{"role": "user", "content": "Hello."}]}}
        raw = client.chat.completions.with_raw_response.create(model=ECHO, messages=[], extra_body={"prompt": prompt})
        said[version] = str(raw.parse().choices[0].message.content)
        assert raw.headers["x-llm-prompt"] == f"{name}@{2 if version else 1}"
        request_id = raw.headers["x-request-id"]

        def logged(request_id: str = request_id) -> Any:
            return control.call("GET", f"/api/v1/requests?request_id={request_id}")["results"]

        (log,) = until(logged, "the request in the log", timeout_s=60)
        assert (log["prompt"], log["prompt_version"]) == (name, 2 if version else 1)
    assert "Say {{before}} aloud." in said[None]
    assert "Whisper {{before}}." in said["latest"]
    found = control.call("GET", f"/api/v1/requests?prompt={name}&prompt_version=2")["results"]
    assert [row["prompt_version"] for row in found] == [2]


def test_what_is_shipped_is_there_after_a_first_start(client: openai.OpenAI) -> None:
    prompt = {"id": "rag", "variables": {"context": ["Cats purr.", "Dogs bark."], "question": "Who purrs?"}}
    stream = client.chat.completions.create(model=ECHO, messages=[], stream=True, extra_body={"prompt": prompt})
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert "Who purrs?" in text


def test_what_is_wrong_is_told_as_openai_tells_it(client: openai.OpenAI) -> None:
    for prompt, error, param in (
        ({"id": "nobody"}, openai.NotFoundError, "prompt"),
        ({"id": "simple"}, openai.BadRequestError, "prompt.variables.input"),
    ):
        with pytest.raises(error) as refused:
            client.chat.completions.create(model=ECHO, messages=[], extra_body={"prompt": prompt})
        assert refused.value.param == param
