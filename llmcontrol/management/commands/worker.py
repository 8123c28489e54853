"""`manage.py worker`: a process that works on tasks and serves nobody. Any number of them, on any number of machines."""

from __future__ import annotations

import argparse
import asyncio
import logging.config
import signal
import socket
from typing import Any

import uvloop
from django.conf import settings
from django.core.management.base import BaseCommand

from core.errors import ServerBusy
from llmcontrol import server, vitals
from llmcontrol.bootstrap import port_number
from providers.vault import key_ring
from tasks.engine import distributed

_RETRY_S = 1.0


def concurrency(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5) or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from 1 to 10000")
    return int(text)


class Command(BaseCommand):
    help = "Work on queued tasks until SIGINT or SIGTERM, then finish those in hand."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--concurrency", type=concurrency, default=200, help="tasks at once (default 200)")
        parser.add_argument("--host", default="127.0.0.1", help="address for /health, /ready and /metrics (default 127.0.0.1)")
        parser.add_argument("--port", type=port_number, help="port for these; 0 = none (default LLM_WORKER_PORT, or 0)")

    def handle(self, *args: Any, **options: Any) -> None:
        key_ring()  # what is wrong with it is said now, and not of each vendor
        settings.TASK_CONCURRENCY = options["concurrency"]
        logging.config.dictConfig(server.logging_of("INFO"))
        server.prepare_process()
        port = settings.WORKER_PORT if options["port"] is None else options["port"]
        uvloop.run(self._work(server.bind(options["host"], port) if port else None))

    async def _work(self, sock: socket.socket | None) -> None:
        """Until the first signal; a second one ends the waiting for what runs. `sock`: where it tells how it fares."""
        from llmcontrol.asgi import application  # the data plane: it reads its settings when it is made

        enough, at_once = asyncio.Event(), asyncio.Event()

        def stop() -> None:
            (at_once if enough.is_set() else enough).set()

        loop = asyncio.get_running_loop()
        for sig in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sig, stop)
        async with vitals.told(application, sock):
            if await _opened(application, enough):
                engine = "PostgreSQL, with procrastinate" if distributed() else "SQLite: those of this file's machine"
                self.stderr.write(f"the worker is ready: {settings.TASK_CONCURRENCY} tasks at once, from {engine} (Ctrl-C stops it)")
            await enough.wait()
            self.stderr.write("the worker takes no more tasks; a second signal ends it at once")
            await _finished(application, at_once)
        await application.closed()


async def _opened(application: Any, enough: asyncio.Event) -> bool:
    """A database that is not there yet is waited for, as a server does."""
    while not enough.is_set():
        try:
            await application.opened()
            return True
        except ServerBusy:
            await asyncio.sleep(_RETRY_S)
    return False


async def _finished(application: Any, at_once: asyncio.Event) -> None:
    """What runs is given LLM_SHUTDOWN_GRACE_S, and then handed to other workers."""
    application.drain()
    over = {asyncio.create_task(at_once.wait()), asyncio.create_task(application.tasks_done())}
    await asyncio.wait(over, timeout=settings.SHUTDOWN_GRACE_S, return_when=asyncio.FIRST_COMPLETED)
    for waiting in over:
        waiting.cancel()
