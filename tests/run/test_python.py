"""Models from a Python program beside no server at all: it is accounted for like any other request."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from tests.live import ROOT, environment
from tests.run.serving import Prepared

pytestmark = pytest.mark.process

_PROGRAM = """
import asyncio

from gateway.client import get_llm
from llmcontrol.asgi import application


async def main():
    llm = await get_llm("quick")
    reply = await llm.chat("hello from Python", timeout=20)
    streamed = [text async for text in llm.chat_stream("hello from Python")]
    print(reply.request_id, reply.finish_reason, reply.text == "".join(streamed))
    await application.closed()


asyncio.run(main())
"""


def test_a_program_asks_a_model_without_a_server(prepared: Prepared) -> None:
    settings = {"LLM_STATE_DIR": str(prepared.state_dir), "OUTBOUND_ALLOW": "127.0.0.0/8:*", "LLM_API_KEY": prepared.api_key}
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment(settings), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    request_id, *said = ran.stdout.split()
    assert said == ["stop", "True"]
    with closing(sqlite3.connect(prepared.state_dir / "llmcontrol.sqlite3")) as rows:
        logged = rows.execute("SELECT dialect, alias, status_code FROM monitoring_requestlog WHERE request_id = ?", [request_id]).fetchall()
    assert logged == [("python", "quick", 200)]
