"""Libraries that applications are written with, unmodified: each does the same round of work, and says what it got.

Behind the gateway is aimock, once in the client's own dialect and once in another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.clients.conftest import answer
from tests.e2e.control import Control

pytestmark = pytest.mark.process

OPENAI_ERRORS = {
    "wrong key": ["AuthenticationError", "invalid_api_key"],
    "no such model": ["NotFoundError", "model_not_found"],
    "limited": ["RateLimitError", "rate_limit_exceeded"],
}
ANTHROPIC_ERRORS = {
    "wrong key": ["AuthenticationError", "authentication_error"],
    "no such model": ["NotFoundError", "not_found_error"],
    "limited": ["RateLimitError", "rate_limit_error"],
}
LANGCHAIN_ERRORS = {
    "wrong key": ["OpenAIAuthenticationError", "invalid_api_key"],
    "no such model": ["OpenAIModelNotFoundError", "model_not_found"],
    "limited": ["OpenAIRateLimitError", "rate_limit_exceeded"],
}
PYDANTIC_ERRORS = {what: ["ModelHTTPError", code] for what, (_, code) in OPENAI_ERRORS.items()}
CLIENTS = {
    "openai_python.py": OPENAI_ERRORS,
    "openai_node.mjs": OPENAI_ERRORS,
    "anthropic_python.py": ANTHROPIC_ERRORS,
    "langchain_openai_chat.py": LANGCHAIN_ERRORS,
    "pydantic_agent.py": PYDANTIC_ERRORS,
}


@pytest.mark.parametrize("program", CLIENTS)
def test_a_round_of_work(control: Control, alias: str, report: Callable[..., dict[str, Any]], program: str) -> None:
    told = report(program, control.base_url, control.key, alias)
    plain = answer("anything")
    counted = [plain["usage"]["prompt_tokens"], plain["usage"]["completion_tokens"]]
    assert told["text"] == told["streamed"] == plain["content"]
    assert told["usage"] == told["streamed_usage"] == counted
    assert told["finish"] == ("end_turn" if program == "anthropic_python.py" else "stop")
    assert told["tools"] == [[call["name"], call["arguments"]] for call in answer("weather")["toolCalls"]]
    assert told["after_tools"] == answer("weather", after_tools=True)["content"]
    assert told["errors"] == CLIENTS[program]
    assert alias in told.get("models", [alias])
