"""Database work in a thread of its own: one piece at a time, and none waited for without end."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest

from monitoring.threads import DatabaseThread, NotAnswered


async def test_a_database_that_does_not_answer_is_waited_for_once() -> None:
    thread, answers = DatabaseThread("test"), threading.Event()
    with pytest.raises(NotAnswered, match="has not answered"):
        await thread.run(answers.wait, 0.01)
    asked: list[int] = []
    with pytest.raises(NotAnswered, match="still"):
        await thread.run(lambda: asked.append(1), 10)
    await thread.disconnect()  # returns at once
    answers.set()
    async with asyncio.timeout(10):
        while True:
            with suppress(NotAnswered):
                assert await thread.run(lambda: 2, 10) == 2
                break
            await asyncio.sleep(0)
    assert asked == []


async def test_what_work_raises_is_raised() -> None:
    def fails() -> None:
        raise ValueError("no")

    for timeout_s in (None, 10):
        with pytest.raises(ValueError, match="no"):
            await DatabaseThread("test").run(fails, timeout_s)
