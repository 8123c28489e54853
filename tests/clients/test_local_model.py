"""Both dialects in, and both dialects out, with a real model behind: its server speaks OpenAI's and Anthropic's."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from tests.e2e.control import Control
from tests.live import LiveServer

pytestmark = [pytest.mark.process, pytest.mark.local_model]

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
MODEL_TIMEOUT_S = 60


@pytest.fixture(scope="module", params=["llamacpp", "anthropic"])
def served(request: pytest.FixtureRequest, live_local: LiveServer) -> tuple[Control, str]:
    """The gateway, and a model of it that is asked in the dialect named."""
    control = Control(live_local.base_url, live_local.admin_token or "", live_local.api_key or "")
    port = (live_local.state_dir / "local-model.port").read_text().strip()
    path = {"llamacpp": "/v1", "anthropic": ""}[request.param]
    provider = control.provider(f"http://127.0.0.1:{port}{path}", kind=request.param, api_key="not-needed")
    alias = control.model(provider, live_local.model or "")["alias"]
    control.apply(within_s=10)
    return control, alias


def test_openai_dialect(served: tuple[Control, str]) -> None:
    control, alias = served
    with openai.OpenAI(base_url=f"{control.base_url}/v1", api_key=control.key, max_retries=0, timeout=MODEL_TIMEOUT_S) as client:
        whole = client.chat.completions.create(model=alias, messages=QUESTION, max_tokens=30)
        options: Any = {"stream_options": {"include_usage": True}}
        with client.chat.completions.stream(model=alias, messages=QUESTION, max_tokens=30, **options) as stream:
            streamed = stream.get_final_completion()
    for said in (whole, streamed):
        assert "Paris" in (said.choices[0].message.content or "")
        assert said.choices[0].finish_reason in ("stop", "length")
        assert said.usage is not None
        assert said.usage.prompt_tokens > 0
        assert said.usage.completion_tokens > 0


def test_anthropic_dialect(served: tuple[Control, str]) -> None:
    control, alias = served
    with anthropic.Anthropic(base_url=control.base_url, api_key=control.key, max_retries=0, timeout=MODEL_TIMEOUT_S) as client:
        whole = client.messages.create(model=alias, messages=QUESTION, max_tokens=30)
        with client.messages.stream(model=alias, messages=QUESTION, max_tokens=30) as stream:
            streamed = stream.get_final_message()
    for said in (whole, streamed):
        assert "Paris" in "".join(block.text for block in said.content if block.type == "text")
        assert said.stop_reason in ("end_turn", "max_tokens")
        assert said.usage.input_tokens > 0
        assert said.usage.output_tokens > 0
