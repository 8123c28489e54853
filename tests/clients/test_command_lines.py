"""Programs that people work with at a terminal, unmodified: Claude Code, Codex and `llm`.

Behind the gateway is aimock, once in the client's own dialect and once in another one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import BIN, NODE_BIN, Run, answer
from tests.e2e.control import Control

pytestmark = pytest.mark.process

PLAIN = "Say good day."
# The answer after the tool comes only if the tool ran and its result arrived behind the gateway: answers.json looks for this name in it.
WITH_TOOL = "list the folder"
TO_FIND = "the-file-to-find"


def counted(said: dict[str, Any]) -> list[int]:
    return [said["usage"]["prompt_tokens"], said["usage"]["completion_tokens"]]


def claude_code(run: Run, control: Control, alias: str, prompt: str) -> dict[str, Any]:
    env = {"ANTHROPIC_BASE_URL": control.base_url, "ANTHROPIC_API_KEY": control.key, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    options = ["--model", alias, "--max-turns", "3", "--allowedTools", "Bash", "--output-format", "json"]
    return json.loads(run([str(NODE_BIN / "claude"), "-p", prompt, *options], env=env))


def test_claude_code_gets_an_answer(run: Run, control: Control, alias: str) -> None:
    told = claude_code(run, control, alias, PLAIN)
    assert (told["subtype"], told["is_error"], told["num_turns"]) == ("success", False, 1)
    assert told["result"] == answer(PLAIN)["content"]
    assert [told["usage"]["input_tokens"], told["usage"]["output_tokens"]] == counted(answer(PLAIN))
    assert list(told["modelUsage"]) == [alias]


def test_claude_code_uses_a_tool(run: Run, control: Control, alias: str, tmp_path: Path) -> None:
    (tmp_path / TO_FIND).touch()
    told = claude_code(run, control, alias, WITH_TOOL)
    assert (told["subtype"], told["num_turns"], told["permission_denials"]) == ("success", 2, [])
    assert told["result"] == answer(WITH_TOOL, after_tools=True)["content"]


def codex(run: Run, control: Control, alias: str, prompt: str) -> list[dict[str, Any]]:
    settings = {
        "model": alias,
        "model_provider": "gateway",
        "model_providers.gateway.name": "gateway",
        "model_providers.gateway.base_url": f"{control.base_url}/v1",
        "model_providers.gateway.env_key": "GATEWAY_KEY",
        "model_providers.gateway.wire_api": "responses",
        "model_providers.gateway.request_max_retries": 0,
        "model_providers.gateway.stream_max_retries": 0,
    }
    options = [option for name, value in settings.items() for option in ("-c", f"{name}={json.dumps(value)}")]
    command = [str(NODE_BIN / "codex"), "exec", "--skip-git-repo-check", "--json", *options, prompt]
    lines = run(command, env={"GATEWAY_KEY": control.key}).splitlines()
    return [json.loads(line) for line in lines]


def items(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    completed = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item for item in completed if item["type"] == kind]


def test_codex_gets_an_answer(run: Run, control: Control, alias: str) -> None:
    events = codex(run, control, alias, PLAIN)
    assert [message["text"] for message in items(events, "agent_message")] == [answer(PLAIN)["content"]]
    last = events[-1]
    assert last["type"] == "turn.completed"
    assert [last["usage"]["input_tokens"], last["usage"]["output_tokens"]] == counted(answer(PLAIN))


def test_codex_uses_a_tool(run: Run, control: Control, alias: str, tmp_path: Path) -> None:
    (tmp_path / TO_FIND).touch()
    events = codex(run, control, alias, WITH_TOOL)
    (command,) = items(events, "command_execution")
    assert (command["exit_code"], TO_FIND in command["aggregated_output"]) == (0, True)
    assert [message["text"] for message in items(events, "agent_message")] == [answer(WITH_TOOL, after_tools=True)["content"]]
    assert events[-1]["type"] == "turn.completed"


def llm(run: Run, control: Control, alias: str, folder: Path, *arguments: str) -> str:
    model = {
        "model_id": "gateway",
        "model_name": alias,
        "api_base": f"{control.base_url}/v1",
        "api_key_name": "gateway",
        "supports_tools": True,
    }
    (folder / "extra-openai-models.yaml").write_text(json.dumps([model]))  # JSON is YAML
    return run([str(BIN / "llm"), "-m", "gateway", "--key", control.key, *arguments], env={"LLM_USER_PATH": str(folder)}).strip()


@pytest.mark.parametrize("streamed", [True, False])
def test_llm_gets_an_answer_and_logs_its_usage(run: Run, control: Control, alias: str, tmp_path: Path, streamed: bool) -> None:
    assert llm(run, control, alias, tmp_path, PLAIN, *([] if streamed else ["--no-stream"])) == answer(PLAIN)["content"]
    (logged,) = json.loads(run([str(BIN / "llm"), "logs", "--json"], env={"LLM_USER_PATH": str(tmp_path)}))
    assert logged["response"] == answer(PLAIN)["content"]
    assert [logged["input_tokens"], logged["output_tokens"]] == counted(answer(PLAIN))


def test_llm_uses_a_tool(run: Run, control: Control, alias: str, tmp_path: Path) -> None:
    tool = "def get_weather(city: str) -> str:\n    return f'12 in {city}'\n"
    assert llm(run, control, alias, tmp_path, "weather", "--functions", tool) == answer("weather", after_tools=True)["content"]
