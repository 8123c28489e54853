"""`manage.py serve`: the server alone, on a state folder that is set up."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from llmcontrol import seeding, server
from llmcontrol.bootstrap import port_number, worker_count
from providers.vault import key_ring


class Command(BaseCommand):
    help = "Serve both planes with uvicorn until SIGINT or SIGTERM, then finish what is being answered."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default 127.0.0.1)")
        parser.add_argument("--port", type=port_number, help="port to serve on; 0 = any free one (default LLM_PORT, or 8000)")
        parser.add_argument("--workers", type=worker_count, default=1, help="server processes (default 1)")

    def handle(self, *args: Any, **options: Any) -> None:
        key_ring()  # what is wrong with it is said now, and not of each vendor
        port = settings.LLM_PORT if options["port"] is None else options["port"]
        sock = server.bind(options["host"], port)
        for sentence in seeding.from_environment():
            self.stderr.write(sentence)
        self.stderr.write(f"llmcontrol serves at {server.url_of(sock)} (Ctrl-C stops it)")
        sys.exit(server.run(sock, options["workers"]))
